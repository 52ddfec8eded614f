//! Limits on the I/O to attached legs, measured.

use crate::bed::{Bed, MIB, leg, text};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use strand_volumes::{Drive, IoLimits, VolumeError};

fn bandwidth(bytes: u64) -> IoLimits {
    IoLimits {
        bandwidth: Some(bytes),
        ..IoLimits::default()
    }
}

fn limit(drive: &Drive, limits: IoLimits) -> Result<(), VolumeError> {
    drive.limit(&BTreeMap::from([("v-0".to_owned(), limits)]))
}

/// The lines about a device in all control groups.
fn held(device: &Path) -> Vec<String> {
    let number = fs::metadata(device).unwrap().rdev();
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    let start = format!("{major}:{minor} ");
    let mut lines = Vec::new();
    let mut directories = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                directories.push(entry.path());
            } else if name == "io.max" || (name.contains("throttle") && name.ends_with("_device")) {
                let text = fs::read_to_string(entry.path()).unwrap_or_default();
                let of = text.lines().filter(|line| line.starts_with(&start));
                lines.extend(of.map(str::to_owned));
            }
        }
    }
    lines
}

/// Writes past every cache, and says how long it took.
fn write(device: &Path, mib: u64) -> Duration {
    let start = Instant::now();
    let written = Command::new("dd")
        .args(["if=/dev/zero", "bs=256K", "oflag=direct", "status=none"])
        .arg(format!("of={}", text(device)))
        .arg(format!("count={}", mib * 4))
        .status()
        .unwrap();
    assert!(written.success());
    start.elapsed()
}

#[test]
fn a_limited_device_is_no_faster_than_its_limit_and_leaves_none_behind() {
    let bed = Bed::new();
    let (storage, drive) = bed.open();
    drive.make(&leg("v-0", 32 * MIB)).unwrap();
    let device = drive.attach("v-0", 1, false).unwrap().device;
    match limit(&drive, bandwidth(MIB)) {
        Err(VolumeError::Unlimited(why)) => {
            eprintln!("this machine limits nothing: {why}");
            return;
        }
        limited => limited.unwrap(),
    }
    // The first half second or so is free; a loaded machine is slower still.
    assert!(write(&device, 3) > Duration::from_secs(2));
    let first = held(&device);
    assert!(first.iter().any(|line| line.contains(&MIB.to_string())));

    // Another process finds it limited, and changes that.
    drop((storage, drive));
    let (_storage, drive) = bed.open();
    assert_eq!(held(&device), first);
    limit(&drive, bandwidth(4 * MIB)).unwrap();
    assert!(write(&device, 12) > Duration::from_secs(2));
    let second = held(&device);
    assert_ne!(second, first);

    let operations = IoLimits {
        iops: Some(10),
        bandwidth: None,
    };
    limit(&drive, operations).unwrap();
    assert!(write(&device, 8) > Duration::from_secs(2), "32 writes");
    assert!(!held(&device).iter().any(|line| second.contains(line)));

    drive.detach("v-0").unwrap();
    let none = |line: &String| line.contains("=max wbps=max riops=max");
    assert!(held(&device).iter().all(none), "{:?}", held(&device));
}
