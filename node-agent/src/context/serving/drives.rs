//! Drives on their way into service and out of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use strand_api::ContextMemoryPolicy;
use strand_context_store::{DriveFault, Recovery, Store};
use strand_drives::OwnedDrive;
use uuid::Uuid;

use super::{Ask, Hold, Serving};
use crate::context::discard::{self, Good, Join};
use crate::context::drive::{self, Faults, ServeError};

/// Between two attempts to open a partition that could not be opened.
const RETRY: Duration = Duration::from_secs(10);

/// A drive on its way into service and out of it.
pub(super) enum Slot {
    Opening(OwnedDrive, ContextMemoryPolicy),
    Serving(Box<Serves>),
    Closing,
    Failed {
        drive: OwnedDrive,
        message: String,
        retry_at: Instant,
    },
}

/// A drive whose store is open.
pub(super) struct Serves {
    pub(super) drive: OwnedDrive,
    /// By which the store was opened; another one needs it opened anew.
    policy: ContextMemoryPolicy,
    pub(super) store: Store,
    faults: Faults,
    pub(super) joined: Joined,
    pub(super) recovery: Recovery,
}

/// Whether a store is part of its rack.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Joined {
    No,
    /// It is on the way; closing it waits for that.
    Joining,
    Yes,
}

impl Serving {
    pub(super) fn serve_drive(&mut self, name: &str) {
        let may = !self.held.contains_key(name) && !self.failed.contains_key(name);
        let wanted = self.wanted.drives.get(name).filter(|_| may).cloned();
        match (self.slots.get(name), wanted) {
            (None, Some(drive)) => self.open(name, drive),
            (
                Some(Slot::Failed {
                    drive, retry_at, ..
                }),
                Some(wanted),
            ) => {
                if !same(drive, &wanted) || *retry_at <= Instant::now() {
                    self.open(name, wanted);
                }
            }
            (Some(Slot::Serving(serves)), Some(wanted))
                if same(&serves.drive, &wanted)
                    && serves.policy == self.policies.of(&wanted.pool_id) => {}
            (Some(Slot::Serving(serves)), _) if serves.joined == Joined::Joining => {}
            (Some(Slot::Serving(_)), _) => self.close(name),
            (Some(Slot::Failed { .. }), None) => {
                self.slots.remove(name);
            }
            (Some(Slot::Opening(..) | Slot::Closing) | None, _) => {}
        }
        if !self.slots.contains_key(name) {
            for held in self.waiting.remove(name).into_iter().flatten() {
                let hold = Hold {
                    drive: name.to_owned(),
                    asks: self.asks.clone(),
                };
                // Who does not wait any more drops the hold, which lets the drive go.
                let _ = held.send(hold);
            }
        }
    }

    fn open(&mut self, name: &str, drive: OwnedDrive) {
        let policy = self.policies.of(&drive.pool_id);
        let host = Arc::clone(&self.host);
        let (asks, told) = (self.asks.clone(), self.asks.clone());
        let (named, of) = (name.to_owned(), name.to_owned());
        self.slots.insert(
            name.to_owned(),
            Slot::Opening(drive.clone(), policy.clone()),
        );
        tokio::spawn(async move {
            let on_fault = Arc::new(move |fault| {
                // An agent that ends counts no faults.
                let _ = told.send(Ask::Fault {
                    drive: of.clone(),
                    fault,
                });
            });
            let result = Box::new(drive::open(host, drive, &policy, on_fault).await);
            let opened = Ask::Opened {
                drive: named,
                result,
            };
            // A task that has ended drops the store with the message.
            let _ = asks.send(opened);
        });
    }

    pub(super) fn opened(&mut self, name: &str, result: Result<(Store, Recovery), ServeError>) {
        let Some(Slot::Opening(drive, policy)) = self.slots.remove(name) else {
            return;
        };
        match result {
            Ok((store, recovery)) => {
                tracing::info!(
                    drive = name,
                    blocks = recovery.blocks,
                    took_ms = recovery.took.as_millis() as u64,
                    formatted = recovery.formatted,
                    engine = store.stats().engine,
                    "context memory is served"
                );
                let serves = Serves {
                    drive,
                    policy,
                    store,
                    faults: Faults::default(),
                    joined: Joined::No,
                    recovery,
                };
                let slot = Slot::Serving(Box::new(serves));
                self.slots.insert(name.to_owned(), slot);
            }
            Err(error) => {
                tracing::error!(drive = name, %error, "context memory is not served; it is tried again");
                let slot = Slot::Failed {
                    drive,
                    message: error.to_string(),
                    retry_at: Instant::now() + RETRY,
                };
                self.slots.insert(name.to_owned(), slot);
            }
        }
        self.serve();
        self.tell();
    }

