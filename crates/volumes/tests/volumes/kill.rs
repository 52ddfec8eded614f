//! A process that is killed with -9 while it makes, copies, attaches, grows and deletes: whoever comes next finds all that was
//! acknowledged, and nothing besides.

use crate::bed::{Bed, MIB, SIDE, copy, leg, owned, partition, read, snapshot, write};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;
use strand_volumes::Storage;

const PLACE: &str = "STRAND_TEST_PLACE";

/// The process that is killed. Tells what is done once it is.
#[test]
#[ignore = "run by the test below, as a process of its own"]
fn works_until_killed() {
    let place = PathBuf::from(std::env::var_os(PLACE).unwrap());
    let storage = Storage::new(place.join("mounts"));
    let drive = storage
        .open(&owned(&place), partition(&place, SIDE))
        .unwrap();
    let mut out = std::io::stdout();
    let mut tell = |words: String| {
        writeln!(out, "{words}").unwrap();
        out.flush().unwrap();
    };
    let round = std::process::id();
    for turn in 0u32.. {
        let name = format!("v{round}-{turn}");
        let made = drive.make(&leg(&name, 4 * MIB)).unwrap();
        let device = drive.attach(&name, 1, false).unwrap().device;
        write(&device, 0, name.as_bytes()).unwrap();
        tell(format!("\nmade {name}"));
        let taken = drive.make(&snapshot(&format!("{name}.s"), &name)).unwrap();
        write(&device, 0, b"overwritten----------").unwrap();
        drive.grow_leg(&name, 8 * MIB).unwrap();
        let clone = drive
            .make(&copy(&format!("{name}.c"), &taken.name, 8 * MIB))
            .unwrap();
        tell(format!("\nmade {}", clone.name));
        drive.detach(&name).unwrap();
        tell(format!("\ngone {name}"));
        drive.delete(&name, made.uuid).unwrap();
        drive.delete(&taken.name, taken.uuid).unwrap();
        if turn % 2 == 0 {
            tell(format!("\ngone {}", clone.name));
            drive.delete(&clone.name, clone.uuid).unwrap();
        }
    }
}

#[test]
fn killed_at_any_time_all_that_was_acknowledged_is_there() {
    let bed = Bed::new();
    drop(bed.open());
    let mut kept: BTreeMap<String, bool> = BTreeMap::new();
    for round in 0..25u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "kill::works_until_killed",
                "--ignored",
                "--nocapture",
            ])
            .env(PLACE, bed.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Not before it works.
        let first = lines
            .by_ref()
            .map_while(Result::ok)
            .find(|line| line.starts_with("made"))
            .unwrap();
        std::thread::sleep(Duration::from_micros(round * 7_919_317 % 90_000));
        child.kill().unwrap();
        child.wait().unwrap();
        for line in std::iter::once(first).chain(lines.map_while(Result::ok)) {
            if let Some((what @ ("made" | "gone"), name)) = line.split_once(' ') {
                kept.insert(name.to_owned(), what == "made");
            }
        }
        let (storage, drive) = bed.open();
        let records = drive.records().unwrap();
        for (name, _) in kept.iter().filter(|(_, made)| **made) {
            assert!(
                records.iter().any(|record| record.name == *name),
                "round {round}: {name} is gone"
            );
            if let Some(origin) = name.strip_suffix(".c") {
                assert_eq!(
                    read(&drive.data(name), 0, origin.len()),
                    origin.as_bytes(),
                    "round {round}"
                );
            }
        }
        assert_eq!(
            drive.space().unwrap().promised,
            records
                .iter()
                .map(|r| strand_volumes::cost(r.size))
                .sum::<u64>()
        );
        for record in records {
            drive.detach(&record.name).unwrap();
            drive.delete(&record.name, record.uuid).unwrap();
        }
        kept.clear();
        for directory in ["legs", "making", "deleting"] {
            assert_eq!(
                std::fs::read_dir(drive.root().join(directory))
                    .unwrap()
                    .count(),
                0
            );
        }
        drop(drive);
        storage.close(bed.drive()).unwrap();
        assert_eq!(bed.left(), Vec::<String>::new(), "round {round}");
    }
}
