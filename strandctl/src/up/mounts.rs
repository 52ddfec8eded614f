//! What a rack's volumes leave on this machine: mounts and loop devices below its directory.

use super::loops;
use anyhow::{Result, bail};
use rustix::mount::{UnmountFlags, unmount};
use std::{
    fs,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

/// Why this machine cannot hold volumes; none where it can.
pub fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("root: making file systems, loop devices and mounts needs it".into());
    }
    if !Path::new("/dev/loop-control").exists() {
        return Some("loop devices: there is no /dev/loop-control (modprobe loop)".into());
    }
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let module = Path::new("/sys/module/xfs").exists();
    if !module && !known.lines().any(|line| line.trim() == "xfs") && !loadable() {
        return Some("XFS in the kernel (modprobe xfs)".into());
    }
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let found = |program: &str| {
        path.split(':')
            .any(|dir| Path::new(dir).join(program).is_file())
    };
    (!found("mkfs.xfs")).then(|| "mkfs.xfs (Debian: the package xfsprogs)".into())
}

/// Whether the kernel can load XFS when it is first mounted.
fn loadable() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let modules = Path::new("/lib/modules").join(release.trim());
    let listed = fs::read_to_string(modules.join("modules.dep")).unwrap_or_default();
    listed.lines().any(|line| {
        line.split(':')
            .next()
            .is_some_and(|file| file.contains("/xfs.ko"))
    })
}

/// Unmounts everything below a directory and detaches the loop devices over files in it, as long as nothing uses them. `devices` are
/// left as they are.
pub fn clear(dir: &Path, devices: &[PathBuf]) -> Result<()> {
    let start = Instant::now();
    loop {
        // What was just killed may hold them for a moment; a mount may lie on a loop device over a file in another mount.
        for at in mounts(dir).iter().rev() {
            let _ = unmount(at, UnmountFlags::empty());
        }
        for (device, _) in left(dir, devices) {
            let _ = loops::ask_to_detach(&device);
        }
        if mounts(dir).is_empty() && left(dir, devices).is_empty() {
            return Ok(());
        }
        if start.elapsed() > loops::PATIENCE {
            break;
        }
        sleep(Duration::from_millis(50));
    }
    let stay = mounts(dir)
        .into_iter()
        .chain(left(dir, devices).into_iter().map(|(device, _)| device));
    let stay: Vec<String> = stay.map(|path| path.display().to_string()).collect();
    match stay.is_empty() {
        true => Ok(()),
        false => bail!(
            "still in use, and left as they are: {}; end what uses them, then unmount and detach them",
            stay.join(", ")
        ),
    }
}

fn left(dir: &Path, devices: &[PathBuf]) -> Vec<(PathBuf, PathBuf)> {
    let mut left = loops::attached(Path::new("/sys/block"));
    left.retain(|(device, file)| file.starts_with(dir) && !devices.contains(device));
    left
}

/// Mount points below a directory, those that lie on others last (`/proc/self/mountinfo`, proc(5)).
fn mounts(dir: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    points
        .map(|point| PathBuf::from(point.replace("\\040", " ")))
        .filter(|point| point.starts_with(dir) && point != dir)
        .collect()
}
