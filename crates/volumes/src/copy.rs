//! A leg that moves to another drive: copied byte by byte, each piece flushed and read back from the drive before it counts. It is read where it
//! lies, or, from another node, through the device as which that one exports it ([`crate::fetch`]).
//!
//! ```text
//! making/<uuid>/data        what is there so far
//!               copy.json   the record that the leg will have, and through where its bytes are known to be right
//! ```
//! A copy that was killed goes on where it was, once it is asked for again; until it is whole, and its source still as it was, nothing of
//! it is a leg.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::drive::{Drive, Inside, LEGS, MAKING};
use crate::error::VolumeError;
use crate::legs::{DATA, check_name, extend};
use crate::record::{self, LegRecord, Provisioning};

mod buffer;
mod half;
mod source;

use buffer::Buffer;
use source::Here;
pub(crate) use source::Source;

/// Bytes that are read, written, flushed and read back at once.
const PIECE: u64 = 8 << 20;
/// How far a copy gets before that is written down.
const MARK: u64 = 64 << 20;
/// What direct I/O is aligned to.
const ALIGNED: usize = 4096;
pub(crate) const DIRECT: i32 = OFlags::DIRECT.bits().cast_signed();
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
    pub(crate) leg: LegRecord,
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
        let mut half = match self.prepare(order, &source)? {
            Prepared::Whole(record) => return Ok(record),
            Prepared::Half(half) => half,
        };
        let copied = self
            .transfer(&Here(from, &source), order, &mut half, &mut go_on)
            .and_then(|()| self.finish(from, order, &source, &half));
        self.settle(order, half, copied)
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

    pub(crate) fn prepare(
        &self,
        order: &CopyOrder,
        source: &LegRecord,
    ) -> Result<Prepared, VolumeError> {
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

    pub(crate) fn transfer(
        &self,
        from: &impl Source,
        order: &CopyOrder,
        half: &mut CopyRecord,
        go_on: &mut impl FnMut(u64) -> bool,
    ) -> Result<(), VolumeError> {
        let aside = self.aside(MAKING, half.leg.uuid);
        let path = aside.join(DATA);
        let data = File::options()
            .read(true)
            .write(true)
            .custom_flags(DIRECT)
            .open(&path)
            .map_err(VolumeError::at(&path, "opening it"))?;
        let lost = |action| move |source| from.lost(action, source);
        let bytes = from.open().map_err(lost("opening it"))?;
        let piece = PIECE.min(
            order
                .rate
                .next_multiple_of(ALIGNED as u64)
                .max(ALIGNED as u64),
        );
        let (mut read, mut back) = (Buffer::new(piece), Buffer::new(piece));
        let (begun, mut moved, mut marked) = (Instant::now(), 0, half.through);
        while half.through < half.leg.size {
            let next = from
                .next_data(&bytes, half.through, half.leg.size)
                .map_err(lost("looking for its data"))?;
            half.through = next;
            let len = piece.min(half.leg.size - next);
            if len > 0 {
                let (read, back) = (read.first(len), back.first(len));
                bytes
                    .read_exact_at(read, next)
                    .map_err(lost("reading it"))?;
                // What was never written reads as zeroes, and takes no room.
                if read.iter().any(|byte| *byte != 0) || !is_blank(&data, back, next, &path)? {
                    data.write_all_at(read, next)
                        .map_err(VolumeError::at(&path, "writing it"))?;
                    data.sync_data()
                        .map_err(VolumeError::at(&path, "flushing it"))?;
                    data.read_exact_at(back, next)
                        .map_err(VolumeError::at(&path, "reading it back"))?;
                }
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
                record::write(&aside.join(COPY), half)?;
            }
            let due = Duration::from_secs_f64(moved as f64 / order.rate.max(1) as f64);
            loop {
                if !go_on(half.through) {
                    // What is there stays, for whoever goes on.
                    record::write(&aside.join(COPY), half)?;
                    return Err(VolumeError::CopyStopped {
                        name: order.name.clone(),
                    });
                }
                if !from.is_still()? {
                    return Err(VolumeError::CopyEnded {
                        name: order.name.clone(),
                        why: "what is copied was attached meanwhile",
                    });
                }
                match due.checked_sub(begun.elapsed()) {
                    Some(left) if !left.is_zero() => std::thread::sleep(left.min(NAP)),
                    _ => break,
                }
            }
        }
        Ok(())
    }

    /// Makes a whole copy a leg, if its source is still what it was.
    fn finish(
        &self,
        from: &Drive,
        order: &CopyOrder,
        source: &LegRecord,
        half: &CopyRecord,
    ) -> Result<LegRecord, VolumeError> {
        self.flush(half)?;
        let (mut theirs, mut inside) = both(from, self)?;
        let unchanged =
            theirs.copied.contains(&source.uuid) && theirs.legs.values().any(|leg| leg == source);
        if !unchanged {
            return Err(VolumeError::CopyEnded {
                name: order.name.clone(),
                why: "what is copied was attached, changed or deleted meanwhile",
            });
        }
        let record = self.put_in_place(&mut inside, half.leg.clone())?;
        theirs.copied.remove(&source.uuid);
        Ok(record)
    }

    /// Flushes all of a copy, and writes the record that it has as a leg.
    pub(crate) fn flush(&self, half: &CopyRecord) -> Result<(), VolumeError> {
        let aside = self.aside(MAKING, half.leg.uuid);
        let path = aside.join(DATA);
        File::open(&path)
            .and_then(|data| data.sync_all())
            .map_err(VolumeError::at(&path, "flushing it"))?;
        record::write(&aside.join(record::LEG), &half.leg)
    }

    /// Makes a copy that was flushed a leg.
    pub(crate) fn put_in_place(
        &self,
        inside: &mut Inside,
        record: LegRecord,
    ) -> Result<LegRecord, VolumeError> {
        let aside = self.aside(MAKING, record.uuid);
        let marker = aside.join(COPY);
        fs::remove_file(&marker).map_err(VolumeError::at(&marker, "removing it"))?;
        let directory = self.leg_directory(&record.name);
        renameat_with(CWD, &aside, CWD, &directory, RenameFlags::NOREPLACE)
            .map_err(VolumeError::at(&directory, "putting the leg in its place"))?;
        record::sync_directory(&self.root.join(LEGS))?;
        inside.copies.remove(&record.name);
        inside.legs.insert(record.name.clone(), record.clone());
        Ok(record)
    }
}

pub(crate) enum Prepared {
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

/// Whether a piece of a half-made copy, which is read into `back`, is all zeroes.
fn is_blank(data: &File, back: &mut [u8], at: u64, path: &Path) -> Result<bool, VolumeError> {
    data.read_exact_at(back, at)
        .map_err(VolumeError::at(path, "reading what is there"))?;
    Ok(back.iter().all(|byte| *byte == 0))
}
