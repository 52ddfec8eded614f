//! A medium in memory that fails on demand and forgets what was not flushed, for tests.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::memory::Region;
use super::{Engine, Io, Verb};
use crate::PAGE;

/// Bytes that survive a power cut, and writes since the last flush in their order.
#[derive(Clone, Default)]
pub(crate) struct State {
    /// Pages by number; absent ones are zero.
    stable: BTreeMap<u64, Arc<[u8]>>,
    unflushed: Vec<(u64, Arc<[u8]>)>,
    /// What a read sees.
    now: BTreeMap<u64, Arc<[u8]>>,
    pub(crate) fail_reads: bool,
    pub(crate) fail_writes: bool,
    pub(crate) writes: u64,
}

/// The engine over it. Clones share the medium.
#[derive(Clone, Default)]
pub(crate) struct Faulty {
    state: Arc<Mutex<State>>,
    /// Reads that wait to be let go, while they have to.
    held: Arc<Mutex<Option<Vec<Io>>>>,
}

impl Faulty {
    fn of(state: State) -> Faulty {
        Faulty {
            state: Arc::new(Mutex::new(state)),
            held: Arc::default(),
        }
    }

    fn held(&self) -> MutexGuard<'_, Option<Vec<Io>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the medium keeps whoever reads waiting.
    pub(crate) fn hold_reads(&self) {
        self.held().get_or_insert_default();
    }

    /// It does so no longer.
    pub(crate) fn let_reads_go(&self) {
        let held = self.held().take();
        for io in held.into_iter().flatten() {
            self.start(io);
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of the medium as another process would find it after a `kill -9`: nothing is lost.
    pub(crate) fn killed(&self) -> Faulty {
        let mut state = self.state().clone();
        (state.fail_reads, state.fail_writes) = (false, false);
        Faulty::of(state)
    }

    /// A copy of the medium after a power cut: of each page's unflushed writes `survives` chooses which made it, so that
    /// they are dropped and reordered freely, down to a single page of a transfer.
    pub(crate) fn power_cut(&self, mut survives: impl FnMut() -> bool) -> Faulty {
        let mut state = self.state().clone();
        (state.fail_reads, state.fail_writes) = (false, false);
        for (page, bytes) in std::mem::take(&mut state.unflushed) {
            if survives() {
                state.stable.insert(page, bytes);
            }
        }
        state.now = state.stable.clone();
        Faulty::of(state)
    }

    /// Changes a byte of the medium.
    pub(crate) fn flip(&self, at: u64, mask: u8) {
        let mut state = self.state();
        let page = at / PAGE as u64;
        let mut bytes = state
            .now
            .get(&page)
            .map_or(vec![0; PAGE], |bytes| bytes.to_vec());
        bytes[(at % PAGE as u64) as usize] ^= mask;
        state.put(page, &bytes);
        state.settle();
    }
}

impl State {
    fn settle(&mut self) {
        for (page, bytes) in std::mem::take(&mut self.unflushed) {
            self.stable.insert(page, bytes);
        }
    }

    fn put(&mut self, page: u64, bytes: &[u8]) {
        let bytes: Arc<[u8]> = bytes.into();
        self.now.insert(page, Arc::clone(&bytes));
        self.unflushed.push((page, bytes));
    }

    fn carry_out(&mut self, io: &Io) -> io::Result<()> {
        let failed = || io::Error::from_raw_os_error(libc::EIO);
        let mut page = io.offset / PAGE as u64;
        match io.verb {
            Verb::Flush if self.fail_writes => return Err(failed()),
            Verb::Flush => self.settle(),
            Verb::Read if self.fail_reads => return Err(failed()),
            Verb::Write if self.fail_writes => return Err(failed()),
            verb => {
                for piece in &io.pieces {
                    assert_eq!((piece.len() % PAGE, piece.is_aligned()), (0, true));
                    for part in (0..piece.len()).step_by(PAGE) {
                        let part = piece.part(part, PAGE).unwrap();
                        if verb == Verb::Read {
                            let zero = [0; PAGE];
                            part.copy_from(self.now.get(&page).map_or(&zero, |bytes| &**bytes));
                        } else {
                            let mut bytes = vec![0; PAGE];
                            part.copy_to(&mut bytes);
                            self.put(page, &bytes);
                            self.writes += 1;
                        }
                        page += 1;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Engine for Faulty {
    fn start(&self, io: Io) {
        if io.verb == Verb::Read
            && let Some(held) = self.held().as_mut()
        {
            held.push(io);
            return;
        }
        let result = self.state().carry_out(&io);
        io.finish(result);
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut state = self.state();
        for page in offset / PAGE as u64..(offset + len) / PAGE as u64 {
            state.put(page, &[0; PAGE]);
        }
        Ok(())
    }

    fn register(&self, _region: &Arc<Region>) -> io::Result<()> {
        Ok(())
    }

    fn unregister(&self, _region: &Arc<Region>) -> io::Result<()> {
        Ok(())
    }

    fn name(&self) -> &'static str {
        "faulty"
    }
}
