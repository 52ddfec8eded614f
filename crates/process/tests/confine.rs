//! The seccomp profile, in processes of their own: it cannot be taken off again.

#![allow(clippy::unwrap_used)]

use std::env;
use std::io::{self, ErrorKind};
use std::process::Command;
use std::sync::mpsc::channel;
use std::thread;

use io_uring::IoUring;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use strand_process::{Rings, confine};

/// Which profile a child of this test takes.
const CHILD: &str = "STRAND_TEST_RINGS";

fn main() {
    match env::var(CHILD).as_deref() {
        Ok("allowed") => confined(Rings::Allowed),
        Ok("refused") => confined(Rings::Refused),
        Ok(other) => panic!("{CHILD}={other}"),
        Err(_) => {
            for rings in ["allowed", "refused"] {
                let mut child = Command::new(env::current_exe().unwrap());
                let ended = child.env(CHILD, rings).status().unwrap();
                assert!(ended.success(), "rings {rings}: {ended}");
            }
        }
    }
}

fn confined(rings: Rings) {
    // What the machine, or the container of the test, refuses anyhow says nothing of the profile.
    let before = [free().is_ok(), tool().is_ok(), ring().is_ok()];
    if before != [true; 3] {
        eprintln!("not seen, for want of it before the profile: {WHAT:?}, {before:?}");
    }
    // A thread that was there before has it too.
    let (go, gone) = channel();
    let earlier = thread::spawn(move || {
        gone.recv().unwrap();
        free()
    });
    confine(rings);
    go.send(()).unwrap();
    refused(earlier.join().unwrap());
    refused(free());

    // And so have the tools that it runs, which run all the same.
    assert!(Command::new("true").status().unwrap().success());
    refused(tool());

    match rings {
        Rings::Allowed if !before[2] => {}
        Rings::Allowed => ring().unwrap(),
        Rings::Refused => refused(ring()),
    }
}

/// What everybody may do that the profile refuses.
const WHAT: [&str; 3] = ["a descriptor by pidfd", "a tool's personality", "io_uring"];

/// A descriptor of a process, this one's own, as one that traces it gets it.
fn free() -> io::Result<()> {
    let own = pidfd_open(getpid(), PidfdFlags::empty())?;
    Ok(pidfd_getfd(&own, 0, PidfdGetfdFlags::empty()).map(drop)?)
}

/// A tool that sets its own personality.
fn tool() -> io::Result<()> {
    let ran = Command::new("setarch")
        .args(["--uname-2.6", "true"])
        .output()?;
    match String::from_utf8_lossy(&ran.stderr) {
        said if said.contains("Operation not permitted") => Err(ErrorKind::PermissionDenied.into()),
        said if !ran.status.success() => Err(io::Error::other(said)),
        _ => Ok(()),
    }
}

fn ring() -> io::Result<()> {
    IoUring::new(8).map(drop)
}

fn refused(result: io::Result<()>) {
    let error = result.expect_err("it was not refused");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
}
