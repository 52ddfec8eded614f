//! The task that serves: opens storage sides as drives come, has their legs tended, and writes what became of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use strand_api::{PoolLeg, PoolLegSpec, PoolLegStatus};
use strand_drives::{DriveHost, OwnedDrive};
use strand_volumes::{Drive, Storage, VolumeError};
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use super::find::{self, Found, Named};
use super::slot::{self, Hold, OpenError, RETRY, Slot, State};
use super::tend::{Ailment, Pass, unserved};
use super::write::{LegWriter, Outbox, Write, happenings};
use super::{AttachError, StorageStanding, Wanted};
use crate::cached::Cached;
use crate::effects::{Writer, reference};

/// How often everything is looked over, whether or not something has changed.
const LOOK: Duration = Duration::from_secs(10);
/// How often a drive's health is looked at: a small file is written to it.
const PROBE: Duration = Duration::from_secs(60);
/// A drive that was not there for so long counts as gone: one that is taken back after a restart is not told as gone.
const GONE: Duration = Duration::from_secs(20);

/// What the task is asked, and what comes back to it from what it started.
pub(super) enum Ask {
    Serve(Box<Wanted>),
    Hold {
        drive: String,
        held: oneshot::Sender<Hold>,
    },
    LetGo(String),
    Find {
        volume: String,
        answer: oneshot::Sender<Result<Found, AttachError>>,
    },
    FindAttached {
        volume: String,
        answer: oneshot::Sender<Attachments>,
    },
    Drives(oneshot::Sender<Vec<Named>>),
    /// Somebody came with an older generation than the leg's record has.
    Stale {
        drive: String,
        leg: String,
        recorded: u64,
    },
    /// Something about a drive has changed.
    Look(String),
    Opened {
        drive: String,
        owned: Box<OwnedDrive>,
        result: Result<Arc<Drive>, OpenError>,
    },
    Closed {
        drive: String,
        closed: bool,
    },
    Tended {
        leg: String,
        status: Box<PoolLegStatus>,
    },
    Passed {
        drive: String,
        orphans: Result<Vec<(String, PoolLegSpec)>, VolumeError>,
        standing: Option<StorageStanding>,
        /// What a look found, if there was one.
        looked: Option<Option<Ailment>>,
    },
    Wrote {
        leg: String,
        write: Write,
        result: Result<Option<Box<PoolLeg>>, String>,
    },
    End(oneshot::Sender<()>),
}

/// A leg by its drive's id and its name, on a drive that is not open.
pub(super) type Unserved = (Uuid, String);

/// The legs of a volume that may be attached; or why none can be named, with those on drives that are not open.
pub(super) type Attachments = Result<Vec<Found>, (AttachError, Vec<Unserved>)>;

pub(super) struct Serving {
    node: String,
    client: Client,
    host: Arc<dyn DriveHost>,
    storage: Arc<Storage>,
    writer: Writer,
    leg_writer: LegWriter,
    asks: mpsc::UnboundedSender<Ask>,
    standing: watch::Sender<BTreeMap<String, StorageStanding>>,
    wanted: Wanted,
    slots: BTreeMap<String, Slot>,
    legs: Cached<PoolLeg>,
    outbox: Outbox,
    /// Since when drives of legs are not served.
    unserved: BTreeMap<String, Instant>,
}

