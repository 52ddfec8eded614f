//! CreateVolumeGroupSnapshot, DeleteVolumeGroupSnapshot, GetVolumeGroupSnapshot: snapshots of several volumes at one moment.
//!
//! That is promised where nobody writes to any of the volumes: each snapshot records the attachment generation that its volume had before
//! the first was asked for, and once all are there every volume must still have it. Generations only grow, and each attachment has its
//! own, so nobody can have written in between.

use std::collections::BTreeSet;

use futures::future::try_join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use prost_types::Timestamp;
use serde_json::json;
use strand_api::{PoolSnapshot, PoolSnapshotSpec, PoolVolume, SnapshotGroup};
use strand_csi::v1::group_controller_server::GroupController as Service;
use strand_csi::v1::group_controller_service_capability::rpc::Type;
use strand_csi::v1::group_controller_service_capability::{Rpc, Type as OneOf};
use strand_csi::v1::*;
use tonic::Request;
use tonic::Response;

use super::{Answer, Controller, told};
use crate::error::Error;
use crate::request::id::{self, Kind};
use crate::request::parameters;

/// Most volumes of a group.
const MOST: usize = 256;

#[tonic::async_trait]
impl Service for Controller {
    async fn group_controller_get_capabilities(
        &self,
        _: Request<GroupControllerGetCapabilitiesRequest>,
    ) -> Answer<GroupControllerGetCapabilitiesResponse> {
        let capability = GroupControllerServiceCapability {
            r#type: Some(OneOf::Rpc(Rpc {
                r#type: Type::CreateDeleteGetVolumeGroupSnapshot.into(),
            })),
        };
        Ok(Response::new(GroupControllerGetCapabilitiesResponse {
            capabilities: vec![capability],
        }))
    }

    async fn create_volume_group_snapshot(
        &self,
        request: Request<CreateVolumeGroupSnapshotRequest>,
    ) -> Answer<CreateVolumeGroupSnapshotResponse> {
        let request = request.into_inner();
        let work = self.take_group(&request);
        self.calls
            .run("CreateVolumeGroupSnapshot", &request.name, work)
            .await
    }

    async fn delete_volume_group_snapshot(
        &self,
        request: Request<DeleteVolumeGroupSnapshotRequest>,
    ) -> Answer<DeleteVolumeGroupSnapshotResponse> {
        let request = request.into_inner();
        let id = &request.group_snapshot_id;
        let work = self.forget_group(id, &request.snapshot_ids);
        self.calls.run("DeleteVolumeGroupSnapshot", id, work).await
    }

    async fn get_volume_group_snapshot(
        &self,
        request: Request<GetVolumeGroupSnapshotRequest>,
    ) -> Answer<GetVolumeGroupSnapshotResponse> {
        let request = request.into_inner();
        let id = &request.group_snapshot_id;
        let work = self.group(id, &request.snapshot_ids);
        self.calls.run("GetVolumeGroupSnapshot", id, work).await
    }
}

/// Whether a volume can be of a group now: the generation that it must keep until all snapshots are there. Pure.
fn quiet(volume: &PoolVolume) -> Result<i64, Error> {
    let status = volume.status.as_ref();
    let granted = status.map_or(&[][..], |s| s.attachments.as_slice());
    let wished = volume.spec.attach_to.iter();
    let wished = wished.filter(|to| !to.read_only).map(|to| &to.node);
    let writes = granted.iter().filter(|a| !a.read_only).map(|a| &a.node);
    match wished.chain(writes).next() {
        None => Ok(status.map_or(0, |s| s.attachment_generation)),
        Some(node) => Err(Error::InUse {
            volume: format!("volume {}", volume.name_any()),
            why: format!(
                "is attached to node {node} for writing, and a group is taken only of volumes that nobody writes to; stop what writes, \
                 or take a snapshot of each"
            ),
        }),
    }
}

