//! The legs of one drive: made, copied, grown, deleted, each so that it can be killed anywhere and done again.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{CWD, FallocateFlags, RenameFlags, fallocate, renameat_with};
use rustix::io::Errno;
use tracing::warn;
use uuid::Uuid;

use crate::drive::{DELETING, Drive, Inside, LEGS, MAKING, names, write_record};
use crate::error::VolumeError;
use crate::ioctl::share;
use crate::loops::BLOCK;
use crate::record::{self, ArrayRecord, LegRecord, Provisioning, Redundancy, VolumeMode};

/// Name of a leg's bytes in its directory.
pub(crate) const DATA: &str = "data";

/// A leg that shall be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegOrder {
    /// Its name on the drive: 1 to 253 of `a-z0-9.-`, beginning with a letter or digit.
    pub name: String,
    /// The volume that it belongs to, or that it is a snapshot of.
    pub volume: String,
    /// The snapshot that it belongs to: then it needs a source and is never attached.
    pub snapshot: Option<String>,
    /// Where a pod sees it, if it is that pod's scratch space.
    pub scratch: Option<PathBuf>,
    /// UID of the volume or snapshot that owns it.
    pub owner_uid: String,
    /// Its place in the volume.
    pub index: u32,
    /// Bytes; made a multiple of 4096, and at least those of its source.
    pub size: u64,
    /// Whether its space is reserved; the same for all legs of a drive.
    pub provisioning: Provisioning,
    /// What it is a part of.
    pub redundancy: Redundancy,
    /// Of which array; none where its bytes are the volume's.
    pub array: Option<ArrayRecord>,
    /// What its volume is used as, if that is known.
    pub mode: Option<VolumeMode>,
    /// What it begins as.
    pub source: LegSource,
}

/// What a leg begins as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LegSource {
    /// Zeroes.
    Zeroes,
    /// A copy of a leg of this drive, as it is at one instant between two writes: what a power cut would leave of it. It shares its blocks
    /// until either is rewritten.
    Leg {
        /// Its name.
        name: String,
        /// Bytes at its beginning that are not copied, a multiple of 4096: what md keeps there of a mirror's leg.
        skip: u64,
    },
}

/// A leg as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegState {
    /// Its record.
    pub record: LegRecord,
    /// Bytes that it takes on the drive now, shared ones counted in full.
    pub allocated: u64,
}

impl Drive {
    /// Makes a leg, or finds it as it was made for the same owner. The whole of it is there, durably, or nothing.
    ///
    /// # Errors
    /// [`VolumeError::NoSpace`], [`VolumeError::NameTaken`], [`VolumeError::BadName`], [`VolumeError::BadOrder`],
    /// [`VolumeError::NotFound`] of the source; nothing is left on the drive then. [`VolumeError::Full`], [`VolumeError::Io`].
    pub fn make(&self, order: &LegOrder) -> Result<LegRecord, VolumeError> {
        check_name(&order.name)?;
        let mut inside = self.inside()?;
        if let Some(there) = inside.legs.get(&order.name) {
            let same = there.volume == order.volume
                && there.snapshot == order.snapshot
                && there.owner_uid == order.owner_uid
                && there.index == order.index;
            return match same {
                true => Ok(there.clone()),
                false => Err(VolumeError::NameTaken {
                    name: order.name.clone(),
                    uuid: there.uuid,
                    volume: there.volume.clone(),
                }),
            };
        }
        let record = self.planned(&inside, order)?;
        inside
            .ledger
            .promise(record.uuid, record.size, record.provisioning)
            .map_err(|room| VolumeError::NoSpace {
                drive: self.id,
                room,
            })?;
        match self.make_promised(order, record.clone()) {
            Ok(record) => {
                inside.legs.insert(record.name.clone(), record.clone());
                Ok(record)
            }
            Err(error) => {
                let aside = self.aside(MAKING, record.uuid);
                match remove_tree(&aside) {
                    Ok(()) => inside.ledger.release(record.uuid),
                    Err(error) => {
                        warn!(%error, "what is left of a leg that was not made stays counted");
                    }
                }
                Err(error)
            }
        }
    }

