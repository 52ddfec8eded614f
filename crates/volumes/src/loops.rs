//! Loop devices of ours: known by the file they lie on, by device and inode, and by a mark that nobody else writes. Loops that
//! others make, over whatever file, are never touched.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::io::Errno;
use std::os::unix::fs::OpenOptionsExt;
use uuid::Uuid;

use crate::ioctl::{self, LoopInfo};

/// The logical block of every leg and of a drive's file system, in bytes.
pub(crate) const BLOCK: u32 = 4096;
/// How long detaching waits for whoever has the device open.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often others may take a free device before us.
const ATTEMPTS: usize = 64;
const MARK: &str = "strand:";

/// What a loop device is for, written into its `lo_file_name`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The storage partition of a drive that is a plain file.
    Drive(Uuid),
    /// A leg.
    Leg(Uuid),
    /// A leg's read-only device, for readers on other nodes.
    Window(Uuid),
}

impl Purpose {
    fn mark(self) -> [u8; 64] {
        let text = match self {
            Purpose::Drive(id) => format!("{MARK}drive:{id}"),
            Purpose::Leg(id) => format!("{MARK}leg:{id}"),
            Purpose::Window(id) => format!("{MARK}window:{id}"),
        };
        let mut mark = [0; 64];
        mark[..text.len()].copy_from_slice(text.as_bytes());
        mark
    }

    fn of(mark: &[u8; 64]) -> Option<Purpose> {
        let end = mark.iter().position(|byte| *byte == 0)?;
        let text = std::str::from_utf8(&mark[..end]).ok()?;
        let (kind, id) = text.strip_prefix(MARK)?.split_once(':')?;
        let id = id.parse().ok()?;
        match kind {
            "drive" => Some(Purpose::Drive(id)),
            "leg" => Some(Purpose::Leg(id)),
            "window" => Some(Purpose::Window(id)),
            _ => None,
        }
    }
}

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Backing {
    /// Device number of the file's file system.
    pub(crate) device: u64,
    /// Its inode there.
    pub(crate) inode: u64,
    /// Where the part begins.
    pub(crate) offset: u64,
    /// Its bytes; 0 for all to the file's end.
    pub(crate) len: u64,
}

impl Backing {
    /// A part of an open file.
    pub(crate) fn of(file: &File, offset: u64, len: u64) -> io::Result<Backing> {
        let metadata = file.metadata()?;
        Ok(Backing {
            device: metadata.dev(),
            inode: metadata.ino(),
            offset,
            len,
        })
    }
}

/// A loop device of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Loop {
    pub(crate) path: PathBuf,
    /// Its own device number.
    pub(crate) number: u64,
    pub(crate) purpose: Purpose,
    pub(crate) backing: Backing,
    pub(crate) read_only: bool,
    /// It goes when its last opener closes it.
    pub(crate) going: bool,
}

