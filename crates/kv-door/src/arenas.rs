//! One pod's arena memory: made for a session, then reused by the next one of the same pod.
//!
//! It is never freed while the door is open. A pod that keeps an old mapping keeps its pages alive whatever the agent
//! does (a sealed GET cannot even be punched), so memory that were made anew for each session would let a pod that
//! reconnects grow without bound. It is reused once nothing of the old session can see it: every lease and every
//! operation in the agent is gone, and the pipe is closed that the client holds open while it has the arenas mapped
//! (the kernel closes it for a client that is killed). A pod that lies about the latter confuses only itself.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use strand_kv_client::arena::{AgentArenas, ArenaMemory};
use strand_kv_client::frame::{Code, Hello};
use strand_kv_client::slots::SLOT;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

use crate::budget::{ArenaBudget, Granted};
use crate::{Blocks, Refused};

/// The least that a session can work with: a slot of each arena.
const LEAST: usize = 2 * SLOT;

#[derive(Debug)]
pub(crate) struct Arenas<A> {
    /// What the pod may have in all, bytes.
    limit: usize,
    budget: Arc<ArenaBudget>,
    /// Bytes of all pods of the node.
    node: Arc<AtomicUsize>,
    state: Mutex<State<A>>,
}

#[derive(Debug)]
struct State<A> {
    /// Bytes of everything that was made for this pod.
    made: usize,
    free: Vec<(ArenaMemory<A>, Granted)>,
}

/// Arenas in the hands of a session, and what brings them back.
pub(crate) struct Lent<A> {
    pub(crate) arenas: Arc<AgentArenas<A>>,
    /// For the client to hold.
    pub(crate) hold: OwnedFd,
    held: pipe::Receiver,
    back: oneshot::Receiver<ArenaMemory<A>>,
    granted: Granted,
}

/// Brings arenas back once a session's last use of them is over.
pub(crate) struct Return<A> {
    held: pipe::Receiver,
    back: oneshot::Receiver<ArenaMemory<A>>,
    granted: Granted,
}

impl<A: Send + Sync + 'static> Arenas<A> {
    pub(crate) fn new(limit: usize, budget: Arc<ArenaBudget>, node: Arc<AtomicUsize>) -> Arc<Self> {
        Arc::new(Self {
            limit,
            budget,
            node,
            state: Mutex::new(State {
                made: 0,
                free: Vec::new(),
            }),
        })
    }

    /// Arenas for a new session: those of an earlier one, or new ones of what the pod and the node have left.
    pub(crate) fn lend(
        &self,
        blocks: &impl Blocks<Arena = A>,
        hello: &Hello,
    ) -> Result<Lent<A>, Refused> {
        let free = self.lock().free.pop();
        let (memory, granted) = match free {
            Some(free) => free,
            None => self.make(blocks, hello)?,
        };
        let (reader, writer) = std::io::pipe().map_err(failed)?;
        let held = pipe::Receiver::from_owned_fd(reader.into()).map_err(failed)?;
        let (arenas, back) = AgentArenas::lend(memory);
        Ok(Lent {
            arenas,
            hold: writer.into(),
            held,
            back,
            granted,
        })
    }

    fn make(
        &self,
        blocks: &impl Blocks<Arena = A>,
        hello: &Hello,
    ) -> Result<(ArenaMemory<A>, Granted), Refused> {
        let mut state = self.lock();
        let left = self.limit.saturating_sub(state.made);
        if left < LEAST {
            return Err(Refused::new(
                Code::PodBudget,
                format!(
                    "all {} arena bytes of this pod are in use by its other sessions, or still mapped by clients that \
                     lost theirs; close those or raise the pod's arena size",
                    self.limit
                ),
            ));
        }
        let (get, put) = split(hello, left);
        let granted = (self.budget.take(get + put, LEAST, SLOT)).ok_or_else(|| {
            Refused::new(
                Code::NodeBudget,
                format!(
                    "the pods of this node use {} of its {} arena bytes; raise the total or close other pods' doors",
                    self.budget.granted(),
                    self.budget.total()
                ),
            )
        })?;
        let (get, put) = shrink(get, put, granted.bytes);
        let memory =
            ArenaMemory::create(get, put, |get, put| blocks.map(get, put)).map_err(failed)?;
        state.made += granted.bytes;
        self.node.fetch_add(granted.bytes, Ordering::Relaxed);
        Ok((memory, granted))
    }

    fn lock(&self) -> MutexGuard<'_, State<A>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<A> Drop for Arenas<A> {
    fn drop(&mut self) {
        let made = self
            .state
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .made;
        self.node.fetch_sub(made, Ordering::Relaxed);
    }
}

impl<A: Send + Sync + 'static> Lent<A> {
    /// The session's part, what the client is to hold, and the way back.
    pub(crate) fn parts(self) -> (Arc<AgentArenas<A>>, OwnedFd, Return<A>) {
        let back = Return {
            held: self.held,
            back: self.back,
            granted: self.granted,
        };
        (self.arenas, self.hold, back)
    }
}

impl<A: Send + Sync + 'static> Return<A> {
    /// Waits for the end of every use and puts the memory back.
    pub(crate) async fn to(self, arenas: &Arenas<A>) {
        let Ok(memory) = self.back.await else {
            return;
        };
        // Bytes in the pipe say that the client is not ours; it loses no more than its own reads.
        while self.held.readable().await.is_ok() {
            match self.held.try_read(&mut [0]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                _ => break,
            }
        }
        arenas.lock().free.push((memory, self.granted));
    }
}

/// How a session's bytes are divided: as the client asks, by default in halves; never more than `left`.
fn split(hello: &Hello, left: usize) -> (usize, usize) {
    let asked = |bytes: u64| match usize::try_from(bytes).unwrap_or(usize::MAX) {
        0 => left / 2,
        bytes => bytes.min(left).div_ceil(SLOT) * SLOT,
    };
    shrink(asked(hello.get_bytes), asked(hello.put_bytes), left)
}

/// Both in proportion, whole slots, one each at least, `bytes` in all at most. `bytes` is at least [`LEAST`].
fn shrink(get: usize, put: usize, bytes: usize) -> (usize, usize) {
    let slots = bytes / SLOT;
    let (get, put) = ((get / SLOT).max(1), (put / SLOT).max(1));
    if get + put <= slots {
        return (get * SLOT, put * SLOT);
    }
    let get = (get * slots / (get + put)).clamp(1, slots - 1);
    (get * SLOT, (slots - get) * SLOT)
}

fn failed(error: io::Error) -> Refused {
    Refused::new(
        Code::NodeBudget,
        format!("the agent could not make an arena: {error}; look at its memory and file limits"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use strand_kv_client::frame::Versions;

    proptest! {
        #[test]
        fn a_split_stays_inside_what_is_left(get in any::<u64>(), put in any::<u64>(), left in 2usize..300) {
            let versions = Versions::ours();
            let hello = Hello { versions, get_bytes: get, put_bytes: put, name: String::new() };
            let (get, put) = split(&hello, left * SLOT);
            prop_assert!(get >= SLOT && put >= SLOT);
            prop_assert!(get + put <= left * SLOT);
            prop_assert_eq!((get % SLOT, put % SLOT), (0, 0));
        }
    }
}