    fn planned(&self, inside: &Inside, order: &LegOrder) -> Result<LegRecord, VolumeError> {
        let bad = |why| VolumeError::BadOrder {
            name: order.name.clone(),
            why,
        };
        let mut size = order.size;
        let source = match &order.source {
            LegSource::Zeroes if order.snapshot.is_some() => {
                return Err(bad("a snapshot is taken of a leg"));
            }
            LegSource::Zeroes => None,
            LegSource::Leg { name, skip } => {
                let source = self.known(inside, name)?;
                size = size.max(source.size.saturating_sub(*skip));
                Some(source.uuid)
            }
        };
        let size = size
            .checked_next_multiple_of(u64::from(BLOCK))
            .filter(|size| (1..=i64::MAX.cast_unsigned()).contains(size))
            .ok_or_else(|| bad("it must have 1 byte or more, and less than 8 EiB"))?;
        Ok(LegRecord {
            format: LegRecord::FORMAT,
            name: order.name.clone(),
            uuid: Uuid::new_v4(),
            volume: order.volume.clone(),
            snapshot: order.snapshot.clone(),
            scratch: order.scratch.clone(),
            owner_uid: order.owner_uid.clone(),
            pool_id: self.pool,
            index: order.index,
            size,
            redundancy: order.redundancy,
            array: order.array,
            provisioning: order.provisioning,
            mode: order.mode,
            source,
            made_at_ms: now_ms(),
            attachment_generation: 0,
            writer_generation: Some(0),
            attached: None,
        })
    }

    fn make_promised(
        &self,
        order: &LegOrder,
        mut record: LegRecord,
    ) -> Result<LegRecord, VolumeError> {
        let aside = self.aside(MAKING, record.uuid);
        fs::create_dir(&aside).map_err(VolumeError::at(&aside, "making it"))?;
        let path = aside.join(DATA);
        let data = File::create_new(&path).map_err(VolumeError::at(&path, "making it"))?;
        if let LegSource::Leg { name, skip } = &order.source {
            let source = self.data(name);
            let from = File::open(&source).map_err(VolumeError::at(&source, "opening it"))?;
            share(&data, &from, *skip).map_err(VolumeError::at(&source, "sharing its blocks"))?;
            record.made_at_ms = now_ms();
        }
        // A snapshot is never written: it needs its size, and no space beyond what it shares.
        let provisioning = match record.snapshot {
            Some(_) => Provisioning::Thin,
            None => record.provisioning,
        };
        extend(&data, record.size, provisioning).map_err(VolumeError::at(&path, "sizing it"))?;
        data.sync_all()
            .map_err(VolumeError::at(&path, "flushing it"))?;
        record::write(&aside.join(record::LEG), &record)?;
        let directory = self.leg_directory(&record.name);
        renameat_with(CWD, &aside, CWD, &directory, RenameFlags::NOREPLACE)
            .map_err(VolumeError::at(&directory, "putting the leg in its place"))?;
        record::sync_directory(&self.root.join(LEGS))?;
        Ok(record)
    }

    /// Makes a leg larger, also while it is attached; its device shows the new size when this returns. A size that it has or exceeds
    /// is done already.
    ///
    /// # Errors
    /// [`VolumeError::NoSpace`] naming what it can grow to; [`VolumeError::NotFound`]; [`VolumeError::BadOrder`];
    /// [`VolumeError::Full`], [`VolumeError::Io`].
    pub fn grow_leg(&self, name: &str, size: u64) -> Result<LegRecord, VolumeError> {
        let mut inside = self.inside()?;
        let mut record = self.known(&inside, name)?.clone();
        let bad = |why| VolumeError::BadOrder {
            name: name.to_owned(),
            why,
        };
        if record.snapshot.is_some() {
            return Err(bad("a snapshot does not grow"));
        }
        let size = size
            .checked_next_multiple_of(u64::from(BLOCK))
            .filter(|size| *size <= i64::MAX.cast_unsigned())
            .ok_or_else(|| bad("it must have less than 8 EiB"))?;
        if size > record.size {
            inside
                .ledger
                .promise(record.uuid, size, record.provisioning)
                .map_err(|room| VolumeError::NoSpace {
                    drive: self.id,
                    room,
                })?;
            // The promise stays where the file cannot be written: it may have grown in part.
            record.size = size;
            self.put(&mut inside, record.clone())?;
        }
        self.settle_size(&record)?;
        self.resize_device(&record)?;
        Ok(record)
    }

