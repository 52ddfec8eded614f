//! The volatile write cache of an emulated drive, and what a power cut takes of it.
//!
//! QEMU's block driver blklogwrites keeps what a drive is told, in the form of the kernel's dm-log-writes. From this, and from what the drive
//! held when its machine was turned on, its content is made anew as a power cut may leave it: with all that a flush has covered, and
//! of the rest with some, in no order, and torn.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::fs::{FallocateFlags, fallocate};
use serde_json::{Value, json};

/// Bytes of a sector, of the drive and of the log.
const SECTOR: u64 = 512;
/// First and second word of the log. Source of all that stands in it: linux/drivers/md/dm-log-writes.c.
const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;

/// What a power cut took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Writes and discards since the machine was turned on.
    pub told: usize,
    /// Those that no flush had covered.
    pub uncovered: usize,
    /// Those of them that are gone, or torn.
    pub lost: usize,
}

/// The files beside a drive's own.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    base: PathBuf,
    log: PathBuf,
}

impl Cache {
    pub(crate) fn of(drive: &Path) -> Self {
        Self {
            base: drive.with_extension("base"),
            log: drive.with_extension("log"),
        }
    }

    /// Keeps what the drive holds now; its machine is about to be turned on.
    pub(crate) fn begin(&self, drive: &Path) -> Result<()> {
        copy(drive, &self.base)?;
        File::create(&self.log).with_context(|| self.log.display().to_string())?;
        Ok(())
    }

    /// The node `name` above the node `below`, for `-blockdev`.
    pub(crate) fn options(&self, name: &str, below: &str) -> Value {
        json!({
            "driver": "blklogwrites", "node-name": name, "file": below, "log-sector-size": SECTOR,
            "log": {"driver": "file", "filename": self.log},
        })
    }

    /// Makes the drive's content anew; its machine is off.
    pub(crate) fn lose(&self, drive: &Path, seed: u64) -> Result<Lost> {
        let log = File::open(&self.log).with_context(|| self.log.display().to_string())?;
        let entries = read(&log).with_context(|| self.log.display().to_string())?;
        copy(&self.base, drive)?;
        let image = File::options().write(true).open(drive)?;
        let mut lost = Lost::default();
        let covered = covered(&entries);
        for (number, entry) in entries.iter().enumerate() {
            if entry.sectors == 0 {
                continue;
            }
            let kept = match number < covered || entry.flags & FUA != 0 {
                true => entry.sectors,
                false => entry.survives((seed, number)),
            };
            lost.told += 1;
            lost.uncovered += usize::from(number >= covered);
            lost.lost += usize::from(kept < entry.sectors);
            entry.apply(kept, &log, &image)?;
        }
        Ok(lost)
    }
}

/// A write, a discard, or a flush, which has no sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    sector: u64,
    sectors: u64,
    flags: u64,
    /// Where its bytes stand in the log.
    data: u64,
}

impl Entry {
    /// How many of its sectors an entry that no flush has covered leaves: all, none, or its first.
    fn survives(self, chance: impl Hash) -> u64 {
        let mut hasher = DefaultHasher::new();
        chance.hash(&mut hasher);
        let drawn = hasher.finish();
        match (drawn % 3, self.flags & DISCARD != 0) {
            (0, _) => 0,
            (1, false) => (drawn >> 8) % self.sectors,
            _ => self.sectors,
        }
    }

    fn apply(self, sectors: u64, log: &File, image: &File) -> io::Result<()> {
        let (at, len) = (self.sector * SECTOR, sectors * SECTOR);
        if len == 0 {
            return Ok(());
        }
        if self.flags & DISCARD != 0 {
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            return Ok(fallocate(image, hole, at, len)?);
        }
        let mut bytes = vec![0; len as usize];
        log.read_exact_at(&mut bytes, self.data)?;
        image.write_all_at(&bytes, at)
    }
}

/// How many entries from the first on the last flush covers.
fn covered(entries: &[Entry]) -> usize {
    let flush = entries.iter().rposition(|entry| entry.flags & FLUSH != 0);
    flush.map_or(0, |last| last + 1)
}

