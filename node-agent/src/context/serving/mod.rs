//! The task that serves: opens and closes stores as drives come and go, opens doors, and keeps the rack's map current.

mod drives;
mod pods;
mod showing;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use strand_context_store::{DriveFault, Recovery, Store};
use strand_drives::DriveHost;
use strand_kv_door::ArenaBudget;
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use self::drives::Slot;
use super::discard::Good;
use super::doors::{DoorRequest, Records};
use super::drive::ServeError;
use super::network::Network;
use super::policies::Policies;
use super::pool::Pool;
use super::report::{DriveStanding, Open, Shown};
use super::wanted::Wanted;
use super::{DoorError, OpenDoor};

/// How often what the stores hold is told to the agent.
const LOOK: Duration = Duration::from_secs(10);
/// Most that ending waits for stores to end in order; what is cut off is scanned at the next start.
const FAREWELL: Duration = Duration::from_secs(8);

/// What the task is asked, and what comes back to it from what it started.
pub(super) enum Ask {
    Serve(Box<Wanted>),
    Hold {
        drive: String,
        held: oneshot::Sender<Hold>,
    },
    LetGo(String),
    OpenDoor {
        id: String,
        request: DoorRequest,
        answer: oneshot::Sender<Result<OpenDoor, DoorError>>,
    },
    CloseDoor {
        id: String,
        answer: oneshot::Sender<Result<(), DoorError>>,
    },
    Doors(oneshot::Sender<BTreeMap<String, DoorRequest>>),
    Opened {
        drive: String,
        result: Box<Result<(Store, Recovery), ServeError>>,
    },
    Joined {
        drive: String,
        result: Result<(), String>,
    },
    Closed(String),
    Fault {
        drive: String,
        fault: DriveFault,
    },
    End(oneshot::Sender<()>),
}

/// While it lives, a drive's context partition is closed.
pub struct Hold {
    drive: String,
    asks: mpsc::UnboundedSender<Ask>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        // A task that has ended holds nothing open.
        let _ = self.asks.send(Ask::LetGo(std::mem::take(&mut self.drive)));
    }
}

pub(super) struct Serving {
    host: Arc<dyn DriveHost>,
    kept: Option<Kept>,
    policies: Policies,
    budget: Arc<ArenaBudget>,
    network: Network,
    asks: mpsc::UnboundedSender<Ask>,
    standing: watch::Sender<BTreeMap<String, DriveStanding>>,
    shown: Shown,
    wanted: Wanted,
    pools: BTreeMap<Uuid, Pool>,
    slots: BTreeMap<String, Slot>,
    held: BTreeMap<String, usize>,
    waiting: BTreeMap<String, Vec<oneshot::Sender<Hold>>>,
    /// Drives that were taken out for their faults, and why.
    failed: BTreeMap<String, String>,
}

/// What outlives the agent.
struct Kept {
    doors: Records,
    good: Good,
}

/// What the task talks through.
pub(super) struct Channels {
    pub(super) asks: mpsc::UnboundedSender<Ask>,
    pub(super) standing: watch::Sender<BTreeMap<String, DriveStanding>>,
    pub(super) shown: Shown,
}

impl Serving {
    pub(super) fn new(
        network: Network,
        arena_bytes: usize,
        state_dir: Option<&Path>,
        host: Arc<dyn DriveHost>,
        channels: Channels,
    ) -> io::Result<Self> {
        let kept = |dir: &Path| {
            Ok::<_, io::Error>(Kept {
                doors: Records::open(dir)?,
                good: Good::open(dir)?,
            })
        };
        Ok(Self {
            host,
            kept: state_dir.map(kept).transpose()?,
            policies: Policies::open(state_dir)?,
            budget: ArenaBudget::new(arena_bytes),
            network,
            asks: channels.asks,
            standing: channels.standing,
            shown: channels.shown,
            wanted: Wanted::default(),
            pools: BTreeMap::new(),
            slots: BTreeMap::new(),
            held: BTreeMap::new(),
            waiting: BTreeMap::new(),
            failed: BTreeMap::new(),
        })
    }