    /// Takes a leg's bytes away for good. `uuid` says which are meant. Done already where neither name nor UUID are on the drive.
    ///
    /// # Errors
    /// [`VolumeError::NameTaken`] where the name is other bytes'; [`VolumeError::Busy`] while it is attached;
    /// [`VolumeError::Io`].
    pub fn delete(&self, name: &str, uuid: Uuid) -> Result<(), VolumeError> {
        let mut inside = self.inside()?;
        let Some(record) = inside.legs.get(name).cloned() else {
            return Ok(());
        };
        if record.uuid != uuid {
            return Err(VolumeError::NameTaken {
                name: name.to_owned(),
                uuid: record.uuid,
                volume: record.volume,
            });
        }
        if let Some(found) = self.loop_of(&record)? {
            return Err(VolumeError::Busy {
                what: format!("leg {name}"),
                by: format!("it is attached at {}", found.path.display()),
            });
        }
        // The place is the mark: it needs no room, so that a full drive can be emptied.
        let directory = self.leg_directory(name);
        let aside = self.aside(DELETING, uuid);
        fs::rename(&directory, &aside)
            .map_err(VolumeError::at(&directory, "marking it for deletion"))?;
        inside.legs.remove(name);
        for directory in [DELETING, LEGS] {
            record::sync_directory(&self.root.join(directory))?;
        }
        remove_tree(&aside)?;
        inside.ledger.release(uuid);
        Ok(())
    }

    /// Writes into a leg's record what its object says: another owner, which is a volume or snapshot object that was made again, or an
    /// import; and what it is used as, where that was not known.
    ///
    /// # Errors
    /// [`VolumeError::NotFound`], [`VolumeError::Full`], [`VolumeError::Io`].
    pub fn set_owner(
        &self,
        name: &str,
        owner_uid: &str,
        mode: Option<VolumeMode>,
    ) -> Result<(), VolumeError> {
        let mut inside = self.inside()?;
        let known = self.known(&inside, name)?;
        let record = LegRecord {
            owner_uid: owner_uid.to_owned(),
            mode: known.mode.or(mode),
            ..known.clone()
        };
        if record != *known {
            self.put(&mut inside, record)?;
        }
        Ok(())
    }

    /// All legs, by name.
    ///
    /// # Errors
    /// [`VolumeError::Io`].
    pub fn legs(&self) -> Result<Vec<LegState>, VolumeError> {
        let inside = self.inside()?;
        let state = |record: &LegRecord| {
            Ok(LegState {
                record: record.clone(),
                allocated: self.allocated(&record.name)?,
            })
        };
        inside.legs.values().map(state).collect()
    }

    /// Bytes that a leg takes on the drive now, shared ones counted in full.
    ///
    /// # Errors
    /// [`VolumeError::Io`].
    pub fn allocated(&self, name: &str) -> Result<u64, VolumeError> {
        let data = self.data(name);
        let metadata = fs::metadata(&data).map_err(VolumeError::at(&data, "looking at it"))?;
        Ok(metadata.blocks() * 512)
    }

    /// The records of all legs, by name.
    ///
    /// # Errors
    /// [`VolumeError::NotOpen`].
    pub fn records(&self) -> Result<Vec<LegRecord>, VolumeError> {
        Ok(self.inside()?.legs.values().cloned().collect())
    }

    /// Where a leg's bytes are, for whoever copies them while it is not attached.
    pub fn data(&self, name: &str) -> PathBuf {
        self.leg_directory(name).join(DATA)
    }

    pub(crate) fn leg_directory(&self, name: &str) -> PathBuf {
        self.root.join(LEGS).join(name)
    }

    pub(crate) fn aside(&self, directory: &str, uuid: Uuid) -> PathBuf {
        self.root.join(directory).join(uuid.to_string())
    }

