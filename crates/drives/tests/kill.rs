//! A process that is killed with -9 while it carves, moves and gives back: whoever comes next finishes it.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod bed;

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bed::{Bed, Loop, Process, is_blank, need_root, only, order, pools, watched};
use strand_drives::{
    CarveOrder, DataOnRelease, DriveHost, HostConfig, KernelHost, Resumed, WatchTimes,
};
use strand_placement::carve::{MIB, Split};
use strand_placement::verdict::{LabelSeen, LabelState, Verdict};

/// Small, so that a life takes little but its writes.
const SIZE: u64 = 96 * MIB;

fn split(mib: u64) -> Split {
    Split {
        context_bytes: mib * MIB,
    }
}

const DRIVE: &str = "STRAND_TEST_DRIVE";

/// The process that is killed: takes the drive, moves its boundary and gives it back, over and over.
#[test]
#[ignore = "run by the test below, as a process of its own"]
fn life_over_and_over() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    // Hardly watched, so that most of its time goes into writing.
    let watch = WatchTimes {
        stand_in: Duration::from_millis(1),
        ..WatchTimes::default()
    };
    let host = KernelHost::start(HostConfig {
        watch,
        ..HostConfig::stand_ins([std::env::var_os(DRIVE).unwrap().into()])
    });
    let drive = only(&host);
    loop {
        let owned = match host.resume(&drive, &pools()) {
            Ok(Resumed::Owned(owned)) => owned,
            _ => {
                let (seen, finding) = watched(&host, &drive);
                assert_eq!(finding.verdict, Verdict::Stranded, "{:?}", finding.reasons);
                let order = CarveOrder {
                    split: split(40),
                    ..order()
                };
                host.adopt(&drive, &seen, &order).unwrap()
            }
        };
        let owned = host.recarve(&owned, &split(20)).unwrap();
        let owned = host.recarve(&owned, &split(60)).unwrap();
        host.release(&owned, DataOnRelease::Keep).unwrap();
    }
}

/// Kills at times spread over a life, until it was caught in every state that something interrupted can be in.
fn kill_until_all_states_were_hit(bed: &Bed, path: &Path) {
    let wanted = BTreeSet::from([
        LabelState::Carving,
        LabelState::Carved,
        LabelState::Moving,
        LabelState::Releasing,
    ]);
    let mut states = BTreeSet::new();
    let mut rounds = 0;
    while !states.is_superset(&wanted) || rounds < 20 {
        rounds += 1;
        assert!(
            rounds < 300,
            "after {rounds} kills only {states:?} were hit"
        );
        let mut child = Process(
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "life_over_and_over", "--ignored", "--nocapture"])
                .env(DRIVE, path)
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap(),
        );
        // A life takes a few hundred milliseconds, and longer where the machine is busy.
        let life = 300_000 << (rounds / 50);
        std::thread::sleep(Duration::from_micros(20_000 + rounds * 7_919_317 % life));
        child.0.kill().unwrap();
        let status = child.0.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "it failed by itself");

        let host = bed.host(&[path]);
        let drive = only(&host);
        let seen = host.observe(&drive, None).unwrap();
        match &seen.label {
            LabelSeen::Present(label) => {
                assert_eq!(
                    label.contradiction, None,
                    "a killed {:?} looks like foreign writes",
                    label.state
                );
                states.insert(label.state);
                if let Resumed::Owned(owned) = host.resume(&drive, &pools()).unwrap() {
                    assert_eq!(
                        host.resume(&drive, &pools()).unwrap(),
                        Resumed::Owned(owned.clone())
                    );
                    host.release(&owned, DataOnRelease::Keep).unwrap();
                }
            }
            LabelSeen::Absent => {}
            other => panic!("{other:?}"),
        }
        assert!(
            is_blank(path),
            "what was killed in round {rounds} left something"
        );
    }
}

#[tokio::test]
async fn killed_at_any_time_it_converges() {
    need_root();
    let bed = Bed::new();
    let image = bed.image_of("S1", SIZE);
    let device = Loop::attach(&bed.image_of("S2", SIZE), &[]);
    kill_until_all_states_were_hit(&bed, &image);
    kill_until_all_states_were_hit(&bed, &device.path);
}
