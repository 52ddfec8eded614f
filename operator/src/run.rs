//! The loop: observe, plan, apply.

use crate::{act, metrics::Metrics, observe::Observed, observe::Snapshot};
use futures::StreamExt;
use k8s_openapi::jiff::Timestamp;
use kube::{
    Client, Resource,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};
use strand_api::{MemoryPoolStatus, names};
use strand_placement::{map, rack::Action, status};

/// Writes in flight at once.
const CONCURRENCY: usize = 32;
/// A pass every so often even if nothing changes, for what depends on time alone.
const IDLE: Duration = Duration::from_secs(30);
/// Changes are gathered at least this long before a pass.
const GATHER: Duration = Duration::from_millis(200);
/// A pass may take one part in this many of the time between passes.
const DUTY: u32 = 10;
/// Counts in a pool's status move with every drive; they are written this often at most. What a condition says comes at once.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);
/// After a failed write the next pass comes after this, doubled with each failure in a row.
const RETRY: Duration = Duration::from_secs(1);
/// The longest wait after failures.
const MAX_RETRY: Duration = Duration::from_secs(30);

/// What the loop remembers between passes.
pub struct Operator {
    client: Client,
    recorder: Recorder,
    metrics: Metrics,
    /// Objects written to, with the version that the write was made from: until the watch brings a
    /// newer one, the plan for them is out of date.
    written: HashMap<(&'static str, String), Option<String>>,
    /// When each pool's map was published last, and how long the next has to wait.
    published: HashMap<String, (Instant, Duration)>,
    /// When each pool's status was written last.
    told: HashMap<String, Instant>,
    failures: u32,
    started: Instant,
}

impl Operator {
    /// An operator that has done nothing yet.
    pub fn new(client: Client, metrics: Metrics) -> Self {
        let reporter = Reporter {
            controller: names::OPERATOR_MANAGER.into(),
            instance: None,
        };
        let recorder = Recorder::new(client.clone(), reporter);

        Self {
            client,
            recorder,
            metrics,
            written: HashMap::new(),
            published: HashMap::new(),
            told: HashMap::new(),
            failures: 0,
            started: Instant::now(),
        }
    }

    /// Plans and applies for ever.
    pub async fn run(mut self, observed: &Observed) {
        loop {
            let begun = Instant::now();
            let snapshot = observed.snapshot();
            let plan = snapshot.plan(Timestamp::now());
            let planned = begun.elapsed();
            self.metrics.observe(&snapshot, planned);
            let (due, wait_for_pace) = self.due(plan, &snapshot);
            let failed = self.apply(&snapshot, due).await;
            self.failures = if failed {
                self.failures.saturating_add(1)
            } else {
                0
            };

            tokio::time::sleep(GATHER.max(planned * DUTY)).await;
            let idle = wait_for_pace
                .unwrap_or(IDLE)
                .min(self.retry().unwrap_or(IDLE));
            tokio::select! {
                () = observed.change() => {}
                () = tokio::time::sleep(idle) => {}
            }
        }
    }

    fn retry(&self) -> Option<Duration> {
        let doublings = self.failures.checked_sub(1)?.min(5);
        Some((RETRY * 2u32.pow(doublings)).min(MAX_RETRY))
    }

    /// The actions of a plan that may be carried out now: one an object, none on an object whose
    /// last write has not come back yet, no map or status before its time. Also how long what is held back waits.
    fn due(&mut self, plan: Vec<Action>, seen: &Snapshot) -> (Vec<Action>, Option<Duration>) {
        let mut taken = HashSet::new();
        let mut wait: Option<Duration> = None;
        let mut due = Vec::new();
        for action in plan {
            let (kind, name) = act::target(&action);
            let key = (kind, name.to_owned());
            let held = match &action {
                Action::PublishMap { pool, .. } => self.map_wait(pool, seen),
                Action::SetStatus { pool, status } => self.status_wait(pool, status, seen),
                _ => None,
            };
            if let Some(left) = held {
                wait = Some(wait.map_or(left, |w| w.min(left)));
                continue;
            }
            let version = act::version(&action, seen);
            let still_out = version.is_some() && self.written.get(&key) == Some(&version);
            if !still_out && taken.insert(key.clone()) {
                self.written.insert(key, version);
                due.push(action);
            }
        }
        // What is no longer planned for has come back; forgetting it keeps the memory flat.
        if due.is_empty() && wait.is_none() {
            self.written.clear();
        }
        (due, wait)
    }