    pub(crate) fn known<'a>(
        &self,
        inside: &'a Inside,
        name: &str,
    ) -> Result<&'a LegRecord, VolumeError> {
        inside.legs.get(name).ok_or_else(|| VolumeError::NotFound {
            name: name.to_owned(),
            drive: self.id,
        })
    }

    /// Writes a leg's record, to the drive and then to what is known.
    pub(crate) fn put(&self, inside: &mut Inside, record: LegRecord) -> Result<(), VolumeError> {
        let directory = self.leg_directory(&record.name);
        write_record(&self.root, &directory.join(record::LEG), &record)?;
        inside.legs.insert(record.name.clone(), record);
        Ok(())
    }

    /// Makes a leg's file as large as its record says.
    fn settle_size(&self, record: &LegRecord) -> Result<(), VolumeError> {
        let path = self.data(&record.name);
        let settle = || {
            let data = File::options().write(true).open(&path)?;
            if data.metadata()?.len() < record.size {
                extend(&data, record.size, record.provisioning)?;
                data.sync_all()?;
            }
            Ok::<_, std::io::Error>(())
        };
        settle().map_err(VolumeError::at(&path, "growing it"))
    }

    /// What a process that was killed left: half-made and half-deleted legs go, half-grown ones are grown, loops are swept. A damaged
    /// leg is counted at what its file has, and left alone.
    pub(crate) fn recover(&self) -> Result<(), VolumeError> {
        for directory in [MAKING, DELETING] {
            let directory = self.root.join(directory);
            for name in names(&directory)? {
                if !directory.ends_with(MAKING) || !self.recover_copy(&name) {
                    remove_tree(&directory.join(name))?;
                }
            }
        }
        let directory = self.root.join(LEGS);
        for name in names(&directory)? {
            let leg = directory.join(&name);
            let len = fs::metadata(leg.join(DATA)).map_or(0, |metadata| metadata.len());
            let record = match record::read::<LegRecord>(&leg.join(record::LEG)) {
                Ok(Some(record)) if record.name == name && leg.join(DATA).is_file() => record,
                other => {
                    warn!(path = %leg.display(), ?other, "this is not a leg as Strand leaves it; it is left alone and counted. See docs/storage.md");
                    self.inside()?.ledger.count(Uuid::new_v4(), len, None);
                    continue;
                }
            };
            let mut inside = self.inside()?;
            let size = record.size.max(len);
            let kind = Some(record.provisioning);
            inside.ledger.count(record.uuid, size, kind);
            inside.legs.insert(name, record.clone());
            drop(inside);
            if let Err(error) = self.settle_size(&record) {
                warn!(%error, "a leg that was growing stays as it is");
            }
        }
        self.sweep_loops()
    }
}

/// Gives a file its size, which it has not yet or already: with its space reserved and unwritten, or sparse.
pub(crate) fn extend(data: &File, size: u64, provisioning: Provisioning) -> std::io::Result<()> {
    match provisioning {
        // Of the part that is new alone: the file system wants room for all that is named, whether there is something already or not.
        Provisioning::Thick => match data.metadata()?.len() {
            len if len >= size => Ok(()),
            len => Ok(fallocate(data, FallocateFlags::empty(), len, size - len)?),
        },
        Provisioning::Thin => data.set_len(size),
    }
}

/// Removes a directory of two files, or what is left of it.
pub(crate) fn remove_tree(path: &Path) -> Result<(), VolumeError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.raw_os_error() != Some(Errno::NOENT.raw_os_error()) => {
            Err(VolumeError::at(path, "removing it")(error))
        }
        _ => Ok(()),
    }
}

/// A leg's name is a file name, and an object's name.
pub(crate) fn check_name(name: &str) -> Result<(), VolumeError> {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let good = (1..=253).contains(&name.len())
        && name.bytes().next().is_some_and(letter)
        && name
            .bytes()
            .all(|byte| letter(byte) || matches!(byte, b'-' | b'.'));
    match good {
        true => Ok(()),
        false => Err(VolumeError::BadName {
            name: name.chars().take(300).collect(),
        }),
    }
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_name_leaves_its_directory(name in any::<String>()) {
            if check_name(&name).is_ok() {
                let path = Path::new("/legs").join(&name);
                prop_assert_eq!(path.parent(), Some(Path::new("/legs")));
            }
        }
    }

    #[test]
    fn names_are_those_of_objects() {
        for good in ["a", "pvc-1-0", "pvc-1-0.1", "9"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        let long = "a".repeat(254);
        for bad in [
            "",
            ".",
            "..",
            "-a",
            "a/b",
            "A",
            "a b",
            "../x",
            "a\0",
            long.as_str(),
        ] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
