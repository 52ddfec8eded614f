//! The agent's own memory for values of peers: pages that drives read into and write out of, in buffers of one chunk.
//!
//! A peer may take more as long as it holds no more than what would then be left: one alone gets half, k get a k+1st each, and a
//! newcomer always finds some (the dynamic thresholds of Choudhury & Hahne, 1998). Who holds nothing may take all that
//! is free, so that the largest value passes.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use strand_context_store::{CHUNK, Region, Span};
use tokio::sync::oneshot;

/// A number for a peer, for as long as it is connected.
pub(crate) type Holder = u64;

#[derive(Debug)]
pub(crate) struct Buffers {
    state: Mutex<State>,
    count: usize,
}

#[derive(Debug)]
struct State {
    free: Vec<Span>,
    held: HashMap<Holder, usize>,
    waiting: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    holder: Holder,
    count: usize,
    sender: oneshot::Sender<Vec<Span>>,
}

/// Brings a buffer back once nothing reads or writes it any more.
struct Return {
    span: Option<Span>,
    holder: Holder,
    buffers: Arc<Buffers>,
}

impl Buffers {
    /// Buffers of `bytes` in all, one at least. Pages are taken on first use.
    pub(crate) fn new(bytes: usize) -> io::Result<Arc<Self>> {
        let count = (bytes / CHUNK).max(1);
        let region = Region::anonymous(count * CHUNK)?;
        let free = (0..count)
            .rev()
            .filter_map(|at| region.span(at * CHUNK, CHUNK));
        Ok(Arc::new(Self {
            state: Mutex::new(State {
                free: free.collect(),
                held: HashMap::new(),
                waiting: VecDeque::new(),
            }),
            count,
        }))
    }

    /// How many are out.
    pub(crate) fn taken(&self) -> usize {
        self.count - self.lock().free.len()
    }

    /// So many buffers together, in turn. None: there never were so many.
    pub(crate) async fn take(self: &Arc<Self>, holder: Holder, count: usize) -> Option<Vec<Span>> {
        if count > self.count {
            return None;
        }
        let receiver = {
            let mut state = self.lock();
            if state.waiting.is_empty() && state.may(holder, count) {
                let spans = state.take(holder, count);
                drop(state);
                return Some(self.guard(holder, spans));
            }
            let (sender, receiver) = oneshot::channel();
            state.waiting.push_back(Waiter {
                holder,
                count,
                sender,
            });
            receiver
        };
        self.serve();
        // Whoever stops waiting lets those behind move up.
        let _next = Next(self);
        receiver.await.ok()
    }

    fn guard(self: &Arc<Self>, holder: Holder, spans: Vec<Span>) -> Vec<Span> {
        let guard = |span: Span| {
            let back = Return {
                span: Some(span.clone()),
                holder,
                buffers: Arc::clone(self),
            };
            span.guarded(Arc::new(back))
        };
        spans.into_iter().map(guard).collect()
    }

    /// Gives what is free to those who wait: in their order, except that those over their share are passed over.
    fn serve(self: &Arc<Self>) {
        loop {
            let (waiter, spans) = {
                let mut state = self.lock();
                state.waiting.retain(|waiter| !waiter.sender.is_closed());
                let first = (state.waiting.iter()).position(|waiter| state.fair(waiter));
                let Some(at) = first.filter(|at| state.waiting[*at].count <= state.free.len())
                else {
                    return;
                };
                let Some(waiter) = state.waiting.remove(at) else {
                    return;
                };
                let spans = state.take(waiter.holder, waiter.count);
                (waiter, spans)
            };
            // Outside the lock: what the receiver no longer wants comes back through its guards.
            drop(waiter.sender.send(self.guard(waiter.holder, spans)));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn may(&self, holder: Holder, count: usize) -> bool {
        let held = self.held.get(&holder).copied().unwrap_or(0);
        count <= self.free.len() && (held == 0 || held + count <= self.free.len() - count)
    }

    /// Whether a waiter is inside its share, be there enough or not.
    fn fair(&self, waiter: &Waiter) -> bool {
        let held = self.held.get(&waiter.holder).copied().unwrap_or(0);
        held == 0 || held + 2 * waiter.count <= self.free.len()
    }

    fn take(&mut self, holder: Holder, count: usize) -> Vec<Span> {
        *self.held.entry(holder).or_default() += count;
        let left = self.free.len() - count;
        self.free.split_off(left)
    }
}

/// See [`Buffers::take`].
struct Next<'a>(&'a Arc<Buffers>);

impl Drop for Next<'_> {
    fn drop(&mut self) {
        self.0.serve();
    }
}

impl Drop for Return {
    fn drop(&mut self) {
        let Some(span) = self.span.take() else {
            return;
        };
        let mut state = self.buffers.lock();
        state.free.push(span);
        if let Some(held) = state.held.get_mut(&self.holder) {
            *held -= 1;
            if *held == 0 {
                state.held.remove(&self.holder);
            }
        }
        drop(state);
        self.buffers.serve();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_alone_gets_half_and_a_newcomer_always_finds_some() {
        let buffers = Buffers::new(8 * CHUNK).unwrap();
        let mut mine = Vec::new();
        for _ in 0..4 {
            mine.extend(buffers.take(1, 1).await.unwrap());
        }
        let mut fifth = Box::pin(buffers.take(1, 1));
        assert!(futures::poll!(&mut fifth).is_pending(), "more than half");
        let theirs = buffers.take(2, 4).await.unwrap();
        assert_eq!(theirs.len(), 4, "who holds nothing may take what is free");
        drop(theirs);
        mine.truncate(1);
        assert_eq!(fifth.await.unwrap().len(), 1);
        drop(mine);
        assert_eq!(buffers.taken(), 0);
        assert!(buffers.take(1, 9).await.is_none());
    }

    #[tokio::test]
    async fn who_gives_up_lets_the_next_move_up() {
        let buffers = Buffers::new(4 * CHUNK).unwrap();
        let held = buffers.take(1, 3).await.unwrap();
        let mut large = Box::pin(buffers.take(2, 4));
        assert!(futures::poll!(&mut large).is_pending());
        let mut small = Box::pin(buffers.take(3, 1));
        assert!(futures::poll!(&mut small).is_pending(), "it came later");
        drop(large);
        assert_eq!(small.await.unwrap().len(), 1);
        drop(held);
        assert_eq!(buffers.taken(), 0);
    }
}
