//! A peer: whether it can be asked now, and if not, how it comes back.
//!
//! ```text
//! Idle ─first request→ Connecting ─→ Up ─no progress, or the connection failed→ Dead ─→ (probes) ─→ Up
//! ```
//! What is Dead fails at once. Before a link is Up, what is owed at the peer has been deleted there.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::frame::{Deletion, Reply, Request, Spot};
use crate::inbox::Faults;
use crate::ledger::Ledger;
use crate::link::{Link, Lost};
use crate::options::RackOptions;
use crate::owners::Place;
use crate::rack::WeakRack;
use crate::stats::{PeerState, PeerStats};

/// The first pause between probes of a dead peer, and the longest.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(2);

/// How long a probe may take until the peer is ready.
const PROBE: Duration = Duration::from_secs(2);

/// Keys that are deleted in one request of those that are owed.
const BATCH: usize = 256;

pub(crate) struct Peer {
    node: Arc<str>,
    address: Mutex<String>,
    options: Arc<RackOptions>,
    ledger: Arc<Ledger>,
    rack: WeakRack,
    stage: watch::Sender<Stage>,
    keeper: Mutex<Option<AbortHandle>>,
    /// When it was last seen to die.
    died: Mutex<Option<Instant>>,
    faults: Arc<Faults>,
    pub(crate) tally: Tally,
}

#[derive(Clone, Default)]
enum Stage {
    #[default]
    Idle,
    Connecting,
    Up(Arc<Link>),
    Dead,
}

/// Counters besides those of the link.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) requests: AtomicU64,
    pub(crate) hits: AtomicU64,
    pub(crate) misses: AtomicU64,
    deaths: AtomicU64,
    timeouts: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

impl Peer {
    pub(crate) fn new(
        node: Arc<str>,
        address: String,
        options: Arc<RackOptions>,
        ledger: Arc<Ledger>,
        rack: WeakRack,
    ) -> Arc<Self> {
        Arc::new(Self {
            node,
            address: Mutex::new(address),
            options,
            ledger,
            rack,
            stage: watch::Sender::default(),
            keeper: Mutex::default(),
            died: Mutex::default(),
            faults: Arc::default(),
            tally: Tally::default(),
        })
    }

    /// Where the peer is from now on; a link that stands goes on.
    pub(crate) fn move_to(&self, address: String) {
        *lock(&self.address) = address;
    }

    /// The link, if the peer can be asked now. Waits for the first connection, not longer than for any progress.
    pub(crate) async fn link(self: &Arc<Self>) -> Result<Arc<Link>, Lost> {
        match &*self.stage.borrow() {
            Stage::Up(link) => return Ok(Arc::clone(link)),
            Stage::Dead => return Err(Lost),
            Stage::Idle | Stage::Connecting => {}
        }
        self.start();
        let mut stage = self.stage.subscribe();
        let known = stage.wait_for(|stage| matches!(stage, Stage::Up(_) | Stage::Dead));
        match timeout(self.options.patience * 2, known).await {
            Ok(Ok(stage)) => match &*stage {
                Stage::Up(link) => Ok(Arc::clone(link)),
                _ => Err(Lost),
            },
            _ => Err(Lost),
        }
    }

    /// Whether it cannot be asked now.
    pub(crate) fn is_dead(&self) -> bool {
        matches!(*self.stage.borrow(), Stage::Dead)
    }

    /// Whether it is dead, or was within this time.
    pub(crate) fn was_dead(&self, within: Duration) -> bool {
        lock(&self.died).is_some_and(|died| died.elapsed() < within)
    }

    /// Ends the link and stops probing.
    pub(crate) fn stop(&self) {
        if let Some(keeper) = lock(&self.keeper).take() {
            keeper.abort();
        }
        if let Stage::Up(link) = self.stage.send_replace(Stage::Dead) {
            link.end();
        }
    }

    pub(crate) fn stats(&self) -> PeerStats {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let tally = &self.tally;
        let mut stats = PeerStats {
            node: self.node.to_string(),
            state: PeerState::Idle,
            requests: load(&tally.requests),
            hits: load(&tally.hits),
            misses: load(&tally.misses),
            bytes_in: load(&tally.bytes_in),
            bytes_out: load(&tally.bytes_out),
            deaths: load(&tally.deaths),
            timeouts: load(&tally.timeouts),
            late_pieces: load(&self.faults.late),
            torn_pieces: load(&self.faults.torn),
            waiting: 0,
        };
        match &*self.stage.borrow() {
            Stage::Idle => {}
            Stage::Connecting => stats.state = PeerState::Connecting,
            Stage::Dead => stats.state = PeerState::Dead,
            Stage::Up(link) => {
                let (bytes_in, bytes_out) = link.bytes();
                stats.state = PeerState::Up;
                stats.bytes_in += bytes_in;
                stats.bytes_out += bytes_out;
                stats.timeouts += load(&link.timeouts);
                stats.waiting = link.waiting();
            }
        }
        stats
    }

