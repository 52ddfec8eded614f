//! Legs as block devices on this node: loop devices with direct I/O and 4096-byte blocks.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use tracing::{info, warn};

use crate::drive::Drive;
use crate::durable::Durable;
use crate::error::VolumeError;
use crate::ioctl;
use crate::legs::DATA;
use crate::limits::{IoLimits, Throttle};
use crate::loops::{self, Backing, Detached, Loop, Purpose};
use crate::record::{AttachmentRecord, LegRecord};
use crate::windows;

/// Who has a leg's device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum User {
    /// A consumer on this node.
    Here,
    /// Consumers on other nodes, through whoever exports it.
    Elsewhere,
}

/// A leg as a block device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The leg's name.
    pub leg: String,
    /// The device. Its name may be another one's after the next reboot: do not store it.
    pub device: PathBuf,
    /// Its device number.
    pub number: u64,
    /// The attachment generation.
    pub generation: u64,
    /// For reading only.
    pub read_only: bool,
}

impl Drive {
    /// Makes a leg a block device, or finds the one that it is. `generation` is the volume's attachment generation: what is older than
    /// the leg has seen is refused, but for readers since its last writer; a newer one takes over what is attached in the same way.
    ///
    /// # Errors
    /// [`VolumeError::Stale`]; [`VolumeError::Busy`] while it is attached in the other way and in use, or lent; [`VolumeError::NotFound`];
    /// [`VolumeError::BadOrder`] for a snapshot; [`VolumeError::Io`].
    pub fn attach(
        &self,
        name: &str,
        generation: u64,
        read_only: bool,
    ) -> Result<Attached, VolumeError> {
        self.give(User::Here, name, generation, read_only)
    }

    /// The same, for whoever exports it to other nodes. Readers here and there can have it at once; a writer has it alone.
    ///
    /// # Errors
    /// As for [`Self::attach`], but that a snapshot can be lent for reading; [`VolumeError::Busy`] while it is attached on this node.
    pub fn lend(
        &self,
        name: &str,
        generation: u64,
        read_only: bool,
    ) -> Result<Attached, VolumeError> {
        self.give(User::Elsewhere, name, generation, read_only)
    }

    fn give(
        &self,
        user: User,
        name: &str,
        generation: u64,
        read_only: bool,
    ) -> Result<Attached, VolumeError> {
        let mut inside = self.inside()?;
        let mut record = self.known(&inside, name)?.clone();
        // Lent for reading it is copied to another node.
        let is_copied = user == User::Elsewhere && read_only;
        if record.snapshot.is_some() && !is_copied {
            return Err(VolumeError::BadOrder {
                name: name.to_owned(),
                why: "a snapshot is not attached: make a leg from it",
            });
        }
        // Readers that share it came with a generation each; of those in a record from before it was written which ones came after the
        // last writer, all did.
        let shared = record.attached.is_some_and(|there| there.read_only) && read_only;
        let came_after = shared && record.writer_generation.is_none();
        if generation < record.oldest(read_only) && !came_after {
            return Err(VolumeError::Stale {
                name: name.to_owned(),
                given: generation,
                recorded: record.attachment_generation,
            });
        }
        let mut found = self.loop_of(&record)?;
        let there = record.attached.filter(|_| found.is_some());
        let other = there.and_then(|there| match user {
            User::Here if there.lent => {
                Some("it is lent to another node, and has to be taken back first")
            }
            User::Elsewhere if there.here => {
                Some("it is attached on this node, and has to be detached here first")
            }
            _ => None,
        });
        if let Some(by) = other.filter(|_| !shared) {
            return Err(VolumeError::Busy {
                what: format!("leg {name}"),
                by: by.into(),
            });
        }
        if let Some(earlier) = found.take_if(|found| found.read_only != read_only || found.going) {
            take_away(&self.throttle, name, &earlier)?;
        }
        // Whoever copies it sees that it may be written to now.
        inside.copied.remove(&record.uuid);
        // Recorded first: a loop that no record speaks of is one that was left behind.
        let before = record.clone();
        record.attachment_generation = generation.max(record.attachment_generation);
        record.writer_generation = match read_only {
            // Of those that it already has, none came before the last writer, and any may come again.
            true if came_after => None,
            true => record
                .writer_generation
                .or(Some(before.attachment_generation)),
            false => Some(record.attachment_generation),
        };
        let kept = there.filter(|_| found.is_some());
        record.attached = Some(AttachmentRecord {
            read_only,
            here: user == User::Here || kept.is_some_and(|there| there.here),
            lent: user == User::Elsewhere || kept.is_some_and(|there| there.lent),
        });
        if record != before {
            self.put(&mut inside, record.clone())?;
        }
        if !read_only {
            let lent = record.attached.is_some_and(|there| there.lent);
            Durable::of(&record, lent).set(name, &self.data(name))?;
        }
        let found = match found {
            Some(found) => found,
            None => self.make_loop(&record, read_only)?,
        };
        let mut given = attached(&record, &found);
        if user == User::Elsewhere && read_only {
            given.device = windows::over(&record, &found)?.path;
        }
        Ok(given)
    }