    /// Serves until it is told to end.
    pub(super) async fn run(mut self, mut asked: mpsc::UnboundedReceiver<Ask>) {
        self.reopen_doors();
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let ended = loop {
            tokio::select! {
                ask = asked.recv() => match ask {
                    Some(Ask::End(ended)) => break Some(ended),
                    Some(ask) => self.take(ask),
                    None => break None,
                },
                _ = look.tick() => {
                    self.serve();
                    self.tell();
                }
            }
        };
        self.end().await;
        if let Some(ended) = ended {
            // Nobody may wait any more.
            let _ = ended.send(());
        }
    }

    fn take(&mut self, ask: Ask) {
        match ask {
            Ask::Serve(wanted) => {
                self.failed
                    .retain(|drive, _| wanted.drives.contains_key(drive));
                for (id, pool) in &wanted.pools {
                    if let Some(policy) = &pool.policy {
                        self.policies.learn(*id, policy);
                    }
                }
                self.wanted = *wanted;
                self.serve();
            }
            Ask::Hold { drive, held } => {
                *self.held.entry(drive.clone()).or_default() += 1;
                self.waiting.entry(drive.clone()).or_default().push(held);
                self.serve();
            }
            Ask::LetGo(drive) => {
                if let Some(count) = self.held.get_mut(&drive) {
                    *count -= 1;
                    if *count == 0 {
                        self.held.remove(&drive);
                    }
                }
                self.serve();
            }
            Ask::OpenDoor {
                id,
                request,
                answer,
            } => {
                let _ = answer.send(self.open_door(&id, request));
            }
            Ask::CloseDoor { id, answer } => {
                let _ = answer.send(self.close_door(&id));
            }
            Ask::Doors(answer) => {
                let doors = self.pools.values().flat_map(Pool::doors);
                let _ = answer.send(doors.collect());
            }
            Ask::Opened { drive, result } => self.opened(&drive, *result),
            Ask::Joined { drive, result } => self.joined(&drive, result),
            Ask::Closed(drive) => {
                self.slots.remove(&drive);
                self.serve();
            }
            Ask::Fault { drive, fault } => self.fault(&drive, &fault),
            // Taken by the loop.
            Ask::End(_) => {}
        }
    }

    /// Brings what is open to what is wanted.
    fn serve(&mut self) {
        self.serve_pools();
        let names: BTreeSet<String> = self
            .wanted
            .drives
            .keys()
            .chain(self.slots.keys())
            .chain(self.waiting.keys())
            .cloned()
            .collect();
        for name in names {
            self.serve_drive(&name);
            self.join(&name);
        }
        self.show();
    }

    fn serve_pools(&mut self) {
        let drives: BTreeSet<Uuid> = self.wanted.drives.values().map(|d| d.pool_id).collect();
        for (id, wanted) in &self.wanted.pools {
            if drives.contains(id) && !self.pools.contains_key(id) {
                let policy = self.policies.of(id);
                match Pool::new(*id, &wanted.name, &policy, &self.network, &self.budget) {
                    Ok(pool) => {
                        self.pools.insert(*id, pool);
                    }
                    // The next look tries again.
                    Err(error) => {
                        tracing::error!(pool = wanted.name, %error, "a pool cannot be served yet");
                    }
                }
            }
            if let Some(pool) = self.pools.get_mut(id) {
                pool.follow(wanted);
            }
        }
        let wanted = &self.wanted.pools;
        let slots = &self.slots;
        let serves = |id: &Uuid| {
            slots
                .values()
                .any(|slot| slot.drive().is_some_and(|drive| drive.pool_id == *id))
        };
        let network = &self.network;
        self.pools.retain(|id, pool| {
            let stays = wanted.contains_key(id) || pool.has_doors() || serves(id);
            if !stays {
                network.forget(*id);
            }
            stays
        });
    }

    /// Ends all doors, then all stores, in order.
    async fn end(mut self) {
        for pool in self.pools.values_mut() {
            pool.close_doors();
        }
        self.shown.set(Open::default());
        let closing = self.slots.into_values().filter_map(|slot| match slot {
            Slot::Serving(serves) => {
                if let Some(pool) = self.pools.get(&serves.drive.pool_id) {
                    pool.remove_drive(&serves.drive);
                }
                Some(serves.store.close())
            }
            _ => None,
        });
        let all = futures::future::join_all(closing);
        if tokio::time::timeout(FAREWELL, all).await.is_err() {
            tracing::warn!("context memory does not come to an end; the next start reads it back");
        }
    }
}
