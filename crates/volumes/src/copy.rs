//! A leg that moves to another drive of the node: copied byte by byte, each piece flushed and read back from the drive before it counts.
//!
//! ```text
//! making/<uuid>/data        what is there so far
//!               copy.json   the record that the leg will have, and through where its bytes are known to be right
//! ```
//! A copy that was killed goes on where it was, once it is asked for again; until it is whole, and its source still as it was, nothing of
//! it is a leg.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, OFlags, RenameFlags, SeekFrom, renameat_with, seek};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use tracing::warn;
use uuid::Uuid;

use crate::drive::{Drive, Inside, LEGS, MAKING};
use crate::error::VolumeError;
use crate::legs::{DATA, check_name, extend, remove_tree};
use crate::record::{self, LegRecord, Provisioning};

/// Bytes that are read, written, flushed and read back at once.
const PIECE: u64 = 8 << 20;
/// How far a copy gets before that is written down.
const MARK: u64 = 64 << 20;
/// What direct I/O is aligned to.
const ALIGNED: usize = 4096;
/// The longest sleep between two looks at whether to go on.
const NAP: Duration = Duration::from_millis(100);

/// Name of a half-made copy's record.
const COPY: &str = "copy.json";

/// A leg that shall be there with another's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyOrder {
    /// Its name on the drive.
    pub name: String,
    /// UID of the volume or snapshot that owns it.
    pub owner_uid: String,
    /// UUID of the bytes that are copied.
    pub of: Uuid,
    /// The attachment generation that both get: who has an older one cannot attach what is copied.
    pub generation: u64,
    /// Bytes a second at most.
    pub rate: u64,
}

/// `copy.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CopyRecord {
    format: u32,
    leg: LegRecord,
    /// Bytes from the start that were read back as they were written.
    through: u64,
}

/// A copy that is not whole.
#[derive(Clone, Debug)]
pub(crate) struct Half {
    record: CopyRecord,
    /// Somebody is at work on it.
    busy: bool,
}

impl Drive {
    /// Copies a leg of `from` to this drive, or goes on with a copy that was begun. `go_on` is told how many bytes are there, and says
    /// whether to go on. Blocks for as long as that takes; neither drive is locked meanwhile, and whoever attaches the source goes first.
    ///
    /// # Errors
    /// [`VolumeError::CopyEnded`] where `go_on` said so, or the source was attached or changed; [`VolumeError::Stale`] and
    /// [`VolumeError::Busy`] where it was before; [`VolumeError::NotFound`], [`VolumeError::NoSpace`], [`VolumeError::NameTaken`],
    /// [`VolumeError::Miscopied`], [`VolumeError::Full`], [`VolumeError::Io`]. The source is never changed.
    pub fn copy(
        &self,
        from: &Drive,
        order: &CopyOrder,
        mut go_on: impl FnMut(u64) -> bool,
    ) -> Result<LegRecord, VolumeError> {
        check_name(&order.name)?;
        let source = from.fence(order)?;
        let half = match self.prepare(order, &source)? {
            Prepared::Whole(record) => return Ok(record),
            Prepared::Half(half) => half,
        };
        let uuid = half.leg.uuid;
        let copied = self
            .transfer(from, order, &source, half, &mut go_on)
            .and_then(|half| self.finish(from, order, &source, half));
        if let Err(error) = &copied {
            let mut inside = self.inside()?;
            let gone = matches!(
                error,
                VolumeError::CopyEnded { .. } | VolumeError::Miscopied { .. }
            );
            match inside.copies.get_mut(&order.name) {
                Some(_) if gone => self.discard(&mut inside, &order.name, uuid),
                Some(half) => half.busy = false,
                None => {}
            }
        }
        copied
    }