/// All loop devices of ours on this machine.
pub(crate) fn all() -> io::Result<Vec<Loop>> {
    let mut loops = Vec::new();
    for entry in fs::read_dir("/sys/class/block")? {
        let entry = entry?;
        let name = entry.file_name();
        if !entry.path().join("loop/backing_file").exists() {
            continue;
        }
        let path = Path::new("/dev").join(&name);
        match File::open(&path).and_then(|file| Ok((ioctl::loop_info(&file)?, file))) {
            Ok((info, file)) => loops.extend(ours(path, file.metadata()?.rdev(), &info)),
            // Detached since it was listed.
            Err(error) if is_gone(&error) => {}
            // It lies on a file system that was shut down. One drive that fails must not hide the others.
            Err(error) if is_dead(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(loops)
}

/// The loop device over a leg of a drive whose file system does not answer any more: the kernel then tells no inode, but still the
/// path by which the file was opened.
pub(crate) fn unanswering(drive: Uuid, leg: &str) -> io::Result<Option<Loop>> {
    let end = format!("/{drive}/legs/{leg}/data");
    for entry in fs::read_dir("/sys/class/block")? {
        let entry = entry?;
        let Ok(backing) = fs::read_to_string(entry.path().join("loop/backing_file")) else {
            continue;
        };
        if !backing.trim_end().ends_with(&end) {
            continue;
        }
        let path = Path::new("/dev").join(entry.file_name());
        let file = File::open(&path)?;
        if ioctl::loop_info(&file).is_err_and(|error| is_dead(&error)) {
            return Ok(Some(Loop {
                path,
                number: file.metadata()?.rdev(),
                purpose: Purpose::Drive(drive),
                backing: Backing {
                    device: 0,
                    inode: 0,
                    offset: 0,
                    len: 0,
                },
                read_only: false,
                going: false,
            }));
        }
    }
    Ok(None)
}

fn is_dead(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::IO.raw_os_error())
}

fn ours(path: PathBuf, number: u64, info: &LoopInfo) -> Option<Loop> {
    Some(Loop {
        path,
        number,
        purpose: Purpose::of(&info.name)?,
        backing: Backing {
            device: info.device,
            inode: info.inode,
            offset: info.offset,
            len: info.size_limit,
        },
        read_only: info.flags & ioctl::READ_ONLY != 0,
        going: info.flags & ioctl::AUTOCLEAR != 0,
    })
}

/// Nothing is attached, or the device node went with what was.
fn is_gone(error: &io::Error) -> bool {
    [Errno::NXIO, Errno::NODEV, Errno::NOENT]
        .iter()
        .any(|gone| error.raw_os_error() == Some(gone.raw_os_error()))
}

/// Attaches a loop device with direct I/O; the open device, which for [`Purpose::Drive`] goes when it is closed and nothing else
/// has it open.
pub(crate) fn attach(
    file: &File,
    backing: Backing,
    purpose: Purpose,
    read_only: bool,
) -> io::Result<(Loop, File)> {
    let control = File::options()
        .read(true)
        .write(true)
        .open("/dev/loop-control")?;
    let mut flags = ioctl::DIRECT_IO;
    if read_only {
        flags |= ioctl::READ_ONLY;
    }
    if let Purpose::Drive(_) = purpose {
        flags |= ioctl::AUTOCLEAR;
    }
    for _ in 0..ATTEMPTS {
        let path = PathBuf::from(format!("/dev/loop{}", ioctl::free_loop(&control)?));
        let device = File::options().read(true).write(!read_only).open(&path)?;
        let info = LoopInfo::new(backing.offset, backing.len, flags, purpose.mark());
        match ioctl::configure_loop(&device, file, BLOCK, info) {
            Ok(()) => {
                allow_discard(&path);
                let info = ioctl::loop_info(&device)?;
                let number = device.metadata()?.rdev();
                let made = ours(path, number, &info)
                    .ok_or_else(|| io::Error::other("the kernel does not keep the loop's mark"))?;
                return Ok((made, device));
            }
            Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other(
        "every free loop device was taken by somebody else",
    ))
}

/// A limit that somebody has set on this device number outlives what was attached to it. Without it, discard only comes back later: a
/// drive without discard works too. The kernel takes whole granules alone, and tells a limit that is none.
fn allow_discard(path: &Path) {
    let name = path.file_name().unwrap_or_default();
    let queue = Path::new("/sys/class/block").join(name).join("queue");
    let limit = |attribute: &str| -> Option<u64> {
        let text = fs::read_to_string(queue.join(attribute)).ok()?;
        text.trim().parse().ok()
    };
    if let (Some(most), Some(granule @ 1..)) =
        (limit("discard_max_hw_bytes"), limit("discard_granularity"))
    {
        let whole = most - most % granule;
        let _ = fs::write(queue.join("discard_max_bytes"), whole.to_string());
    }
}

/// How detaching ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detached {
    /// It is gone.
    Yes,
    /// It is mounted, or something has it open exclusively: it stays.
    Claimed,
    /// It goes as soon as whoever has it open closes it.
    StillOpen,
}

/// Detaches a loop device and waits until it is gone.
pub(crate) fn detach(found: &Loop) -> io::Result<Detached> {
    let exclusive = OFlags::EXCL.bits().cast_signed();
    let opened = File::options()
        .read(true)
        .custom_flags(exclusive)
        .open(&found.path);
    let device = match opened {
        Ok(device) => device,
        Err(error) if is_gone(&error) => return Ok(Detached::Yes),
        Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {
            return Ok(Detached::Claimed);
        }
        Err(error) => return Err(error),
    };
    if !is_same(found, &device)? {
        return Ok(Detached::Yes);
    }
    match ioctl::clear_loop(&device) {
        Err(error) if !is_gone(&error) => return Err(error),
        _ => drop(device),
    }
    gone(found)
}

/// Waits a while until a loop device that goes by itself has gone.
pub(crate) fn gone(found: &Loop) -> io::Result<Detached> {
    let start = Instant::now();
    let name = found.path.file_name().unwrap_or_default();
    let attached = Path::new("/sys/class/block")
        .join(name)
        .join("loop/backing_file");
    loop {
        // Opening it for a look is harmless: whoever closes it last takes it away.
        let there = attached.exists()
            && File::open(&found.path).is_ok_and(|device| is_same(found, &device).unwrap_or(true));
        if !there {
            return Ok(Detached::Yes);
        }
        if start.elapsed() > PATIENCE {
            return Ok(Detached::StillOpen);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether an open device still is the one that was found: numbers are used again.
fn is_same(found: &Loop, device: &File) -> io::Result<bool> {
    match ioctl::loop_info(device) {
        Ok(info) => {
            let now = ours(found.path.clone(), found.number, &info);
            Ok(now.is_some_and(|now| now.backing == found.backing))
        }
        Err(error) if is_gone(&error) => Ok(false),
        // Of what does not answer only the number is known; nobody else's file is dead at the same device by chance.
        Err(error) if is_dead(&error) => Ok(true),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_marks_are_ours() {
        for purpose in [
            Purpose::Leg(Uuid::from_u128(7)),
            Purpose::Drive(Uuid::from_u128(8)),
            Purpose::Window(Uuid::from_u128(9)),
        ] {
            assert_eq!(Purpose::of(&purpose.mark()), Some(purpose));
        }
        for text in [
            "",
            "/var/lib/kubelet/x",
            "strand:leg:7",
            "strand:other:00000000-0000-0000-0000-000000000007",
        ] {
            let mut mark = [0; 64];
            mark[..text.len()].copy_from_slice(text.as_bytes());
            assert_eq!(Purpose::of(&mark), None, "{text}");
        }
        assert_eq!(Purpose::of(&[b's'; 64]), None);
    }
}
