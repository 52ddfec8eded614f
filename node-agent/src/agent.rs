//! One agent: its loop waits for the machine, the API and the clock, plans each drive anew, and starts what the plans say.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use kube::Client;
use prometheus::Registry;
use strand_drives::DriveHost;
use strand_process::Health;
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::AgentConfig;
use crate::context::{ContextError, ContextMemory};
use crate::effects::Writer;
use crate::http::DriveReport;
use crate::maps::{Maps, MapsError};
use crate::metrics::Metrics;
use crate::state::{Serves, State};
use crate::volumes::Volumes;
use crate::watches::watch_all;

/// How long an agent that ends waits for what is under way.
const FAREWELL: Duration = Duration::from_secs(10);

/// Why an agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The pool maps of earlier runs cannot be used.
    #[error("the kept pool maps cannot be used: {0}")]
    Maps(#[from] MapsError),
    /// Context memory cannot be served.
    #[error("context memory cannot be served: {0}")]
    Context(#[from] ContextError),
    /// The metrics contradict each other.
    #[error("metrics cannot be set up: {0}; please report this")]
    Metrics(#[from] prometheus::Error),
}

/// What a running agent can be asked from elsewhere in its process.
#[derive(Clone)]
pub struct Handle {
    metrics: Metrics,
    health: Health,
    context: Option<ContextMemory>,
    volumes: Option<Volumes>,
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

    /// Context memory, if it serves any.
    pub fn context(&self) -> Option<&ContextMemory> {
        self.context.as_ref()
    }

    /// Volumes, if it serves any.
    pub fn volumes(&self) -> Option<&Volumes> {
        self.volumes.as_ref()
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
    /// Puts an agent together. Reads the pool maps that were kept and opens the doors of an earlier run, for which it needs a
    /// tokio runtime; touches no drive.
    ///
    /// # Errors
    /// [`AgentError`].
    pub fn new(
        config: AgentConfig,
        client: Client,
        host: Arc<dyn DriveHost>,
    ) -> Result<Self, AgentError> {
        let maps = Maps::load(config.state_dir.as_deref(), config.context.is_some())?;
        let metrics = Metrics::new()?;
        let context = match &config.context {
            Some(context) => {
                let state_dir = config.state_dir.as_deref();
                let node = &config.node_name;
                Some(ContextMemory::start(
                    context,
                    node,
                    state_dir,
                    host.clone(),
                )?)
            }
            None => None,
        };
        if let Some(context) = &context {
            metrics.registry().register(Box::new(context.metrics()))?;
        }
        let writer = Writer::new(&config.node_name, client.clone());
        let volumes = config.volumes.as_ref().map(|volumes| {
            let (node, client) = (&config.node_name, client.clone());
            let state_dir = config.state_dir.as_deref();
            let (host, writer) = (host.clone(), writer.clone());
            Volumes::start(volumes, node, state_dir, client, host, writer)
        });
        if let Some(volumes) = &volumes {
            metrics.registry().register(Box::new(volumes.metrics()))?;
        }
        let health = Health::waiting_for("the first look at the drives, and the API server");
        let (ask, asked) = mpsc::channel(4);
        let handle = Handle {
            metrics: metrics.clone(),
            health: health.clone(),
            context: context.clone(),
            volumes: volumes.clone(),
            ask,
        };
        let serves = Serves { context, volumes };
        Ok(Self {
            state: State::new(config, host, writer, maps, metrics, health, serves),
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
        let mut standing = state.context.as_ref().map(|context| context.standing());
        let mut storage = state.volumes.as_ref().map(|volumes| volumes.standing());
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
                Some((operation, tens)) = state.progress.recv() => state.note_progress(&operation, tens),
                changed = changes.changed(), if listening => match changed {
                    Ok(()) => state.changed(),
                    Err(_) => listening = false,
                },
                Some(()) = stands_anew(standing.as_mut()) => {
                    if let Some(standing) = &mut standing {
                        let now = standing.borrow_and_update().clone();
                        state.stands(now);
                    }
                }
                Some(()) = stands_anew(storage.as_mut()) => {
                    if let Some(storage) = &mut storage {
                        state.storage = storage.borrow_and_update().clone();
                    }
                }
                Some(answer) = asked.recv() => {
                    // Who asked and went away needs no answer.
                    let _ = answer.send(state.report());
                }
                () = tokio::time::sleep_until(wake.into()) => {}
            }
        }
        state.stop.store(true, Ordering::Relaxed);
        if let Some(context) = &state.context {
            context.end().await;
        }
        if let Some(volumes) = &state.volumes {
            volumes.end().await;
        }
        let ending = async { while state.effects.next().await.is_some() {} };
        if tokio::time::timeout(FAREWELL, ending).await.is_err() {
            tracing::warn!(
                "ending although something does not come to an end; the next start goes on with it"
            );
        }
    }
}

/// Resolves when drives stand otherwise; none where what serves them tells nothing, or no more.
async fn stands_anew<T>(standing: Option<&mut watch::Receiver<BTreeMap<String, T>>>) -> Option<()> {
    standing?.changed().await.ok()
}
