//! A leg that comes from another node: read through the device as which that node exports it, for reading alone, as long as nobody may write to it.
//!
//! Whether it was so from the first byte to the last is for whoever has both ends in view to say: what is made here is a leg, and no volume's
//! before its owner names it.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::copy::{CopyOrder, Prepared, Source};
use crate::drive::Drive;
use crate::error::VolumeError;
use crate::legs::{LegOrder, check_name};
use crate::loops::BLOCK;
use crate::record::LegRecord;

/// A leg on another node, as this one can read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// Its device here.
    pub device: PathBuf,
    /// When its bytes were as they are, in milliseconds since 1970, as [`LegRecord`] has it.
    pub made_at_ms: u64,
}

impl Drive {
    /// Copies a leg of another node to this drive, or goes on with a copy that was begun; `leg` is what it is a leg of, and as large as its device
    /// it will be. `go_on` as for [`Self::copy`].
    ///
    /// # Errors
    /// [`VolumeError::Away`] where the device does not answer any more: what was copied stays, to be gone on with. Otherwise as for [`Self::copy`].
    pub fn fetch(
        &self,
        from: &Foreign,
        order: &CopyOrder,
        leg: &LegOrder,
        mut go_on: impl FnMut(u64) -> bool,
    ) -> Result<LegRecord, VolumeError> {
        check_name(&order.name)?;
        let there = There(&from.device);
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
        let half = match self.prepare(order, &template)? {
            Prepared::Whole(record) => return Ok(record),
            Prepared::Half(half) => half,
        };
        let uuid = half.leg.uuid;
        let copied = self
            .transfer(&there, order, half, &mut go_on)
            .and_then(|half| {
                self.flush(&half)?;
                if !go_on(half.leg.size) {
                    let name = order.name.clone();
                    return Err(VolumeError::CopyStopped { name });
                }
                let mut inside = self.inside()?;
                self.put_in_place(&mut inside, half.leg)
            });
        self.settle(order, uuid, copied)
    }
}

/// The device of a leg on another node.
struct There<'a>(&'a Path);

impl There<'_> {
    fn size(&self) -> Result<u64, VolumeError> {
        let size = File::open(self.0).and_then(|mut device| device.seek(SeekFrom::End(0)));
        let size = size.map_err(|error| self.lost(self.0.to_owned(), "measuring it", error))?;
        match size > 0 && size.is_multiple_of(u64::from(BLOCK)) {
            true => Ok(size),
            false => {
                let why = format!("it has {size} bytes, as no leg has");
                Err(self.lost(self.0.to_owned(), "measuring it", io::Error::other(why)))
            }
        }
    }
}

impl Source for There<'_> {
    fn path(&self) -> PathBuf {
        self.0.to_owned()
    }

    /// A device does not tell what is a hole.
    fn next_data(&self, _: &File, offset: u64, _: u64) -> io::Result<u64> {
        Ok(offset)
    }

    fn is_still(&self) -> Result<bool, VolumeError> {
        Ok(true)
    }

    fn lost(&self, path: PathBuf, action: &'static str, source: io::Error) -> VolumeError {
        VolumeError::Away {
            path,
            action,
            source,
        }
    }
}
