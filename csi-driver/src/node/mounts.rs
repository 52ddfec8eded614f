//! The mounts of this node, as the kernel tells them; binds and their ends.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount_bind, mount_remount, unmount};

use crate::error::Error;

/// The kernel's list.
const TABLE: &str = "/proc/self/mountinfo";
/// Mounts on one path, one over the other, that are taken away in one call.
const MOST: usize = 64;

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// `major:minor` of its file system's device.
    pub device: String,
    /// What of its file system is mounted.
    pub root: PathBuf,
    /// Where.
    pub at: PathBuf,
    /// Options of this mount.
    pub options: Vec<String>,
    /// Type of the file system.
    pub fs: String,
    /// Its device, as it was mounted.
    pub source: PathBuf,
    /// Options of the file system, all its mounts together.
    pub fs_options: Vec<String>,
}

impl Mount {
    /// Whether it refuses writes.
    pub fn read_only(&self) -> bool {
        self.options.iter().any(|o| o == "ro")
    }

    /// Whether both show the same.
    pub fn shows(&self, other: &Self) -> bool {
        self.device == other.device && self.root == other.root
    }

    fn flags(&self) -> MountFlags {
        let flag = |option: &String| match option.as_str() {
            "nosuid" => MountFlags::NOSUID,
            "nodev" => MountFlags::NODEV,
            "noexec" => MountFlags::NOEXEC,
            "noatime" => MountFlags::NOATIME,
            "nodiratime" => MountFlags::NODIRATIME,
            "relatime" => MountFlags::RELATIME,
            _ => MountFlags::empty(),
        };
        self.options.iter().map(flag).collect()
    }
}

/// All mounts, those on top last.
///
/// # Errors
/// The kernel's.
pub fn table() -> Result<Vec<Mount>, Error> {
    let text = fs::read(TABLE).map_err(Error::host("cannot read", TABLE))?;
    Ok(text.split(|b| *b == b'\n').filter_map(parse).collect())
}

/// The mount that shows at a path, if one is made there.
///
/// # Errors
/// As for [`table`].
pub fn at(path: &Path) -> Result<Option<Mount>, Error> {
    Ok(table()?.into_iter().rfind(|mount| mount.at == path))
}

/// One line. Source: proc_pid_mountinfo(5).
fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|b| *b == b' ');
    let mut next = || fields.next().map(unescape);
    let (_, _) = (next()?, next()?);
    let (device, root, at, options) = (next()?, next()?, next()?, next()?);
    // Optional fields end with a dash.
    while next()? != "-" {}
    let (fs, source, fs_options) = (next()?, next()?, next()?);
    let text = |field: OsString| field.to_string_lossy().into_owned();
    let list = |field| text(field).split(',').map(str::to_owned).collect();
    Some(Mount {
        device: text(device),
        root: root.into(),
        at: at.into(),
        options: list(options),
        fs: text(fs),
        source: source.into(),
        fs_options: list(fs_options),
    })
}

/// Spaces and the like are written as a backslash and three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = (*first == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(byte) => {
                plain.push(byte);
                rest = &tail[3..];
            }
            None => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(plain)
}

/// The path under which the kernel knows a path whose parent is there: without symbolic links above its last part.
///
/// # Errors
/// The kernel's; `NotFound` where the parent is gone.
pub fn real(path: &Path) -> io::Result<PathBuf> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    Ok(parent.canonicalize()?.join(name))
}

/// Binds `from` to `to`.
///
/// # Errors
/// The kernel's.
pub fn bind(from: &Path, to: &Path) -> Result<(), Error> {
    mount_bind(from, to).map_err(Error::host("cannot bind a mount to", to))
}

/// Makes one mount refuse writes, whatever its file system does.
///
/// # Errors
/// The kernel's.
pub fn make_read_only(mount: &Mount) -> Result<(), Error> {
    let flags = mount.flags() | MountFlags::BIND | MountFlags::RDONLY;
    let done = mount_remount(&mount.at, flags, "");
    done.map_err(Error::host("cannot make read-only", &mount.at))
}

/// Takes away every mount at a path; none there, or no such path, is fine.
///
/// # Errors
/// The kernel's.
pub fn take_away(path: &Path) -> Result<(), Error> {
    for _ in 0..MOST {
        if at(path)?.is_none() {
            return Ok(());
        }
        match unmount(path, UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            // Somebody else was faster.
            Err(Errno::INVAL | Errno::NOENT) => {}
            Err(error) => return Err(Error::host("cannot unmount", path)(error)),
        }
    }
    Err(Error::host("cannot unmount", path)(Errno::BUSY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_with_whatever_is_in_them() {
        let line = br"36 35 98:0 /mnt1 /mnt\0402\011x rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue";
        let mount = parse(line).unwrap();
        assert_eq!(mount.device, "98:0");
        assert_eq!(mount.at, Path::new("/mnt 2\tx"));
        assert_eq!((mount.fs.as_str(), mount.read_only()), ("ext3", false));
        assert_eq!(mount.flags(), MountFlags::NOATIME);
        for bad in [&b""[..], b"1 2 3", b"36 35 98:0 / /x rw shared:2"] {
            assert_eq!(parse(bad), None);
        }
    }

    #[test]
    fn the_root_is_mounted_and_nothing_is_not() {
        assert!(at(Path::new("/")).unwrap().is_some());
        assert_eq!(at(Path::new("/nowhere")).unwrap(), None);
        take_away(Path::new("/nowhere")).unwrap();
    }
}
