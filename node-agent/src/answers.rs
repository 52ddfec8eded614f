//! What comes back to a running agent: from the API's watches, from the machine, and from what it started.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kube::ResourceExt;
use kube::runtime::watcher::Event;
use strand_api::names::drive_name;
use strand_drives::{DriveError, SeenDrive};

use crate::backoff;
use crate::effects::{WriteError, Written, reference};
use crate::happening::Happening;
use crate::maps::{KeptMap, MapsError};
use crate::operation;
use crate::state::{Done, Entry, State, Worked};
use crate::watches::Heard;
use crate::work::WorkKind;

/// Reported changes are answered by one scan, this long after the first of them.
const SETTLE: Duration = Duration::from_millis(100);
/// A write that met an object other than the one known waits this long for the watch to tell.
const WATCH_LAG: Duration = Duration::from_secs(1);

impl State {
    pub(crate) fn hear(&mut self, news: Heard) {
        if let Heard::Failed { what, error } = &news {
            self.metrics.watch_failed();
            tracing::warn!(what, %error, "watching the API failed; it is tried again, and what is known stays");
        }
        if let Heard::Map(event) = &news
            && let Event::Apply(map) | Event::InitApply(map) = event
        {
            self.maps.offer(&map.name_any(), &map.spec);
            for kept in self.maps.kept().values() {
                self.metrics.map(&kept.pool, kept.epoch);
            }
        }
        self.mirror.take(news, &self.config.node_name);
        for name in self.mirror.drives.iter().map(|(name, _)| name) {
            if !self.drives.contains_key(name) {
                self.drives.insert(name.clone(), Entry::new());
            }
        }
        let mirror = &self.mirror;
        self.runs.retain(|uid, _| {
            mirror
                .operations
                .iter()
                .any(|(_, o)| o.uid().as_ref() == Some(uid))
        });
    }

    pub(crate) fn changed(&mut self) {
        let now = Instant::now();
        self.scanning.at = self.scanning.at.min(now + SETTLE);
        for entry in self.drives.values_mut() {
            entry.memory.hasten(now + SETTLE);
        }
    }

    pub(crate) fn note_progress(&mut self, operation: &str, tens: u8) {
        self.runs.entry(operation.into()).or_default().tens = tens;
    }

    pub(crate) fn take(&mut self, done: Done) {
        let now = Instant::now();
        match done {
            Done::Scanned(result) => self.take_scan(result, now),
            Done::Worked(worked) => self.take_work(*worked, now),
            Done::Wrote {
                name,
                kind,
                result,
                happenings,
            } => self.take_write(&name, kind, result, happenings, now),
            Done::Kept(kept) => {
                self.keeping = false;
                if let Some((map, result)) = kept {
                    self.take_kept(map, result, now);
                }
            }
            Done::Told(done) => self.metrics.wrote("event", done),
        }
    }

    fn take_kept(&mut self, map: KeptMap, result: Result<(), MapsError>, now: Instant) {
        match result {
            Ok(()) => {
                let (pool, map) = (&map.pool, &map.map);
                self.maps.note(pool, &map.pool_id, map.epoch);
                self.metrics.map(pool, map.epoch);
            }
            Err(error) => {
                tracing::error!(%error, "a pool map cannot be kept");
                self.maps.put_back(map);
                self.keep_at = now + backoff::API.longest;
            }
        }
    }

