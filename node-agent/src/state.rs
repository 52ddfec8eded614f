//! Everything that a running agent knows, and the step that it takes from there: plan every drive, start what the plans say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use strand_api::{Drive, Provisioning};
use strand_drives::{DriveError, DriveHost, SeenDrive};
use strand_placement::carve::Role;
use strand_placement::verdict::{LabelState, Verdict};
use strand_process::Health;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::config::AgentConfig;
use crate::context::{ContextMemory, DriveStanding, Wanted, WantedPool};
use crate::effects::{WriteError, Writer, Written};
use crate::happening::{self, Happening};
use crate::maps::{self, KeptMap, Maps, MapsError};
use crate::memory::DriveMemory;
use crate::metrics::{Metrics, Standing};
use crate::operation::Run;
use crate::plan::{self, Known, Plan, Write, Writing};
use crate::view::{Now, Pools, View};
use crate::volumes::{self, StorageStanding, Volumes};
use crate::watches::Mirror;
use crate::work::{Job, Outcome, Work, WorkKind};

/// How long a loop without plans sleeps at most.
const IDLE: Duration = Duration::from_secs(3600);

/// One drive: what is known of it and how the writes about it go.
pub(crate) struct Entry {
    pub(crate) memory: DriveMemory,
    pub(crate) writing: Writing,
}

/// Something that was started and has ended.
pub(crate) enum Done {
    Scanned(Result<Vec<SeenDrive>, DriveError>),
    Worked(Box<Worked>),
    Wrote {
        name: String,
        kind: &'static str,
        result: Result<Written, WriteError>,
        happenings: Vec<Happening>,
    },
    /// `None` where it broke off; the map comes again with its next epoch.
    Kept(Option<(KeptMap, Result<(), MapsError>)>),
    Told(bool),
}

/// Work on a drive that has ended.
pub(crate) struct Worked {
    /// Name of the drive's object.
    pub(crate) name: String,
    pub(crate) work: Work,
    pub(crate) outcome: Outcome,
    /// The memory's, when the work began.
    pub(crate) incarnation: u64,
    /// Uid of the operation that asked for it.
    pub(crate) operation: Option<String>,
}

/// When the machine is looked over.
pub(crate) struct Scanning {
    pub(crate) under_way: bool,
    pub(crate) at: Instant,
    pub(crate) done: bool,
    pub(crate) failures: u32,
}

/// What serves the drives' two sides, as far as anything does.
pub(crate) struct Serves {
    pub(crate) context: Option<ContextMemory>,
    pub(crate) volumes: Option<Volumes>,
}

pub(crate) struct State {
    pub(crate) config: AgentConfig,
    pub(crate) host: Arc<dyn DriveHost>,
    pub(crate) writer: Writer,
    pub(crate) metrics: Metrics,
    pub(crate) health: Health,
    pub(crate) drives: BTreeMap<String, Entry>,
    pub(crate) mirror: Mirror,
    pub(crate) runs: BTreeMap<String, Run>,
    pub(crate) maps: Maps,
    pub(crate) keeping: bool,
    pub(crate) keep_at: Instant,
    pub(crate) scanning: Scanning,
    pub(crate) effects: FuturesUnordered<BoxFuture<'static, Done>>,
    /// Uid of an operation and the tens of percent that its work has done.
    pub(crate) progress: mpsc::UnboundedReceiver<(String, u8)>,
    tell_progress: mpsc::UnboundedSender<(String, u8)>,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) standing: BTreeMap<Standing, i64>,
    pub(crate) context: Option<ContextMemory>,
    pub(crate) volumes: Option<Volumes>,
    /// How the drives' storage sides stand.
    pub(crate) storage: BTreeMap<String, StorageStanding>,
    /// What volumes were last told to serve.
    wanted_volumes: volumes::Wanted,
    /// What context memory was last told to serve.
    wanted: Wanted,
    /// Bytes that context memory holds, by drive.
    context_used: BTreeMap<String, u64>,
}

impl State {
    pub(crate) fn new(
        config: AgentConfig,
        host: Arc<dyn DriveHost>,
        writer: Writer,
        maps: Maps,
        metrics: Metrics,
        health: Health,
        serves: Serves,
    ) -> Self {
        let now = Instant::now();
        let (tell_progress, progress) = mpsc::unbounded_channel();
        for kept in maps.kept().values() {
            metrics.map(&kept.pool, kept.epoch);
        }
        let remembered = maps.newest().iter();
        let names = remembered.map(|(id, newest)| (*id, newest.pool.clone()));
        let mirror = Mirror::remembering(Pools::remembered(names));
        Self {
            config,
            host,
            writer,
            metrics,
            health,
            drives: BTreeMap::new(),
            mirror,
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
            progress,
            tell_progress,
            stop: Arc::default(),
            standing: BTreeMap::new(),
            context: serves.context,
            volumes: serves.volumes,
            storage: BTreeMap::new(),
            wanted_volumes: volumes::Wanted::default(),
            wanted: Wanted::default(),
            context_used: BTreeMap::new(),
        }
    }

    fn settled(&self) -> bool {
        self.scanning.done && self.mirror.synced()
    }

