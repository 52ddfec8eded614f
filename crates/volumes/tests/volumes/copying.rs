//! Legs that move to another drive: whole and right, or not there, whatever happens meanwhile.

use crate::bed::{Bed, MIB, SIDE, leg, owned, partition, read, snapshot, write};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use strand_volumes::{CopyOrder, Drive, LegRecord, Storage, VolumeError};

const SIZE: u64 = 96 * MIB;
/// Where there is anything in it.
const WRITTEN: [(u64, u64); 3] = [(0, 8192), (20 * MIB, 40 * MIB), (SIZE - 4096, 4096)];
const FAST: u64 = 1 << 40;

fn order(of: &LegRecord, generation: u64, rate: u64) -> CopyOrder {
    CopyOrder {
        name: format!("{}.1", of.name),
        owner_uid: of.owner_uid.clone(),
        of: of.uuid,
        generation,
        rate,
    }
}

fn content() -> Vec<u8> {
    let mut state = 7u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as u8
    };
    let mut bytes = vec![0; SIZE as usize];
    for (at, len) in WRITTEN {
        bytes[at as usize..(at + len) as usize].fill_with(&mut next);
    }
    bytes
}

/// A leg with something in it, attached once and detached again.
fn filled(drive: &Drive) -> LegRecord {
    drive.make(&leg("v-0", SIZE)).unwrap();
    let device = drive.attach("v-0", 3, false).unwrap().device;
    let bytes = content();
    for (at, len) in WRITTEN {
        write(&device, at, &bytes[at as usize..(at + len) as usize]).unwrap();
    }
    drive.detach("v-0").unwrap();
    drive.records().unwrap().pop().unwrap()
}

fn all(drive: &Drive, name: &str) -> Vec<u8> {
    read(&drive.data(name), 0, SIZE as usize)
}

fn half_made(drive: &Drive) -> usize {
    fs::read_dir(drive.root().join("making")).unwrap().count()
}

#[test]
fn a_copy_is_the_same_and_stale_consumers_reach_neither() {
    let (here, there) = (Bed::new(), Bed::new());
    let ((_a, from), (_b, to)) = (here.open(), there.open());
    let origin = filled(&from);
    let taken = from.make(&snapshot("s", "v-0")).unwrap();

    let mut told = Vec::new();
    let copy = to
        .copy(&from, &order(&origin, 4, FAST), |through| {
            told.push(through);
            true
        })
        .unwrap();
    assert!(all(&to, "v-0.1") == content());
    assert!(all(&from, "v-0") == content(), "the source is as it was");
    assert_eq!(
        (copy.source, copy.attachment_generation),
        (Some(origin.uuid), 4)
    );
    assert_eq!((copy.size, copy.volume.as_str()), (SIZE, "v-0"));
    assert!(told.is_sorted() && told.last() == Some(&SIZE));
    let again = to.copy(&from, &order(&origin, 4, FAST), |_| {
        panic!("nothing is to be done")
    });
    assert_eq!(again.unwrap(), copy);
    let later = to.copy(&from, &order(&origin, 5, FAST), |_| true);
    assert!(
        matches!(later, Err(VolumeError::NameTaken { .. })),
        "{later:?}"
    );

    for drive in [(&from, "v-0"), (&to, "v-0.1")] {
        let stale = drive.0.attach(drive.1, 3, false);
        assert!(matches!(stale, Err(VolumeError::Stale { .. })), "{stale:?}");
    }
    // A snapshot keeps its time, and takes no more than is in it.
    let moved = to.copy(&from, &order(&taken, 0, FAST), |_| true).unwrap();
    assert_eq!(
        (moved.made_at_ms, moved.snapshot.as_deref()),
        (taken.made_at_ms, Some("s"))
    );
    assert!(all(&to, "s.1") == content());
    let blocks = fs::metadata(to.data("s.1")).unwrap().blocks() * 512;
    assert!(blocks < 60 * MIB, "{blocks} bytes for holes");
    assert_eq!(half_made(&to), 0);
}

#[test]
fn whoever_attaches_goes_first() {
    let (here, there) = (Bed::new(), Bed::new());
    let ((_a, from), (_b, to)) = (here.open(), there.open());
    let origin = filled(&from);
    let device = from.attach("v-0", 3, false).unwrap().device;
    let busy = to.copy(&from, &order(&origin, 4, FAST), |_| true);
    assert!(matches!(busy, Err(VolumeError::Busy { .. })), "{busy:?}");
    from.detach("v-0").unwrap();

    // Between two pieces, and even if it is detached again at once.
    for attach_at in [0, 30 * MIB, SIZE] {
        let mut done = false;
        let ended = to.copy(&from, &order(&origin, 4, FAST), |through| {
            if through >= attach_at && !done {
                done = true;
                from.attach("v-0", 4, false).unwrap();
                from.detach("v-0").unwrap();
            }
            true
        });
        assert!(
            matches!(ended, Err(VolumeError::CopyEnded { .. })),
            "{ended:?}"
        );
        assert_eq!(half_made(&to), 0);
        assert_eq!(to.space().unwrap().promised, 0);
    }
    let stale = to.copy(&from, &order(&origin, 3, FAST), |_| true);
    assert!(
        matches!(stale, Err(VolumeError::Stale { recorded: 4, .. })),
        "{stale:?}"
    );
    drop(device);
}

