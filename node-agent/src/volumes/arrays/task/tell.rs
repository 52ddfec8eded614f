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
    /// Nor is it told where other legs are recorded than were when it was taken down.
    pub(in crate::volumes::arrays) async fn tell_stopped(
        &self,
        record: &Record,
        recorded: &[PlacedLeg],
    ) {
        let volumes = Api::<PoolVolume>::all(self.client.clone());
        let now = tokio::time::timeout(STOPPED, volumes.get(&record.volume)).await;
        if !now.is_ok_and(|now| now.is_ok_and(|now| now.spec.legs == recorded)) {
            tracing::warn!(
                volume = record.volume,
                "that it was given back in order was not told"
            );
            return;
        }
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
    /// The look at the legs that is asked for, if this is one: it began after that was heard of, and saw every leg that is in.
    fn asked_look(&mut self, began: Option<Instant>, saw_all: bool) -> Option<i64> {
        let asked = self.asked();
        if self.asked_to_look.0 != asked {
            self.asked_to_look = (asked, Instant::now());
        }
        let (asked, heard) = self.asked_to_look;
        let begun_since = began.is_some_and(|began| began > heard);
        (saw_all && begun_since).then_some(asked)
    }

    fn asked(&self) -> i64 {
        let array = self.object.as_ref().and_then(|o| o.spec.array.as_ref());
        array.map_or(0, |array| array.look)
    }

    /// Whether the object says of this attachment that it was given back in order, which is so no more when its array runs.
    pub(super) fn is_told_stopped(&self) -> bool {
        let status = self.object.as_ref().and_then(|o| o.status.as_ref());
        let array = status.and_then(|status| status.array.as_ref());
        array.is_some_and(|array| {
            array.stopped
                && array.node == self.parts.node
                && array.generation.unsigned_abs() == self.record.generation
        })
    }

    /// Tells what it sees, where that is not what was told.
    pub(super) fn tell(&mut self, now: &Wanted, running: Option<&Running>, began: Option<Instant>) {
        // A leg that is not reached any more may come back as something else.
        for leg in now.legs.iter().filter(|leg| leg.device.is_none()) {
            self.contents.remove(&leg.uuid);
        }
        let look = self.asked_look(began, told::saw_all(now, running));
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
            // What was told of an earlier look was seen then.
            looked: look
                .unwrap_or_else(|| before.map_or(0, |before| before.looked.min(self.asked()))),
            stopped: false,
            // One that md went on without is waited for by nobody.
            resyncing: now.level != Level::Stripe
                && running.is_some_and(|array| array.resyncing && !unrecorded(now, array)),
            refused: trouble.map(|trouble| trouble.refusal.clone()),
        };
        if before == Some(&status) && !self.is_told_stopped() {
            return;
        }
        let (client, volume) = (self.parts.client.clone(), self.record.volume.clone());
        self.start(Job::Tell, async move {
            let told = tell(&client, &volume, &status, ANSWER).await;
            Done::Told(Box::new(status), told)
        });
    }
}