    /// Plans every drive and starts what the plans say. Returns when to plan again if nothing happens before.
    pub(crate) fn step(&mut self) -> Instant {
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
        let idle = Run::default();
        let mut plans = Vec::new();
        for (name, entry) in &self.drives {
            let view = View {
                name,
                object: self.mirror.drives.get(name),
                pools: &self.mirror.index,
                operation: self.mirror.operation(name),
                ahead: &ahead,
                peer_address: self.config.peer_address.as_deref(),
                context_used: self.context_used.get(name).copied(),
                storage: self.storage.get(name).copied(),
            };
            let run = view
                .operation
                .and_then(|operation| self.runs.get(&operation.uid().unwrap_or_default()));
            let known = Known {
                memory: &entry.memory,
                run: run.unwrap_or(&idle),
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
        self.serve_context(now.at);
        self.serve_volumes();
        self.show_standing(now.at);
        wake
    }

    /// Says what context memory shall serve, where that has changed.
    fn serve_context(&mut self, now: Instant) {
        let Some(context) = &self.context else {
            return;
        };
        let wanted = self.wanted(now);
        if wanted != self.wanted {
            context.serve(wanted.clone());
            self.wanted = wanted;
        }
    }

    /// Says what volumes shall be served from, where that has changed. A drive that is failed by its verdict goes on: its volumes are
    /// still in use.
    fn serve_volumes(&mut self) {
        let Some(volumes) = &self.volumes else {
            return;
        };
        let owned = self.drives.iter().filter_map(|(name, entry)| {
            let owned = entry.memory.owned.as_ref()?;
            let serves = self.mirror.index.known.contains(&owned.pool_id)
                && owned.state == LabelState::Carved
                && owned.partition(Role::Storage).is_some();
            serves.then(|| (name.clone(), owned.clone()))
        });
        let gone = self
            .drives
            .iter()
            .filter(|(_, entry)| entry.memory.seen.is_none());
        let unknown = |entry: &Entry| {
            let memory = &entry.memory;
            memory.seen.is_some()
                && memory.owned.is_none()
                && memory.trouble.is_none()
                && match &memory.observation {
                    None => true,
                    Some(_) => memory
                        .label()
                        .is_some_and(|label| self.mirror.index.known.contains(&label.pool_id)),
                }
        };
        let cordoned = self.mirror.drives.iter();
        let cordoned = cordoned.filter(|(_, drive)| drive.spec.cordon);
        let thin = self.mirror.index.iter();
        let thin = thin.filter(|(_, pool)| pool.spec.storage.provisioning == Provisioning::Thin);
        let wanted = volumes::Wanted {
            drives: owned.collect(),
            cordoned: cordoned.map(|(name, _)| name.clone()).collect(),
            thin_pools: thin.map(|(_, pool)| pool.name_any()).collect(),
            gone: match self.scanning.done {
                true => gone.map(|(name, _)| name.clone()).collect(),
                false => Default::default(),
            },
            settled: self.settled() && !self.drives.values().any(unknown),
        };
        if wanted != self.wanted_volumes {
            volumes.serve(wanted.clone());
            self.wanted_volumes = wanted;
        }
    }

    fn wanted(&self, now: Instant) -> Wanted {
        let newest = self.maps.newest();
        let map = |id: &Uuid| newest.get(id).map(|newest| newest.map.clone());
        let index = &self.mirror.index;
        let of_api = index.iter().map(|(id, pool)| {
            let wanted = WantedPool {
                name: pool.name_any(),
                policy: Some(pool.spec.context_memory.clone()),
                rights: self.mirror.rights(pool),
                map: map(id),
            };
            (*id, wanted)
        });
        // Before the API was seen, what the kept maps say.
        let remembered = index.known.0.iter().map(|(id, name)| {
            let wanted = WantedPool {
                name: name.clone(),
                policy: None,
                rights: None,
                map: map(id),
            };
            (*id, wanted)
        });
        let drives = self.drives.iter().filter_map(|(name, entry)| {
            let owned = entry.memory.owned.as_ref()?;
            let finding = entry.memory.finding(&index.known, now)?;
            let serves = finding.verdict == Verdict::Pooled
                && owned.state == LabelState::Carved
                && owned.partition(Role::Context).is_some();
            serves.then(|| (name.clone(), owned.clone()))
        });
        Wanted {
            pools: remembered.chain(of_api).collect(),
            drives: drives.collect(),
        }
    }

    /// Takes how context memory says that the drives stand.
    pub(crate) fn stands(&mut self, standing: BTreeMap<String, DriveStanding>) {
        for (name, drive) in &standing {
            if let Some(why) = &drive.failed
                && let Some(entry) = self.drives.get_mut(name)
            {
                entry.memory.taken_out = Some(why.clone());
            }
        }
        let used = standing.into_iter().map(|(name, drive)| (name, drive.used));
        self.context_used = used.collect();
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
            Done::Kept(kept.await.ok())
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
        // What changes the partitions must find them closed.
        let changes = matches!(
            job.work.kind(),
            WorkKind::Recarve | WorkKind::Release | WorkKind::Wipe
        );
        let context = self.context.clone().filter(|_| changes);
        let volumes = self.volumes.clone().filter(|_| changes);
        let told = (operation.clone(), self.tell_progress.clone());
        self.effects.push(Box::pin(async move {
            let _held = match &context {
                Some(context) => context.hold(&name).await,
                None => None,
            };
            let _kept = match &volumes {
                Some(volumes) => volumes.hold(&name).await,
                None => None,
            };
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
            Done::Worked(Box::new(Worked {
                name,
                work: job.work.clone(),
                outcome,
                incarnation,
                operation,
            }))
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
            Write::Create | Write::Delete | Write::Refresh => Vec::new(),
        }
    }
}

impl Entry {
    pub(crate) fn new() -> Self {
        Self {
            memory: DriveMemory::new(Uuid::new_v4()),
            writing: Writing::default(),
        }
    }
}
