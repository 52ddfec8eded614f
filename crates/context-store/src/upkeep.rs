//! Opens units ahead of need, closes full ones with a footer, flushes now and then.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::engine::Verb;
use crate::engine::memory::Buffer;
use crate::engine::queue::{Class, Flow};
use crate::health::DriveFault;
use crate::recency::{self, Recency};
use crate::segment::{Header, Ledger, encode_footer};
use crate::space::{Cursor, State, Use};
use crate::store::Shared;

/// How long the task sleeps at most.
const PACE: Duration = Duration::from_millis(500);

/// How often namespaces are forgotten that have nothing and asked for nothing since the last time.
const FORGET: Duration = Duration::from_secs(300);

/// How often what was used lately is written down: a `kill -9` forgets no more.
const PICTURE: Duration = Duration::from_secs(60);

/// Runs until the store is closed, then once more to leave the medium in order.
pub(crate) fn spawn(shared: &Arc<Shared>) {
    let shared = Arc::clone(shared);
    shared.tasks.send_modify(|left| *left += 1);
    tokio::spawn(async move {
        let mut flushed = (Instant::now(), shared.core().sequence());
        let mut forgotten = Instant::now();
        let mut pictured = (Instant::now(), shared.core().tick());
        loop {
            let closed = shared.core().closed;
            if closed {
                break;
            }
            tokio::join!(shared.seal_closing(), shared.open_ahead());
            shared.watch();
            if forgotten.elapsed() >= FORGET {
                shared.core().forget_idle();
                forgotten = Instant::now();
            }
            let written = shared.disk.written();
            shared.core().governor.settle(written);
            let sequence = shared.core().sequence();
            if flushed.0.elapsed() >= shared.options.flush_every && flushed.1 != sequence {
                if let Err(error) = shared.persist().await {
                    tracing::warn!(%error, "context memory could not be flushed");
                }
                flushed = (Instant::now(), sequence);
            }
            let tick = shared.core().tick();
            if pictured.0.elapsed() >= PICTURE && pictured.1 != tick {
                shared.picture().await;
                pictured = (Instant::now(), tick);
            }
            let pause = PACE.min(shared.options.flush_every);
            // Whether woken or not, the next round looks at everything.
            let _woken = tokio::time::timeout(pause, shared.upkeep.notified()).await;
        }
        if pictured.1 != shared.core().tick() {
            shared.picture().await;
        }
        shared.leave_in_order().await;
        shared.tasks.send_modify(|left| *left -= 1);
    });
}

/// A random number; where the kernel has none to give, one that no earlier use of the segment had either.
fn random() -> u64 {
    let mut bytes = [0; 8];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(8) => u64::from_le_bytes(bytes),
        _ => std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos() as u64),
    }
}

impl Shared {
    /// Writes whole pages of the store's own, before anything else: somebody always waits for them, and they are few.
    pub(crate) async fn write_own(
        &self,
        segment: u32,
        offset: u64,
        pages: &[u8],
    ) -> std::io::Result<()> {
        let at = self.address(segment, offset);
        self.write_pages_at(Class::Read, at, pages).await
    }

    async fn write_pages_at(&self, class: Class, at: u64, pages: &[u8]) -> std::io::Result<()> {
        let mut buffer = Buffer::zeroed(pages.len())?;
        buffer.copy_from_slice(pages);
        let pages = vec![buffer.into_span()];
        (self.disk)
            .transfer(class, Flow::OWN, Verb::Write, at, pages)
            .await
    }

    /// Writes the footers of closed units that nobody writes into any more, all at once.
    async fn seal_closing(self: &Arc<Self>) {
        let closing: Vec<(u32, u64, Cursor)> = {
            let mut core = self.core();
            let ripe: Vec<u32> = core
                .space
                .units()
                .filter(|(_, unit)| matches!(unit.state, State::Closing(_)) && unit.writers == 0)
                .map(|(segment, _)| segment)
                .collect();
            ripe.into_iter()
                .filter_map(|segment| {
                    let unit = core.space.get_mut(segment);
                    let nonce = unit.nonce;
                    match &mut unit.state {
                        State::Closing(cursor) => Some((segment, nonce, std::mem::take(cursor))),
                        _ => None,
                    }
                })
                .collect()
        };
        let mut sealing = JoinSet::new();
        for (segment, nonce, cursor) in closing {
            let shared = Arc::clone(self);
            sealing.spawn(async move { shared.seal(segment, nonce, &cursor).await });
        }
        while sealing.join_next().await.is_some() {}
    }

    async fn seal(&self, segment: u32, nonce: u64, cursor: &Cursor) {
        let footer = encode_footer(&self.superblock.secret, segment, nonce, &cursor.items);
        let end = self.core().space.unit_len(segment);
        let written = self
            .write_own(segment, end - footer.len() as u64, &footer)
            .await;
        // Without a footer the unit is scanned after a restart: its records describe themselves.
        if let Err(error) = written {
            tracing::warn!(%error, segment, "a footer could not be written");
        }
        self.core().space.get_mut(segment).state = State::Sealed;
        self.room.notify_one();
    }

