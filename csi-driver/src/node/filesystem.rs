//! File systems on devices: found, made, checked, mounted, grown.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use crate::error::Error;
use crate::request::capability::FsType;

/// Bytes at a device's start that a file system, or what is left of an unfinished one, would be seen by.
const START: usize = 4096;
/// How far from its start and its end a device is read before it is called blank. Signatures lie within: the furthest are LUKS2's
/// second header, 4 MiB from the start, and VMware's RAID mark, some 1.5 MiB from the end (util-linux, libblkid/src/superblocks).
const FRONT: u64 = (4 << 20) + START as u64;
const BACK: u64 = 2 << 20;
/// What direct I/O asks of memory: no device has larger blocks than that.
const ALIGNMENT: usize = 4096;
/// Where an XFS superblock says that mkfs is at work (`sb_inprogress`). Source: XFS on-disk format, superblock.
const XFS_IN_PROGRESS: usize = 126;

/// What is on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Nothing yet, or what a mkfs that was killed left: it writes the superblock last, or marks it.
    Blank,
    /// A file system that volumes can have.
    Fs(FsType),
    /// Something else, in words.
    Other(String),
}

/// Looks at a device.
///
/// # Errors
/// The kernel's, or blkid's.
pub async fn look(device: &Path) -> Result<Content, Error> {
    let start = read_start(device)?;
    // Most volumes are staged for the first time: to find that out by two reads takes a fraction of what blkid's many take.
    if start.iter().all(|b| *b == 0) && ends_are_zero(device).await? {
        return Ok(Content::Blank);
    }
    let mut command = Command::new("blkid");
    command.args(["-p", "-o", "value", "-s", "TYPE", "-s", "PTTYPE"]);
    let done = run("blkid", command.arg(device), device).await?;
    let found = done.output.lines().next().unwrap_or_default().to_owned();
    Ok(match (done.code, found.as_str()) {
        (Some(0), "xfs") if start[XFS_IN_PROGRESS] != 0 => Content::Blank,
        (Some(0), "xfs") => Content::Fs(FsType::Xfs),
        (Some(0), "ext4") => Content::Fs(FsType::Ext4),
        (Some(0), other) if !other.is_empty() => Content::Other(other.to_owned()),
        (Some(0 | 2), _) if start.iter().all(|b| *b == 0) => Content::Blank,
        (Some(0 | 2), _) => Content::Other("bytes that are no file system".into()),
        (Some(8), _) => Content::Other("signatures that contradict each other".into()),
        _ => return Err(done.failed("blkid", device)),
    })
}

fn read_start(device: &Path) -> Result<[u8; START], Error> {
    let mut start = [0; START];
    File::open(device)
        .and_then(|mut file| file.read_exact(&mut start))
        .map_err(Error::host("cannot read", device))?;
    Ok(start)
}

/// Whether a device reads as zeroes wherever a signature could lie. Past the page cache, in reads as large as can be.
async fn ends_are_zero(device: &Path) -> Result<bool, Error> {
    let path = device.to_owned();
    let reading = tokio::task::spawn_blocking(move || {
        let flags = rustix::fs::OFlags::DIRECT.bits().cast_signed();
        let mut file = File::options().read(true).custom_flags(flags).open(path)?;
        let len = file.seek(SeekFrom::End(0))?;
        let front = FRONT.min(len);
        // Aligned, since all devices of ours are multiples of their blocks.
        let back = BACK.min(len - front);
        Ok::<_, io::Error>(is_zero(&file, 0, front)? && is_zero(&file, len - back, back)?)
    });
    let read = reading.await.unwrap_or_else(|e| Err(e.into()));
    read.map_err(Error::host("cannot read", device))
}

fn is_zero(device: &File, at: u64, len: u64) -> io::Result<bool> {
    let len = len as usize;
    let mut memory = vec![0xff; len + ALIGNMENT];
    let shift = memory.as_ptr().align_offset(ALIGNMENT);
    let bytes = &mut memory[shift..][..len];
    device.read_exact_at(bytes, at)?;
    Ok(bytes.iter().all(|b| *b == 0))
}

/// Makes a file system on a blank device. It discards nothing: on a device that reads as zeroes there is nothing to discard, and
/// reserved space would be given away.
///
/// # Errors
/// mkfs'.
pub async fn make(fs: FsType, device: &Path) -> Result<(), Error> {
    match fs {
        FsType::Xfs => succeed("mkfs.xfs", &["-q", "-f", "-K"], device).await,
        FsType::Ext4 => {
            let options = ["-q", "-F", "-m", "0", "-E", "nodiscard"];
            succeed("mkfs.ext4", &options, device).await
        }
    }
}