#[test]
fn a_stopped_copy_goes_on_where_it_was_and_one_that_nobody_wants_goes() {
    let (here, there) = (Bed::new(), Bed::new());
    let (_a, from) = here.open();
    let origin = filled(&from);
    let promised = {
        let (_b, to) = there.open();
        let stopped = to.copy(&from, &order(&origin, 4, FAST), |through| {
            through < 40 * MIB
        });
        assert!(
            matches!(stopped, Err(VolumeError::CopyStopped { .. })),
            "{stopped:?}"
        );
        assert_eq!(to.records().unwrap(), []);
        to.space().unwrap().promised
    };
    let (_b, to) = there.open();
    assert_eq!(
        to.space().unwrap().promised,
        promised,
        "half a copy takes its room"
    );
    let mut first = None;
    to.copy(&from, &order(&origin, 4, FAST), |through| {
        first.get_or_insert(through);
        true
    })
    .unwrap();
    assert!(first > Some(40 * MIB), "it began anew: {first:?}");
    assert!(all(&to, "v-0.1") == content());

    let other = CopyOrder {
        name: "other".into(),
        ..order(&origin, 4, FAST)
    };
    to.copy(&from, &other, |_| false).unwrap_err();
    to.drop_copies(|name| name == "other").unwrap();
    assert_eq!(half_made(&to), 1);
    to.drop_copies(|_| false).unwrap();
    assert_eq!(
        (half_made(&to), to.space().unwrap().promised),
        (0, promised)
    );
}

#[test]
fn a_copy_is_no_faster_than_asked() {
    let (here, there) = (Bed::new(), Bed::new());
    let ((_a, from), (_b, to)) = (here.open(), there.open());
    let origin = filled(&from);
    let start = Instant::now();
    to.copy(&from, &order(&origin, 4, 40 * MIB), |_| true)
        .unwrap();
    // Holes cost nothing: 40 MiB and some are moved.
    assert!(start.elapsed() >= Duration::from_secs(1));
}

const FROM: &str = "STRAND_TEST_FROM";
const TO: &str = "STRAND_TEST_TO";

fn opened(place: &Path) -> (Storage, std::sync::Arc<Drive>) {
    let storage = Storage::new(place.join("mounts"));
    let drive = storage.open(&owned(place), partition(place, SIDE)).unwrap();
    (storage, drive)
}

/// The process that is killed.
#[test]
#[ignore = "run by the test below, as a process of its own"]
fn copies_until_killed() {
    let place = |name| PathBuf::from(std::env::var_os(name).unwrap());
    let ((_a, from), (_b, to)) = (opened(&place(FROM)), opened(&place(TO)));
    let origin = from.records().unwrap().pop().unwrap();
    to.copy(&from, &order(&origin, 4, 400 * MIB), |_| true)
        .unwrap();
}

#[test]
fn killed_at_any_time_a_copy_is_whole_or_no_leg() {
    let (here, there) = (Bed::new(), Bed::new());
    let origin = filled(&here.open().1);
    drop(there.open());
    let mut whole = 0;
    for round in 0..14u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "copying::copies_until_killed", "--ignored"])
            .env(FROM, here.path())
            .env(TO, there.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(10 + round * 7919 % 600));
        child.kill().unwrap();
        child.wait().unwrap();
        let ((_a, from), (_b, to)) = (here.open(), there.open());
        assert!(all(&from, "v-0") == content(), "round {round}");
        for record in to.records().unwrap() {
            assert!(all(&to, &record.name) == content(), "round {round}");
            to.delete(&record.name, record.uuid).unwrap();
            whole += 1;
        }
        assert!(half_made(&to) <= 1);
    }
    let ((_a, from), (_b, to)) = (here.open(), there.open());
    let copied = to.copy(&from, &order(&origin, 4, FAST), |_| true).unwrap();
    assert!(all(&to, &copied.name) == content());
    assert_eq!(to.space().unwrap().promised, strand_volumes::cost(SIZE));
    println!("{whole} of 14 copies were whole when their process was killed");
}
