//! Telling the API what is seen of the legs.

use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use strand_api::{ArrayStatus, GROUP, PlacedLeg, PoolVolume, VERSION, names};
use strand_arrays::{Level, Running, Wanted, unrecorded};

use super::{ANSWER, Done, Job, OVER, REACHED, SERVED, Task};
use crate::volumes::arrays::wanted::bytes;
use crate::volumes::arrays::{Parts, told};
use crate::volumes::connections::Record;

/// Nobody's pod waits longer for its end than this because the API is away.
const STOPPED: Duration = Duration::from_secs(3);

impl Parts {
    /// Tells that an array was given back in order. Where that cannot be told, whoever needs to know takes it for not so.
    pub(in crate::volumes::arrays) async fn tell_stopped(&self, record: &Record) {
        let status = ArrayStatus {
            node: self.node.clone(),
            generation: i64::try_from(record.generation).unwrap_or(i64::MAX),
            legs: Vec::new(),
            looked: 0,
            resyncing: false,
            stopped: true,
            refused: None,
        };
        let told = tell(&self.client, &record.volume, &status, STOPPED).await;
        if let Err(error) = told {
            let volume = &record.volume;
            tracing::warn!(
                volume,
                error,
                "that it was given back in order was not told"
            );
        }
    }
}

/// Writes what is told of an array.
async fn tell(
    client: &Client,
    volume: &str,
    status: &ArrayStatus,
    bound: Duration,
) -> Result<(), String> {
    let patch = json!({
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "kind": "PoolVolume",
        "metadata": {"name": volume},
        "status": {"array": status},
    });
    let volumes = Api::<PoolVolume>::all(client.clone());
    let params = PatchParams::apply(names::AGENT_MANAGER).force();
    let patch = Patch::Apply(patch);
    match tokio::time::timeout(bound, volumes.patch_status(volume, &params, &patch)).await {
        Ok(answer) => answer.map(|_| ()).map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer in {} s", bound.as_secs())),
    }
}

impl Task {
    /// The last look at the legs that was asked for and has been taken: one that began after it was heard of, and saw every leg that is in.
    fn looked(&mut self, began: Option<Instant>, saw_all: bool) -> i64 {
        let array = self.object.as_ref().and_then(|o| o.spec.array.as_ref());
        let asked = array.map_or(0, |array| array.look);
        if self.asked_to_look.0 != asked {
            self.asked_to_look = (asked, Instant::now());
        }
        let (asked, heard) = self.asked_to_look;
        if saw_all && began.is_some_and(|began| began > heard) {
            self.looked = asked;
        }
        // What was asked for is never taken back, but by an older operator.
        self.looked = self.looked.min(asked);
        self.looked
    }

    /// Tells what it sees, where that is not what was told.
    pub(super) fn tell(&mut self, now: &Wanted, running: Option<&Running>, began: Option<Instant>) {
        // A leg that is not reached any more may come back as something else.
        for leg in now.legs.iter().filter(|leg| leg.device.is_none()) {
            self.contents.remove(&leg.uuid);
        }
        let looked = self.looked(began, told::saw_all(now, running));
        let trouble = self.trouble.as_ref().filter(|_| running.is_none());
        if running.is_none() && (trouble.is_none() || self.begun.elapsed() < REACHED) {
            return;
        }
        let (node, generation) = (&self.parts.node, self.record.generation);
        let mine = |status: &&ArrayStatus| {
            status.node == *node && status.generation.unsigned_abs() == generation
        };
        // What an earlier process told, or what has been lost since it was told.
        let there = self
            .object
            .as_ref()
            .and_then(|object| object.status.as_ref()?.array.as_ref());
        let there = there.filter(mine);
        let told = self
            .told
            .as_ref()
            .filter(|(_, at)| there.is_some() || at.elapsed() < OVER);
        let before = told.map(|(status, _)| status).or(there);
        let is_sought = |leg: &&PlacedLeg| {
            let first = running.is_none() || leg.node_name == *node;
            first && self.begun.elapsed() < SERVED
        };
        let placed = self.object.iter().flat_map(|object| &object.spec.legs);
        let sought = placed.filter(is_sought).filter_map(bytes).collect();
        let behind = trouble.map_or(&[][..], |trouble| &trouble.behind);
        let status = ArrayStatus {
            node: node.clone(),
            generation: i64::try_from(generation).unwrap_or(i64::MAX),
            legs: told::legs(
                now,
                running,
                &self.contents,
                behind,
                &sought,
                before.map_or(&[], |before| &before.legs),
                &Time(Timestamp::now()),
            ),
            looked,
            stopped: false,
            // One that md went on without is waited for by nobody.
            resyncing: now.level != Level::Stripe
                && running.is_some_and(|array| array.resyncing && !unrecorded(now, array)),
            refused: trouble.map(|trouble| trouble.refusal.clone()),
        };
        if before == Some(&status) {
            return;
        }
        let (client, volume) = (self.parts.client.clone(), self.record.volume.clone());
        self.start(Job::Tell, async move {
            let told = tell(&client, &volume, &status, ANSWER).await;
            Done::Told(Box::new(status), told)
        });
    }
}
