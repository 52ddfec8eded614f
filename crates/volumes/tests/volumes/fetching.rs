//! Legs that come from another node: two beds stand for the nodes, and the device as which one lends its leg for the connection between them.

use crate::bed::{Bed, MIB, leg, read, snapshot, write};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use strand_volumes::{CopyOrder, Drive, Foreign, LegRecord, VolumeError, open_direct};

const SIZE: u64 = 96 * MIB;
/// Where there is anything in it.
const WRITTEN: [(u64, u8); 3] = [(0, 7), (40 * MIB + 4096, 8), (SIZE - 4096, 9)];
const GENERATION: u64 = 4;

fn filled(drive: &Drive) -> LegRecord {
    drive.make(&leg("v-0", SIZE)).unwrap();
    let device = drive.attach("v-0", 3, false).unwrap().device;
    for (at, byte) in WRITTEN {
        write(&device, at, &[byte; 4096]).unwrap();
    }
    drive.detach("v-0").unwrap();
    drive.records().unwrap().pop().unwrap()
}

fn order(of: &LegRecord) -> CopyOrder {
    CopyOrder {
        name: format!("{}.1", of.name),
        owner_uid: of.owner_uid.clone(),
        of: of.uuid,
        generation: GENERATION,
        rate: 1 << 40,
    }
}

fn lent(drive: &Drive, name: &str) -> Foreign {
    let path = drive.lend(name, GENERATION, true).unwrap().device;
    foreign(open_direct(&path).unwrap(), &path, true)
}

fn foreign(device: File, path: &Path, answers: bool) -> Foreign {
    Foreign {
        device,
        path: path.to_owned(),
        answers: Box::new(move || answers),
        made_at_ms: 5000,
    }
}

/// A device that is as large as a leg, and cannot be read.
fn unreadable(at: &Path, answers: bool) -> Foreign {
    let path = at.join("unreadable");
    let device = File::create(&path).unwrap();
    device.set_len(SIZE).unwrap();
    foreign(device, &path, answers)
}

fn is_right(drive: &Drive, name: &str) -> bool {
    let mut content = vec![0; SIZE as usize];
    for (at, byte) in WRITTEN {
        content[at as usize..at as usize + 4096].fill(byte);
    }
    read(&drive.data(name), 0, SIZE as usize) == content
}

#[test]
fn a_leg_is_the_same_on_the_other_node_and_nobody_writes_to_it_meanwhile() {
    let (here, there) = (Bed::new(), Bed::new());
    let ((_a, from), (_b, to)) = (here.open(), there.open());
    let origin = filled(&from);
    let foreign = lent(&from, "v-0");

    // It is copied for reading only, and its last writer comes too late for good.
    write(&foreign.path, 0, &[1; 4096]).unwrap_err();
    let busy = from.attach("v-0", GENERATION + 1, false);
    assert!(matches!(busy, Err(VolumeError::Busy { .. })), "{busy:?}");
    let copy = to.fetch(&foreign, &order(&origin), &leg("v-0", 4096), |_| true);
    let copy = copy.unwrap();
    assert!(is_right(&to, "v-0.1") && is_right(&from, "v-0"));
    assert_eq!(
        (copy.source, copy.attachment_generation, copy.size),
        (Some(origin.uuid), GENERATION, SIZE)
    );
    assert_eq!((copy.made_at_ms, copy.volume.as_str()), (5000, "v-0"));
    let again = to.fetch(&foreign, &order(&origin), &leg("v-0", 4096), |_| {
        panic!("nothing is to be done")
    });
    assert_eq!(again.unwrap(), copy);
    drop(foreign);
    from.take_back("v-0").unwrap();
    for (drive, name) in [(&from, "v-0"), (&to, "v-0.1")] {
        let stale = drive.attach(name, 3, false);
        assert!(matches!(stale, Err(VolumeError::Stale { .. })), "{stale:?}");
    }

    // Once somebody may have written to it, it is not lent by that generation again.
    from.attach("v-0", GENERATION + 1, false).unwrap();
    from.detach("v-0").unwrap();
    let late = from.lend("v-0", GENERATION, true);
    assert!(matches!(late, Err(VolumeError::Stale { .. })), "{late:?}");
}

