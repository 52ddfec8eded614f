//! One agent: its loop waits for the machine, the API and the clock, plans each drive anew, and starts what the plans say.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::{Client, ResourceExt};
use prometheus::Registry;
use strand_api::Drive;
use strand_drives::{DriveError, DriveHost, SeenDrive};
use strand_process::Health;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::backoff;
use crate::config::AgentConfig;
use crate::effects::{WriteError, Writer, Written, reference};
use crate::happening::{self, Happening};
use crate::http::DriveReport;
use crate::maps::{self, KeptMap, Maps, MapsError};
use crate::memory::DriveMemory;
use crate::metrics::{Metrics, Standing};
use crate::operation::{self, End};
use crate::plan::{self, Known, Plan, Write, Writing};
use crate::status;
use crate::view::{Now, View};
use crate::watches::{Heard, Mirror, watch_all};
use crate::work::{Job, Outcome, Work, WorkKind};

/// Reported changes are answered by one scan, this long after the first of them.
const SETTLE: Duration = Duration::from_millis(100);
/// A write that met an object other than the one known waits this long for the watch to tell.
const WATCH_LAG: Duration = Duration::from_secs(1);
/// How long an agent that ends waits for what is under way.
const FAREWELL: Duration = Duration::from_secs(10);
/// How long a loop without plans sleeps at most.
const IDLE: Duration = Duration::from_secs(3600);

/// Why an agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The pool maps of earlier runs cannot be used.
    #[error("the kept pool maps cannot be used: {0}")]
    Maps(#[from] MapsError),
    /// The metrics contradict each other.
    #[error("metrics cannot be set up: {0}; please report this")]
    Metrics(#[from] prometheus::Error),
}

/// What a running agent can be asked from elsewhere in its process.
#[derive(Clone)]
pub struct Handle {
    metrics: Metrics,
    health: Health,
    ask: mpsc::Sender<oneshot::Sender<Vec<DriveReport>>>,
}

impl Handle {
    /// Its metrics.
    pub fn registry(&self) -> &Registry {
        self.metrics.registry()
    }

    /// Whether it has scanned its node and seen the API.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Its drives; `None` once it has ended.
    pub async fn drives(&self) -> Option<Vec<DriveReport>> {
        let (answer, drives) = oneshot::channel();
        self.ask.send(answer).await.ok()?;
        drives.await.ok()
    }
}

/// An agent that does not run yet.
pub struct Agent {
    state: State,
    client: Client,
    asked: mpsc::Receiver<oneshot::Sender<Vec<DriveReport>>>,
    handle: Handle,
}

impl Agent {
    /// Puts an agent together. Reads the pool maps that were kept; touches no drive.
    ///
    /// # Errors
    /// [`AgentError`].
    pub fn new(
        config: AgentConfig,
        client: Client,
        host: Arc<dyn DriveHost>,
    ) -> Result<Self, AgentError> {
        let maps = Maps::load(config.state_dir.as_deref())?;
        let metrics = Metrics::new()?;
        let health = Health::waiting_for("the first look at the drives, and the API server");
        let (ask, asked) = mpsc::channel(4);
        let handle = Handle {
            metrics: metrics.clone(),
            health: health.clone(),
            ask,
        };
        let writer = Writer::new(&config.node_name, client.clone());
        Ok(Self {
            state: State::new(config, host, writer, maps, metrics, health),
            client,
            asked,
            handle,
        })
    }

    /// What can be asked of it while it runs.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Runs until `shutdown` resolves, then waits a moment for what is under way. Killed at any point, the next run goes on.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self {
            mut state,
            client,
            mut asked,
            handle: _,
        } = self;
        let mut heard = watch_all(client, &state.config.node_name);
        let mut changes = state.host.changes();
        let mut listening = true;
        tokio::pin!(shutdown);
        loop {
            let wake = state.step();
            tokio::select! {
                () = &mut shutdown => break,
                Some(news) = heard.next() => {
                    state.hear(news);
                    // What is there already is taken at once: a list of a thousand objects is one plan.
                    while let Some(Some(news)) = futures::FutureExt::now_or_never(heard.next()) {
                        state.hear(news);
                    }
                }
                Some(done) = state.effects.next() => state.take(done),
                Some((operation, tens)) = state.progress.1.recv() => state.note_progress(&operation, tens),
                changed = changes.changed(), if listening => match changed {
                    Ok(()) => state.changed(),
                    Err(_) => listening = false,
                },
                Some(answer) = asked.recv() => {
                    // Who asked and went away needs no answer.
                    let _ = answer.send(state.report());
                }
                () = tokio::time::sleep_until(wake.into()) => {}
            }
        }
        state.stop.store(true, Ordering::Relaxed);
        let ending = async { while state.effects.next().await.is_some() {} };
        if tokio::time::timeout(FAREWELL, ending).await.is_err() {
            tracing::warn!(
                "ending although something does not come to an end; the next start goes on with it"
            );
        }
    }
}

