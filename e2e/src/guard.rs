//! What a bed leaves on the machine when its namespaces are gone: loop devices, control groups, its directory. The guard takes them
//! away, a process of its own, so that it outlives a test that is killed. It also does so before a bed starts, for one whose guard was
//! killed.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::process;
use crate::wait;

/// The control group below which all pods of a bed are, in each hierarchy.
pub const CONTROL_GROUP: &str = "strand-e2e";
/// Makes this program the guard of the directory that it names.
const ROLE: &str = "STRAND_E2E_GUARD";
/// How long processes that were killed may need to let go.
const LETTING_GO: Duration = Duration::from_secs(60);

/// A guard that waits for its bed's end.
pub struct Guard(Child);

impl Guard {
    /// Starts a guard for the bed in this directory, waits for the one before it, and for what an earlier bed left to be gone.
    ///
    /// # Errors
    /// When that cannot be taken away.
    pub fn start(dir: &Path) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .env(ROLE, dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Not ended by what ends a terminal's programs.
            .process_group(0)
            .spawn()
            .context("the guard cannot be started")?;
        let mut said = String::new();
        let output = child.stdout.take().context("the guard has no output")?;
        BufReader::new(output).read_line(&mut said)?;
        ensure!(
            said == "ready\n",
            "what an earlier bed left in {} cannot be taken away; the guard's words are above",
            dir.display()
        );
        Ok(Self(child))
    }

    /// The bed is gone: waits until everything that it left is.
    ///
    /// # Errors
    /// When something stays.
    pub fn finish(mut self) -> Result<()> {
        drop(self.0.stdin.take());
        let status = self.0.wait()?;
        ensure!(
            status.success(),
            "the bed left something; the guard's words are above"
        );
        Ok(())
    }
}

/// Does a guard's work if this program was started as one; then returns how that went.
pub fn role() -> Option<Result<()>> {
    std::env::var_os(ROLE).map(|dir| watch(Path::new(&dir)))
}

fn watch(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    let lock = File::create(dir.with_extension("lock"))?;
    lock.lock()?;
    clean(dir)?;
    println!("ready");
    std::io::stdout().flush()?;
    // Ends when the other side is gone.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    clean(dir)
}

fn clean(dir: &Path) -> Result<()> {
    wait::until(
        "the bed's loop devices and control groups are gone",
        LETTING_GO,
        || {
            let mut left = Vec::new();
            for device in loops(dir).map_err(|error| format!("{error:#}"))? {
                let _ = process::run(Command::new("losetup").arg("-d").arg(&device));
                left.push(device);
            }
            left.extend(remove_control_groups(""));
            if left.is_empty() {
                Ok(())
            } else {
                Err(left.join(", "))
            }
        },
    )?;
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{} cannot be removed", dir.display()))
        }
        _ => Ok(()),
    }
}

/// Loop devices over the bed's drives, and over files on those. By the backing file's device and inode: its path is that of a mount
/// that is gone.
///
/// # Errors
/// When the machine's loop devices cannot be listed.
pub fn loops(dir: &Path) -> Result<Vec<String>> {
    let nodes = fs::read_dir(dir).into_iter().flatten().flatten();
    let drives = nodes.map(|node| node.path().join("lib").join(crate::node::DRIVES));
    loops_over(&drives.collect::<Vec<_>>())
}

/// Loop devices over the files in these directories, and over files on those; what lies on another comes first.
///
/// # Errors
/// When the machine's loop devices cannot be listed.
pub fn loops_over(dirs: &[PathBuf]) -> Result<Vec<String>> {
    let mut command = Command::new("losetup");
    command.args([
        "--list",
        "--json",
        "--output",
        "NAME,MAJ:MIN,BACK-MAJ:MIN,BACK-INO",
    ]);
    let listed = process::run(&mut command)?;
    if listed.trim().is_empty() {
        return Ok(Vec::new());
    }
    let listed: Value = serde_json::from_str(&listed)?;
    let all = listed["loopdevices"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let drives: Vec<(String, u64)> = stand_ins(dirs).iter().map(|file| place(file)).collect();
    let mut ours: Vec<&Value> = Vec::new();
    loop {
        let more: Vec<&Value> = all
            .iter()
            .filter(|device| !ours.contains(device))
            .filter(|device| {
                let on = device["back-maj:min"].as_str().unwrap_or_default().trim();
                let inode = number(&device["back-ino"]);
                let on_partition_of = whole(on);
                drives
                    .iter()
                    .any(|(drive, number)| drive == on && *number == inode)
                    || ours
                        .iter()
                        .any(|below| text(&below["maj:min"]) == on_partition_of)
            })
            .collect();
        if more.is_empty() {
            break;
        }
        ours.extend(more);
    }
    Ok(ours
        .iter()
        .rev()
        .map(|device| text(&device["name"]).to_owned())
        .collect())
}

/// The device of which this one is a partition, or itself.
fn whole(device: &str) -> String {
    let sysfs = Path::new("/sys/dev/block").join(device);
    let of = sysfs.join("partition").exists().then(|| {
        let of = fs::canonicalize(sysfs).ok()?.parent()?.join("dev");
        Some(fs::read_to_string(of).ok()?.trim().to_owned())
    });
    of.flatten().unwrap_or_else(|| device.to_owned())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default().trim()
}

/// Versions of `losetup` write numbers as numbers, or as text.
fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .or_else(|| text(value).parse().ok())
        .unwrap_or_default()
}

/// Where a file lies: its device, as `losetup` writes it, and its inode.
fn place(file: &Path) -> (String, u64) {
    fs::metadata(file).map_or_else(
        |_| (String::new(), 0),
        |found| {
            let device = found.dev();
            // As glibc packs them.
            let major = (device >> 8) & 0xfff | (device >> 32) & !0xfff;
            let minor = device & 0xff | (device >> 12) & !0xff;
            (format!("{major}:{minor}"), found.ino())
        },
    )
}

/// Files that stand for drives.
fn stand_ins(dirs: &[PathBuf]) -> Vec<PathBuf> {
    dirs.iter()
        .flat_map(|drives| fs::read_dir(drives).into_iter().flatten().flatten())
        .map(|file| file.path())
        .collect()
}

/// The bed's control group in each hierarchy; with cgroup v2 there is one.
fn control_groups() -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let all = hierarchies
        .chain([root.to_owned()])
        .map(|path| path.join(CONTROL_GROUP));
    all.filter(|group| group.is_dir()).collect()
}

/// Removes the bed's control groups, or those of the node of that name; what stays, and why.
pub fn remove_control_groups(node: &str) -> Vec<String> {
    let mut left = Vec::new();
    for group in control_groups() {
        let group = group.join(node);
        if group.is_dir()
            && let Err(error) = remove_group(&group)
        {
            left.push(format!("{}: {error}", group.display()));
        }
    }
    left
}

fn remove_group(group: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_group(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}
