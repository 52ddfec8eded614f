//! A leg that comes from another node: read through the device as which that node exports it, for reading alone, as long as nobody may write to it.
//!
//! Whether it was so from the first byte to the last is for whoever has both ends in view to say: what is made here is a leg, and no volume's
//! before its owner names it.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::copy::{CopyOrder, DIRECT, Prepared, Source};
use crate::drive::Drive;
use crate::error::VolumeError;
use crate::legs::{LegOrder, check_name};
use crate::loops::BLOCK;
use crate::record::LegRecord;

/// A leg on another node, as this one can read it.
pub struct Foreign {
    /// Its device here, open for reading. What has its name may be another leg's by now.
    pub device: File,
    /// The device's name, for words.
    pub path: PathBuf,
    /// Whether its node answers: what cannot be read then is lost there, and not on the way.
    pub answers: Box<dyn Fn() -> bool + Send + Sync>,
    /// When its bytes were as they are, in milliseconds since 1970, as [`LegRecord`] has it.
    pub made_at_ms: u64,
}

/// Opens a device as a leg of another node is read: past this node's page cache.
///
/// # Errors
/// It cannot be opened.
pub fn open_direct(device: &Path) -> io::Result<File> {
    let mut how = File::options();
    how.read(true).custom_flags(DIRECT).open(device)
}

impl Drive {
    /// Copies a leg of another node to this drive, or goes on with a copy that was begun; `leg` is what it is a leg of, and as large as its device
    /// it will be. `go_on` as for [`Self::copy`].
    ///
    /// # Errors
    /// [`VolumeError::Away`] where the other node does not answer any more: what was copied stays, to be gone on with. Otherwise as for
    /// [`Self::copy`].
    pub fn fetch(
        &self,
        from: &Foreign,
        order: &CopyOrder,
        leg: &LegOrder,
        mut go_on: impl FnMut(u64) -> bool,
    ) -> Result<LegRecord, VolumeError> {
        check_name(&order.name)?;
        let there = There(from);
        let size = there.size()?;
        let template = LegRecord {
            format: LegRecord::FORMAT,
            name: order.name.clone(),
            uuid: Uuid::nil(),
            volume: leg.volume.clone(),
            snapshot: leg.snapshot.clone(),
            scratch: None,
            owner_uid: order.owner_uid.clone(),
            pool_id: self.pool,
            index: leg.index,
            size,
            redundancy: leg.redundancy,
            array: leg.array,
            provisioning: leg.provisioning,
            mode: leg.mode,
            source: None,
            made_at_ms: from.made_at_ms,
            attachment_generation: order.generation,
            writer_generation: None,
            attached: None,
        };
        let mut half = match self.prepare(order, &template)? {
            Prepared::Whole(record) => return Ok(record),
            Prepared::Half(half) => half,
        };
        let copied = self
            .transfer(&there, order, &mut half, &mut go_on)
            .and_then(|()| {
                self.flush(&half)?;
                if !go_on(half.leg.size) {
                    let name = order.name.clone();
                    return Err(VolumeError::CopyStopped { name });
                }
                let mut inside = self.inside()?;
                self.put_in_place(&mut inside, half.leg.clone())
            });
        self.settle(order, half, copied)
    }
}

/// The device of a leg on another node.
struct There<'a>(&'a Foreign);

impl There<'_> {
    fn size(&self) -> Result<u64, VolumeError> {
        let size = (&self.0.device).seek(SeekFrom::End(0));
        let size = size.map_err(|error| self.lost("measuring it", error))?;
        match size > 0 && size.is_multiple_of(u64::from(BLOCK)) {
            true => Ok(size),
            false => {
                let why = format!("it has {size} bytes, as no leg has");
                Err(self.lost("measuring it", io::Error::other(why)))
            }
        }
    }
}

impl Source for There<'_> {
    fn open(&self) -> io::Result<File> {
        self.0.device.try_clone()
    }

    /// A device does not tell what is a hole.
    fn next_data(&self, _: &File, offset: u64, _: u64) -> io::Result<u64> {
        Ok(offset)
    }

    fn is_still(&self) -> Result<bool, VolumeError> {
        Ok(true)
    }

    fn lost(&self, action: &'static str, source: io::Error) -> VolumeError {
        match (self.0.answers)() {
            true => VolumeError::at(&self.0.path, action)(source),
            false => VolumeError::Away {
                path: self.0.path.clone(),
                action,
                source,
            },
        }
    }
}
