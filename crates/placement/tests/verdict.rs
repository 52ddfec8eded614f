//! A drive is free to take only when nothing at all speaks against it.

use proptest::prelude::*;
use strand_placement::carve::{Extent, Layout, MIB};
use strand_placement::reason::Reason;
use strand_placement::verdict::{
    Content, Exclusive, Health, KnownPools, Label, LabelSeen, LabelState, Observation, Sharing,
    Signature, SignatureKind, Smart, Transport, Use, Verdict, Watch, judge, wipe_refusals,
};
use uuid::Uuid;

const POOL: Uuid = Uuid::from_u128(7);

fn pools() -> KnownPools {
    KnownPools([(POOL, "rack".to_owned())].into())
}

/// The one kind of observation that is stranded.
fn free() -> Observation {
    Observation {
        serial: "S1".into(),
        size: 1 << 40,
        transport: Transport::Pcie,
        sharing: Sharing::Private,
        health: Health::Smart(Smart::default()),
        exclusive: Exclusive::Opened,
        content: Content::Blank,
        watch: Watch {
            required_ms: 60_000,
            unchanged_ms: 60_000,
            ..Watch::default()
        },
        label: LabelSeen::Absent,
        ..Observation::default()
    }
}

fn label(pool_id: Uuid) -> Label {
    Label {
        generation: 2,
        state: LabelState::Carved,
        pool_id,
        pool_name: "rack".into(),
        drive_id: Uuid::from_u128(9),
        serial: "S1".into(),
        layout: Layout {
            storage: Some(Extent {
                start: MIB,
                len: MIB,
            }),
            context: None,
        },
        previous: None,
        contradiction: None,
    }
}