/// What a group is made of, checked. Pure.
fn volumes(ids: &[String]) -> Result<Vec<String>, Error> {
    let mut volumes = BTreeSet::new();
    for id in ids {
        let known = id::id("source_volume_ids", id)?;
        let known = known.ok_or_else(|| Error::NoVolume(id.clone()))?;
        volumes.insert(known.to_owned());
    }
    match volumes.len() {
        0 => Err(Error::Missing("source_volume_ids")),
        n if n < ids.len() => Err(Error::invalid(
            "source_volume_ids",
            "a volume is named twice",
        )),
        n if n > MOST => {
            let why = format!("a group has {MOST} volumes at most");
            Err(Error::invalid("source_volume_ids", why))
        }
        _ => Ok(volumes.into_iter().collect()),
    }
}

/// Whether the ids that a caller has for a group are those of its snapshots, or of such as are gone already. Pure.
fn matches(members: &[PoolSnapshot], others: &BTreeSet<String>, ids: &[String]) -> bool {
    let named = |member: &PoolSnapshot| ids.iter().any(|id| *id == member.name_any());
    ids.is_empty() || (members.iter().all(named) && !ids.iter().any(|id| others.contains(id)))
}

fn story(group: &str, members: &[PoolSnapshot]) -> VolumeGroupSnapshot {
    let snapshots: Vec<Snapshot> = members.iter().map(told::snapshot).collect();
    let last = |a: &Timestamp, b: &Timestamp| (a.seconds, a.nanos).cmp(&(b.seconds, b.nanos));
    VolumeGroupSnapshot {
        group_snapshot_id: group.to_owned(),
        creation_time: snapshots
            .iter()
            .filter_map(|s| s.creation_time)
            .max_by(last),
        ready_to_use: snapshots.iter().all(|snapshot| snapshot.ready_to_use),
        snapshots,
    }
}

impl Controller {
    async fn take_group(
        &self,
        request: &CreateVolumeGroupSnapshotRequest,
    ) -> Result<CreateVolumeGroupSnapshotResponse, Error> {
        let group = id::object_name(Kind::Group, &request.name)?;
        let volumes = volumes(&request.source_volume_ids)?;
        parameters::none(&request.parameters)?;
        let _held = self.locks.take(&format!("group {group}"))?;

        let there = self.members(&group).await?.0;
        for member in &there {
            let of = member.spec.group.as_ref().map(|group| &group.volumes);
            if of != Some(&volumes) {
                return Err(Error::Exists {
                    what: format!("group {group}"),
                    why: "other source volumes".into(),
                });
            }
        }
        let complete = there.iter().any(is_complete);
        if !complete && let Err(error) = self.ask_for(&group, &volumes, there).await {
            self.give_up(&group, &error).await?;
            return Err(error);
        }
        let taken = volumes.iter().map(|volume| self.member(&group, volume));
        let taken = match try_join_all(taken).await {
            Ok(taken) => taken,
            Err(error) => {
                self.give_up(&group, &error).await?;
                return Err(error);
            }
        };
        if !complete && let Err(error) = self.unchanged(&taken).await {
            self.give_up(&group, &error).await?;
            return Err(error);
        }
        // From the first of these on, the group is as it is: who finds one goes on.
        try_join_all(taken.iter().map(|member| self.complete(member))).await?;
        Ok(CreateVolumeGroupSnapshotResponse {
            group_snapshot: Some(story(&group, &taken)),
        })
    }

