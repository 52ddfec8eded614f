//! The task that serves: opens storage sides as drives come ([`drives`]), has their legs tended and writes what became of them ([`legs`]),
//! answers who asks for a volume ([`asked`]), and sees to what other nodes have of legs ([`exports`]).

mod ask;
mod asked;
mod drives;
mod exports;
mod legs;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use strand_api::PoolLeg;
use strand_drives::DriveHost;
use strand_volumes::Storage;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use super::connections::Connections;
use super::evacuate::Copies;
use super::exports::Exports;
use super::metrics::VolumeMetrics;
use super::slot::{Slot, State};
use super::write::{LegWriter, Outbox};
use super::{StorageStanding, Wanted};
use crate::cached::Cached;
use crate::effects::Writer;

pub(super) use ask::Ask;
use ask::{Attachments, Unserved};

/// How often everything is looked over, whether or not something has changed.
const LOOK: Duration = Duration::from_secs(10);

pub(super) struct Serving {
    node: String,
    client: Client,
    host: Arc<dyn DriveHost>,
    storage: Arc<Storage>,
    metrics: VolumeMetrics,
    writer: Writer,
    leg_writer: LegWriter,
    asks: mpsc::UnboundedSender<Ask>,
    standing: watch::Sender<BTreeMap<String, StorageStanding>>,
    wanted: Wanted,
    slots: BTreeMap<String, Slot>,
    legs: Cached<PoolLeg>,
    outbox: Outbox,
    copies: Copies,
    exports: Arc<Exports>,
    connections: Connections,
    /// Since when it is known which drives there are.
    settled_at: Option<Instant>,
    /// Exports are about to be reached.
    opening: bool,
    /// Exports that no pass sees have to be looked at, or are.
    sweep_due: bool,
    sweeping: bool,
    /// Since when drives of legs are not served.
    unserved: BTreeMap<String, Instant>,
}

/// What the task works with.
pub(super) struct Parts {
    pub(super) node: String,
    pub(super) client: Client,
    pub(super) host: Arc<dyn DriveHost>,
    pub(super) storage: Arc<Storage>,
    pub(super) exports: Arc<Exports>,
    pub(super) connections: Connections,
    pub(super) writer: Writer,
    pub(super) asks: mpsc::UnboundedSender<Ask>,
    pub(super) standing: watch::Sender<BTreeMap<String, StorageStanding>>,
}

