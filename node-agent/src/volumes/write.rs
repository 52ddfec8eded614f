//! Writes about legs to the API: a status at a time for each, only where it differs from what the API has.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use strand_api::{GROUP, PoolLeg, PoolLegSpec, PoolLegStatus, VERSION, condition, names};
use tokio::sync::Semaphore;

use super::told::COPYING;
use crate::backoff;
use crate::happening::Happening;

/// An answer later than this is none.
const PATIENCE: Duration = Duration::from_secs(30);
/// Writes of one agent at once.
const IN_FLIGHT: usize = 8;

/// A request to the API.
#[derive(Clone, Debug)]
pub enum Write {
    /// The status of a leg's object.
    Status(Box<PoolLegStatus>),
    /// An object for bytes that have none.
    Create(Box<PoolLegSpec>),
}

/// Where writes about legs go.
#[derive(Clone)]
pub struct LegWriter {
    legs: Api<PoolLeg>,
    /// Shared by all clones.
    in_flight: Arc<Semaphore>,
}

impl LegWriter {
    pub fn new(client: Client) -> Self {
        Self {
            legs: Api::all(client),
            in_flight: Arc::new(Semaphore::new(IN_FLIGHT)),
        }
    }

    /// Does one write; the object as it is afterwards, or none where it went or came meanwhile: the watch tells.
    pub async fn write(self, name: &str, write: Write) -> Result<Option<PoolLeg>, String> {
        // The semaphore is never closed; without a permit the write goes all the same.
        let _turn = self.in_flight.acquire().await;
        let answer = tokio::time::timeout(PATIENCE, self.attempt(name, write)).await;
        match answer {
            Ok(Ok(leg)) => Ok(Some(leg)),
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => Ok(None),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer in {} s", PATIENCE.as_secs())),
        }
    }

    async fn attempt(&self, name: &str, write: Write) -> Result<PoolLeg, kube::Error> {
        match write {
            Write::Create(spec) => {
                let params = PostParams {
                    field_manager: Some(names::AGENT_MANAGER.into()),
                    ..PostParams::default()
                };
                self.legs.create(&params, &PoolLeg::new(name, *spec)).await
            }
            Write::Status(status) => {
                let patch = json!({
                    "apiVersion": format!("{GROUP}/{VERSION}"),
                    "kind": "PoolLeg",
                    "metadata": {"name": name},
                    "status": status,
                });
                let params = PatchParams::apply(names::AGENT_MANAGER).force();
                let patch = Patch::Apply(patch);
                self.legs.patch_status(name, &params, &patch).await
            }
        }
    }
}

/// How the writes about one leg go.
#[derive(Default)]
struct Writing {
    in_flight: bool,
    failures: u32,
    retry_at: Option<Instant>,
    next: Option<Write>,
}

/// What waits to be written.
#[derive(Default)]
pub struct Outbox(BTreeMap<String, Writing>);

impl Outbox {
    /// Has something written about a leg; what waits for it already is out of date.
    pub fn put(&mut self, leg: &str, write: Write) {
        self.0.entry(leg.to_owned()).or_default().next = Some(write);
    }

    /// What can be written now; each is under way from then on.
    pub fn take(&mut self, now: Instant) -> Vec<(String, Write)> {
        let ready = self.0.iter_mut().filter(|(_, writing)| {
            !writing.in_flight && writing.retry_at.is_none_or(|at| at <= now)
        });
        ready
            .filter_map(|(leg, writing)| {
                let write = writing.next.take()?;
                writing.in_flight = true;
                Some((leg.clone(), write))
            })
            .collect()
    }

    /// Takes how a write went. One that failed is tried again, unless something newer waits.
    pub fn done(&mut self, leg: &str, failed: Option<Write>, now: Instant) {
        let Some(writing) = self.0.get_mut(leg) else {
            return;
        };
        writing.in_flight = false;
        match failed {
            None => {
                writing.failures = 0;
                writing.retry_at = None;
                if writing.next.is_none() {
                    self.0.remove(leg);
                }
            }
            Some(write) => {
                writing.failures += 1;
                writing.retry_at = Some(now + backoff::API.after(writing.failures, leg));
                writing.next.get_or_insert(write);
            }
        }
    }

    /// When something can be written that cannot now.
    pub fn wake(&self) -> Option<Instant> {
        let waiting = self.0.values().filter(|w| !w.in_flight && w.next.is_some());
        waiting.filter_map(|writing| writing.retry_at).min()
    }
}

/// What a status that replaces another tells.
pub fn happenings(leg: &PoolLeg, after: &PoolLegStatus) -> Vec<Happening> {
    let before = leg
        .status
        .as_ref()
        .map_or(&[][..], |status| &status.conditions);
    let mut happenings = Vec::new();
    for (type_, reason, action) in [
        (names::READY, "LegNotReady", "Tend"),
        (names::HEALTHY, "LegUnhealthy", "Probe"),
        (names::LIMITED, "LegNotLimited", "Limit"),
    ] {
        if let Some(now) = condition::find(&after.conditions, type_)
            && now.reason != COPYING
            && condition::find(before, type_).is_none_or(|earlier| earlier.reason != now.reason)
        {
            happenings.push(Happening {
                reason,
                action,
                note: format!("{}: {}: {}", leg.name_any(), now.reason, now.message),
                warning: true,
            });
        }
    }
    happenings
}