    /// Makes the objects of a group; what an earlier call made counts if its volume was not attached since.
    async fn ask_for(
        &self,
        group: &str,
        volumes: &[String],
        there: Vec<PoolSnapshot>,
    ) -> Result<(), Error> {
        let generations = try_join_all(volumes.iter().map(|id| async move {
            let volume = self.cluster.volume(id).await?;
            quiet(&volume)
        }));
        let generations = generations.await?;
        for (volume, generation) in volumes.iter().zip(generations) {
            let made = there.iter().find(|member| member.spec.volume == *volume);
            match made.and_then(|member| member.spec.group.as_ref()) {
                Some(made) if made.generation == generation => continue,
                Some(_) => return Err(attached_since(volume)),
                None => {}
            }
            let name = member_name(group, volume)?;
            // One of an earlier attempt may still be on its way out.
            self.settled_snapshot(&name).await?;
            let spec = PoolSnapshotSpec {
                volume: volume.clone(),
                group: Some(SnapshotGroup {
                    name: group.to_owned(),
                    volumes: volumes.to_vec(),
                    generation,
                    complete: false,
                }),
                legs: Vec::new(),
                check: None,
                deletion_mark: false,
            };
            let metadata = ObjectMeta {
                name: Some(name),
                ..ObjectMeta::default()
            };
            let snapshot = PoolSnapshot {
                metadata,
                spec,
                status: None,
            };
            // Where another controller was faster, what it made is waited for.
            self.cluster.create(&snapshot).await?;
        }
        Ok(())
    }

    async fn member(&self, group: &str, volume: &str) -> Result<PoolSnapshot, Error> {
        self.taken(&member_name(group, volume)?).await
    }

    /// Whether nobody can have written to any volume of a group since its first snapshot was asked for.
    async fn unchanged(&self, members: &[PoolSnapshot]) -> Result<(), Error> {
        try_join_all(members.iter().map(|member| async move {
            let volume = self.cluster.volume(&member.spec.volume).await?;
            let before = member.spec.group.as_ref().map(|group| group.generation);
            match quiet(&volume) {
                Ok(now) if Some(now) == before && !member.spec.deletion_mark => Ok(()),
                _ => Err(attached_since(&member.spec.volume)),
            }
        }))
        .await
        .map(|_| ())
    }

    async fn complete(&self, member: &PoolSnapshot) -> Result<(), Error> {
        let name = member.name_any();
        let decide = |there: &PoolSnapshot| match there.spec.deletion_mark {
            true => Err(Error::NoSnapshot(name.clone())),
            false => {
                let done = is_complete(there);
                Ok((!done).then(|| json!({"group": {"complete": true}})))
            }
        };
        let there = self.cluster.change(&name, decide).await?;
        there
            .map(|_| ())
            .ok_or_else(|| Error::NoSnapshot(name.clone()))
    }

    /// Takes away what was made of a group that cannot be completed; one that is only late is left for the next call.
    async fn give_up(&self, group: &str, error: &Error) -> Result<(), Error> {
        if matches!(error, Error::Late { .. } | Error::Api { .. }) {
            return Ok(());
        }
        let (members, _) = self.members(group).await?;
        if members.iter().any(is_complete) {
            return Ok(());
        }
        self.mark_all(&members).await
    }

    async fn mark_all(&self, members: &[PoolSnapshot]) -> Result<(), Error> {
        let marks = members.iter().map(|member| {
            let name = member.name_any();
            async move { self.mark_snapshot(&name).await }
        });
        try_join_all(marks).await.map(|_| ())
    }

    /// The snapshots of a group, and the names of all others.
    async fn members(&self, group: &str) -> Result<(Vec<PoolSnapshot>, BTreeSet<String>), Error> {
        let mut all = self.cluster.all::<PoolSnapshot>().await?;
        all.retain(|snapshot| !snapshot.spec.deletion_mark);
        let of_group = |snapshot: &PoolSnapshot| {
            let of = snapshot.spec.group.as_ref();
            of.is_some_and(|of| of.name == group)
        };
        let (mut members, others): (Vec<_>, Vec<_>) = all.into_iter().partition(of_group);
        members.sort_by(|a, b| a.spec.volume.cmp(&b.spec.volume));
        Ok((members, others.iter().map(ResourceExt::name_any).collect()))
    }