/// One drive: what is known of it and how the writes about it go.
struct Entry {
    memory: DriveMemory,
    writing: Writing,
}

/// An operation's work.
#[derive(Default)]
struct Run {
    end: Option<End>,
    tens: u8,
}

/// Something that was started and has ended.
enum Done {
    Scanned(Result<Vec<SeenDrive>, DriveError>),
    Worked {
        name: String,
        work: Work,
        outcome: Outcome,
        incarnation: u64,
        operation: Option<String>,
    },
    Wrote {
        name: String,
        kind: &'static str,
        result: Result<Written, WriteError>,
        happenings: Vec<Happening>,
    },
    Kept(KeptMap, Result<(), MapsError>),
    Told(bool),
}

/// When the machine is looked over.
struct Scanning {
    under_way: bool,
    at: Instant,
    done: bool,
    failures: u32,
}

struct State {
    config: AgentConfig,
    host: Arc<dyn DriveHost>,
    writer: Writer,
    metrics: Metrics,
    health: Health,
    drives: BTreeMap<String, Entry>,
    mirror: Mirror,
    runs: BTreeMap<String, Run>,
    maps: Maps,
    keeping: bool,
    keep_at: Instant,
    scanning: Scanning,
    effects: FuturesUnordered<BoxFuture<'static, Done>>,
    progress: (
        mpsc::UnboundedSender<(String, u8)>,
        mpsc::UnboundedReceiver<(String, u8)>,
    ),
    stop: Arc<AtomicBool>,
    standing: BTreeMap<Standing, i64>,
}

impl State {
    fn new(
        config: AgentConfig,
        host: Arc<dyn DriveHost>,
        writer: Writer,
        maps: Maps,
        metrics: Metrics,
        health: Health,
    ) -> Self {
        let now = Instant::now();
        for kept in maps.kept().values() {
            metrics.map(&kept.pool, kept.epoch);
        }
        Self {
            config,
            host,
            writer,
            metrics,
            health,
            drives: BTreeMap::new(),
            mirror: Mirror::default(),
            runs: BTreeMap::new(),
            maps,
            keeping: false,
            keep_at: now,
            scanning: Scanning {
                under_way: false,
                at: now,
                done: false,
                failures: 0,
            },
            effects: FuturesUnordered::new(),
            progress: mpsc::unbounded_channel(),
            stop: Arc::default(),
            standing: BTreeMap::new(),
        }
    }

    fn settled(&self) -> bool {
        self.scanning.done && self.mirror.synced()
    }

    /// Plans every drive and starts what the plans say. Returns when to plan again if nothing happens before.
    fn step(&mut self) -> Instant {
        let now = Now {
            at: Instant::now(),
            wall: Time(Timestamp::now()),
        };
        let mut wake = now.at + IDLE;
        if self.settled() {
            self.health.ready();
        }
        self.start_scan(&now, &mut wake);
        self.start_keeping(&now, &mut wake);
        let gone = |name: &String, entry: &Entry| {
            entry.memory.seen.is_none()
                && entry.memory.busy.is_none()
                && self.mirror.drives.get(name).is_none()
        };
        self.drives.retain(|name, entry| !gone(name, entry));

        let ahead = maps::ahead(self.maps.kept(), &self.mirror.epochs());
        let mut plans = Vec::new();
        for (name, entry) in &self.drives {
            let view = View {
                name,
                object: self.mirror.drives.get(name),
                pools: &self.mirror.index,
                operation: self.mirror.operation(name),
                ahead: &ahead,
                peer_address: self.config.peer_address.as_deref(),
            };
            let run = view
                .operation
                .and_then(|operation| self.runs.get(&operation.uid().unwrap_or_default()));
            let known = Known {
                memory: &entry.memory,
                end: run.and_then(|run| run.end.as_ref()),
                tens: run.map_or(0, |run| run.tens),
                writing: entry.writing,
                settled: self.settled(),
                view,
            };
            let plan = plan::plan(&known, &now);
            wake = plan.wake.map_or(wake, |at| at.min(wake));
            if plan.work.is_some() || plan.write.is_some() {
                plans.push((name.clone(), plan));
            }
        }
        for (name, Plan { work, write, .. }) in plans {
            if let Some(work) = work {
                self.start_work(&name, work, &now);
            }
            if let Some(write) = write {
                self.start_write(&name, write, &now);
            }
        }
        self.show_standing(&now);
        wake
    }