    fn start(self: &Arc<Self>) {
        let begun = self.stage.send_if_modified(|stage| {
            let idle = matches!(stage, Stage::Idle);
            if idle {
                *stage = Stage::Connecting;
            }
            idle
        });
        if begun {
            let keeper = tokio::spawn(Arc::clone(self).keep());
            *lock(&self.keeper) = Some(keeper.abort_handle());
        }
    }

    /// Connects, again and again.
    async fn keep(self: Arc<Self>) {
        let mut pause = PAUSE;
        loop {
            let patience = self.options.patience;
            let mut attempt = std::pin::pin!(timeout(PROBE, self.connect()));
            let connected = match timeout(patience, &mut attempt).await {
                Ok(connected) => connected,
                Err(_) => {
                    self.die("it did not answer in time");
                    attempt.await
                }
            };
            match connected {
                Ok(Ok((link, ends))) => {
                    let running = {
                        let link = Arc::clone(&link);
                        tokio::spawn(async move { link.run(ends).await })
                    };
                    let mut beside = Vec::new();
                    if self.settle(&link, &mut beside).await.is_ok() {
                        tracing::info!(peer = %self.node, "connected to a peer");
                        pause = PAUSE;
                    } else {
                        link.end();
                    }
                    if let Some(rack) = self.rack.upgrade().filter(|_| !beside.is_empty()) {
                        tokio::spawn(async move { rack.clear_beside(beside).await });
                    }
                    let why = running.await.unwrap_or_else(|error| error.to_string());
                    self.die(&why);
                    let (bytes_in, bytes_out) = link.bytes();
                    self.tally.bytes_in.fetch_add(bytes_in, Ordering::Relaxed);
                    self.tally.bytes_out.fetch_add(bytes_out, Ordering::Relaxed);
                    let timeouts = link.timeouts.load(Ordering::Relaxed);
                    self.tally.timeouts.fetch_add(timeouts, Ordering::Relaxed);
                }
                Ok(Err(error)) => self.die(&error.to_string()),
                Err(_) => self.die("it did not become ready in time"),
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST);
        }
    }

    async fn connect(&self) -> Result<(Arc<Link>, crate::link::Ends), crate::greet::Estranged> {
        let address = lock(&self.address).clone();
        Link::connect(&self.options, &address, Arc::clone(&self.faults)).await
    }

    /// Deletes what is owed, and with nothing left, lets requests through. `beside`: what is to be deleted then elsewhere.
    async fn settle(&self, link: &Arc<Link>, beside: &mut Vec<(Place, Spot)>) -> Result<(), Lost> {
        let mut away = HashSet::new();
        loop {
            let owed = self.ledger.owed(&self.node, &away, BATCH);
            if owed.is_empty() {
                // Looked at again under the lock of the stage: whoever owes more looks at the stage afterwards.
                let up = self.stage.send_if_modified(|stage| {
                    let settled = self.ledger.owed(&self.node, &away, 1).is_empty();
                    if settled {
                        *stage = Stage::Up(Arc::clone(link));
                    }
                    settled
                });
                if up {
                    return Ok(());
                }
                continue;
            }
            let Reply::Deleted(outcomes) = link.ask(&Request::Delete(owed.clone())).await? else {
                return Err(Lost);
            };
            for (spot, outcome) in owed.iter().zip(outcomes) {
                match outcome {
                    Deletion::Absent | Deletion::Deleted => {
                        let other = self.ledger.paid(&self.node, spot);
                        beside.extend(other.map(|other| (other, spot.clone())));
                    }
                    // The peer ends its links when the drive comes.
                    Deletion::Away => {
                        away.insert(spot.at.drive);
                    }
                    Deletion::Failed => return Err(Lost),
                }
            }
        }
    }

    fn die(&self, why: &str) {
        *lock(&self.died) = Some(Instant::now());
        let died = self.stage.send_if_modified(|stage| {
            let alive = !matches!(stage, Stage::Dead);
            *stage = Stage::Dead;
            alive
        });
        if died {
            self.tally.deaths.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(peer = %self.node, why, "a peer is away: its blocks are misses until it answers again");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