    async fn forget_group(
        &self,
        id: &str,
        ids: &[String],
    ) -> Result<DeleteVolumeGroupSnapshotResponse, Error> {
        let done = DeleteVolumeGroupSnapshotResponse {};
        let Some(group) = id::id("group_snapshot_id", id)? else {
            return Ok(done);
        };
        let _held = self.locks.take(&format!("group {group}"))?;
        let (members, others) = self.members(group).await?;
        if !members.is_empty() && !matches(&members, &others, ids) {
            return Err(mismatch(group));
        }
        self.mark_all(&members).await?;
        Ok(done)
    }

    async fn group(
        &self,
        id: &str,
        ids: &[String],
    ) -> Result<GetVolumeGroupSnapshotResponse, Error> {
        let known = id::id("group_snapshot_id", id)?;
        let group = known.ok_or_else(|| Error::NoGroup(id.to_owned()))?;
        let (members, others) = self.members(group).await?;
        // One that is half made is none yet.
        if !members.iter().any(is_complete) {
            return Err(Error::NoGroup(id.to_owned()));
        }
        if !matches(&members, &others, ids) {
            return Err(mismatch(group));
        }
        Ok(GetVolumeGroupSnapshotResponse {
            group_snapshot: Some(story(group, &members)),
        })
    }
}

/// The name of the snapshot of one volume of a group: no caller can give it to another.
fn member_name(group: &str, volume: &str) -> Result<String, Error> {
    id::object_name(Kind::Snapshot, &format!("{group}/{volume}"))
}

fn is_complete(member: &PoolSnapshot) -> bool {
    member
        .spec
        .group
        .as_ref()
        .is_some_and(|group| group.complete)
}

fn attached_since(volume: &str) -> Error {
    Error::Changing {
        what: format!("volume {volume}"),
        why: "was attached while the group was being taken; what was taken is given up",
    }
}

fn mismatch(group: &str) -> Error {
    let why = format!("these are not the snapshots of group {group}");
    Error::invalid("snapshot_ids", why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn volume(attach_to: Value, status: Value) -> PoolVolume {
        serde_json::from_value(json!({
            "metadata": {"name": "v"},
            "spec": {"pool": "p", "size": "1Gi", "volumeMode": "Block", "attachTo": attach_to},
            "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn a_group_is_of_volumes_that_nobody_writes_to() {
        let reads = json!([{"node": "n", "readOnly": true}]);
        let of =
            |attachments: Value| json!({"attachmentGeneration": 4, "attachments": attachments});
        let reader = json!([{"node": "n", "readOnly": true, "generation": 4}]);
        let writer = json!([{"node": "n", "generation": 4}]);
        assert_eq!(quiet(&volume(json!([]), json!(null))).unwrap(), 0);
        assert_eq!(quiet(&volume(json!([]), of(json!([])))).unwrap(), 4);
        assert_eq!(quiet(&volume(reads, of(reader))).unwrap(), 4);
        // Wished for, granted, or on its way out.
        for busy in [
            volume(json!([{"node": "n"}]), of(json!([]))),
            volume(json!([{"node": "n"}]), of(writer.clone())),
            volume(json!([]), of(writer)),
        ] {
            assert!(matches!(quiet(&busy), Err(Error::InUse { .. })));
        }
    }

    #[test]
    fn hostile_lists_of_volumes_are_refused() {
        let list =
            |ids: &[&str]| volumes(&ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>());
        assert_eq!(list(&["b", "a"]).unwrap(), ["a", "b"]);
        assert!(matches!(list(&[]), Err(Error::Missing(_))));
        assert!(matches!(list(&["a", "a"]), Err(Error::Invalid { .. })));
        assert!(matches!(list(&["../a"]), Err(Error::NoVolume(_))));
        let many: Vec<String> = (0..=MOST).map(|n| format!("v{n}")).collect();
        assert!(matches!(volumes(&many), Err(Error::Invalid { .. })));
    }

    #[test]
    fn names_of_members_are_no_callers() {
        let name = member_name("g", "v").unwrap();
        assert_ne!(id::object_name(Kind::Snapshot, &name).unwrap(), name);
        assert_ne!(name, member_name("g", "w").unwrap());
    }
}