    fn start_scan(&mut self, now: &Now, wake: &mut Instant) {
        if self.scanning.under_way {
            return;
        }
        if now.at < self.scanning.at {
            *wake = self.scanning.at.min(*wake);
            return;
        }
        self.scanning.under_way = true;
        self.scanning.at = now.at + self.config.rescan;
        let host = self.host.clone();
        self.effects.push(Box::pin(async move {
            let scan = tokio::task::spawn_blocking(move || host.scan()).await;
            Done::Scanned(scan.unwrap_or_else(|_| {
                Err(DriveError::Io {
                    path: "/".into(),
                    action: "scanning",
                    source: std::io::Error::other("it broke off; please report this"),
                })
            }))
        }));
    }

    /// Keeps the maps that wait for it, one at a time.
    fn start_keeping(&mut self, now: &Now, wake: &mut Instant) {
        if self.keeping || !self.maps.waits() {
            return;
        }
        if now.at < self.keep_at {
            *wake = self.keep_at.min(*wake);
            return;
        }
        let Some((dir, map)) = self.maps.take_waiting() else {
            return;
        };
        self.keeping = true;
        self.effects.push(Box::pin(async move {
            let kept = tokio::task::spawn_blocking(move || {
                let result = maps::keep(&dir, &map);
                (map, result)
            });
            match kept.await {
                Ok((map, result)) => Done::Kept(map, result),
                // Only a runtime that ends breaks this off.
                Err(_) => Done::Told(false),
            }
        }));
    }

    fn start_work(&mut self, name: &str, work: Work, now: &Now) {
        if let Work::Adopt(order) = &work
            && self.key_is_taken(name, &order.drive_id)
        {
            let id = Uuid::new_v4();
            if let Some(entry) = self.drives.get_mut(name) {
                entry.memory.drive_id = id;
                entry.memory.look_at = Some(now.at);
            }
            return;
        }
        let operation = match work.kind() {
            WorkKind::Release | WorkKind::Wipe => {
                self.mirror.operation(name).and_then(ResourceExt::uid)
            }
            _ => None,
        };
        let Some(entry) = self.drives.get_mut(name) else {
            return;
        };
        let memory = &mut entry.memory;
        let Some(seen) = memory.seen.clone() else {
            return;
        };
        memory.begin(&work, now.at);
        tracing::debug!(drive = name, work = work.kind().words(), "begins");
        let job = Arc::new(Job {
            host: self.host.clone(),
            work,
            seen,
            owned: memory.owned.clone(),
            observation: memory.observation.clone(),
            pools: self.mirror.index.known.clone(),
            stop: self.stop.clone(),
        });
        let (name, incarnation) = (name.to_owned(), memory.incarnation);
        let told = (operation.clone(), self.progress.0.clone());
        self.effects.push(Box::pin(async move {
            let doing = job.clone();
            let outcome = tokio::task::spawn_blocking(move || {
                doing.perform(&mut |tens| {
                    if let (Some(operation), sender) = &told {
                        // An agent that ends needs no progress.
                        let _ = sender.send((operation.clone(), tens));
                    }
                })
            });
            let outcome = outcome.await.unwrap_or_else(|_| job.broken());
            Done::Worked {
                name,
                work: job.work.clone(),
                outcome,
                incarnation,
                operation,
            }
        }));
    }

    /// Whether another drive of this node has the first 32 bits of this id, by which the pool map tells a node's drives apart.
    fn key_is_taken(&self, name: &str, id: &Uuid) -> bool {
        let key = |id: &Uuid| id.as_fields().0;
        self.drives
            .iter()
            .filter(|(other, _)| *other != name)
            .any(|(_, entry)| {
                let memory = &entry.memory;
                let labelled = memory.label().map(|label| key(&label.drive_id));
                key(&memory.drive_id) == key(id) || labelled == Some(key(id))
            })
    }

    fn start_write(&mut self, name: &str, write: Write, now: &Now) {
        let object = self.mirror.drives.get(name).cloned();
        let happenings = self.happenings(object.as_ref(), &write);
        let Some(entry) = self.drives.get_mut(name) else {
            return;
        };
        entry.writing.in_flight = true;
        if let Write::Status(status) = &write {
            entry.writing.last_status = Some(now.at);
            tracing::info!(
                drive = name,
                verdict = ?status.verdict,
                phase = ?status.phase,
                reasons = status.display_reasons,
                "drive"
            );
        }
        let (writer, name, kind) = (self.writer.clone(), name.to_owned(), write.kind());
        self.effects.push(Box::pin(async move {
            Done::Wrote {
                result: writer.write(name.clone(), object, write).await,
                name,
                kind,
                happenings,
            }
        }));
    }