    /// Takes a leg's device away and returns when it is gone and everything written to it is durable. Done already where it is not
    /// attached.
    ///
    /// # Errors
    /// [`VolumeError::Busy`] while it is mounted or open; it is then asked for again. [`VolumeError::NotFound`]; [`VolumeError::Io`].
    pub fn detach(&self, name: &str) -> Result<(), VolumeError> {
        self.take(User::Here, name)
    }

    /// Takes back what was lent, as [`Self::detach`] does: nobody may reach it any more. What was not lent is left as it is.
    ///
    /// # Errors
    /// As for [`Self::detach`].
    pub fn take_back(&self, name: &str) -> Result<(), VolumeError> {
        self.take(User::Elsewhere, name)
    }

    fn take(&self, user: User, name: &str) -> Result<(), VolumeError> {
        let mut inside = self.inside()?;
        let mut record = self.known(&inside, name)?.clone();
        let there = record.attached;
        if user == User::Elsewhere {
            if !there.is_some_and(|there| there.lent) {
                return Ok(());
            }
            windows::close(&self.throttle, &record)?;
        }
        if let Some(there) = &mut record.attached
            && there.here
            && there.lent
        {
            match user {
                User::Here => there.here = false,
                User::Elsewhere => there.lent = false,
            }
            return self.put(&mut inside, record);
        }
        if user == User::Here && there.is_some_and(|there| there.lent) {
            return Ok(());
        }
        let found = match self.loop_of(&record) {
            // A file system that was shut down cannot say what lies on it; a pod that ends must not wait for it all the same.
            Err(error) if error.is_dead() => loops::unanswering(self.id, name)
                .map_err(VolumeError::at(&self.root, "looking for its loop device"))?,
            found => found?,
        };
        if let Some(found) = found {
            take_away(&self.throttle, name, &found)?;
        }
        if record.attached.take().is_none() {
            return Ok(());
        }
        let data = self.data(name);
        let flush = File::open(&data).and_then(|file| file.sync_all());
        let noted = flush
            .map_err(VolumeError::at(&data, "flushing it"))
            .and_then(|()| self.put(&mut inside, record));
        match noted {
            // The next opening sees that it is not attached.
            Err(error) if error.is_dead() || matches!(error, VolumeError::Full { .. }) => {
                warn!(%error, "detached, though that could not be noted");
                Ok(())
            }
            noted => noted,
        }
    }

    /// Limits what may be done to the devices of legs, by name; legs that are not named, or not attached, are left as they are. Those that
    /// were limited so already are too.
    ///
    /// # Errors
    /// [`VolumeError::Unlimited`]: they work all the same, beyond their limits; [`VolumeError::Io`].
    pub fn limit(&self, limits: &BTreeMap<String, IoLimits>) -> Result<(), VolumeError> {
        let attached = self.attached()?;
        let of = |found: &Attached| Some((found.number, *limits.get(&found.leg)?));
        Ok(self
            .throttle
            .set(&attached.iter().filter_map(of).collect())?)
    }

    /// The legs that are block devices now.
    ///
    /// # Errors
    /// [`VolumeError::Io`].
    pub fn attached(&self) -> Result<Vec<Attached>, VolumeError> {
        let inside = self.inside()?;
        let found = self.leg_loops()?;
        let of = |record: &LegRecord| {
            let backing = self.backing(record).ok()?;
            let found = found.iter().find(|found| found.backing == backing)?;
            Some(attached(record, found))
        };
        Ok(inside.legs.values().filter_map(of).collect())
    }

    /// Lets an attached leg be seen at the size that its file has now.
    pub(crate) fn resize_device(&self, record: &LegRecord) -> Result<(), VolumeError> {
        let Some(found) = self.loop_of(record)? else {
            return Ok(());
        };
        File::open(&found.path)
            .and_then(|device| ioctl::resize_loop(&device))
            .map_err(VolumeError::at(&found.path, "resizing it"))?;
        windows::resize(record)
    }