    /// Takes away half-made copies that nobody asks for any more. One that is being worked on is left.
    ///
    /// # Errors
    /// [`VolumeError::NotOpen`].
    pub fn drop_copies(&self, wanted: impl Fn(&str) -> bool) -> Result<(), VolumeError> {
        let mut inside = self.inside()?;
        let left: Vec<(String, Uuid)> = inside
            .copies
            .iter()
            .filter(|(name, half)| !half.busy && !wanted(name))
            .map(|(name, half)| (name.clone(), half.record.leg.uuid))
            .collect();
        for (name, uuid) in left {
            self.discard(&mut inside, &name, uuid);
        }
        Ok(())
    }

    fn discard(&self, inside: &mut Inside, name: &str, uuid: Uuid) {
        match remove_tree(&self.aside(MAKING, uuid)) {
            Ok(()) => {
                inside.copies.remove(name);
                inside.ledger.release(uuid);
            }
            Err(error) => warn!(%error, "what is left of a copy stays counted"),
        }
    }

    /// Sees to it that nobody attaches what is copied with a generation of before, and that it shows if anybody does with a newer one.
    fn fence(&self, order: &CopyOrder) -> Result<LegRecord, VolumeError> {
        let mut inside = self.inside()?;
        let mut record = self.with_uuid(&inside, order.of)?.clone();
        if record.attached.is_some() || self.loop_of(&record)?.is_some() {
            return Err(VolumeError::Busy {
                what: format!("leg {}", record.name),
                by: "it is attached".into(),
            });
        }
        if record.attachment_generation > order.generation {
            return Err(VolumeError::Stale {
                name: record.name,
                given: order.generation,
                recorded: record.attachment_generation,
            });
        }
        if record.attachment_generation < order.generation {
            record.attachment_generation = order.generation;
            self.put(&mut inside, record.clone())?;
        }
        inside.copied.insert(record.uuid);
        Ok(record)
    }

