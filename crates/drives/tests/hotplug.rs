//! Stand-ins that come and go are noticed, by events and by looking again.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod bed;

use std::fs;
use std::process::Command;
use std::time::Duration;

use bed::{Bed, Loop, text};
use strand_drives::{DriveHost, KernelHost};
use tokio::time::timeout;

fn serials(host: &KernelHost) -> Vec<String> {
    host.scan()
        .unwrap()
        .into_iter()
        .map(|drive| drive.key.serial)
        .collect()
}

/// Waits for events until the drives are these.
async fn becomes(host: &KernelHost, expected: &[&str]) {
    let mut changes = host.changes();
    let waiting = async {
        while serials(host) != expected {
            changes.changed().await.unwrap();
        }
    };
    timeout(Duration::from_secs(60), waiting)
        .await
        .unwrap_or_else(|_| panic!("{:?} never became {expected:?}", serials(host)));
}

#[tokio::test]
async fn files_of_a_directory() {
    let bed = Bed::new();
    let host = bed.host(&[bed.directory.path()]);
    becomes(&host, &[]).await;
    let first = bed.image("S1");
    fs::write(bed.directory.path().join("notes.txt"), "no drive").unwrap();
    becomes(&host, &["S1"]).await;
    bed.image("S2");
    becomes(&host, &["S1", "S2"]).await;
    // Moved elsewhere in the directory's own way: the serial is the file's stem.
    fs::rename(&first, bed.directory.path().join("S0.img")).unwrap();
    becomes(&host, &["S0", "S2"]).await;
    fs::remove_file(bed.directory.path().join("S0.img")).unwrap();
    becomes(&host, &["S2"]).await;
}

#[tokio::test]
async fn a_file_named_by_its_path() {
    let bed = Bed::new();
    let path = bed.directory.path().join("drive7.raw");
    let host = bed.host(&[&path]);
    becomes(&host, &[]).await;
    fs::rename(bed.image("S1"), &path).unwrap();
    becomes(&host, &["drive7"]).await;
}

#[tokio::test]
async fn a_loop_device_attached_and_detached() {
    let bed = Bed::new();
    let device = Loop::attach(&bed.image("S1"), &[]);
    let host = bed.host(&[&device.path]);
    assert_eq!(serials(&host), ["S1"]);
    assert!(
        Command::new("losetup")
            .arg("--detach")
            .arg(&device.path)
            .status()
            .unwrap()
            .success()
    );
    becomes(&host, &[]).await;
    let second = bed.image("S2");
    assert!(
        Command::new("losetup")
            .args([text(&device.path), text(&second)])
            .status()
            .unwrap()
            .success()
    );
    becomes(&host, &["S2"]).await;
}

#[tokio::test]
async fn nothing_else_is_a_stand_in() {
    let bed = Bed::new();
    let long = bed.image(&"x".repeat(64));
    let host = bed.host(&[
        std::path::Path::new("/dev/null"),
        &long,
        std::path::Path::new("/dev/nowhere"),
    ]);
    assert_eq!(serials(&host), Vec::<String>::new());
}
