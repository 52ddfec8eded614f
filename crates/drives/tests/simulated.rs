//! The simulated host keeps the same contract as the kernel's, so that what is tested on it holds on drives.

#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::ops::ControlFlow;
use std::time::Duration;

use strand_drives::{
    CarveOrder, DataOnRelease, DriveError, DriveHost, Resumed, SimulatedHost, WipeOrder,
};
use strand_placement::carve::{Role, Split};
use strand_placement::verdict::{
    Content, KnownPools, Signature, SignatureKind, Use, Verdict, judge,
};
use uuid::Uuid;

const GIB: u64 = 1 << 30;

fn order() -> CarveOrder {
    CarveOrder {
        pool_id: Uuid::from_u128(7),
        pool_name: "rack".into(),
        drive_id: Uuid::from_u128(9),
        split: Split {
            context_bytes: 3 * GIB,
        },
    }
}

fn pools() -> KnownPools {
    KnownPools([(order().pool_id, "rack".to_owned())].into())
}

#[test]
fn a_drive_lives_as_on_a_machine() {
    let host = SimulatedHost::new(Duration::from_millis(1));
    host.plug("S1", 10 * GIB);
    let drive = host.scan().unwrap().remove(0);
    let first = host.observe(&drive, None).unwrap();
    assert_eq!(judge(&first, &pools()).reasons[0].code(), "StillWatched");
    std::thread::sleep(Duration::from_millis(first.watch.remaining_ms()));
    let watched = host.observe(&drive, Some(&first)).unwrap();
    assert_eq!(judge(&watched, &pools()).verdict, Verdict::Stranded);

    let owned = host.adopt(&drive, &watched, &order()).unwrap();
    assert_eq!(owned.partition(Role::Context).unwrap().extent.len, 3 * GIB);
    assert_eq!(
        host.adopt(&drive, &watched, &order()).unwrap(),
        owned,
        "a repeated order is the same drive"
    );
    assert_eq!(
        host.resume(&drive, &pools()).unwrap(),
        Resumed::Owned(owned.clone())
    );
    assert!(matches!(
        host.resume(&drive, &KnownPools::default()),
        Err(DriveError::NotOurs { .. })
    ));

    let larger = Split {
        context_bytes: 5 * GIB,
    };
    host.set_storage_holds_data(&drive.key, true);
    assert!(matches!(
        host.recarve(&owned, &larger),
        Err(DriveError::Refused { .. })
    ));
    assert!(matches!(
        host.release(&owned, DataOnRelease::Erase),
        Err(DriveError::HoldsData { .. })
    ));
    host.set_storage_holds_data(&drive.key, false);
    let owned = host.recarve(&owned, &larger).unwrap();
    host.release(&owned, DataOnRelease::Erase).unwrap();
    assert_eq!(host.observe(&drive, None).unwrap().content, Content::Blank);
}

#[test]
fn what_is_set_is_seen_refused_and_wiped() {
    let host = SimulatedHost::new(Duration::from_millis(1));
    let key = host.plug("S1", 10 * GIB);
    let changes = host.changes();
    host.alter(&key, |seen| {
        seen.uses.push(Use::Open {
            pid: 1,
            process: "dd".into(),
        });
        seen.content = Content::NotBlank { at: 0 };
        seen.signatures.push(Signature {
            kind: SignatureKind::FileSystem,
            name: "ext4".into(),
            offset: 1080,
        });
    });
    assert!(changes.has_changed().unwrap());
    let drive = host.scan().unwrap().remove(0);
    let seen = host.observe(&drive, None).unwrap();
    assert!(matches!(
        host.adopt(&drive, &seen, &order()),
        Err(DriveError::NotStranded { .. })
    ));
    let wipe = WipeOrder {
        serial: "S1".into(),
        from: 0,
    };
    let mut progress = |_| ControlFlow::Continue(());
    assert!(matches!(
        host.wipe(&drive, &wipe, &pools(), &mut progress),
        Err(DriveError::WipeRefused { .. })
    ));
    host.alter(&key, |seen| seen.uses.clear());
    let other = WipeOrder {
        serial: "S2".into(),
        from: 0,
    };
    assert!(matches!(
        host.wipe(&drive, &other, &pools(), &mut progress),
        Err(DriveError::WrongSerial { .. })
    ));
    host.wipe(&drive, &wipe, &pools(), &mut progress).unwrap();
    assert_eq!(host.observe(&drive, None).unwrap().content, Content::Blank);
    host.unplug(&key);
    assert!(matches!(
        host.observe(&drive, None),
        Err(DriveError::Gone { .. })
    ));
}