    /// Takes away loops over what is no leg of this drive, or over legs that no record calls attached, and records as detached what is
    /// not attached any more (after a reboot). What is in use stays, and is recorded as attached.
    pub(crate) fn sweep_loops(&self) -> Result<(), VolumeError> {
        let mut inside = self.inside()?;
        let found = self.leg_loops()?;
        let records: Vec<LegRecord> = inside.legs.values().cloned().collect();
        let mut of_legs = Vec::new();
        for mut record in records {
            let backing = self.backing(&record)?;
            let own = found.iter().find(|found| found.backing == backing);
            of_legs.push(backing);
            let is_left = match (own, record.attached) {
                (None, None) => continue,
                (None, Some(_)) => true,
                (Some(own), attached) => {
                    if attached.is_some_and(|attached| attached.read_only == own.read_only) {
                        continue;
                    }
                    take_away(&self.throttle, &record.name, own).is_ok()
                }
            };
            record.attached = match own {
                Some(own) if !is_left => Some(AttachmentRecord {
                    read_only: own.read_only,
                    here: record.attached.is_none_or(|there| there.here),
                    lent: record.attached.is_some_and(|there| there.lent),
                }),
                _ => None,
            };
            self.put(&mut inside, record)?;
        }
        for found in found
            .iter()
            .filter(|found| !of_legs.contains(&found.backing))
        {
            match take_away(&self.throttle, "that is gone", found) {
                Ok(()) => {
                    info!(device = %found.path.display(), "a loop device over a deleted leg was taken away")
                }
                Err(error) => warn!(%error, "a loop device over a deleted leg stays"),
            }
        }
        Ok(())
    }

    pub(crate) fn loop_of(&self, record: &LegRecord) -> Result<Option<Loop>, VolumeError> {
        let backing = self.backing(record)?;
        let mut found = self.leg_loops()?;
        found.retain(|found| found.backing == backing);
        Ok(found.pop())
    }

    fn backing(&self, record: &LegRecord) -> Result<Backing, VolumeError> {
        let data = self.data(&record.name);
        File::open(&data)
            .and_then(|file| Backing::of(&file, 0, 0))
            .map_err(VolumeError::at(&data, "opening it"))
    }

    fn make_loop(&self, record: &LegRecord, read_only: bool) -> Result<Loop, VolumeError> {
        let data = self.leg_directory(&record.name).join(DATA);
        let make = || {
            let file = File::options().read(true).write(!read_only).open(&data)?;
            let backing = Backing::of(&file, 0, 0)?;
            let (made, _) = loops::attach(&file, backing, Purpose::Leg(record.uuid), read_only)?;
            Ok::<_, std::io::Error>(made)
        };
        make().map_err(VolumeError::at(&data, "attaching a loop device"))
    }
}

/// Detaches the device of a leg. Limits go first: they would outlive it, and be somebody else's. What stays attached is limited again with
/// the next [`Drive::limit`].
pub(crate) fn take_away(throttle: &Throttle, name: &str, found: &Loop) -> Result<(), VolumeError> {
    let none = BTreeMap::from([(found.number, IoLimits::default())]);
    if let Err(error) = throttle.set(&none) {
        warn!(device = %found.path.display(), %error, "limits of a device that is detached may stay");
    }
    let busy = |by: &str| VolumeError::Busy {
        what: format!("leg {name}, attached at {},", found.path.display()),
        by: by.to_owned(),
    };
    match loops::detach(found).map_err(VolumeError::at(&found.path, "detaching it"))? {
        Detached::Yes => Ok(()),
        Detached::Claimed => Err(busy("it is mounted or claimed")),
        Detached::StillOpen => Err(busy("a process has it open; it goes when that closes it")),
    }
}

/// Has the kernel refuse writes to a block device, whoever has it open.
///
/// # Errors
/// [`VolumeError::Io`].
pub fn set_read_only(device: &Path) -> Result<(), VolumeError> {
    File::open(device)
        .and_then(|file| refuse_writes(&file))
        .map_err(VolumeError::at(device, "making it refuse writes"))
}

/// The same for a device that is open.
///
/// # Errors
/// The kernel's.
pub fn refuse_writes(device: &File) -> std::io::Result<()> {
    ioctl::set_read_only(device)
}

fn attached(record: &LegRecord, found: &Loop) -> Attached {
    Attached {
        leg: record.name.clone(),
        device: found.path.clone(),
        number: found.number,
        generation: record.attachment_generation,
        read_only: found.read_only,
    }
}
