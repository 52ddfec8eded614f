//! CreateSnapshot, DeleteSnapshot, ListSnapshots.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use serde_json::json;
use strand_api::{PoolSnapshot, PoolSnapshotSpec, names};
use strand_csi::v1::list_snapshots_response::Entry;
use strand_csi::v1::{
    CreateSnapshotRequest, CreateSnapshotResponse, DeleteSnapshotResponse, ListSnapshotsRequest,
    ListSnapshotsResponse,
};

use super::{Controller, told};
use crate::error::Error;
use crate::request::id::{self, Kind};
use crate::request::page::page;
use crate::request::parameters;

impl Controller {
    pub(super) async fn snapshot(
        &self,
        request: &CreateSnapshotRequest,
    ) -> Result<CreateSnapshotResponse, Error> {
        let name = id::object_name(Kind::Snapshot, &request.name)?;
        let volume = id::id("source_volume_id", &request.source_volume_id)?;
        parameters::none(&request.parameters)?;
        let volume = volume.ok_or_else(|| Error::NoVolume(request.source_volume_id.clone()))?;
        let _held = self.locks.take(&format!("snapshot {name}"))?;

        let there = match self.settled_snapshot(&name).await? {
            Some(there) => there,
            None => {
                self.cluster.volume(volume).await?;
                let spec = PoolSnapshotSpec {
                    volume: volume.to_owned(),
                    group: None,
                    legs: Vec::new(),
                    check: None,
                    deletion_mark: false,
                };
                let metadata = ObjectMeta {
                    name: Some(name.clone()),
                    ..ObjectMeta::default()
                };
                let snapshot = PoolSnapshot {
                    metadata,
                    spec,
                    status: None,
                };
                match self.cluster.create(&snapshot).await? {
                    Some(made) => made,
                    // Another controller was faster.
                    None => self.cluster.snapshot(&name).await?,
                }
            }
        };
        if there.spec.group.is_some() || there.spec.volume != volume {
            return Err(Error::Exists {
                what: format!("snapshot {name}"),
                why: "another source volume".into(),
            });
        }
        let taken = self.taken(&name).await;
        if let Err(Error::NoSpace { .. } | Error::Invalid { .. }) = taken {
            // The answer means that no snapshot is being taken.
            self.mark_snapshot(&name).await?;
        }
        Ok(CreateSnapshotResponse {
            snapshot: Some(told::snapshot(&taken?)),
        })
    }

    /// The snapshot of that name, once none of an earlier life is being taken away any more.
    pub(super) async fn settled_snapshot(&self, name: &str) -> Result<Option<PoolSnapshot>, Error> {
        self.cluster
            .wait(name, "deleted", |seen: Option<&PoolSnapshot>| match seen {
                Some(snapshot) if snapshot.spec.deletion_mark => None,
                seen => Some(Ok(seen.cloned())),
            })
            .await
    }

    pub(super) async fn taken(&self, name: &str) -> Result<PoolSnapshot, Error> {
        let what = format!("snapshot {name}");
        self.cluster
            .wait(name, "taken", |seen: Option<&PoolSnapshot>| {
                let Some(snapshot) = seen else {
                    return Some(Err(Error::NoSnapshot(name.to_owned())));
                };
                let status = snapshot.status.as_ref()?;
                if status.ready_to_use {
                    return Some(Ok(snapshot.clone()));
                }
                told::refusal(&status.conditions, names::READY, None)
                    .filter(|c| told::is_final(c))
                    .map(|c| Err(told::refused(&what, c)))
            })
            .await
    }

    pub(super) async fn forget_snapshot(&self, id: &str) -> Result<DeleteSnapshotResponse, Error> {
        let Some(id) = id::id("snapshot_id", id)? else {
            return Ok(DeleteSnapshotResponse {});
        };
        let _held = self.locks.take(&format!("snapshot {id}"))?;
        let there = self.cluster.find::<PoolSnapshot>(id).await?;
        if let Some(group) = there.and_then(|snapshot| snapshot.spec.group) {
            let why = format!("belongs to group {}, and goes with that", group.name);
            return Err(Error::invalid("snapshot_id", why));
        }
        self.mark_snapshot(id).await?;
        Ok(DeleteSnapshotResponse {})
    }

    pub(super) async fn mark_snapshot(&self, id: &str) -> Result<(), Error> {
        let decide = |snapshot: &PoolSnapshot| {
            let marked = snapshot.spec.deletion_mark;
            Ok((!marked).then(|| json!({"deletionMark": true})))
        };
        self.cluster.change(id, decide).await.map(|_| ())
    }

    pub(super) async fn snapshots(
        &self,
        request: &ListSnapshotsRequest,
    ) -> Result<ListSnapshotsResponse, Error> {
        let filter = |field, text: &str| match text {
            "" => Ok(None),
            text => id::id(field, text).map(|id| Some(id.unwrap_or_default().to_owned())),
        };
        let wanted = filter("snapshot_id", &request.snapshot_id)?;
        let of = filter("source_volume_id", &request.source_volume_id)?;
        let mut named: Vec<(String, PoolSnapshot)> = match wanted.as_deref() {
            // An id that is none of this driver's.
            Some("") => Vec::new(),
            Some(id) => {
                let found = self.cluster.find::<PoolSnapshot>(id).await?;
                found.into_iter().map(|s| (s.name_any(), s)).collect()
            }
            None => {
                let all = self.cluster.all::<PoolSnapshot>().await?;
                all.into_iter().map(|s| (s.name_any(), s)).collect()
            }
        };
        // One that is not yet taken has neither size nor time to tell.
        named.retain(|(_, snapshot)| {
            !snapshot.spec.deletion_mark
                && snapshot.spec.group.as_ref().is_none_or(|g| g.complete)
                && snapshot
                    .status
                    .as_ref()
                    .is_some_and(|s| s.taken_at.is_some())
                && of.as_ref().is_none_or(|of| *of == snapshot.spec.volume)
        });
        let page = page(
            named,
            |(name, _)| name,
            request.max_entries,
            &request.starting_token,
        )?;
        let entry = |(_, snapshot): &(String, PoolSnapshot)| Entry {
            snapshot: Some(told::snapshot(snapshot)),
        };
        Ok(ListSnapshotsResponse {
            entries: page.items.iter().map(entry).collect(),
            next_token: page.next,
        })
    }
}