    /// How long the pool's next map has to wait. After a start the last one's time is not known: the
    /// shortest interval is kept, unless there is no map yet.
    fn map_wait(&self, pool: &str, seen: &Snapshot) -> Option<Duration> {
        let (since, interval) = match self.published.get(pool) {
            Some(last) => *last,
            None if seen.map(pool).is_some() => (self.started, map::MIN_INTERVAL),
            None => return None,
        };
        interval
            .checked_sub(since.elapsed())
            .filter(|left| !left.is_zero())
    }

    /// How long a status has to wait that changes nothing but counts.
    fn status_wait(
        &self,
        pool: &str,
        status: &MemoryPoolStatus,
        seen: &Snapshot,
    ) -> Option<Duration> {
        let before = seen.pool(pool)?.status.as_ref()?;
        if !status::stories(before, status).is_empty() {
            return None;
        }
        let since = self.told.get(pool)?.elapsed();
        STATUS_INTERVAL
            .checked_sub(since)
            .filter(|left| !left.is_zero())
    }

    /// Carries actions out; tells whether any failed for another reason than a conflict.
    async fn apply(&mut self, seen: &Snapshot, actions: Vec<Action>) -> bool {
        let client = &self.client;
        let results: Vec<(Action, kube::Result<()>)> = futures::stream::iter(actions)
            .map(|action| async move {
                let result = act::carry_out(client, seen, &action).await;
                (action, result)
            })
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await;
        let mut failed = false;
        for (action, result) in results {
            let kind = act::kind(&action);
            match result {
                Ok(()) => {
                    self.metrics.acted(kind, "ok");
                    tracing::debug!(kind, "{action}");
                    self.tell(seen, &action).await;
                }
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    self.metrics.acted(kind, "conflict");
                    tracing::debug!(
                        kind,
                        "{action}: the object has changed meanwhile, looking again"
                    );
                    self.forget(&action);
                }
                Err(error) => {
                    self.metrics.acted(kind, "error");
                    tracing::warn!(kind, %error, "{action}: not done, trying again");
                    self.forget(&action);
                    failed = true;
                }
            }
        }
        failed
    }

    fn forget(&mut self, action: &Action) {
        let (kind, name) = act::target(action);
        self.written.remove(&(kind, name.to_owned()));
    }

    /// Logs and events for what was done.
    async fn tell(&mut self, seen: &Snapshot, action: &Action) {
        match action {
            Action::PublishMap { pool, map } => {
                let bytes = serde_json::to_vec(map).map_or(0, |json| json.len());
                let interval = map::interval(bytes, seen.agents());
                self.published
                    .insert(pool.clone(), (Instant::now(), interval));
                self.metrics.published(pool, map.epoch, bytes);
                tracing::info!(%pool, epoch = map.epoch, nodes = map.nodes.len(), bytes, "pool map published");
                if bytes > map::MAX_BYTES {
                    tracing::error!(%pool, bytes, "the pool map is near the API server's limit for one object; split the pool");
                }
            }
            Action::SetStatus { pool, status } => {
                self.told.insert(pool.clone(), Instant::now());
                let Some(object) = seen.pool(pool) else {
                    return;
                };
                for story in status::stories(&object.status.clone().unwrap_or_default(), status) {
                    tracing::info!(%pool, reason = story.reason, "{}", story.message);
                    let event = Event {
                        type_: if story.warning {
                            EventType::Warning
                        } else {
                            EventType::Normal
                        },
                        reason: story.reason.into(),
                        note: Some(story.message),
                        action: "Reconcile".into(),
                        secondary: None,
                    };
                    if let Err(error) = self.recorder.publish(&event, &object.object_ref(&())).await
                    {
                        tracing::warn!(%pool, %error, "the event could not be written");
                    }
                }
            }
            Action::SetPoolId { .. }
            | Action::Forget { .. }
            | Action::Deny { .. }
            | Action::Release { .. } => {
                tracing::info!("{action}");
            }
            _ => {}
        }
    }
}
