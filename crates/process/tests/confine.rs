//! The seccomp profile, in processes of their own: it cannot be taken off again.

#![allow(clippy::unwrap_used)]

use std::env;
use std::io::{self, ErrorKind};
use std::os::unix::fs::chroot;
use std::process::Command;
use std::sync::mpsc::channel;
use std::thread;

use io_uring::IoUring;
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
    free().unwrap_or_else(|error| panic!("before the profile: {error}"));
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
    let tool = Command::new("unshare").args(["--mount", "true"]).output();
    let tool = tool.unwrap();
    let said = String::from_utf8_lossy(&tool.stderr);
    assert!(said.contains("Operation not permitted"), "{said}");

    match rings {
        Rings::Allowed => drop(IoUring::new(8).unwrap()),
        Rings::Refused => refused(IoUring::new(8).map(drop)),
    }
}

/// What root may do, and a process that the profile confines may not; to anybody else it is refused either way.
fn free() -> io::Result<()> {
    match chroot("/") {
        Err(error) if error.kind() == ErrorKind::PermissionDenied && !root() => Ok(()),
        other => other,
    }
}

fn root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout == b"0\n"
}

fn refused(result: io::Result<()>) {
    let error = result.expect_err("it was not refused");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
}