    /// Makes a store part of its rack once what it holds is good for the newest map.
    pub(super) fn join(&mut self, name: &str) {
        let Some(Slot::Serving(serves)) = self.slots.get_mut(name) else {
            return;
        };
        let Serves { drive, store, .. } = &**serves;
        let Some(pool) = self.pools.get(&drive.pool_id) else {
            return;
        };
        let good = self.kept.as_ref().map(|kept| kept.good.clone());
        let listed = pool.listed(self.network.node(), drive);
        // An agent that keeps nothing between runs, as in tests, takes what it finds.
        let recorded = match &good {
            Some(good) => good.read(&drive.drive_id),
            None => listed,
        };
        let discard = match (discard::join(listed, recorded), serves.joined) {
            (Join::Wait, _) | (_, Joined::Joining) | (Join::Now, Joined::Yes) => return,
            (Join::Now, Joined::No) => None,
            (Join::AfterDiscard(since), _) => Some(since),
        };
        pool.remove_drive(drive);
        let joining = pool.add_drive(drive, store);
        let (store, id) = (store.clone(), drive.drive_id);
        let (asks, drive) = (self.asks.clone(), name.to_owned());
        serves.joined = Joined::Joining;
        tokio::spawn(async move {
            let discarded = match discard {
                Some(since) => discard_before(&store, id, since, good).await,
                None => Ok(()),
            };
            let result = discarded.map_err(|error| error.to_string());
            if result.is_ok() {
                joining.await;
            }
            // A task that has ended asks again at the next start.
            let _ = asks.send(Ask::Joined { drive, result });
        });
    }

    pub(super) fn joined(&mut self, name: &str, result: Result<(), String>) {
        if let Some(Slot::Serving(serves)) = self.slots.get_mut(name) {
            serves.joined = match &result {
                Ok(()) => Joined::Yes,
                Err(_) => Joined::No,
            };
        }
        match result {
            Ok(()) => self.serve(),
            // The next look tries again.
            Err(error) => {
                tracing::warn!(drive = name, %error, "blocks of before could not be discarded; the drive does not serve yet");
            }
        }
    }

    fn close(&mut self, name: &str) {
        let closing = self.slots.insert(name.to_owned(), Slot::Closing);
        let Some(Slot::Serving(serves)) = closing else {
            return;
        };
        let Serves { drive, store, .. } = *serves;
        if let Some(pool) = self.pools.get(&drive.pool_id) {
            pool.remove_drive(&drive);
        }
        let (asks, name) = (self.asks.clone(), name.to_owned());
        tokio::spawn(async move {
            store.close().await;
            tracing::info!(drive = name, "context memory is no longer served");
            let _ = asks.send(Ask::Closed(name));
        });
    }

    pub(super) fn fault(&mut self, name: &str, fault: &DriveFault) {
        tracing::warn!(drive = name, fault = drive::words(fault), "a drive's fault");
        let Some(Slot::Serving(serves)) = self.slots.get_mut(name) else {
            return;
        };
        if let Some(why) = serves.faults.take(fault, Instant::now()) {
            tracing::error!(drive = name, why, "the drive is taken out");
            self.failed.insert(name.to_owned(), why);
            self.serve();
            self.tell();
        }
    }
}

impl Slot {
    pub(super) fn drive(&self) -> Option<&OwnedDrive> {
        match self {
            Slot::Opening(drive, _) | Slot::Failed { drive, .. } => Some(drive),
            Slot::Serving(serves) => Some(&serves.drive),
            Slot::Closing => None,
        }
    }
}

/// Discards what a drive holds, durably, then writes down for which epoch it is good.
async fn discard_before(
    store: &Store,
    drive: Uuid,
    since: i64,
    good: Option<Good>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    store.discard_all().await?;
    let noted = tokio::task::spawn_blocking(move || match good {
        Some(good) => good.write(&drive, since),
        None => Ok(()),
    });
    Ok(noted.await??)
}

/// Whether two are one drive with one carve: its device may be named anew meanwhile.
fn same(a: &OwnedDrive, b: &OwnedDrive) -> bool {
    (a.pool_id, a.drive_id, a.layout) == (b.pool_id, b.drive_id, b.layout)
}
