//! What the fields of requests are made of by chance: words that the driver knows, hostile ones, and any others. Paths stay below one
//! directory, or lead where nothing can be.

use std::collections::HashMap;

use proptest::collection::{hash_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use strand_csi::v1::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use strand_csi::v1::volume_content_source::{SnapshotSource, Type, VolumeSource};
use strand_csi::v1::*;

use crate::bed::{NODE, POOL};

/// What every map of secrets has, and no log ever.
pub const SECRET: &str = "hunter2-never-logged";
/// The volume that is there, staged and published.
pub const VOLUME: &str = "v";
/// Its snapshot.
pub const SNAPSHOT: &str = "s";
/// One that is there, and used nowhere: calls that end something mean this one, or none.
pub const SPARE: &str = "w";

pub type Text = BoxedStrategy<String>;

/// Words for anything; those that are known here now and then.
pub fn word(known: &'static [&'static str]) -> Text {
    let hostile = [
        "",
        ".",
        "..",
        "../../etc/passwd",
        "/",
        "a/b",
        "\0",
        "a\nb",
        "-",
        "--help",
        "ä\u{202e}",
        "%s%n",
        "*",
        "true",
        "-1",
        "1e3",
        "18446744073709551616",
        "9223372036854775807",
        "0",
        "10Gi",
        "Snapshot",
        "{}",
    ];
    let owned = |words: &'static [&'static str]| select(words).prop_map(str::to_owned);
    prop_oneof![
        12 => owned(known),
        2 => select(hostile.to_vec()).prop_map(str::to_owned),
        1 => any::<String>(),
        1 => "[a-z0-9-]{1,80}",
        1 => (select(vec!["a", "é", "/x"]), 0..6000usize).prop_map(|(part, times)| part.repeat(times)),
    ]
    .boxed()
}

pub fn used() -> Text {
    word(&[VOLUME, VOLUME, VOLUME, SPARE, "none"])
}

pub fn unused() -> Text {
    word(&[SPARE, "none"])
        .prop_filter("it stays", |id| id != VOLUME)
        .boxed()
}

pub fn snapshot() -> Text {
    word(&[SNAPSHOT, "none", VOLUME])
}

pub fn node() -> Text {
    word(&[NODE, "node-2"])
}

pub fn map(
    keys: &'static [&'static str],
    values: &'static [&'static str],
) -> BoxedStrategy<HashMap<String, String>> {
    prop_oneof![
        2 => Just(HashMap::new()),
        3 => hash_map(word(keys), word(values), 0..4),
    ]
    .boxed()
}

pub fn parameters() -> BoxedStrategy<HashMap<String, String>> {
    map(
        &[
            "pool",
            "redundancy",
            "provisioning",
            "locality",
            "csi.storage.k8s.io/pvc/name",
        ],
        &[POOL, "none", "mirror", "thick", "thin", "fabric", "node"],
    )
}

pub fn mutable() -> BoxedStrategy<HashMap<String, String>> {
    map(&["iops", "bandwidth"], &["500", "100M", "1Mi"])
}

pub fn secrets() -> BoxedStrategy<HashMap<String, String>> {
    let secret = HashMap::from([("password".to_owned(), SECRET.to_owned())]);
    prop_oneof![Just(HashMap::new()), Just(secret)].boxed()
}

pub fn number() -> BoxedStrategy<i64> {
    let mib = 1 << 20;
    let known = vec![
        0,
        1,
        -1,
        16 * mib,
        64 * mib,
        64 * mib + 1,
        300 * mib,
        1 << 40,
        i64::MAX,
        i64::MIN,
    ];
    prop_oneof![4 => select(known), 1 => any::<i64>()].boxed()
}

pub fn range() -> BoxedStrategy<Option<CapacityRange>> {
    let range = (number(), number());
    option::of(
        range.prop_map(|(required_bytes, limit_bytes)| CapacityRange {
            required_bytes,
            limit_bytes,
        }),
    )
    .boxed()
}

pub fn capability() -> BoxedStrategy<Option<VolumeCapability>> {
    let flag = word(&[
        "noatime", "nonsense", "ro", "loop", "bind", "remount", "uid=0",
    ]);
    let file_system = (
        word(&["", "xfs", "ext4", "ext3"]),
        vec(flag, 0..3),
        word(&[""]),
        any::<bool>(),
    );
    let mount = file_system.prop_map(|(fs_type, mount_flags, group, has)| {
        let volume_mount_group = if has { group } else { String::new() };
        AccessType::Mount(MountVolume {
            fs_type,
            mount_flags,
            volume_mount_group,
        })
    });
    let access = prop_oneof![
        1 => Just(None),
        2 => Just(Some(AccessType::Block(BlockVolume {}))),
        4 => mount.prop_map(Some),
    ];
    let mode = prop_oneof![Just(1), 0..9i32, any::<i32>()].prop_map(|mode| AccessMode { mode });
    let capability = (access, option::weighted(0.9, mode));
    let capability = capability.prop_map(|(access_type, access_mode)| VolumeCapability {
        access_type,
        access_mode,
    });
    // As those have it who mean it.
    let good = Just(crate::bed::writer("ext4"));
    prop_oneof![1 => Just(None), 5 => capability.prop_map(Some), 6 => good.prop_map(Some)].boxed()
}

pub fn capabilities() -> BoxedStrategy<Vec<VolumeCapability>> {
    vec(capability(), 0..3)
        .prop_map(|all| all.into_iter().flatten().collect())
        .boxed()
}

pub fn source() -> BoxedStrategy<Option<VolumeContentSource>> {
    let of = prop_oneof![
        Just(None),
        snapshot().prop_map(|snapshot_id| Some(Type::Snapshot(SnapshotSource { snapshot_id }))),
        used().prop_map(|volume_id| Some(Type::Volume(VolumeSource { volume_id }))),
    ];
    option::weighted(0.4, of.prop_map(|r#type| VolumeContentSource { r#type })).boxed()
}

pub fn topology() -> BoxedStrategy<Topology> {
    let keys = &[
        "topology.strand.dev/fabric",
        "topology.strand.dev/node",
        "kubernetes.io/hostname",
    ];
    map(keys, &[POOL, NODE, "other"])
        .prop_map(|segments| Topology { segments })
        .boxed()
}

pub fn requirement() -> BoxedStrategy<Option<TopologyRequirement>> {
    let both = (vec(topology(), 0..3), vec(topology(), 0..3));
    option::of(both.prop_map(|(requisite, preferred)| TopologyRequirement {
        requisite,
        preferred,
    }))
    .boxed()
}

/// A path of a node's: one that is there below `base`, one that could be, or one where nothing can be.
pub fn path(base: &str, known: &'static str) -> Text {
    let (there, below) = (format!("{base}/{known}"), format!("{base}/random"));
    let beside_a_file = format!("{base}/kubeconfig/x");
    prop_oneof![
        12 => Just(there.clone()),
        2 => word(&["a", "b/c"]).prop_map(move |word| format!("{below}/{word}")),
        1 => word(&["relative"]).prop_map(|word| word.trim_start_matches('/').to_owned()),
        1 => Just(beside_a_file),
        1 => Just(format!("{there}/../x")),
        1 => Just(format!("{base}/{}", "n".repeat(256))),
        1 => Just(format!("{base}/{}", "x/".repeat(2500))),
        1 => Just("/proc/self/mem/x".to_owned()),
    ]
    .boxed()
}
