//! A file system that was shut down under a loop device keeps no other drive from being looked at.

use std::fs::{self, File};
use std::process::Command;

use strand_placement::carve::Geometry;
use strand_placement::verdict::Transport;

use crate::identity::{DriveKey, MediumKind, SeenDrive};
use crate::{Roots, ioctl, uses};

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {words}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Undoes something when dropped.
struct Undo<'a>(&'a str, Vec<&'a str>);

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        let _ = Command::new(self.0).args(&self.1).status();
    }
}

#[test]
fn a_file_system_that_was_shut_down_hides_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (image, mount, leg) = (at("image"), at("mount"), at("mount/leg"));
    File::create(&image).unwrap().set_len(320 << 20).unwrap();
    run("mkfs.xfs", &["-q", &image]);
    fs::create_dir(&mount).unwrap();
    run("mount", &["-o", "loop", &image, &mount]);
    let _mounted = Undo("umount", vec![&mount]);
    File::create(&leg).unwrap().set_len(16 << 20).unwrap();
    let device = run("losetup", &["--find", "--show", &leg]);
    let _attached = Undo("losetup", vec!["--detach", &device]);
    run("xfs_io", &["-x", "-c", "shutdown", &mount]);
    let lost = ioctl::loop_backing(&File::open(&device).unwrap()).unwrap_err();
    assert_eq!(
        lost.raw_os_error(),
        Some(rustix::io::Errno::IO.raw_os_error()),
        "{lost}"
    );

    let roots = Roots {
        kubelet: directory.path().join("kubelet"),
        ..Roots::default()
    };
    let drive = |medium| SeenDrive {
        key: DriveKey {
            model: "ACME 7 TB".into(),
            serial: "S1".into(),
            namespace: 1,
        },
        path: "/dev/nvme9n9".into(),
        medium,
        geometry: Geometry {
            size: 1 << 40,
            logical_block: 512,
            optimal_write: 0,
        },
        transport: Transport::Pcie,
        wwid: None,
        firmware: None,
        pci_address: None,
        numa_node: None,
        stand_in: false,
    };
    let own = File::open("/dev/null").unwrap();
    let hidden = |medium| {
        let seen = uses::find(&roots, &drive(medium), &own);
        seen.unseen.iter().any(|what| what.contains(&device))
    };
    assert!(!hidden(MediumKind::Nvme { device: 1 << 40 }));
    // A file might be the very one that cannot be looked at.
    assert!(hidden(MediumKind::File {
        device: 1 << 40,
        inode: 1,
    }));
}