    fn with_uuid<'a>(&self, inside: &'a Inside, uuid: Uuid) -> Result<&'a LegRecord, VolumeError> {
        let found = inside.legs.values().find(|record| record.uuid == uuid);
        found.ok_or_else(|| VolumeError::NotFound {
            name: uuid.to_string(),
            drive: self.id,
        })
    }

    fn prepare(&self, order: &CopyOrder, source: &LegRecord) -> Result<Prepared, VolumeError> {
        let mut inside = self.inside()?;
        if let Some(there) = inside.legs.get(&order.name) {
            let same = there.source == Some(order.of)
                && there.owner_uid == order.owner_uid
                && there.attachment_generation == order.generation;
            return match same {
                true => Ok(Prepared::Whole(there.clone())),
                false => Err(VolumeError::NameTaken {
                    name: order.name.clone(),
                    uuid: there.uuid,
                    volume: there.volume.clone(),
                }),
            };
        }
        let leg = LegRecord {
            name: order.name.clone(),
            owner_uid: order.owner_uid.clone(),
            source: Some(order.of),
            attachment_generation: order.generation,
            uuid: Uuid::new_v4(),
            attached: None,
            ..source.clone()
        };
        if let Some(half) = inside.copies.get_mut(&order.name) {
            if half.busy {
                return Err(VolumeError::Busy {
                    what: format!("leg {}", order.name),
                    by: "it is being copied already".into(),
                });
            }
            let uuid = half.record.leg.uuid;
            let same = LegRecord {
                uuid,
                ..leg.clone()
            };
            if half.record.leg == same {
                half.busy = true;
                return Ok(Prepared::Half(half.record.clone()));
            }
            self.discard(&mut inside, &order.name, uuid);
        }
        inside
            .ledger
            .promise(leg.uuid, leg.size, leg.provisioning)
            .map_err(|room| VolumeError::NoSpace {
                drive: self.id,
                room,
            })?;
        let record = CopyRecord {
            format: LegRecord::FORMAT,
            leg,
            through: 0,
        };
        let uuid = record.leg.uuid;
        let half = Half {
            record: record.clone(),
            busy: true,
        };
        inside.copies.insert(order.name.clone(), half);
        match self.lay_out(&record) {
            Ok(()) => Ok(Prepared::Half(record)),
            Err(error) => {
                self.discard(&mut inside, &order.name, uuid);
                Err(error)
            }
        }
    }

    /// The file at its full size, and the record beside it.
    fn lay_out(&self, copy: &CopyRecord) -> Result<(), VolumeError> {
        let aside = self.aside(MAKING, copy.leg.uuid);
        fs::create_dir(&aside).map_err(VolumeError::at(&aside, "making it"))?;
        let path = aside.join(DATA);
        let data = File::create_new(&path).map_err(VolumeError::at(&path, "making it"))?;
        // A snapshot is never written to again: what is no more than a hole stays one.
        let kind = match copy.leg.snapshot {
            Some(_) => Provisioning::Thin,
            None => copy.leg.provisioning,
        };
        extend(&data, copy.leg.size, kind).map_err(VolumeError::at(&path, "sizing it"))?;
        data.sync_all()
            .map_err(VolumeError::at(&path, "flushing it"))?;
        record::write(&aside.join(COPY), copy)?;
        record::sync_directory(&self.root.join(MAKING))
    }

    fn transfer(
        &self,
        from: &Drive,
        order: &CopyOrder,
        source: &LegRecord,
        mut half: CopyRecord,
        go_on: &mut impl FnMut(u64) -> bool,
    ) -> Result<CopyRecord, VolumeError> {
        let ended = |why| VolumeError::CopyEnded {
            name: order.name.clone(),
            why,
        };
        let aside = self.aside(MAKING, half.leg.uuid);
        let (path, source_path) = (aside.join(DATA), from.data(&source.name));
        let direct = OFlags::DIRECT.bits().cast_signed();
        let data = File::options()
            .read(true)
            .write(true)
            .custom_flags(direct)
            .open(&path)
            .map_err(VolumeError::at(&path, "opening it"))?;
        let bytes = File::options()
            .read(true)
            .custom_flags(direct)
            .open(&source_path)
            .map_err(VolumeError::at(&source_path, "opening it"))?;
        let piece = PIECE.min(
            order
                .rate
                .next_multiple_of(ALIGNED as u64)
                .max(ALIGNED as u64),
        );
        let (mut read, mut back) = (Buffer::new(piece), Buffer::new(piece));
        let (begun, mut moved, mut marked) = (Instant::now(), 0, half.through);
        while half.through < half.leg.size {
            let next = next_data(&bytes, half.through, half.leg.size)
                .map_err(VolumeError::at(&source_path, "looking for its data"))?;
            half.through = next;
            let len = piece.min(half.leg.size - next);
            if len > 0 {
                let (read, back) = (read.first(len), back.first(len));
                bytes
                    .read_exact_at(read, next)
                    .map_err(VolumeError::at(&source_path, "reading it"))?;
                data.write_all_at(read, next)
                    .map_err(VolumeError::at(&path, "writing it"))?;
                data.sync_data()
                    .map_err(VolumeError::at(&path, "flushing it"))?;
                data.read_exact_at(back, next)
                    .map_err(VolumeError::at(&path, "reading it back"))?;
                if read != back {
                    return Err(VolumeError::Miscopied {
                        name: order.name.clone(),
                        drive: self.id,
                        offset: next,
                    });
                }
                half.through = next + len;
                moved += len;
            }
            if half.through >= marked + MARK {
                marked = half.through;
                record::write(&aside.join(COPY), &half)?;
            }
            let due = Duration::from_secs_f64(moved as f64 / order.rate.max(1) as f64);
            loop {
                if !go_on(half.through) {
                    // What is there stays, for whoever goes on.
                    record::write(&aside.join(COPY), &half)?;
                    return Err(VolumeError::CopyStopped {
                        name: order.name.clone(),
                    });
                }
                if !from.inside()?.copied.contains(&source.uuid) {
                    return Err(ended("what is copied was attached meanwhile"));
                }
                match due.checked_sub(begun.elapsed()) {
                    Some(left) if !left.is_zero() => std::thread::sleep(left.min(NAP)),
                    _ => break,
                }
            }
        }
        Ok(half)
    }

    /// Makes a whole copy a leg, if its source is still what it was.
    fn finish(
        &self,
        from: &Drive,
        order: &CopyOrder,
        source: &LegRecord,
        half: CopyRecord,
    ) -> Result<LegRecord, VolumeError> {
        let record = half.leg;
        let aside = self.aside(MAKING, record.uuid);
        let path = aside.join(DATA);
        File::open(&path)
            .and_then(|data| data.sync_all())
            .map_err(VolumeError::at(&path, "flushing it"))?;
        record::write(&aside.join(record::LEG), &record)?;
        let (mut theirs, mut inside) = both(from, self)?;
        let unchanged =
            theirs.copied.contains(&source.uuid) && theirs.legs.values().any(|leg| leg == source);
        if !unchanged {
            return Err(VolumeError::CopyEnded {
                name: order.name.clone(),
                why: "what is copied was attached, changed or deleted meanwhile",
            });
        }
        let marker = aside.join(COPY);
        fs::remove_file(&marker).map_err(VolumeError::at(&marker, "removing it"))?;
        let directory = self.leg_directory(&record.name);
        renameat_with(CWD, &aside, CWD, &directory, RenameFlags::NOREPLACE)
            .map_err(VolumeError::at(&directory, "putting the leg in its place"))?;
        record::sync_directory(&self.root.join(LEGS))?;
        inside.copies.remove(&record.name);
        inside.legs.insert(record.name.clone(), record.clone());
        theirs.copied.remove(&source.uuid);
        Ok(record)
    }

    /// A copy that a killed process left, if this is one: it is kept, and counted.
    pub(crate) fn recover_copy(&self, directory: &str) -> bool {
        let path = self.root.join(MAKING).join(directory);
        let Ok(Some(record)) = record::read::<CopyRecord>(&path.join(COPY)) else {
            return false;
        };
        let sized = fs::metadata(path.join(DATA)).is_ok_and(|data| data.len() == record.leg.size);
        let Ok(mut inside) = self.inside() else {
            return false;
        };
        let leg = &record.leg;
        if !sized || leg.uuid.to_string() != directory || inside.copies.contains_key(&leg.name) {
            return false;
        }
        inside
            .ledger
            .count(leg.uuid, leg.size, Some(leg.provisioning));
        let name = leg.name.clone();
        let busy = false;
        inside.copies.insert(name, Half { record, busy });
        true
    }
}