impl Serving {
    pub(super) fn new(
        storage: Arc<Storage>,
        node: &str,
        client: Client,
        host: Arc<dyn DriveHost>,
        writer: Writer,
        asks: mpsc::UnboundedSender<Ask>,
        standing: watch::Sender<BTreeMap<String, StorageStanding>>,
    ) -> Self {
        Self {
            node: node.to_owned(),
            leg_writer: LegWriter::new(client.clone()),
            client,
            host,
            storage,
            writer,
            asks,
            standing,
            wanted: Wanted::default(),
            slots: BTreeMap::new(),
            legs: Cached::default(),
            outbox: Outbox::default(),
            unserved: BTreeMap::new(),
        }
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
                self.wanted = *wanted;
            }
            Ask::Hold { drive, held } => self.hold(drive, held),
            Ask::LetGo(drive) => {
                if let Some(slot) = self.slots.get_mut(&drive) {
                    slot.holds = slot.holds.saturating_sub(1);
                    slot.changed = true;
                }
            }
            Ask::Find { volume, answer } => {
                let objects: Vec<&PoolLeg> = self.legs.iter().map(|(_, leg)| leg).collect();
                let there = find::of_volume(&self.open_drives(), &volume);
                let found = find::to_attach(&volume, there, &objects, self.legs.synced());
                // Who does not wait any more needs no answer.
                let _ = answer.send(found.map_err(|error| self.not_yet(&volume, error)));
            }
            Ask::FindAttached { volume, answer } => {
                let found = find::of_volume(&self.open_drives(), &volume);
                let found: Vec<Found> = found
                    .into_iter()
                    .map(|((name, drive), record)| Found {
                        drive,
                        name,
                        leg: record.name,
                    })
                    .collect();
                let found = match found.is_empty() {
                    false => Ok(found),
                    true => {
                        let error = AttachError::NotHere {
                            volume: volume.clone(),
                        };
                        Err((self.not_yet(&volume, error), self.unserved_legs(&volume)))
                    }
                };
                let _ = answer.send(found);
            }
            Ask::Drives(answer) => {
                let _ = answer.send(self.open_drives());
            }
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
            } => self.passed(&drive, orphans, standing, looked),
            Ask::Wrote { leg, write, result } => self.wrote(&leg, write, result),
            // Taken by the loop.
            Ask::End(_) => {}
        }
    }

    fn open_drives(&self) -> Vec<Named> {
        let open = self
            .slots
            .iter()
            .filter_map(|(name, slot)| Some((name.clone(), Arc::clone(slot.open()?))));
        open.collect()
    }

    /// What is not found may only not have been found yet.
    fn not_yet(&self, volume: &str, error: AttachError) -> AttachError {
        if !matches!(error, AttachError::NotHere { .. }) {
            return error;
        }
        let why = if !self.wanted.settled {
            "this node's drives are not all known yet".to_owned()
        } else if let Some((name, _)) = self.slots.iter().find(|(_, slot)| slot.pending()) {
            format!("drive {name} is not served yet")
        } else {
            let of_volume =
                |leg: &&PoolLeg| leg.spec.volume == volume && leg.spec.snapshot.is_none();
            let leg = self.legs.iter().map(|(_, leg)| leg).find(of_volume);
            match leg.and_then(|leg| Some((leg, self.slots.get(&leg.spec.drive)?))) {
                Some((
                    leg,
                    Slot {
                        state: State::Failed { why, .. },
                        ..
                    },
                )) => {
                    format!("drive {} is not served: {why}", leg.spec.drive)
                }
                _ => return error,
            }
        };
        AttachError::NotYet {
            volume: volume.to_owned(),
            why,
        }
    }

    /// Legs of a volume on drives that could not be opened.
    fn unserved_legs(&self, volume: &str) -> Vec<Unserved> {
        let of_volume = |leg: &PoolLeg| leg.spec.volume == volume && leg.spec.snapshot.is_none();
        let legs = self.legs.iter().filter(|(_, leg)| of_volume(leg));
        legs.filter_map(|(name, leg)| {
            let slot = self.slots.get(&leg.spec.drive)?;
            let failed = matches!(slot.state, State::Failed { .. });
            failed.then(|| (slot.owned.drive_id, name.clone()))
        })
        .collect()
    }

    /// Brings what is open to what is wanted, has what changed tended, and writes what waits.
    fn step(&mut self) {
        let now = Instant::now();
        let names: Vec<String> = self.slots.keys().cloned().collect();
        for name in names {
            let Some(slot) = self.slots.get(&name) else {
                continue;
            };
            let held = slot.holds > 0;
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
                State::Open(_) if !slot.tending && !held && self.wanted.gone.contains(&name) => {
                    self.close(&name)
                }
                State::Open(_) if !slot.tending && slot.changed && self.legs.synced() => {
                    self.tend(&name, now)
                }
                _ => {}
            }
        }
        for (leg, write) in self.outbox.take(now) {
            let (writer, asks) = (self.leg_writer.clone(), self.asks.clone());
            tokio::spawn(async move {
                let result = writer.write(&leg, write.clone()).await;
                let result = result.map(|object| object.map(Box::new));
                // A task that has ended writes it again after the next start.
                let _ = asks.send(Ask::Wrote { leg, write, result });
            });
        }
    }

    fn open(&mut self, name: &str) {
        let Some(slot) = self.slots.get_mut(name) else {
            return;
        };
        slot.state = State::Opening;
        let owned = Box::new(slot.owned.clone());
        let (host, storage) = (Arc::clone(&self.host), Arc::clone(&self.storage));
        let (asks, drive) = (self.asks.clone(), name.to_owned());
        tokio::spawn(async move {
            let of = owned.clone();
            let opening = tokio::task::spawn_blocking(move || slot::open(&*host, &storage, &of));
            let result = opening.await.unwrap_or(Err(OpenError::Broken));
            let _ = asks.send(Ask::Opened {
                drive,
                owned,
                result,
            });
        });
    }

    fn opened(&mut self, name: &str, owned: &OwnedDrive, result: Result<Arc<Drive>, OpenError>) {
        let Some(slot) = self.slots.get_mut(name) else {
            return;
        };
        match result {
            Ok(drive) => {
                tracing::info!(drive = name, root = %drive.root().display(), "its storage side is served");
                slot.standing = slot::standing(&drive);
                slot.ailment = None;
                slot.looked_at = None;
                slot.state = State::Open(drive);
                slot.changed = true;
            }
            // It was carved anew meanwhile.
            Err(_) if slot.owned != *owned => slot.state = State::Closed,
            Err(error) => {
                let why = error.to_string();
                if slot
                    .ailment
                    .as_ref()
                    .is_none_or(|ailment| ailment.message != why)
                {
                    tracing::warn!(drive = name, %error, "its storage side is not served; it is tried again");
                }
                slot.ailment = Some(Ailment {
                    reason: "NotServed",
                    message: why.clone(),
                });
                if error.lasts() {
                    slot.standing = Some(StorageStanding::default());
                }
                slot.state = State::Failed {
                    why,
                    retry_at: Instant::now() + RETRY,
                };
            }
        }
        self.show();
    }

    fn hold(&mut self, drive: String, held: oneshot::Sender<Hold>) {
        match self.slots.get_mut(&drive) {
            Some(slot) => {
                slot.holds += 1;
                slot.waiting.push(held);
            }
            None => {
                // There is nothing to close; letting go of it changes nothing.
                let _ = held.send(Hold {
                    drive,
                    asks: self.asks.clone(),
                });
            }
        }
    }

    fn close(&mut self, name: &str) {
        let Some(slot) = self.slots.get_mut(name) else {
            return;
        };
        slot.state = State::Closing;
        let owned = slot.owned.clone();
        let gone = self.wanted.gone.contains(name);
        let storage = Arc::clone(&self.storage);
        let (asks, drive) = (self.asks.clone(), name.to_owned());
        tokio::spawn(async move {
            let closing = tokio::task::spawn_blocking(move || match gone {
                true => storage.close(owned.drive_id).is_ok(),
                false => slot::close(&storage, &owned),
            });
            let closed = closing.await.unwrap_or(false);
            let _ = asks.send(Ask::Closed { drive, closed });
        });
    }

    fn closed(&mut self, name: &str, closed: bool) {
        let open = self
            .slots
            .get(name)
            .and_then(|slot| self.storage.drive(slot.owned.drive_id));
        let Some(slot) = self.slots.get_mut(name) else {
            return;
        };
        slot.state = match open {
            Some(drive) if !closed => State::Open(drive),
            _ => State::Closed,
        };
        // One that is gone and in use is looked at again with the next look.
        slot.changed = false;
        self.give_holds(name);
    }

    fn give_holds(&mut self, name: &str) {
        let Some(slot) = self.slots.get_mut(name) else {
            return;
        };
        for held in std::mem::take(&mut slot.waiting) {
            // Who does not wait any more drops the hold, which lets the drive go.
            let _ = held.send(Hold {
                drive: name.to_owned(),
                asks: self.asks.clone(),
            });
        }
    }

    fn tend(&mut self, name: &str, now: Instant) {
        let taken: Vec<String> = self.legs.iter().map(|(name, _)| name.clone()).collect();
        let objects = self.legs.iter().filter(|(_, leg)| leg.spec.drive == name);
        let objects = objects
            .map(|(name, leg)| (name.clone(), leg.clone()))
            .collect();
        let Some(slot) = self.slots.get_mut(name) else {
            return;
        };
        let Some(drive) = slot.open().map(Arc::clone) else {
            return;
        };
        slot.tending = true;
        slot.changed = false;
        let probe = slot
            .looked_at
            .is_none_or(|at| now.saturating_duration_since(at) >= PROBE);
        if probe {
            slot.looked_at = Some(now);
        }
        let mut pass = Pass {
            drive,
            name: name.to_owned(),
            node: self.node.clone(),
            objects,
            ailment: slot.ailment.clone(),
            stale: slot.stale.clone(),
        };
        let asks = self.asks.clone();
        tokio::task::spawn_blocking(move || {
            let looked = probe.then(|| slot::look(&pass.drive, &pass.name).1);
            if let Some(found) = &looked {
                pass.ailment.clone_from(found);
            }
            let tell = |leg, status| {
                let status = Box::new(status);
                let _ = asks.send(Ask::Tended { leg, status });
            };
            let orphans = pass.run(|name| taken.iter().any(|taken| taken == name), tell);
            let standing = slot::standing(&pass.drive);
            let _ = asks.send(Ask::Passed {
                drive: pass.name,
                orphans,
                standing,
                looked,
            });
        });
    }

    fn tended(&mut self, name: &str, status: PoolLegStatus) {
        let Some(leg) = self.legs.get(name) else {
            return;
        };
        if leg.status.as_ref() != Some(&status) {
            self.outbox.put(name, Write::Status(Box::new(status)));
        }
    }

    fn passed(
        &mut self,
        name: &str,
        orphans: Result<Vec<(String, PoolLegSpec)>, VolumeError>,
        standing: Option<StorageStanding>,
        looked: Option<Option<Ailment>>,
    ) {
        let Some(slot) = self.slots.get_mut(name) else {
            return;
        };
        slot.tending = false;
        if let Some(ailment) = looked {
            if let Some(ailment) = &ailment
                && slot.ailment.as_ref() != Some(ailment)
            {
                tracing::error!(drive = name, reason = ailment.reason, "{}", ailment.message);
            }
            slot.ailment = ailment;
        }
        if standing.is_some() {
            slot.standing = standing;
        }
        // One that was shut down is mounted anew as soon as nothing on it is attached.
        let shut = slot
            .ailment
            .as_ref()
            .is_some_and(|a| a.reason == "FileSystemShutDown");
        match orphans {
            Ok(orphans) => {
                for (leg, spec) in orphans {
                    tracing::info!(
                        drive = name,
                        leg,
                        "bytes without an object are told as orphaned"
                    );
                    self.outbox.put(&leg, Write::Create(Box::new(spec)));
                }
            }
            Err(error) => tracing::debug!(drive = name, %error, "the pass broke off"),
        }
        if shut {
            self.close_shut(name);
        }
        self.show();
    }

    /// Closes a drive whose file system was shut down; it is opened again at once. Nothing happens while a leg is attached.
    fn close_shut(&mut self, name: &str) {
        let Some(slot) = self.slots.get_mut(name) else {
            return;
        };
        slot.state = State::Closing;
        let id = slot.owned.drive_id;
        let storage = Arc::clone(&self.storage);
        let (asks, drive) = (self.asks.clone(), name.to_owned());
        tokio::spawn(async move {
            let closing = tokio::task::spawn_blocking(move || storage.close(id).is_ok());
            let closed = closing.await.unwrap_or(false);
            let _ = asks.send(Ask::Closed { drive, closed });
        });
    }

    fn wrote(&mut self, name: &str, write: Write, result: Result<Option<Box<PoolLeg>>, String>) {
        let now = Instant::now();
        match result {
            Ok(object) => {
                self.outbox.done(name, None, now);
                let Some(object) = object else { return };
                let before = self.legs.get(name).cloned();
                if let (Write::Status(status), Some(before)) = (&write, before) {
                    let about = reference(&before);
                    for happening in happenings(&before, status) {
                        let (writer, about) = (self.writer.clone(), about.clone());
                        tokio::spawn(writer.tell(about, happening));
                    }
                }
                let drive = object.spec.drive.clone();
                self.legs
                    .written(*object, matches!(write, Write::Create(_)));
                if matches!(write, Write::Create(_)) {
                    self.touch(&drive);
                }
            }
            Err(error) => {
                tracing::warn!(
                    leg = name,
                    error,
                    "the API server did not take a leg's status; it is tried again"
                );
                self.outbox.done(name, Some(write), now);
            }
        }
    }

    /// Tells legs whose drive has not been served for a while.
    fn tell_unserved(&mut self) {
        let now = Instant::now();
        let mut since = BTreeMap::new();
        let mut told = Vec::new();
        for (name, leg) in self.legs.iter() {
            let drive = &leg.spec.drive;
            let slot = self.slots.get(drive);
            if slot.is_some_and(|slot| slot.open().is_some() || slot.holds > 0)
                || !self.wanted.settled
            {
                continue;
            }
            let first = *self.unserved.get(drive).unwrap_or(&now);
            since.insert(drive.clone(), first);
            if now.saturating_duration_since(first) < GONE {
                continue;
            }
            let missing = Ailment {
                reason: "DriveMissing",
                message: format!(
                    "node {} does not serve drive {drive}; see `kubectl get drive {drive}`",
                    self.node
                ),
            };
            let ailment = slot
                .and_then(|slot| slot.ailment.clone())
                .unwrap_or(missing);
            told.extend(unserved(leg, &ailment).map(|status| (name.clone(), status)));
        }
        self.unserved = since;
        for (name, status) in told {
            self.tended(&name, status);
        }
    }

    fn show(&mut self) {
        let standing: BTreeMap<String, StorageStanding> = self
            .slots
            .iter()
            .filter_map(|(name, slot)| Some((name.clone(), slot.standing?)))
            .collect();
        self.standing.send_if_modified(|shown| {
            let changed = *shown != standing;
            *shown = standing;
            changed
        });
    }
}