#[test]
fn what_is_broken_off_goes_on_and_a_device_that_is_gone_is_waited_for() {
    let (here, there) = (Bed::new(), Bed::new());
    let (_a, from) = here.open();
    let origin = filled(&from);
    let foreign = lent(&from, "v-0");
    {
        let (_b, to) = there.open();
        let stopped = to.fetch(&foreign, &order(&origin), &leg("v-0", SIZE), |through| {
            through < 40 * MIB
        });
        let stopped = stopped.unwrap_err();
        assert!(
            matches!(stopped, VolumeError::CopyStopped { .. }),
            "{stopped}"
        );
    }
    let (_b, to) = there.open();
    let gone = unreadable(there.path(), false);
    let away = to.fetch(&gone, &order(&origin), &leg("v-0", SIZE), |_| true);
    assert!(matches!(away, Err(VolumeError::Away { .. })), "{away:?}");
    // A node that answers, and cannot read what it has, is not waited for.
    let ill = unreadable(there.path(), true);
    let lost = to.fetch(&ill, &order(&origin), &leg("v-0", SIZE), |_| true);
    assert!(matches!(lost, Err(VolumeError::Io { .. })), "{lost:?}");
    assert_eq!(to.records().unwrap(), []);

    let mut first = None;
    let copied = to.fetch(&foreign, &order(&origin), &leg("v-0", SIZE), |through| {
        first.get_or_insert(through);
        true
    });
    assert!(first > Some(40 * MIB), "it began anew: {first:?}");
    assert!(is_right(&to, &copied.unwrap().name));
    assert_eq!(to.space().unwrap().promised, strand_volumes::cost(SIZE));
    drop(foreign);
    from.take_back("v-0").unwrap();
}

/// The connection breaks again and again, and the process lives on.
#[test]
fn what_was_copied_before_a_break_is_not_copied_again_by_the_same_process() {
    let (here, there) = (Bed::new(), Bed::new());
    let ((_a, from), (_b, to)) = (here.open(), there.open());
    let origin = filled(&from);
    let path = lent(&from, "v-0").path;
    // As far as it goes is less than what is written down at once.
    let end = 24 * MIB;
    let short = there.path().join("short");
    fs::write(&short, read(&path, 0, SIZE as usize)).unwrap();
    let device = open_direct(&short).unwrap();
    let mut reached = 0;
    let broken = to.fetch(
        &foreign(device, &short, false),
        &order(&origin),
        &leg("v-0", SIZE),
        |through| {
            reached = through;
            if through == end {
                let short = File::options().write(true).open(&short).unwrap();
                short.set_len(end).unwrap();
            }
            true
        },
    );
    assert!(
        matches!(broken, Err(VolumeError::Away { .. })),
        "{broken:?}"
    );
    assert_eq!(reached, end);
    let mut first = None;
    let whole = lent(&from, "v-0");
    let copied = to.fetch(&whole, &order(&origin), &leg("v-0", SIZE), |through| {
        first.get_or_insert(through);
        true
    });
    assert!(first > Some(end), "it began anew: {first:?}");
    assert!(is_right(&to, &copied.unwrap().name));
    drop(whole);
    from.take_back("v-0").unwrap();
}

#[test]
fn a_snapshot_is_lent_for_reading_and_takes_no_more_than_is_in_it() {
    let (here, there) = (Bed::new(), Bed::new());
    let ((_a, from), (_b, to)) = (here.open(), there.open());
    filled(&from);
    let taken = from.make(&snapshot("s", "v-0")).unwrap();
    let refused = from.lend("s", GENERATION, false);
    assert!(
        matches!(refused, Err(VolumeError::BadOrder { .. })),
        "{refused:?}"
    );
    let foreign = lent(&from, "s");
    let moved = to.fetch(&foreign, &order(&taken), &snapshot("s", "v-0"), |_| true);
    assert_eq!(moved.unwrap().snapshot.as_deref(), Some("s"));
    assert!(is_right(&to, "s.1"));
    let blocks = fs::metadata(to.data("s.1")).unwrap().blocks() * 512;
    assert!(blocks < 40 * MIB, "{blocks} bytes for holes");
    drop(foreign);
    from.take_back("s").unwrap();
    from.delete("s", taken.uuid).unwrap();
}
