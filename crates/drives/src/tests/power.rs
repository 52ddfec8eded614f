//! A drive that loses power: every write since the last flush may be there or not, sector by sector.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;

use crate::medium::Medium;

/// A logical block: what a drive writes as a whole or not at all.
const SECTOR: u64 = 512;

type Sectors = BTreeMap<u64, Option<Vec<u8>>>;

/// A sparse drive in memory that stops after a given number of operations.
pub(super) struct Power {
    size: u64,
    /// What is durable; a sector that is not there reads as zeroes.
    durable: RefCell<Sectors>,
    /// What was written since the last flush, oldest first.
    pending: RefCell<Vec<(u64, Option<Vec<u8>>)>>,
    /// Changing operations left before the power goes.
    left: Cell<u64>,
    /// What a discarded sector reads as.
    discarded: Option<u8>,
}

impl Power {
    pub(super) fn new(size: u64, discarded: Option<u8>) -> Power {
        Power {
            size,
            durable: RefCell::default(),
            pending: RefCell::default(),
            left: Cell::new(u64::MAX),
            discarded,
        }
    }

    /// Lets so many more changing operations happen.
    pub(super) fn stop_after(&self, operations: u64) {
        self.left.set(operations);
    }

    /// Operations that were done since [`stop_after`](Self::stop_after) was told `from`.
    pub(super) fn used(&self, from: u64) -> u64 {
        from - self.left.get()
    }

    /// The power comes back: of what was not flushed, the sectors that `keeps` chooses are there, each at its newest version or
    /// an older one.
    pub(super) fn come_back(&self, mut keeps: impl FnMut() -> bool) {
        for (at, sector) in self.pending.borrow_mut().drain(..) {
            if keeps() {
                self.durable.borrow_mut().insert(at, sector);
            }
        }
        self.left.set(u64::MAX);
    }

    /// A copy of the whole drive as it reads now, zero sectors left out.
    pub(super) fn image(&self) -> BTreeMap<u64, Vec<u8>> {
        let mut sectors = self.durable.borrow().clone();
        sectors.extend(self.pending.borrow().iter().cloned());
        sectors
            .into_iter()
            .filter_map(|(at, sector)| Some((at, sector?)))
            .filter(|(_, sector)| sector.iter().any(|b| *b != 0))
            .collect()
    }

    fn spend(&self) -> io::Result<()> {
        match self.left.get().checked_sub(1) {
            Some(left) => self.left.set(left),
            None => return Err(io::Error::other("the power is gone")),
        }
        Ok(())
    }

    fn put(
        &self,
        offset: u64,
        len: u64,
        sector: impl Fn(u64) -> Option<Vec<u8>>,
    ) -> io::Result<()> {
        self.spend()?;
        assert!(
            offset.is_multiple_of(SECTOR)
                && len.is_multiple_of(SECTOR)
                && offset + len <= self.size,
            "misplaced write"
        );
        let mut pending = self.pending.borrow_mut();
        pending.extend(
            (offset..offset + len)
                .step_by(SECTOR as usize)
                .map(|at| (at, sector(at))),
        );
        Ok(())
    }
}

impl Medium for Power {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        assert!(
            offset + buffer.len() as u64 <= self.size,
            "read beyond the end"
        );
        buffer.fill(0);
        let (durable, pending) = (self.durable.borrow(), self.pending.borrow());
        let written = durable
            .iter()
            .map(|(at, sector)| (*at, sector))
            .chain(pending.iter().map(|(at, sector)| (*at, sector)));
        let end = offset + buffer.len() as u64;
        for (at, sector) in written.filter(|(at, _)| at + SECTOR > offset && *at < end) {
            let (from, until) = (at.max(offset), (at + SECTOR).min(end));
            let target = &mut buffer[(from - offset) as usize..(until - offset) as usize];
            match sector {
                Some(bytes) => {
                    target.copy_from_slice(&bytes[(from - at) as usize..(until - at) as usize])
                }
                None => target.fill(0),
            }
        }
        Ok(())
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.put(offset, data.len() as u64, |at| {
            let from = (at - offset) as usize;
            Some(data[from..from + SECTOR as usize].to_vec())
        })
    }

    /// Of a large range only the ends and the MiB boundaries change, so that the model stays small.
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.spend()?;
        if let Some(byte) = self.discarded {
            let sectors = (offset..offset + len)
                .step_by(1 << 20)
                .flat_map(|mib| [mib, mib + (1 << 20) - SECTOR]);
            let garbage = sectors
                .filter(|at| *at < offset + len)
                .map(|at| (at, Some(vec![byte; SECTOR as usize])));
            self.pending.borrow_mut().extend(garbage);
        }
        Ok(())
    }

    fn zero(&self, offset: u64, len: u64) -> io::Result<()> {
        self.spend()?;
        self.durable
            .borrow_mut()
            .retain(|at, _| !(offset..offset + len).contains(at));
        self.pending
            .borrow_mut()
            .retain(|(at, _)| !(offset..offset + len).contains(at));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.spend()?;
        self.durable
            .borrow_mut()
            .extend(self.pending.borrow_mut().drain(..));
        Ok(())
    }
}