    /// Keeps units ready, and opens one that a put waits for.
    async fn open_ahead(self: &Arc<Self>) {
        loop {
            let mut opening = JoinSet::new();
            while let Some((segment, once)) = self.take_unit(opening.len()) {
                let shared = Arc::clone(self);
                opening.spawn(async move { shared.open_unit(segment, once).await });
            }
            if opening.is_empty() {
                return;
            }
            while let Some(opened) = opening.join_next().await {
                if !opened.unwrap_or(false) {
                    // Tried again at the next round.
                    return;
                }
            }
        }
    }

    /// Takes segments for one more unit where one is needed; `opening` are on their way.
    fn take_unit(&self, opening: usize) -> Option<(u32, Use)> {
        let mut core = self.core();
        let lengths = core.lengths(opening);
        let Some(best) = lengths.first().copied() else {
            if opening == 0 {
                core.wanted = None;
            }
            return None;
        };
        let once = Use {
            generation: core.next_sequence(),
            nonce: random(),
        };
        let low = core.free() < core.watermarks().start;
        let mut lengths = lengths.into_iter();
        let taken = lengths.find_map(|span| core.space.take(span, once));
        let span = taken.map(|segment| core.space.get(segment).span);
        let short = span.is_none_or(|span| span < best);
        if short {
            core.wanted = Some(core.wanted.unwrap_or(0).max(best));
        }
        core.taken += u64::from(span.unwrap_or(0));
        drop(core);
        if low || short {
            self.room.notify_one();
        }
        taken.map(|segment| (segment, once))
    }

    /// How the endurance budget stands; none where there is no budget.
    pub(crate) fn ledger(&self) -> Option<Ledger> {
        let (millis, written) = (self.now().millis, self.disk.written());
        let mut core = self.core();
        core.governor.settle(written);
        let left = core.governor.left(millis)?;
        Some(Ledger {
            sequence: core.sequence(),
            left,
            millis,
        })
    }

    /// Writes a unit's header; whether records may go into it now.
    async fn open_unit(&self, segment: u32, once: Use) -> bool {
        let ledger = self.ledger();
        let header = Header {
            store: self.superblock.store,
            segment,
            generation: once.generation,
            nonce: once.nonce,
            span: self.core().space.get(segment).span,
            retired: false,
            ledger,
        };
        let page = header.encode(&self.superblock.secret);
        let written = self.write_own(segment, 0, &page).await;
        let mut core = self.core();
        match written {
            Ok(()) => {
                core.opened(segment);
                drop(core);
                self.opened.notify_waiters();
                true
            }
            Err(error) => {
                tracing::warn!(%error, segment, "a segment could not be opened");
                // Whatever its header says now, nothing in it is younger than its last use.
                core.space.release(segment);
                false
            }
        }
    }

    /// Writes down which blocks were used lately.
    pub(crate) async fn picture(&self) {
        let (mut picture, shards) = {
            let core = self.core();
            let number = core.picture + 1;
            let picture = Recency::new(&core.index, number, core.sequence(), core.tick());
            (picture, core.index.shards())
        };
        for shard in 0..shards {
            for (fingerprint, entry) in self.core().index.shard(shard) {
                picture.add(fingerprint, entry.access);
            }
        }
        let pages = picture.encode(&self.superblock.secret, self.superblock.store);
        let at = recency::COPIES[(picture.number % 2) as usize];
        match self.write_pages_at(Class::Background, at, &pages).await {
            Ok(()) => self.core().picture = picture.number,
            Err(error) => {
                tracing::warn!(%error, "what was used lately could not be written down");
            }
        }
    }

    /// Looks for transfers that the drive has had for too long.
    fn watch(&self) {
        if let Some(age) = self.disk.oldest()
            && age > self.options.stall
        {
            self.disk.blame(DriveFault::Stalled {
                millis: age.as_millis() as u64,
            });
        }
    }

    /// Seals everything that is open, once the last write is done, and flushes.
    async fn leave_in_order(self: &Arc<Self>) {
        let patience = Instant::now() + self.options.stall;
        loop {
            let busy = {
                let mut core = self.core();
                core.close_all();
                core.packing
                    || core.space.units().any(|(_, unit)| {
                        matches!(unit.state, State::Closing(_)) && unit.writers > 0
                    })
            };
            self.seal_closing().await;
            if !busy || Instant::now() > patience {
                break;
            }
            let _woken =
                tokio::time::timeout(Duration::from_millis(20), self.upkeep.notified()).await;
        }
        if let Err(error) = self.persist().await {
            tracing::warn!(%error, "context memory could not be flushed at its end");
        }
    }
}