impl Serving {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts {
            node,
            client,
            host,
            storage,
            exports,
            connections,
            writer,
            asks,
            standing,
        } = parts;
        Self {
            node,
            leg_writer: LegWriter::new(client.clone()),
            client,
            host,
            storage,
            metrics: VolumeMetrics::new(),
            writer,
            asks,
            standing,
            wanted: Wanted::default(),
            slots: BTreeMap::new(),
            legs: Cached::default(),
            outbox: Outbox::default(),
            copies: Copies::default(),
            exports,
            connections,
            settled_at: None,
            opening: false,
            sweep_due: true,
            sweeping: false,
            unserved: BTreeMap::new(),
        }
    }

    pub(super) fn metrics(&self) -> VolumeMetrics {
        self.metrics.clone()
    }

    /// Serves until it is told to end.
    pub(super) async fn run(mut self, mut asked: mpsc::UnboundedReceiver<Ask>) {
        let config = watcher::Config::default().fields(&format!("spec.nodeName={}", self.node));
        let legs = watcher(Api::<PoolLeg>::all(self.client.clone()), config).default_backoff();
        let mut legs = legs.boxed();
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let ended = loop {
            self.step();
            let wake = self.outbox.wake().unwrap_or_else(|| Instant::now() + LOOK);
            tokio::select! {
                ask = asked.recv() => match ask {
                    Some(Ask::End(ended)) => break Some(ended),
                    Some(ask) => self.take(ask),
                    None => break None,
                },
                Some(news) = legs.next() => {
                    self.hear(news);
                    while let Some(Some(news)) = futures::FutureExt::now_or_never(legs.next()) {
                        self.hear(news);
                    }
                }
                _ = look.tick() => self.look(),
                () = tokio::time::sleep_until(wake.into()) => {}
            }
        };
        self.copies.stop();
        if let Some(ended) = ended {
            // Nobody may wait any more.
            let _ = ended.send(());
        }
    }

    fn hear(&mut self, news: Result<Event<PoolLeg>, watcher::Error>) {
        let event = match news {
            Ok(event) => event,
            Err(error) => {
                tracing::warn!(%error, "watching legs failed; it is tried again, and what is known stays");
                return;
            }
        };
        match &event {
            Event::Apply(leg) | Event::InitApply(leg) | Event::Delete(leg) => {
                // A server that knows no field selectors would show all nodes' legs.
                if leg.spec.node_name != self.node {
                    return;
                }
                self.sweep_due |= self.unseen(leg);
                self.touch(&leg.spec.drive.clone());
            }
            Event::Init => {}
            Event::InitDone => self.touch_all(),
        }
        self.legs.take(event);
    }

    fn touch(&mut self, drive: &str) {
        if let Some(slot) = self.slots.get_mut(drive) {
            slot.changed = true;
        }
    }

    fn touch_all(&mut self) {
        for slot in self.slots.values_mut() {
            slot.changed = true;
        }
    }

    fn look(&mut self) {
        self.touch_all();
        self.sweep_due = true;
        self.connections.sweep();
        self.trim();
        self.tell_unserved();
        if self.wanted.settled {
            let drives = self.wanted.drives.values();
            let known: Vec<Uuid> = drives.map(|owned| owned.drive_id).collect();
            let storage = Arc::clone(&self.storage);
            tokio::task::spawn_blocking(move || {
                if let Err(error) = storage.sweep(&known) {
                    tracing::warn!(%error, "mounts of drives that are gone cannot be looked for");
                }
            });
        }
    }

    fn take(&mut self, ask: Ask) {
        match ask {
            Ask::Serve(wanted) => {
                for (name, owned) in &wanted.drives {
                    let slot = self
                        .slots
                        .entry(name.clone())
                        .or_insert_with(|| Slot::new(owned.clone()));
                    if slot.owned != *owned {
                        slot.owned = owned.clone();
                        match slot.state {
                            // A partition may have grown.
                            State::Open(_) if slot.holds == 0 => self.open(name),
                            State::Failed { .. } => slot.state = State::Closed,
                            _ => {}
                        }
                    }
                }
                for name in wanted.gone.difference(&self.wanted.gone) {
                    if let Some(slot) = self.slots.get_mut(name) {
                        slot.changed = true;
                    }
                }
                self.wanted = *wanted;
            }
            Ask::Hold { drive, held } => self.hold(drive, held),
            Ask::LetGo(drive) => {
                if let Some(slot) = self.slots.get_mut(&drive) {
                    slot.holds = slot.holds.saturating_sub(1);
                    slot.changed = true;
                }
            }
            // Who does not wait any more needs no answer.
            Ask::Find { volume, answer } => drop(answer.send(self.to_attach(&volume))),
            Ask::FindLeg {
                volume,
                uuid,
                answer,
            } => drop(answer.send(self.leg(&volume, uuid))),
            Ask::FindAttached { volume, answer } => drop(answer.send(self.attachments(&volume))),
            Ask::Scratch(answer) => drop(answer.send(self.ground())),
            Ask::Drives(answer) => drop(answer.send(self.open_drives())),
            Ask::Stale {
                drive,
                leg,
                recorded,
            } => {
                if let Some(slot) = self.slots.get_mut(&drive) {
                    slot.stale.insert(leg, recorded);
                    slot.changed = true;
                }
            }
            Ask::Look(drive) => self.touch(&drive),
            Ask::Opened {
                drive,
                owned,
                result,
            } => self.opened(&drive, &owned, result),
            Ask::Closed { drive, closed } => self.closed(&drive, closed),
            Ask::Tended { leg, status } => self.tended(&leg, *status),
            Ask::Passed {
                drive,
                orphans,
                standing,
                looked,
                unlimited,
                seen,
            } => {
                self.saw(&drive, seen, orphans.is_err());
                self.passed(&drive, orphans, standing, looked, unlimited);
            }
            Ask::Trimmed { drive, bytes } => self.trimmed(&drive, bytes),
            Ask::Wrote {
                leg,
                before,
                write,
                result,
            } => self.wrote(&leg, before, write, result),
            Ask::Reached => self.touch_all(),
            Ask::Swept => self.sweeping = false,
            // Taken by the loop.
            Ask::End(_) => {}
        }
    }

    /// Brings what is open to what is wanted, has what changed tended, and writes what waits.
    fn step(&mut self) {
        let now = Instant::now();
        self.open_exports(now);
        self.sweep_exports();
        let names: Vec<String> = self.slots.keys().cloned().collect();
        for name in names {
            let Some(slot) = self.slots.get(&name) else {
                continue;
            };
            let held = slot.holds > 0;
            let gone = self.wanted.gone.contains(&name);
            match &slot.state {
                State::Closed if !held && self.wanted.drives.contains_key(&name) => {
                    self.open(&name)
                }
                State::Closed if !held => {
                    self.slots.remove(&name);
                }
                State::Failed { .. } if !held && !self.wanted.drives.contains_key(&name) => {
                    self.slots.remove(&name);
                }
                State::Failed { retry_at, .. } if !held && *retry_at <= now => self.open(&name),
                State::Open(_) if held && !slot.tending && !slot.waiting.is_empty() => {
                    self.close(&name)
                }
                State::Closed | State::Failed { .. } if held => self.give_holds(&name),
                State::Open(_) if slot.tending || !slot.changed => {}
                // While something uses it, that is tried with each look, and what was lent is taken back in between.
                State::Open(_) if gone && held => {}
                State::Open(_) if gone => self.close(&name),
                State::Open(_) if self.legs.synced() => self.tend(&name, now),
                _ => {}
            }
        }
        for (leg, write) in self.outbox.take(now) {
            let (writer, asks) = (self.leg_writer.clone(), self.asks.clone());
            let before = self.legs.get(&leg).cloned().map(Box::new);
            tokio::spawn(async move {
                let result = writer.write(&leg, write.clone()).await;
                let result = result.map(|object| object.map(Box::new));
                // A task that has ended writes it again after the next start.
                let _ = asks.send(Ask::Wrote {
                    leg,
                    before,
                    write,
                    result,
                });
            });
        }
    }
}
