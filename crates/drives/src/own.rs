//! Drives that carry our label: believing it, and bringing the drive to where it says.

use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use strand_placement::carve::Layout;
use strand_placement::reason::Reason;
use strand_placement::verdict::{KnownPools, LabelState};

use crate::carve::finish;
use crate::held::{Access, Held};
use crate::host::DriveError;
use crate::identity::OwnedDrive;
use crate::kernel::KernelHost;
use crate::label::{self, Copy, DiskLabel};
use crate::{partitions, reserved};

/// What uses a drive for less than this, and between two looks.
const PASSING: Duration = Duration::from_millis(500);
const AGAIN: Duration = Duration::from_millis(50);

impl KernelHost {
    /// Refuses while the drive or a partition of it is in use. A process that any thread of ours is just starting has our own
    /// descriptors until it runs its program: who has the drive open is looked at again before it counts.
    pub(crate) fn refuse_use(&self, held: &Held<'_>) -> Result<(), DriveError> {
        let begun = Instant::now();
        loop {
            match self.uses(held) {
                reasons if reasons.is_empty() => return Ok(()),
                _ if begun.elapsed() < PASSING => sleep(AGAIN),
                reasons => {
                    return Err(DriveError::Busy {
                        path: held.drive.path.clone(),
                        reasons,
                    });
                }
            }
        }
    }

    /// The valid label of a drive that one of `pools` has, with nothing contradicting it.
    pub(crate) fn own_label(
        &self,
        held: &Held<'_>,
        pools: &KnownPools,
    ) -> Result<DiskLabel, DriveError> {
        let disk = held.disk()?;
        let copies =
            reserved::read_copies(&disk).map_err(|error| held.error("reading its label", error))?;
        let reason = match label::choose(&copies) {
            Copy::Absent => Reason::NotExamined {
                what: "whose it is, without a label,".into(),
            },
            Copy::Damaged(why) => Reason::DamagedLabel { why: why.into() },
            Copy::Newer(version) => Reason::NewerLabel { version },
            Copy::Valid(label) => {
                let contradiction = reserved::contradiction(&disk, &label)
                    .map_err(|error| held.error("checking its label", error))?;
                if label.serial != held.drive.key.serial {
                    Reason::CopiedLabel {
                        labelled: label.serial,
                    }
                } else if let Some(why) = contradiction {
                    Reason::LabelContradicted { why }
                } else if !pools.contains(&label.pool_id) {
                    Reason::OtherPool {
                        pool_id: label.pool_id,
                        pool_name: label.pool_name,
                    }
                } else {
                    return Ok(*label);
                }
            }
        };
        Err(DriveError::NotOurs {
            path: held.drive.path.clone(),
            reasons: vec![reason],
        })
    }

    /// Whether a label is complete in both copies, so that nothing needs to be written.
    pub(crate) fn is_complete(
        &self,
        held: &Held<'_>,
        label: &DiskLabel,
    ) -> Result<bool, DriveError> {
        let copies = reserved::read_copies(&held.disk()?)
            .map_err(|error| held.error("reading its label", error))?;
        let same = |copy: &Copy| matches!(copy, Copy::Valid(other) if **other == *label);
        Ok(label.state == LabelState::Carved && copies.iter().all(same))
    }

    /// Does on an open drive what its label says is being done, and returns it, or none when it was given back.
    pub(crate) fn complete(
        &self,
        held: &Held<'_>,
        label: &DiskLabel,
    ) -> Result<Option<OwnedDrive>, DriveError> {
        if label.state != LabelState::Carved {
            // What goes must not be reachable while it goes.
            let stays = label
                .previous
                .as_ref()
                .and_then(|previous| common(previous, &label.layout));
            partitions::settle(held, &self.config.roots, stays.as_ref())
                .map_err(|error| self.settle_error(held, error))?;
        }
        held.check()?;
        let done = finish(&held.disk()?, label)
            .map_err(|error| held.error("writing its label and partition table", error))?;
        done.map(|label| self.owned(held, &label)).transpose()
    }

    /// A complete drive, with its partitions made known to the kernel.
    pub(crate) fn owned(
        &self,
        held: &Held<'_>,
        label: &DiskLabel,
    ) -> Result<OwnedDrive, DriveError> {
        let roots = &self.config.roots;
        partitions::settle(held, roots, Some(&label.layout))
            .map_err(|error| self.settle_error(held, error))?;
        let partitions = partitions::addresses(held, roots, &label.layout)
            .map_err(|error| held.error("finding its partition devices", error))?;
        Ok(OwnedDrive {
            seen: held.drive.clone(),
            pool_id: label.pool_id,
            pool_name: label.pool_name.clone(),
            drive_id: label.drive_id,
            generation: label.generation,
            state: label.state,
            layout: label.layout,
            partitions,
        })
    }

    /// An owned drive opened for writing, with its label as it is now. What was interrupted on it is completed first, which needs
    /// [`Access::Write`].
    pub(crate) fn open_owned<'a>(
        &'a self,
        drive: &'a OwnedDrive,
        access: Access,
    ) -> Result<(Held<'a>, DiskLabel), DriveError> {
        let held = self.open(&drive.seen, access)?;
        let pools = KnownPools([(drive.pool_id, drive.pool_name.clone())].into());
        let mut label = self.own_label(&held, &pools)?;
        if label.drive_id != drive.drive_id {
            return Err(DriveError::IdentityChanged {
                path: drive.seen.path.clone(),
                expected: format!("drive {}", drive.drive_id),
                found: format!("drive {}", label.drive_id),
            });
        }
        if label.state != LabelState::Carved {
            if access != Access::Write {
                return Err(DriveError::Busy {
                    path: drive.seen.path.clone(),
                    reasons: self.uses(&held),
                });
            }
            self.complete(&held, &label)?;
            label = self.own_label(&held, &pools)?;
        }
        Ok((held, label))
    }

    fn settle_error(&self, held: &Held<'_>, error: io::Error) -> DriveError {
        if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) {
            return DriveError::Busy {
                path: held.drive.path.clone(),
                reasons: self.uses(held),
            };
        }
        held.error("changing its partition devices", error)
    }
}

/// A drive that was given back by someone else while it was being worked on.
pub(crate) fn gone(held: &Held<'_>) -> DriveError {
    held.error(
        "finishing it",
        io::Error::other("it was given back meanwhile"),
    )
}

/// Whether a move leaves storage where it is, so that it may stay in use: on a block device, where each partition is opened by
/// itself.
pub(crate) fn grows_in_place(
    held: &Held<'_>,
    previous: &Layout,
    wanted: &Layout,
) -> Result<bool, DriveError> {
    let is_device = held
        .is_block_device()
        .map_err(|error| held.error("looking at it", error))?;
    Ok(is_device && common(previous, wanted).is_some())
}

/// The storage partition as it was, where a move only makes it grow.
fn common(previous: &Layout, wanted: &Layout) -> Option<Layout> {
    let (before, after) = previous.storage.zip(wanted.storage)?;
    let stays = before.start == after.start && before.len <= after.len;
    stays.then_some(Layout {
        storage: Some(before),
        context: None,
    })
}
