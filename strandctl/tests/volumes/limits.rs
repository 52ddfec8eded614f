//! Limits on a volume's I/O, from a VolumeAttributesClass as the provisioner and the resizer pass it on, to what the kernel does.

use crate::calls::{Calls, From, Kind, wanted};
use crate::rack::{Rack, until};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use strand_api::{PoolVolume, condition, names};
use strand_csi::v1::ControllerModifyVolumeRequest;

const MIB: u64 = 1 << 20;
/// Bytes a second, and how much is written to see that: enough for some three seconds.
const LIMIT: u64 = 4 * MIB;
const WRITTEN: u64 = 12 * MIB;
/// How much faster than its limit a volume may be: what it may do at once at the start is free.
const TOO_FAST: f64 = 1.6;

/// What control groups say of a device, each line once.
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
    lines.retain(|line| !line.contains("rbps=max wbps=max riops=max wiops=max"));
    lines.sort();
    lines.dedup();
    lines
}

/// Writes past every cache, in pieces of so many KiB; how long it took.
fn write(device: &Path, bytes: u64, kib: u64) -> Duration {
    let start = std::time::Instant::now();
    let written = Command::new("dd")
        .args(["if=/dev/zero", "oflag=direct", "status=none"])
        .arg(format!("of={}", device.display()))
        .arg(format!("bs={kib}K"))
        .arg(format!("count={}", (bytes >> 10) / kib))
        .status()
        .unwrap();
    assert!(written.success());
    start.elapsed()
}

/// How fast bytes are written, as a multiple of the limit.
fn speed(device: &Path) -> f64 {
    let taken = write(device, WRITTEN, 256).as_secs_f64();
    WRITTEN as f64 / taken / LIMIT as f64
}

fn class(parameters: &[(&str, &str)]) -> std::collections::HashMap<String, String> {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    parameters.iter().map(owned).collect()
}

async fn modify(calls: &Calls, id: &str, parameters: &[(&str, &str)]) {
    let request = ControllerModifyVolumeRequest {
        volume_id: id.into(),
        mutable_parameters: class(parameters),
        ..ControllerModifyVolumeRequest::default()
    };
    let modified = calls.controller().controller_modify_volume(request).await;
    modified.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_class_limits_its_volumes_through_kills_until_another_lifts_it() {
    let mut rack = Rack::new();
    rack.up(&["--drives", "1", "--drive-size", "4Gi"]);
    let calls = Calls::to(&rack);
    let mut request = wanted("v", Kind::Block, 64, &[], From::Nothing);
    request.mutable_parameters = class(&[("bandwidth", "4Mi")]);
    calls.controller().create_volume(request).await.unwrap();
    // It is there: this finds it.
    let volume = calls.create("v", Kind::Block, 64, &[], From::Nothing).await;
    let device = calls.mount(&volume).await;
    if held(&device).is_empty() {
        println!("NOT CHECKED: no control group of this machine limits I/O; that has to be said");
        until("the volume says that it is not limited", async || {
            let volume = rack.all::<PoolVolume>().await.remove(0);
            let status = volume.status.unwrap_or_default();
            condition::find(&status.conditions, names::LIMITED).is_some_and(|c| c.status == "False")
        })
        .await;
    } else {
        limited(&mut rack, &calls, &volume.id, &device).await;
    }
    calls.unmount(&volume).await;
    calls.delete(&volume).await;
    rack.has_nothing_of_any_volume().await;
    rack.ends_with_nothing_left();
}

async fn limited(rack: &mut Rack, calls: &Calls, id: &str, device: &Path) {
    let first = held(device);
    let mut speeds = vec![speed(device)];
    rack.kill(rack.node().pid).await;
    speeds.push(speed(device));
    assert_eq!(held(device), first);
    println!(
        "at {LIMIT} bytes a second, before and after the agent was killed: {speeds:.2?} times the limit"
    );
    assert!(speeds.iter().all(|speed| *speed < TOO_FAST), "{speeds:?}");

    // Another class: operations, and bytes no more.
    modify(calls, id, &[("iops", "20")]).await;
    until("operations are limited", async || {
        let now = held(device);
        !now.is_empty() && now != first
    })
    .await;
    let taken = write(device, 60 * 4096, 4);
    assert!(
        taken > Duration::from_millis(1500),
        "60 writes at 20 a second: {taken:?}"
    );

    modify(calls, id, &[]).await;
    until("no limit is left", async || held(device).is_empty()).await;
    let mut last = 0.0;
    until("the volume is faster than its limit was", async || {
        last = speed(device);
        last > TOO_FAST
    })
    .await;
    println!("without a limit: {last:.1} times what it was");
}