/// All that is whole in a log.
fn read(log: &File) -> Result<Vec<Entry>> {
    let len = log.metadata()?.len();
    let mut entries = Vec::new();
    let mut at = SECTOR;
    // Killed in the midst of an entry, QEMU leaves zeroes for it, or less than its bytes.
    while let Some([sector, sectors, flags, _]) = words(log, at)? {
        let data = at + SECTOR;
        let bytes = match flags & DISCARD {
            0 => sectors * SECTOR,
            _ => 0,
        };
        let entry = Entry {
            sector,
            sectors,
            flags,
            data,
        };
        if (sectors == 0 && flags == 0) || data + bytes > len {
            break;
        }
        entries.push(entry);
        at = data + bytes;
    }
    // The head is written with the first flush.
    if let Some([magic, version, told, _]) = words(log, 0)?.filter(|head| head[0] != 0) {
        ensure!(
            magic == MAGIC && version == VERSION,
            "no log of writes: {magic:#x} {version}"
        );
        ensure!(
            entries.len() as u64 >= told,
            "{} of {told} entries can be read",
            entries.len()
        );
    }
    Ok(entries)
}

fn words(log: &File, at: u64) -> io::Result<Option<[u64; 4]>> {
    let mut bytes = [0; 32];
    match log.read_exact_at(&mut bytes, at) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    Ok(Some(words))
}

/// Copies a file, its holes as holes.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut cp = Command::new("cp");
    let status = cp.arg("--sparse=always").args([from, to]).status();
    let status = status.context("cp cannot be started")?;
    ensure!(
        status.success(),
        "cp {} {}: {status}",
        from.display(),
        to.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log of these entries, each write of bytes that are its number.
    fn log(dir: &Path, entries: &[(u64, u64, u64)]) -> Cache {
        let drive = dir.join("drive.raw");
        File::create(&drive).unwrap().set_len(64 * SECTOR).unwrap();
        let cache = Cache::of(&drive);
        cache.begin(&drive).unwrap();
        let log = File::options().write(true).open(&cache.log).unwrap();
        let mut at = SECTOR;
        for (number, (sector, sectors, flags)) in (1..).zip(entries) {
            let head = [*sector, *sectors, *flags, 0]
                .map(u64::to_le_bytes)
                .concat();
            log.write_all_at(&head, at).unwrap();
            let bytes = match flags & DISCARD {
                0 => vec![number; (sectors * SECTOR) as usize],
                _ => Vec::new(),
            };
            log.write_all_at(&bytes, at + SECTOR).unwrap();
            at += SECTOR + bytes.len() as u64;
            log.set_len(at).unwrap();
        }
        let head = [MAGIC, VERSION, entries.len() as u64, SECTOR];
        let head = head.map(u64::to_le_bytes).concat();
        log.write_all_at(&head, 0).unwrap();
        cache
    }

    fn sectors(dir: &Path) -> Vec<u8> {
        let bytes = std::fs::read(dir.join("drive.raw")).unwrap();
        bytes.iter().step_by(SECTOR as usize).copied().collect()
    }

    #[test]
    fn what_a_flush_covered_stays_and_the_rest_may_go_or_be_torn() {
        let dir = tempfile::tempdir().unwrap();
        let entries = [
            (0, 4, 0),
            (4, 4, 0),
            (4, 2, DISCARD),
            (0, 0, FLUSH),
            (8, 4, 0),
            (12, 1, FUA),
            (0, 1, DISCARD),
        ];
        let cache = log(dir.path(), &entries);
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..64 {
            let lost = cache.lose(&dir.path().join("drive.raw"), seed).unwrap();
            let found = sectors(dir.path());
            assert_eq!(found[1..8], [1, 1, 1, 0, 0, 2, 2]);
            assert_eq!(found[12], 6, "written through");
            assert_eq!((lost.told, lost.uncovered), (6, 3));
            let whole = found[0] == 0 && found[8..12] == [5; 4];
            assert_eq!(whole, lost.lost == 0);
            seen.insert((found[0], found[8..12].to_vec()));
        }
        for (first, written) in [(0, [0; 4]), (1, [5; 4]), (0, [5, 5, 0, 0])] {
            assert!(seen.contains(&(first, written.to_vec())), "{seen:?}");
        }
    }

    #[test]
    fn a_log_that_ends_in_the_midst_is_read_up_to_there() {
        let dir = tempfile::tempdir().unwrap();
        let cache = log(dir.path(), &[(0, 1, 0), (0, 0, FLUSH), (1, 8, 0)]);
        let log = File::options().write(true).open(&cache.log).unwrap();
        log.set_len(log.metadata().unwrap().len() - 1).unwrap();
        log.write_all_at(&2_u64.to_le_bytes(), 16).unwrap();
        let drive = dir.path().join("drive.raw");
        assert_eq!(cache.lose(&drive, 1).unwrap().told, 1);
        assert_eq!(sectors(dir.path())[..2], [1, 0]);

        log.write_all_at(&3_u64.to_le_bytes(), 16).unwrap();
        assert!(cache.lose(&drive, 1).is_err(), "an entry is missing");
    }
}
