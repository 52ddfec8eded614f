//! Volumes of several legs that this node has: a task for each, from when it is first asked for until it was given back. The task reaches
//! the legs that its volume's object names, has them put together and kept so ([`strand_arrays::Arrays::keep`]), and tells what it sees of
//! them in `status.array`; which of them count is decided by the operator (`docs/decisions/0019`).
//!
//! A record beside those of connections says that the volume is here. An agent that was killed goes on from that and from what the kernel
//! has; neither its end nor its start touches an array.

mod legs;
mod task;
mod told;
mod wanted;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::{Client, ResourceExt};
use strand_arrays::{Arrays, Host, Running};
use strand_fabric::{Connection, Initiator};
use tokio::sync::{mpsc, oneshot, watch};

use super::connections::{Connections, Granted, Record};
use super::decide::limits;
use super::serving::Ask;
use super::{AttachError, AttachedVolume};
use task::{Shown, Task};

/// How long whoever asks for a volume is kept waiting for it; then it is asked for again.
const PATIENCE: Duration = Duration::from_secs(20);
/// For so long a look at the kernel's connections and arrays serves all volumes.
const FRESH: Duration = Duration::from_millis(100);

/// What all tasks work with.
struct Parts {
    node: String,
    client: Client,
    connections: Connections,
    /// Or why there are none.
    arrays: Result<Arc<Arrays>, String>,
    asks: mpsc::UnboundedSender<Ask>,
    sight: tokio::sync::Mutex<Option<(Instant, Arc<Sight>)>>,
}

/// What the kernel has of this node's connections and arrays.
#[derive(Default)]
struct Sight {
    /// When it was begun.
    began: Option<Instant>,
    connections: Vec<Connection>,
    arrays: Vec<Running>,
}

impl Parts {
    /// A look at what the kernel has, none of which waits for a leg.
    async fn sight(&self) -> Arc<Sight> {
        let mut last = self.sight.lock().await;
        if let Some((at, sight)) = &*last
            && at.elapsed() < FRESH
        {
            return Arc::clone(sight);
        }
        let arrays = self.arrays.clone();
        let looked = tokio::task::spawn_blocking(move || Sight {
            began: Some(Instant::now()),
            // Without the kernel's host there are none.
            connections: Initiator::open()
                .and_then(|initiator| initiator.connections())
                .unwrap_or_default(),
            arrays: arrays.map_or_else(|_| Vec::new(), |arrays| arrays.all()),
        });
        let sight = Arc::new(looked.await.unwrap_or_default());
        *last = Some((Instant::now(), Arc::clone(&sight)));
        sight
    }
}

/// Where a task takes what is asked of it, and shows how it is.
#[derive(Clone)]
struct Handle {
    generation: u64,
    asked: mpsc::UnboundedSender<Asked>,
    shown: watch::Receiver<Shown>,
}

/// What is asked of a task.
enum Asked {
    Attach(Box<Granted>),
    Detach(oneshot::Sender<Result<(), AttachError>>),
}

/// The volumes of several legs that this node has. Clones are the same.
#[derive(Clone)]
pub struct Arrayed {
    parts: Arc<Parts>,
    tasks: Arc<Mutex<BTreeMap<String, Handle>>>,
}

impl Arrayed {
    /// Goes on with what an earlier process had; needs a tokio runtime.
    pub fn start(
        node: &str,
        client: Client,
        connections: Connections,
        host: Host,
        asks: mpsc::UnboundedSender<Ask>,
    ) -> Self {
        let arrays = Arrays::open(host).map(Arc::new).map_err(|error| {
            tracing::warn!(%error, "volumes of several legs are not attached on this node");
            error.to_string()
        });
        let records = connections.records();
        let arrayed = Self {
            parts: Arc::new(Parts {
                node: node.to_owned(),
                client,
                connections,
                arrays,
                asks,
                sight: tokio::sync::Mutex::default(),
            }),
            tasks: Arc::default(),
        };
        for record in records.into_iter().filter(|record| record.array.is_some()) {
            arrayed.begin(record);
        }
        arrayed
    }

