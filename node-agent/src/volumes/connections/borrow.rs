//! Legs of other nodes that are copied to this one: reached by the export that their objects have for that, for as long as the copy goes on.

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::api::ListParams;
use strand_api::PoolLeg;
use strand_fabric::{Initiator, Nqn};
use strand_volumes::Foreign;

use super::{Connections, Way};
use crate::volumes::decide::{Fetch, uuid};
use crate::volumes::{AttachError, blocking};

/// How long reading waits for a node that went away. Who copies tries again by himself, and a thread that waits cannot be stopped.
const PATIENCE: Duration = Duration::from_secs(20);

impl Connections {
    /// Makes a leg of another node, which is exported to this one to be copied, a device.
    ///
    /// # Errors
    /// [`AttachError::NotYet`] while it is not exported, or its node does not answer.
    pub async fn borrow(&self, fetch: &Fetch) -> Result<Foreign, AttachError> {
        let leg = fetch.order.name.clone();
        let not_yet = |why: String| AttachError::NotYet {
            volume: fetch.leg.volume.clone(),
            why,
        };
        let local = self.local(&fetch.leg.volume)?;
        let legs: Api<PoolLeg> = Api::all(self.client.clone());
        let there = ListParams::default().fields(&format!("spec.drive={}", fetch.drive));
        let there = legs.list(&there).await;
        let there = there
            .map_err(|error| not_yet(format!("the API does not tell where it is ({error})")))?;
        let bytes = fetch.order.of.to_string();
        let mut there = there.items.into_iter();
        let source = there.find(|leg| uuid(leg) == Some(&bytes));
        let waits = || {
            let node = &fetch.node;
            not_yet(format!(
                "node {node} does not export leg {bytes} for it yet"
            ))
        };
        let source = source.ok_or_else(waits)?;
        let nqn = Nqn::leg(fetch.order.of, fetch.order.generation);
        let is = |generation: i64| generation.unsigned_abs() == nqn.generation();
        let mut wanted = source.spec.exports.iter();
        let wanted = wanted.find(|e| is(e.generation) && e.node == self.node && e.copy);
        let told = source.status.iter().flat_map(|status| &status.exports);
        let told = told.clone().find(|export| is(export.generation));
        let (Some(wanted), Some(there)) = (wanted, told) else {
            return Err(waits());
        };
        let way = Way {
            nqn,
            insecure: wanted.insecure,
            there,
            node: &fetch.node,
        };
        let remote = self.reach(&fetch.leg.volume, &way, Some(PATIENCE)).await?;
        let taken = source.status.as_ref().and_then(|s| s.taken_at.as_ref());
        let made_at_ms = taken.map_or(fetch.made_at_ms, milliseconds);
        let words = leg.clone();
        let device = blocking(&words, move || local.borrow(&leg, &remote));
        let (device, path) = device.await?;
        let number = device.metadata().map_or(0, |device| device.rdev());
        Ok(Foreign {
            device,
            path,
            answers: Box::new(move || answers(number, nqn)),
            made_at_ms,
        })
    }

    /// Ends what [`Self::borrow`] made, or began.
    ///
    /// # Errors
    /// [`AttachError`]: it is swept later.
    pub async fn give_back(&self, fetch: &Fetch) -> Result<(), AttachError> {
        let leg = fetch.order.name.clone();
        let local = self.local(&fetch.leg.volume)?;
        let nqn = Nqn::leg(fetch.order.of, fetch.order.generation);
        blocking(&leg.clone(), move || local.give_back(&leg, nqn)).await
    }
}

/// Whether the device with this number is a leg's still, and its node answers.
fn answers(number: u64, nqn: Nqn) -> bool {
    let Ok(initiator) = Initiator::open() else {
        return false;
    };
    let found = initiator.find(nqn).ok().flatten();
    found.is_some_and(|found| found.is_live()) && initiator.is_of(number, nqn)
}

/// A time of an object as records have it.
pub fn milliseconds(time: &Time) -> u64 {
    u64::try_from(time.0.as_millisecond()).unwrap_or(0)
}
