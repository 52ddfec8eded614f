//! Leader election by a Lease, as Kubernetes' own controllers do it.
//!
//! A holder that is not heard of for a lease's duration is replaced. Clocks are not compared: a
//! candidate measures, on its own clock, how long the record has not changed.

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use std::time::{Duration, Instant};

/// How long a silent holder keeps the lease.
pub const DURATION: Duration = Duration::from_secs(30);
/// How often a holder renews, and a candidate looks.
pub const RENEW: Duration = Duration::from_secs(10);
/// Name of the Lease object.
const NAME: &str = "strand-operator";

/// Why leadership ended.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// Somebody else has it.
    #[error("the lease {NAME} was taken by {0}")]
    Taken(String),
    /// It could not be renewed in time.
    #[error("the lease {NAME} could not be renewed before it ran out: {0}")]
    Stale(kube::Error),
}

/// A candidate, or the holder, of the operator's lease.
pub struct Candidate {
    leases: Api<Lease>,
    identity: String,
    seen: Option<(LeaseSpec, Instant)>,
}

/// What a candidate does about a lease.
#[derive(Debug, PartialEq, Eq)]
enum Move {
    Take,
    Renew,
    Wait,
}

/// Decides from the record and from how long it has not changed.
fn decide(spec: &LeaseSpec, unchanged_for: Duration, me: &str) -> Move {
    let duration = spec.lease_duration_seconds.map_or(DURATION, |s| {
        Duration::from_secs(s.max(0).unsigned_abs().into())
    });
    match spec.holder_identity.as_deref() {
        Some(holder) if holder == me => Move::Renew,
        None | Some("") => Move::Take,
        Some(_) if unchanged_for > duration => Move::Take,
        Some(_) => Move::Wait,
    }
}

impl Candidate {
    /// A candidate named `identity`, for the lease in `namespace`.
    pub fn new(client: Client, namespace: &str, identity: String) -> Self {
        Self {
            leases: Api::namespaced(client, namespace),
            identity,
            seen: None,
        }
    }

    /// Waits until the lease is ours.
    pub async fn acquire(&mut self) {
        loop {
            match self.attempt().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, "the lease {NAME} cannot be looked at; trying again")
                }
            }
            tokio::time::sleep(RENEW.min(DURATION / 6)).await;
        }
    }

    /// Renews until the lease is lost.
    pub async fn keep(&mut self) -> Lost {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(RENEW).await;
            match self.attempt().await {
                Ok(true) => renewed = Instant::now(),
                Ok(false) => return Lost::Taken(self.holder()),
                Err(error) if renewed.elapsed() >= DURATION - RENEW => return Lost::Stale(error),
                Err(error) => {
                    tracing::warn!(%error, "the lease {NAME} was not renewed; trying again")
                }
            }
        }
    }

    /// Gives the lease back, so that a successor need not wait.
    pub async fn release(&mut self) {
        let Ok(Some(mut lease)) = self.leases.get_opt(NAME).await else {
            return;
        };
        if let Some(spec) = lease
            .spec
            .as_mut()
            .filter(|s| s.holder_identity.as_deref() == Some(&self.identity))
        {
            spec.holder_identity = None;
            if let Err(error) = self
                .leases
                .replace(NAME, &PostParams::default(), &lease)
                .await
            {
                tracing::debug!(%error, "the lease {NAME} was not given back; it runs out by itself");
            }
        }
    }

    fn holder(&self) -> String {
        let holder = self
            .seen
            .as_ref()
            .and_then(|(spec, _)| spec.holder_identity.clone());
        holder.unwrap_or_else(|| "nobody".into())
    }

    /// Takes or renews the lease if that is ours to do; tells whether it is ours now.
    async fn attempt(&mut self) -> kube::Result<bool> {
        let Some(mut lease) = self.leases.get_opt(NAME).await? else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(NAME.into()),
                    ..Default::default()
                },
                spec: Some(self.record(0)),
            };
            return conflict_is_no(self.leases.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let since = match &self.seen {
            Some((seen, since)) if *seen == spec => *since,
            _ => Instant::now(),
        };
        self.seen = Some((spec.clone(), since));
        match decide(&spec, since.elapsed(), &self.identity) {
            Move::Wait => return Ok(false),
            Move::Renew => {
                lease.spec = Some(LeaseSpec {
                    renew_time: Some(MicroTime(Timestamp::now())),
                    ..spec
                })
            }
            Move::Take => lease.spec = Some(self.record(spec.lease_transitions.unwrap_or(0) + 1)),
        }
        conflict_is_no(
            self.leases
                .replace(NAME, &PostParams::default(), &lease)
                .await,
        )
    }

    fn record(&self, transitions: i32) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(DURATION.as_secs() as i32),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..Default::default()
        }
    }
}

fn conflict_is_no(result: kube::Result<Lease>) -> kube::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(holder: &str) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_duration_seconds: Some(30),
            ..Default::default()
        }
    }

    #[test]
    fn only_a_free_or_silent_lease_is_taken() {
        let (fresh, silent) = (Duration::from_secs(29), Duration::from_secs(31));
        assert_eq!(decide(&held_by("a"), fresh, "b"), Move::Wait);
        assert_eq!(decide(&held_by("a"), silent, "b"), Move::Take);
        assert_eq!(decide(&held_by("a"), silent, "a"), Move::Renew);
        assert_eq!(decide(&held_by(""), fresh, "b"), Move::Take);
        assert_eq!(decide(&LeaseSpec::default(), fresh, "b"), Move::Take);
    }
}