enum Prepared {
    Whole(LegRecord),
    Half(CopyRecord),
}

/// Locks both drives, always in the same order.
fn both<'a>(
    a: &'a Drive,
    b: &'a Drive,
) -> Result<(MutexGuard<'a, Inside>, MutexGuard<'a, Inside>), VolumeError> {
    if a.id < b.id {
        let first = a.inside()?;
        Ok((first, b.inside()?))
    } else {
        let first = b.inside()?;
        Ok((a.inside()?, first))
    }
}

/// Where the next data at or after `offset` begin, or the end: what lies between reads as zeroes.
fn next_data(file: &impl AsFd, offset: u64, end: u64) -> io::Result<u64> {
    match seek(file, SeekFrom::Data(offset)) {
        Ok(at) => Ok((at / ALIGNED as u64 * ALIGNED as u64).clamp(offset, end)),
        Err(Errno::NXIO) => Ok(end),
        Err(error) => Err(error.into()),
    }
}

/// Memory that direct I/O takes.
struct Buffer {
    bytes: Vec<u8>,
    start: usize,
}

impl Buffer {
    fn new(len: u64) -> Self {
        let bytes = vec![0; len as usize + ALIGNED];
        let start = bytes.as_ptr().align_offset(ALIGNED);
        Self { bytes, start }
    }

    fn first(&mut self, len: u64) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + len as usize]
    }
}
