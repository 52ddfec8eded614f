//! Who has which slots of an arena: kept in private memory by the side that hands them out (the agent for GET,
//! the client for PUT), first come, first served.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Bytes in a slot. A multiple of every page size that Linux has on x86-64 and aarch64.
pub const SLOT: usize = 1 << 20;

/// The slots of one arena.
#[derive(Debug)]
pub struct SlotPool {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    taken: Vec<bool>,
    waiting: VecDeque<Waiter>,
    closed: bool,
}

#[derive(Debug)]
struct Waiter {
    count: usize,
    sender: oneshot::Sender<Slots>,
}

/// Adjacent slots, taken until dropped.
#[derive(Debug)]
pub struct Slots {
    pool: Arc<SlotPool>,
    first: usize,
    count: usize,
}

/// Why there are no slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSlots {
    /// More bytes than the arena has.
    TooLarge,
    /// The session is over.
    Closed,
}

impl SlotPool {
    /// All slots of an arena of `bytes`, free.
    pub fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                taken: vec![false; bytes / SLOT],
                waiting: VecDeque::new(),
                closed: false,
            }),
        })
    }

    /// Takes adjacent slots for `bytes` (one at least), after everyone who asked before.
    pub async fn take(self: &Arc<Self>, bytes: usize) -> Result<Slots, NoSlots> {
        let count = bytes.div_ceil(SLOT).max(1);
        let receiver = {
            let mut state = self.lock();
            if state.closed {
                return Err(NoSlots::Closed);
            }
            if count > state.taken.len() {
                return Err(NoSlots::TooLarge);
            }
            if state.waiting.is_empty()
                && let Some(first) = state.claim(count)
            {
                return Ok(self.slots(first, count));
            }
            let (sender, receiver) = oneshot::channel();
            state.waiting.push_back(Waiter { count, sender });
            receiver
        };
        let _passed_on = Queued(self);
        receiver.await.map_err(|_| NoSlots::Closed)
    }

    /// Ends all waiting, now and later. Slots that are taken stay so until they are dropped.
    pub fn close(&self) {
        let waiting = {
            let mut state = self.lock();
            state.closed = true;
            std::mem::take(&mut state.waiting)
        };
        drop(waiting);
    }

    /// How many slots are taken.
    pub fn taken(&self) -> usize {
        self.lock().taken.iter().filter(|taken| **taken).count()
    }

    fn slots(self: &Arc<Self>, first: usize, count: usize) -> Slots {
        Slots {
            pool: Arc::clone(self),
            first,
            count,
        }
    }

    /// Gives free slots to those who wait, in their order.
    fn serve(self: &Arc<Self>) {
        loop {
            let (sender, slots) = {
                let mut state = self.lock();
                while state.waiting.front().is_some_and(|w| w.sender.is_closed()) {
                    state.waiting.pop_front();
                }
                let Some(count) = state.waiting.front().map(|w| w.count) else {
                    return;
                };
                let Some(first) = state.claim(count) else {
                    return;
                };
                match state.waiting.pop_front() {
                    Some(waiter) => (waiter.sender, self.slots(first, count)),
                    None => return,
                }
            };
            // Outside the lock: slots that the receiver no longer wants come back through their drop.
            drop(sender.send(slots));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Single slots from the low end, runs from the high end, which keeps runs findable.
    fn claim(&mut self, count: usize) -> Option<usize> {
        let first = if count == 1 {
            self.taken.iter().position(|taken| !taken)?
        } else {
            self.taken
                .windows(count)
                .rposition(|run| run.iter().all(|taken| !taken))?
        };
        self.taken[first..first + count].fill(true);
        Some(first)
    }
}

impl Slots {
    /// Where in the arena they begin, in bytes.
    pub fn offset(&self) -> usize {
        self.first * SLOT
    }

    /// How many bytes they have.
    pub fn bytes(&self) -> usize {
        self.count * SLOT
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        self.pool.lock().taken[self.first..self.first + self.count].fill(false);
        self.pool.serve();
    }
}

/// Lets those behind move up when the one who waits gives up.
struct Queued<'a>(&'a Arc<SlotPool>);

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.serve();
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that meets an error it did not expect shall stop there"
)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn first_come_first_served() {
        let pool = SlotPool::new(4 * SLOT);
        let small = pool.take(1).await.unwrap();
        let run = pool.take(3 * SLOT).await.unwrap();
        assert_eq!(
            (small.offset(), run.offset(), run.bytes()),
            (0, SLOT, 3 * SLOT)
        );
        assert_eq!(pool.take(5 * SLOT).await.unwrap_err(), NoSlots::TooLarge);

        let all = tokio::spawn({
            let pool = Arc::clone(&pool);
            async move { pool.take(4 * SLOT).await.map(|slots| slots.bytes()) }
        });
        while pool.lock().waiting.is_empty() {
            tokio::task::yield_now().await;
        }
        // One slot becomes free, but the large request came first.
        drop(small);
        let passed = tokio::time::timeout(Duration::from_millis(20), pool.take(1)).await;
        assert!(passed.is_err(), "a later request overtook");
        drop(run);
        assert_eq!(all.await.unwrap().unwrap(), 4 * SLOT);
        assert_eq!(pool.taken(), 0);
    }

    #[tokio::test]
    async fn one_who_gives_up_lets_the_next_move_up() {
        let pool = SlotPool::new(2 * SLOT);
        let held = pool.take(1).await.unwrap();
        let impatient = tokio::time::timeout(Duration::from_millis(50), pool.take(2 * SLOT));
        let next = pool.take(1);
        let (gave_up, got) = tokio::join!(impatient, next);
        assert!(gave_up.is_err());
        got.unwrap();
        pool.close();
        assert_eq!(pool.take(1).await.unwrap_err(), NoSlots::Closed);
        assert_eq!(pool.taken(), 1);
        drop(held);
        assert_eq!(pool.taken(), 0);
    }
}
