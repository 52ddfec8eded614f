//! The pod's ends of the two arenas.

use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::memory::{Access, Mapping};
use crate::slots::{NoSlots, SlotPool, Slots};

/// The arenas of one session, mapped for as long as anything of them is in use.
#[derive(Debug)]
pub struct PodArenas {
    get: Mapping,
    put: Mapping,
    put_slots: Arc<SlotPool>,
    // Dropped after the mappings (fields drop in order): its closing tells the agent that they are gone.
    _hold: OwnedFd,
}

impl PodArenas {
    /// Maps what the agent passed: GET to read, PUT to write, and the pipe that says they are mapped.
    pub fn map(
        [get, put, hold]: [OwnedFd; 3],
        get_bytes: usize,
        put_bytes: usize,
    ) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            get: Mapping::new(&get, get_bytes, Access::Read)?,
            put: Mapping::new(&put, put_bytes, Access::ReadWrite)?,
            put_slots: SlotPool::new(put_bytes),
            _hold: hold,
        }))
    }

    /// A lease on a value that the agent put into GET. `None`: it lies outside.
    pub fn read(self: &Arc<Self>, offset: u64, length: u64) -> Option<ReadLease> {
        let offset = usize::try_from(offset).ok()?;
        let length = usize::try_from(length).ok()?;
        self.get.at(offset, length)?;
        Some(ReadLease {
            arenas: Arc::clone(self),
            offset,
            length,
        })
    }

    /// Slots of PUT for a value of `length` bytes, in turn.
    pub async fn write(self: &Arc<Self>, length: usize) -> Result<WriteLease, NoSlots> {
        let slots = self.put_slots.take(length).await?;
        Ok(WriteLease {
            arenas: Arc::clone(self),
            slots,
            length,
        })
    }

    /// Ends all waiting for slots of PUT: the session is over.
    pub fn close(&self) {
        self.put_slots.close();
    }

    /// Bytes in GET.
    pub fn get_bytes(&self) -> usize {
        self.get.bytes()
    }

    /// Bytes in PUT.
    pub fn put_bytes(&self) -> usize {
        self.put.bytes()
    }

    /// Slots of PUT that are out.
    pub fn reserved(&self) -> usize {
        self.put_slots.taken()
    }
}

/// A value in GET.
#[derive(Debug)]
pub struct ReadLease {
    arenas: Arc<PodArenas>,
    offset: usize,
    length: usize,
}

impl Deref for ReadLease {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self.arenas.get.at(self.offset, self.length) {
            // SAFETY: the range is inside the mapping, which `arenas` keeps. The agent writes it only while no lease
            // is out, and this process cannot (see the module).
            Some(start) => unsafe { std::slice::from_raw_parts(start, self.length) },
            None => unreachable!("the range was checked when the lease was made"),
        }
    }
}

/// Room in PUT for a value.
#[derive(Debug)]
pub struct WriteLease {
    arenas: Arc<PodArenas>,
    slots: Slots,
    length: usize,
}

impl WriteLease {
    /// Where in PUT, in bytes.
    pub fn offset(&self) -> usize {
        self.slots.offset()
    }

    /// Makes the value shorter; a larger length changes nothing.
    pub fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    fn start(&self) -> *mut u8 {
        match self.arenas.put.at(self.slots.offset(), self.length) {
            Some(start) => start,
            None => unreachable!("slots lie inside their arena"),
        }
    }
}

impl Deref for WriteLease {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: inside the mapping, which `arenas` keeps; the pool gave these slots to this value alone, and the
        // agent only reads PUT.
        unsafe { std::slice::from_raw_parts(self.start(), self.length) }
    }
}

impl DerefMut for WriteLease {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`, and `&mut self` makes this the only slice.
        unsafe { std::slice::from_raw_parts_mut(self.start(), self.length) }
    }
}