    fn happenings(&self, object: Option<&Drive>, write: &Write) -> Vec<Happening> {
        match write {
            Write::Status(status) => {
                let before = object.and_then(|object| object.status.as_ref());
                happening::of_drive(&self.config.node_name, before, status)
            }
            Write::Operation(name, status) => self
                .mirror
                .operations
                .get(name)
                .and_then(|operation| happening::of_operation(operation, status))
                .into_iter()
                .collect(),
            Write::Create | Write::Delete => Vec::new(),
        }
    }

    fn hear(&mut self, news: Heard) {
        if let Heard::Failed { what, error } = &news {
            self.metrics.watch_failed();
            tracing::warn!(what, %error, "watching the API failed; it is tried again, and what is known stays");
        }
        if let Heard::Map(event) = &news
            && let kube::runtime::watcher::Event::Apply(map)
            | kube::runtime::watcher::Event::InitApply(map) = event
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

    fn changed(&mut self) {
        let now = Instant::now();
        self.scanning.at = self.scanning.at.min(now + SETTLE);
        for entry in self.drives.values_mut() {
            entry.memory.hasten(now + SETTLE);
        }
    }

    fn note_progress(&mut self, operation: &str, tens: u8) {
        self.runs.entry(operation.into()).or_default().tens = tens;
    }

    fn take(&mut self, done: Done) {
        let now = Instant::now();
        match done {
            Done::Scanned(result) => self.take_scan(result, now),
            Done::Worked {
                name,
                work,
                outcome,
                incarnation,
                operation,
            } => self.take_work(&name, &work, outcome, incarnation, operation, now),
            Done::Wrote {
                name,
                kind,
                result,
                happenings,
            } => self.take_write(&name, kind, result, happenings, now),
            Done::Kept(map, result) => {
                self.keeping = false;
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
            Done::Told(done) => self.metrics.wrote("event", done),
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
            let name = strand_api::names::drive_name(node, &key.model, &key.serial, key.namespace);
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

    fn take_work(
        &mut self,
        name: &str,
        work: &Work,
        outcome: Outcome,
        incarnation: u64,
        operation: Option<String>,
        now: Instant,
    ) {
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
            && let Some(end) = operation::end_of(work, outcome.error(), name)
        {
            self.runs.entry(uid).or_default().end = Some(end);
        }
        let known = &self.mirror.index.known;
        let rescan = self.config.rescan;
        let lost = entry
            .memory
            .learn(work, outcome, incarnation, name, rescan, known, now);
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
        self.metrics.wrote(kind, result.is_ok());
        let mut writing = self.drives.get(name).map(|e| e.writing).unwrap_or_default();
        writing.in_flight = false;
        match result {
            Ok(written) => {
                writing.failures = 0;
                writing.retry_at = None;
                let about = match &written {
                    Written::Created(drive) | Written::Applied(drive) => Some(reference(&**drive)),
                    Written::Operation(operation) => Some(reference(&**operation)),
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

    fn show_standing(&mut self, now: &Now) {
        let mut standing: BTreeMap<Standing, i64> = BTreeMap::new();
        for report in self
            .drives
            .iter()
            .map(|(name, entry)| self.report_of(name, entry, now))
        {
            let verdict = report
                .verdict
                .map_or("Unknown".into(), |v| format!("{v:?}"));
            let phase = report.phase.map_or("Unknown".into(), |p| format!("{p:?}"));
            *standing.entry((verdict, phase)).or_default() += 1;
        }
        if standing != self.standing {
            self.metrics.drives(&self.standing, &standing);
            self.standing = standing;
        }
    }

    fn report(&self) -> Vec<DriveReport> {
        let now = Now {
            at: Instant::now(),
            wall: Time(Timestamp::now()),
        };
        self.drives
            .iter()
            .map(|(name, entry)| self.report_of(name, entry, &now))
            .collect()
    }

    fn report_of(&self, name: &str, entry: &Entry, now: &Now) -> DriveReport {
        let memory = &entry.memory;
        let finding = memory.finding(&self.mirror.index.known, now.at);
        let status = self.mirror.drives.get(name).and_then(|d| d.status.as_ref());
        DriveReport {
            name: name.into(),
            seen: memory.seen.clone(),
            verdict: finding.as_ref().map(|f| status::api_verdict(f.verdict)),
            reasons: finding
                .iter()
                .flat_map(|f| f.reasons.iter().map(status::api_reason))
                .collect(),
            phase: status.and_then(|s| s.phase),
            owned: memory.owned.clone(),
            at_work: memory.busy.map(|busy| busy.kind.words().into()),
            trouble: memory.trouble.as_ref().map(|t| t.message.clone()),
        }
    }
}

impl Entry {
    fn new() -> Self {
        Self {
            memory: DriveMemory::new(Uuid::new_v4()),
            writing: Writing::default(),
        }
    }
}