    /// Makes a volume of several legs a device of this node.
    ///
    /// # Errors
    /// [`AttachError`].
    pub async fn attach(&self, granted: Granted) -> Result<AttachedVolume, AttachError> {
        let volume = granted.object.name_any();
        let generation = granted.attachment.generation.unsigned_abs();
        if let Err(why) = &self.parts.arrays {
            return Err(AttachError::Refused {
                volume,
                why: why.clone(),
            });
        }
        self.parts.connections.local(&volume)?;
        let earlier = self.handle(&volume);
        if earlier.is_some_and(|handle| handle.generation != generation) {
            self.detach(&volume).await?;
        }
        let handle = match self.handle(&volume) {
            Some(handle) => handle,
            None => self.begin(first_record(&volume, &granted)?),
        };
        let not_yet = |why: String| AttachError::NotYet {
            volume: volume.clone(),
            why,
        };
        // A task that ends just now has given everything back.
        let ends = || not_yet("it is just being given back".into());
        let asked = handle.asked.send(Asked::Attach(Box::new(granted)));
        asked.map_err(|_| ends())?;
        let mut shown = handle.shown.clone();
        let settled = shown.wait_for(|shown| !matches!(shown, Shown::Waits(_)));
        match tokio::time::timeout(PATIENCE, settled).await {
            Ok(Ok(settled)) => match settled.clone() {
                Shown::Device(device) => return Ok(AttachedVolume { device }),
                Shown::Refused(why) => return Err(AttachError::Refused { volume, why }),
                Shown::Waits(why) => return Err(not_yet(why)),
            },
            Ok(Err(_)) => return Err(ends()),
            Err(_) => {}
        }
        let Shown::Waits(why) = handle.shown.borrow().clone() else {
            return Err(not_yet("it is there just now".into()));
        };
        Err(not_yet(why))
    }

    /// Takes a volume of several legs away from this node; whether it had it.
    ///
    /// # Errors
    /// [`AttachError`], above all while its device is in use.
    pub async fn detach(&self, volume: &str) -> Result<bool, AttachError> {
        let Some(handle) = self.handle(volume) else {
            return Ok(false);
        };
        let (answer, done) = oneshot::channel();
        if handle.asked.send(Asked::Detach(answer)).is_err() {
            return Ok(true);
        }
        // A task that has ended has given everything back.
        done.await.unwrap_or(Ok(())).map(|()| true)
    }

    fn handle(&self, volume: &str) -> Option<Handle> {
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks
            .get(volume)
            .filter(|handle| !handle.asked.is_closed())
            .cloned()
    }

    fn begin(&self, record: Record) -> Handle {
        let (asked, asks) = mpsc::unbounded_channel();
        let (show, shown) = watch::channel(Shown::Waits("it has just been asked for".into()));
        let handle = Handle {
            generation: record.generation,
            asked,
            shown,
        };
        let volume = record.volume.clone();
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = tasks.get(&volume).filter(|there| !there.asked.is_closed()) {
            return there.clone();
        }
        tasks.insert(volume, handle.clone());
        tokio::spawn(Task::new(Arc::clone(&self.parts), record, show).run(asks));
        handle
    }
}

/// What is kept of a volume before anything of it is reached.
fn first_record(volume: &str, granted: &Granted) -> Result<Record, AttachError> {
    let spec = &granted.object.spec;
    let array = spec
        .array
        .as_ref()
        .and_then(|array| array.uuid.parse().ok());
    let array = array.ok_or_else(|| AttachError::NotYet {
        volume: volume.to_owned(),
        why: "its legs are not placed yet".into(),
    })?;
    let limits = limits(spec.limits.as_ref());
    Ok(Record {
        volume: volume.to_owned(),
        generation: granted.attachment.generation.unsigned_abs(),
        read_only: granted.attachment.read_only,
        legs: Vec::new(),
        array: Some(array),
        iops: limits.iops,
        bandwidth: limits.bandwidth,
    })
}
