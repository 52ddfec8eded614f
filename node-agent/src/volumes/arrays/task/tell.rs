//! Telling the API what is seen of the legs.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use strand_api::{ArrayStatus, GROUP, PlacedLeg, PoolVolume, VERSION, names};
use strand_arrays::{Level, Running, Wanted, unrecorded};

use super::{ANSWER, Done, Job, OVER, REACHED, SERVED, Task};
use crate::volumes::arrays::told;
use crate::volumes::arrays::wanted::bytes;

impl Task {
    /// Tells what it sees, where that is not what was told.
    pub(super) fn tell(&mut self, now: &Wanted, running: Option<&Running>) {
        // A leg that is not reached any more may come back as something else.
        for leg in now.legs.iter().filter(|leg| leg.device.is_none()) {
            self.contents.remove(&leg.uuid);
        }
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
            // One that md went on without is waited for by nobody.
            resyncing: now.level == Level::Raid6
                && running.is_some_and(|array| array.resyncing && !unrecorded(now, array)),
            refused: trouble.map(|trouble| trouble.refusal.clone()),
        };
        if before == Some(&status) {
            return;
        }
        let patch = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": "PoolVolume",
            "metadata": {"name": self.record.volume},
            "status": {"array": status},
        });
        let volumes = Api::<PoolVolume>::all(self.parts.client.clone());
        let volume = self.record.volume.clone();
        self.start(Job::Tell, async move {
            let params = PatchParams::apply(names::AGENT_MANAGER).force();
            let patch = Patch::Apply(patch);
            let answer = volumes.patch_status(&volume, &params, &patch);
            let told = match tokio::time::timeout(ANSWER, answer).await {
                Ok(answer) => answer.map(|_| ()).map_err(|error| error.to_string()),
                Err(_) => Err(format!("no answer in {} s", ANSWER.as_secs())),
            };
            Done::Told(Box::new(status), told)
        });
    }
}
