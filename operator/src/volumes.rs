//! The loop of storage: observe, plan, apply. It is the rack's loop ([`crate::run`]) with a shorter breath: somebody waits
//! for each volume.

mod act;
mod metrics;

use crate::observe::{Observed, Snapshot};
use futures::StreamExt;
use k8s_openapi::{api::core::v1::ObjectReference, jiff::Timestamp};
use kube::{
    Client, Resource,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
pub use metrics::VolumeMetrics;
use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};
use strand_api::names;
use strand_placement::{
    status::Story,
    volumes::{self, Action, Heard},
};

/// Writes in flight at once.
const CONCURRENCY: usize = 32;
/// A pass every so often even if nothing changes, for what depends on time alone.
const IDLE: Duration = Duration::from_secs(30);
/// Changes are gathered at least this long before a pass.
const GATHER: Duration = Duration::from_millis(5);
/// A pass may take one part in this many of the time between passes.
const DUTY: u32 = 10;
/// What was written is waited for this long, before it is looked at again as if it had not been.
const ECHO: Duration = Duration::from_secs(2);
/// After a failed write the next pass comes after this, doubled with each failure in a row.
const RETRY: Duration = Duration::from_millis(500);
/// The longest wait after failures.
const MAX_RETRY: Duration = Duration::from_secs(30);

/// What the loop remembers between passes.
pub struct Volumes {
    client: Client,
    recorder: Recorder,
    metrics: VolumeMetrics,
    /// Objects written to, with the version that the write was made from (none for what was made
    /// anew) and when: until the watch brings a newer one, the plan for them is out of date.
    written: HashMap<(&'static str, String), (Option<String>, Instant)>,
    failures: u32,
    heard: Heard,
}

impl Volumes {
    /// A loop that has done nothing yet.
    pub fn new(client: Client, metrics: VolumeMetrics) -> Self {
        let reporter = Reporter {
            controller: names::OPERATOR_MANAGER.into(),
            instance: None,
        };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            metrics,
            written: HashMap::new(),
            failures: 0,
            heard: Heard::default(),
        }
    }

    /// Plans and applies for ever.
    pub async fn run(mut self, observed: &Observed) {
        loop {
            let begun = Instant::now();
            let snapshot = observed.snapshot();
            let now = Timestamp::now();
            let mut storage = snapshot.storage();
            self.heard.take(&storage, now);
            storage.heard = Some(&self.heard);
            let plan = volumes::plan(&storage, now);
            let next = volumes::due(&storage, now);
            let planned = begun.elapsed();
            self.metrics.observe(&snapshot, planned);
            let (due, held) = self.due(plan, &snapshot);
            let failed = self.apply(&snapshot, due).await;
            self.failures = if failed {
                self.failures.saturating_add(1)
            } else {
                0
            };

            tokio::time::sleep(GATHER.max(planned * DUTY)).await;
            let idle = if held { ECHO } else { IDLE };
            let idle = self.retry().map_or(idle, |retry| retry.min(idle));
            let next = next.map(|at| at.duration_since(Timestamp::now()));
            let next: Option<Duration> = next.map(|left| left.try_into().unwrap_or_default());
            let idle = next.map_or(idle, |next| idle.min(next));
            tokio::select! {
                () = observed.storage_change() => {}
                () = tokio::time::sleep(idle) => {}
            }
        }
    }

    fn retry(&self) -> Option<Duration> {
        let doublings = self.failures.checked_sub(1)?.min(6);
        Some((RETRY * 2u32.pow(doublings)).min(MAX_RETRY))
    }

    /// The actions that may be carried out now: one an object, none on an object whose last write has not come back yet.
    /// Also whether any was held back.
    fn due(&mut self, plan: Vec<Action>, seen: &Snapshot) -> (Vec<Action>, bool) {
        self.written.retain(|_, (_, when)| when.elapsed() < ECHO);
        let mut taken = HashSet::new();
        let mut held = false;
        let mut due = Vec::new();
        for action in plan {
            let (kind, name) = act::target(&action);
            let key = (kind, name.to_owned());
            let version = act::version(&action, seen);
            let still_out = self
                .written
                .get(&key)
                .is_some_and(|(before, _)| *before == version);
            held |= still_out || taken.contains(&key);
            if !still_out && taken.insert(key.clone()) {
                self.written.insert(key, (version, Instant::now()));
                due.push(action);
            }
        }
        (due, held)
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
                    tracing::info!(kind, "{action}");
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

    /// Events for what is abnormal.
    async fn tell(&self, seen: &Snapshot, action: &Action) {
        match action {
            Action::SetVolumeStatus { volume, status } => {
                if let Some(object) = seen.volume(volume) {
                    let before = object.status.clone().unwrap_or_default();
                    let stories = volumes::stories(&before, status);
                    self.publish(&object.object_ref(&()), stories).await;
                }
            }
            Action::SetSnapshotStatus { snapshot, status } => {
                if let Some(object) = seen.volume_snapshot(snapshot) {
                    let before = object.status.clone().unwrap_or_default();
                    let stories = volumes::snapshot_stories(&before, status);
                    self.publish(&object.object_ref(&()), stories).await;
                }
            }
            _ => {}
        }
    }

    async fn publish(&self, about: &ObjectReference, stories: Vec<Story>) {
        for story in stories {
            let type_ = if story.warning {
                EventType::Warning
            } else {
                EventType::Normal
            };
            let event = Event {
                type_,
                reason: story.reason.into(),
                note: Some(story.message),
                action: "Reconcile".into(),
                secondary: None,
            };
            if let Err(error) = self.recorder.publish(&event, about).await {
                tracing::warn!(object = ?about.name, %error, "the event could not be written");
            }
        }
    }
}