    fn take_scan(&mut self, result: Result<Vec<SeenDrive>, DriveError>, now: Instant) {
        self.metrics.scanned();
        self.scanning.under_way = false;
        let seen = match result {
            Ok(seen) => seen,
            Err(error) => {
                self.scanning.failures += 1;
                let wait = backoff::DRIVE.after(self.scanning.failures, &self.config.node_name);
                self.scanning.at = self.scanning.at.min(now + wait);
                tracing::error!(%error, "this node cannot be looked over for drives");
                return;
            }
        };
        self.scanning.failures = 0;
        self.scanning.done = true;
        let mut by_name: BTreeMap<String, SeenDrive> = BTreeMap::new();
        for drive in seen {
            let key = &drive.key;
            let node = &self.config.node_name;
            let name = drive_name(node, &key.model, &key.serial, key.namespace);
            by_name.insert(name, drive);
        }
        for (name, entry) in &mut self.drives {
            let there = by_name.remove(name);
            let gone = there.is_none() && entry.memory.seen.is_some();
            if entry.memory.sight(there) && gone {
                tracing::warn!(drive = name, "the drive is no longer there");
                self.metrics.forget(name);
            }
        }
        for (name, drive) in by_name {
            tracing::info!(drive = name, path = %drive.path.display(), key = %drive.key, "a drive is there");
            let mut entry = Entry::new();
            entry.memory.sight(Some(drive));
            self.drives.insert(name, entry);
        }
    }

    fn take_work(&mut self, worked: Worked, now: Instant) {
        let Worked {
            name,
            work,
            outcome,
            incarnation,
            operation,
        } = worked;
        let name = name.as_str();
        let Some(entry) = self.drives.get_mut(name) else {
            return;
        };
        let since = entry.memory.busy.map_or(now, |busy| busy.since);
        let took = now.saturating_duration_since(since);
        match work.kind() {
            WorkKind::Observe => self.metrics.judged(took),
            WorkKind::Adopt | WorkKind::Recarve | WorkKind::Resume => self.metrics.carved(took),
            WorkKind::Health | WorkKind::Release | WorkKind::Wipe => {}
        }
        if let Some(error) = outcome.error() {
            tracing::warn!(drive = name, work = work.kind().words(), %error, "failed");
        }
        if let Some(uid) = operation
            && let Some(end) = operation::end_of(&work, outcome.error(), name)
        {
            self.runs.entry(uid).or_default().end = Some(end);
        }
        let known = &self.mirror.index.known;
        let rescan = self.config.rescan;
        let lost = entry
            .memory
            .learn(&work, outcome, incarnation, rescan, known, now);
        if let Some(health) = entry.memory.health() {
            self.metrics.health(name, health);
        }
        if lost {
            self.scanning.at = self.scanning.at.min(now + SETTLE);
        }
    }

    fn take_write(
        &mut self,
        name: &str,
        kind: &'static str,
        result: Result<Written, WriteError>,
        happenings: Vec<Happening>,
        now: Instant,
    ) {
        if !matches!(result, Ok(Written::Read(..))) {
            self.metrics.wrote(kind, result.is_ok());
        }
        let mut writing = self.drives.get(name).map(|e| e.writing).unwrap_or_default();
        writing.in_flight = false;
        match result {
            Ok(written) => {
                writing.failures = 0;
                writing.retry_at = None;
                let about = match &written {
                    Written::Created(drive) | Written::Applied(drive) => Some(reference(&**drive)),
                    Written::Operation(operation) => Some(reference(&**operation)),
                    Written::Read(..) => {
                        if let Some(uid) = self.mirror.operation(name).and_then(ResourceExt::uid) {
                            self.runs.entry(uid).or_default().fresh = true;
                        }
                        None
                    }
                    Written::AsWatched => {
                        writing.retry_at = Some(now + WATCH_LAG);
                        None
                    }
                };
                let told =
                    about.map(|about| happenings.into_iter().map(move |h| (about.clone(), h)));
                for (about, happening) in told.into_iter().flatten() {
                    let writer = self.writer.clone();
                    self.effects.push(Box::pin(async move {
                        Done::Told(writer.tell(about, happening).await)
                    }));
                }
                self.mirror.written(written);
            }
            Err(error) => {
                writing.failures += 1;
                writing.retry_at = Some(now + backoff::API.after(writing.failures, name));
                writing.last_status = None;
                tracing::warn!(%error, failures = writing.failures, "a write failed");
            }
        }
        if let Some(entry) = self.drives.get_mut(name) {
            entry.writing = writing;
        }
    }
}