type Flip = (&'static str, Verdict, Box<dyn Fn(&mut Observation)>);

/// Every sign of use, each with the reason and the verdict that it gives alone.
fn flips() -> Vec<Flip> {
    fn flip(
        code: &'static str,
        verdict: Verdict,
        change: impl Fn(&mut Observation) + 'static,
    ) -> Flip {
        (code, verdict, Box::new(change))
    }
    let used = |code, found: Use| {
        flip(code, Verdict::InUse, move |seen| {
            seen.uses.push(found.clone())
        })
    };
    let holds = |code, kind| {
        flip(code, Verdict::Foreign, move |seen| {
            seen.signatures.push(Signature {
                kind,
                name: "x".into(),
                offset: 0,
            })
        })
    };
    use Verdict::{Failed, Foreign, InUse};
    vec![
        used(
            "Mounted",
            Use::Mounted {
                device: "/dev/x".into(),
                at: "/mnt".into(),
            },
        ),
        used(
            "Swap",
            Use::Swap {
                device: "/dev/x".into(),
            },
        ),
        used(
            "HasHolders",
            Use::Held {
                by: "/dev/md0".into(),
            },
        ),
        used(
            "OpenElsewhere",
            Use::Open {
                pid: 1,
                process: "dd".into(),
            },
        ),
        used(
            "KubeletBlockVolume",
            Use::KubeletBlockVolume {
                path: "/var/lib/kubelet/x".into(),
            },
        ),
        holds("PartitionTable", SignatureKind::PartitionTable),
        holds("FileSystem", SignatureKind::FileSystem),
        holds("SwapSpace", SignatureKind::Swap),
        holds("RaidMember", SignatureKind::Raid),
        holds("LvmMember", SignatureKind::Lvm),
        holds("LuksHeader", SignatureKind::Luks),
        holds("ZfsMember", SignatureKind::Zfs),
        holds("CephOsd", SignatureKind::Ceph),
        holds("BcacheMember", SignatureKind::Bcache),
        flip("OpenElsewhere", InUse, |seen| {
            seen.exclusive = Exclusive::Busy
        }),
        flip("NotExamined", InUse, |seen| {
            seen.exclusive = Exclusive::NotTried
        }),
        flip("NotExamined", InUse, |seen| seen.content = Content::NotRead),
        flip("NotExamined", InUse, |seen| seen.label = LabelSeen::NotRead),
        flip("NotExamined", InUse, |seen| seen.sharing = Sharing::Unknown),
        flip("NotExamined", InUse, |seen| {
            seen.unseen.push("the swap devices".into())
        }),
        flip("ChangedWhileWatched", InUse, |seen| {
            seen.watch.changed = Some("its content changed".into())
        }),
        flip("StillWatched", InUse, |seen| {
            seen.watch.unchanged_ms = 59_999
        }),
        flip("StillWatched", InUse, |seen| seen.watch.required_ms = 0),
        flip("NotBlank", Foreign, |seen| {
            seen.content = Content::NotBlank { at: 512 }
        }),
        flip("CloudVolume", Foreign, |seen| {
            seen.cloud_volume = Some("EBS".into())
        }),
        flip("FabricVolume", Foreign, |seen| {
            seen.transport = Transport::Fabric { name: "tcp".into() }
        }),
        flip("UnknownTransport", Foreign, |seen| {
            seen.transport = Transport::Unknown {
                name: "apple-nvme".into(),
            }
        }),
        flip("SharedBetweenControllers", Foreign, |seen| {
            seen.sharing = Sharing::Shared { why: "NMIC".into() }
        }),
        flip("TooSmall", Foreign, |seen| seen.size = MIB),
        flip("WornOut", Foreign, |seen| {
            seen.health = Health::Smart(Smart {
                used_percent: 100,
                ..Smart::default()
            });
        }),
        flip("HealthUnknown", Foreign, |seen| {
            seen.health = Health::Unknown { why: "EIO".into() }
        }),
        flip("DamagedLabel", Foreign, |seen| {
            seen.label = LabelSeen::Damaged { why: "crc".into() }
        }),
        flip("NewerLabel", Foreign, |seen| {
            seen.label = LabelSeen::Newer { version: 9 }
        }),
        flip("OtherPool", Foreign, |seen| {
            seen.label = LabelSeen::Present(label(Uuid::from_u128(8)))
        }),
        flip("CopiedLabel", Foreign, |seen| {
            seen.label = LabelSeen::Present(Label {
                serial: "S2".into(),
                ..label(POOL)
            });
        }),
        flip("LabelContradicted", Foreign, |seen| {
            seen.label = LabelSeen::Present(Label {
                contradiction: Some("x".into()),
                ..label(POOL)
            });
        }),
        flip("ReadOnly", Failed, |seen| seen.read_only = true),
        flip("Unreadable", Failed, |seen| {
            seen.read_errors.push("EIO".into())
        }),
        flip("FailingHealth", Failed, |seen| {
            seen.health = Health::Smart(Smart {
                critical_warning: 1 << 2,
                ..Smart::default()
            });
        }),
        flip("Pooled", Verdict::Pooled, |seen| {
            seen.label = LabelSeen::Present(label(POOL))
        }),
    ]
}

#[test]
fn a_drive_with_nothing_against_it_is_stranded() {
    let finding = judge(&free(), &pools());
    assert_eq!(
        (finding.verdict, finding.reasons),
        (Verdict::Stranded, vec![])
    );
}

#[test]
fn each_sign_alone_gives_its_reason_and_its_verdict() {
    for (code, verdict, change) in flips() {
        let mut seen = free();
        change(&mut seen);
        let finding = judge(&seen, &pools());
        let codes: Vec<_> = finding.reasons.iter().map(Reason::code).collect();
        assert_eq!((finding.verdict, codes), (verdict, vec![code]), "{seen:?}");
        assert!(!finding.reasons[0].to_string().is_empty());
    }
}

#[test]
fn codes_are_what_serde_writes() {
    for (code, _, change) in flips() {
        let mut seen = free();
        change(&mut seen);
        let reason = judge(&seen, &pools()).reasons.remove(0);
        assert_eq!(
            serde_json::to_value(&reason).expect("plain data")["code"],
            code
        );
    }
}

#[test]
fn an_observation_of_nothing_is_not_stranded() {
    assert_ne!(
        judge(&Observation::default(), &pools()).verdict,
        Verdict::Stranded
    );
}

#[test]
fn our_own_use_of_a_pooled_drive_speaks_not_against_it() {
    let seen = Observation {
        label: LabelSeen::Present(label(POOL)),
        uses: vec![Use::Mounted {
            device: "/dev/x1".into(),
            at: "/srv".into(),
        }],
        content: Content::NotBlank { at: 0 },
        ..free()
    };
    assert_eq!(judge(&seen, &pools()).reasons.len(), 1);
    assert_eq!(judge(&seen, &pools()).verdict, Verdict::Pooled);
    // The same drive in a cluster that lost its pool.
    let finding = judge(&seen, &KnownPools::default());
    assert_eq!(finding.verdict, Verdict::InUse);
    assert!(
        finding
            .reasons
            .iter()
            .any(|reason| reason.code() == "OtherPool")
    );
}

#[test]
fn temperature_alone_fails_no_drive() {
    let seen = Observation {
        health: Health::Smart(Smart {
            critical_warning: 1 << 1,
            ..Smart::default()
        }),
        ..free()
    };
    assert_eq!(judge(&seen, &pools()).verdict, Verdict::Stranded);
}

#[test]
fn a_wipe_needs_a_drive_that_nobody_uses() {
    assert_eq!(wipe_refusals(&free(), &pools()), vec![]);
    let full = Observation {
        content: Content::NotBlank { at: 0 },
        ..free()
    };
    assert_eq!(
        wipe_refusals(&full, &pools()),
        vec![],
        "what it holds is what is to be wiped"
    );
    for code in [
        "Mounted",
        "Swap",
        "HasHolders",
        "OpenElsewhere",
        "KubeletBlockVolume",
        "Pooled",
        "SharedBetweenControllers",
    ] {
        for (_, _, change) in flips().into_iter().filter(|(flip, ..)| *flip == code) {
            let mut seen = free();
            change(&mut seen);
            assert_eq!(wipe_refusals(&seen, &pools())[0].code(), code);
        }
    }
}

proptest! {
    #[test]
    fn any_combination_of_signs_is_never_stranded_and_loses_no_reason(chosen in prop::collection::btree_set(0..flips().len(), 1..6)) {
        let flips = flips();
        let mut seen = free();
        for index in &chosen {
            flips[*index].2(&mut seen);
        }
        let finding = judge(&seen, &pools());
        prop_assert_ne!(finding.verdict, Verdict::Stranded);
        prop_assert!(!finding.reasons.is_empty());
        // Signs that a list collects are all told, unless the drive is ours.
        if !matches!(&seen.label, LabelSeen::Present(label) if label.pool_id == POOL) {
            prop_assert!(finding.reasons.len() >= seen.uses.len() + seen.signatures.len() + seen.unseen.len() + seen.read_errors.len());
        }
        prop_assert_eq!(judge(&seen, &pools()), finding);
    }
}