/// Repairs what can be repaired without a decision, before it is mounted for writing, and with `fill` grows it to its device's
/// size. XFS does both while it is mounted: its log is replayed by the mount, and [`grow`] comes after it.
///
/// # Errors
/// [`Error::Content`] where a person has to decide.
pub async fn check(volume: &str, fs: FsType, device: &Path, fill: bool) -> Result<(), Error> {
    if fs != FsType::Ext4 {
        return Ok(());
    }
    let mut command = Command::new("e2fsck");
    // Growing what is not mounted asks for a full check.
    command.arg("-p").args(fill.then_some("-f")).arg(device);
    let done = run("e2fsck", &mut command, device).await?;
    match done.code {
        // 1: errors were corrected. Source: e2fsck(8).
        Some(0 | 1) if fill => grow(fs, device, device).await,
        Some(0 | 1) => Ok(()),
        Some(code) if code & 4 != 0 => Err(Error::Content {
            volume: volume.to_owned(),
            why: format!(
                "its ext4 has errors that e2fsck does not repair unasked; run `e2fsck {}` on this node: {}",
                device.display(),
                done.errors()
            ),
        }),
        _ => Err(done.failed("e2fsck", device)),
    }
}

/// Mounts a device.
///
/// # Errors
/// mount(8)'s.
pub async fn mount(
    fs: FsType,
    device: &Path,
    at: &Path,
    options: &[String],
    read_only: bool,
) -> Result<(), Error> {
    let mut all: Vec<&str> = options.iter().map(String::as_str).collect();
    if read_only {
        all.push("ro");
    }
    // A clone has the UUID of its origin, and both may be mounted on one node.
    if fs == FsType::Xfs {
        all.push("nouuid");
    }
    let mut command = Command::new("mount");
    command.args(["-t", fs.name()]);
    if !all.is_empty() {
        command.args(["-o", &all.join(",")]);
    }
    let done = run("mount", command.arg("--").arg(device).arg(at), device).await?;
    match done.code {
        Some(0) => Ok(()),
        // What is on the device was looked at before: of what else that says (EINVAL), the options are left.
        _ if !options.is_empty() && done.complaints.contains("bad option") => {
            let (options, why) = (options.join(","), done.errors());
            Err(Error::invalid(
                "mount_flags",
                format!("{fs} does not take {options:?}: {why}", fs = fs.name()),
            ))
        }
        _ => Err(done.failed("mount", device)),
    }
}

/// Grows a file system to its device's size; one that has it is left as it is. ext4 under a mount grows only where the process has
/// CAP_SYS_RESOURCE.
///
/// # Errors
/// The program's.
pub async fn grow(fs: FsType, device: &Path, mounted_at: &Path) -> Result<(), Error> {
    match fs {
        FsType::Xfs => succeed("xfs_growfs", &["-d"], mounted_at).await,
        FsType::Ext4 => succeed("resize2fs", &[], device).await,
    }
}

/// How a program ended.
struct Done {
    code: Option<i32>,
    output: String,
    complaints: String,
}

impl Done {
    fn errors(&self) -> String {
        let words = match self.complaints.trim() {
            "" => self.output.trim(),
            words => words,
        };
        words.chars().take(1000).collect()
    }

    fn failed(&self, program: &'static str, on: &Path) -> Error {
        Error::Program {
            program,
            path: on.to_owned(),
            words: self.errors(),
        }
    }
}

async fn succeed(program: &'static str, options: &[&str], on: &Path) -> Result<(), Error> {
    let mut command = Command::new(program);
    let done = run(program, command.args(options).arg(on), on).await?;
    match done.code {
        Some(0) => Ok(()),
        _ => Err(done.failed(program, on)),
    }
}

async fn run(program: &'static str, command: &mut Command, on: &Path) -> Result<Done, Error> {
    let output = command
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|error| Error::Program {
            program,
            path: on.to_owned(),
            words: format!("cannot be run: {error}; install it"),
        })?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Done {
        code: output.status.code(),
        output: text(&output.stdout),
        complaints: text(&output.stderr),
    })
}

/// Size in bytes of the device `major:minor`.
///
/// # Errors
/// The kernel's.
pub fn device_size(numbers: &str) -> Result<u64, Error> {
    let path = PathBuf::from(format!("/sys/dev/block/{numbers}/size"));
    let read = std::fs::read_to_string(&path).map_err(Error::host("cannot read", &path))?;
    // In units of 512 bytes, whatever the device's blocks are.
    let sectors = read.trim().parse::<u64>();
    let sectors = sectors.map_err(|_| {
        Error::host("cannot read", &path)(std::io::Error::from(std::io::ErrorKind::InvalidData))
    })?;
    Ok(sectors.saturating_mul(512))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_device_is_blank_where_signatures_could_lie() {
        let len = 16 << 20;
        for (at, blank) in [
            (None, true),
            (Some(FRONT - 1), false),
            (Some(FRONT), true),
            (Some(len - BACK - 1), true),
            (Some(len - BACK), false),
            (Some(len - 1), false),
        ] {
            let file = tempfile::NamedTempFile::new().unwrap();
            file.as_file().set_len(len).unwrap();
            if let Some(at) = at {
                file.as_file().write_all_at(b"x", at).unwrap();
                file.as_file().sync_all().unwrap();
            }
            assert_eq!(ends_are_zero(file.path()).await.unwrap(), blank, "{at:?}");
        }
    }
}
