//! Everything that a running agent knows, and the step that it takes from there: plan every drive, start what the plans say.

mod serving;
mod starting;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use strand_drives::{DriveError, DriveHost, SeenDrive};
use strand_process::Health;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::config::AgentConfig;
use crate::context::{ContextMemory, Wanted};
use crate::effects::{WriteError, Writer, Written};
use crate::happening::Happening;
use crate::maps::{self, KeptMap, Maps, MapsError};
use crate::memory::DriveMemory;
use crate::metrics::{Metrics, Standing};
use crate::operation::Run;
use crate::plan::{self, Known, Plan, Writing};
use crate::view::{Now, Pools, View};
use crate::volumes::{self, StorageStanding, Volumes};
use crate::watches::Mirror;
use crate::work::{Outcome, Work};

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
                storage: self.storage.get(name),
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
}

impl Entry {
    pub(crate) fn new() -> Self {
        Self {
            memory: DriveMemory::new(Uuid::new_v4()),
            writing: Writing::default(),
        }
    }
}
