//! This mount namespace's mounts (`/proc/self/mountinfo`, proc(5)).

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::makedev;

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Where it is.
    pub(crate) point: PathBuf,
    /// The device number that its files show.
    pub(crate) device: u64,
}

/// All mounts, in the order in which they lie on each other.
pub(crate) fn all() -> io::Result<Vec<Mount>> {
    Ok(parse(&fs::read("/proc/self/mountinfo")?))
}

/// The mounts at a path, the topmost last.
pub(crate) fn at(path: &Path) -> io::Result<Vec<Mount>> {
    let path = fs::canonicalize(path)?;
    Ok(all()?
        .into_iter()
        .filter(|mount| mount.point == path)
        .collect())
}

fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let mut fields = line.split(|byte| *byte == b' ');
            let device = std::str::from_utf8(fields.nth(2)?).ok()?;
            let (major, minor) = device.split_once(':')?;
            let point = unescape(fields.nth(1)?);
            Some(Mount {
                point: PathBuf::from(std::ffi::OsStr::from_bytes(&point)),
                device: makedev(major.parse().ok()?, minor.parse().ok()?),
            })
        })
        .collect()
}

/// Space, tab, newline and backslash are written as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal = (*first == b'\\')
            .then(|| after.get(..3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match octal {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_is_read() {
        let text =
            b"36 35 98:0 /mnt1 /mnt\\0402/a rw,noatime master:1 - ext3 /dev/root rw\n\nbad line\n";
        let expected = Mount {
            point: "/mnt 2/a".into(),
            device: makedev(98, 0),
        };
        assert_eq!(parse(text), [expected]);
    }
}
