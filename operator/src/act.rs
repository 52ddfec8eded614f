//! Carries out actions: one or a few API writes each, none of which does harm if made twice.

use crate::observe::Snapshot;
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::{Value, json};
use strand_api::{
    Drive, DriveOperation, DriveOperationSpec, GROUP, MemoryPool, OperationPhase, OperationType,
    PoolMap, VERSION, condition, names,
};
use strand_placement::{adopt::Claim, rack::Action, rack::release_name, select::Refusal};

/// Which object an action writes to.
pub fn target(action: &Action) -> (&'static str, &str) {
    match action {
        Action::SetPoolId { pool, .. }
        | Action::HoldPool { pool, .. }
        | Action::SetStatus { pool, .. } => ("MemoryPool", pool),
        Action::Want { drive, .. }
        | Action::Explain { drive, .. }
        | Action::DropDrive { drive } => ("Drive", drive),
        Action::Release { drive, .. } => ("release of Drive", drive),
        Action::PublishMap { pool, .. } => ("PoolMap", pool),
        Action::RetryRelease { operation }
        | Action::Forget { operation, .. }
        | Action::Deny { operation, .. } => ("DriveOperation", operation),
    }
}

/// The resourceVersion of the object that an action writes to, as it was when it was decided.
pub fn version(action: &Action, seen: &Snapshot) -> Option<String> {
    let (kind, name) = target(action);
    match kind {
        "MemoryPool" => seen.pool(name)?.resource_version(),
        "Drive" => seen.drive(name)?.resource_version(),
        "PoolMap" => seen.map(name)?.resource_version(),
        "DriveOperation" => seen.operation(name)?.resource_version(),
        _ => None,
    }
}

/// Carries an action out.
///
/// # Errors
/// Those of the API. 409 says that the object has changed since: the next plan takes that in.
pub async fn carry_out(client: &Client, seen: &Snapshot, action: &Action) -> kube::Result<()> {
    let pools: Api<MemoryPool> = Api::all(client.clone());
    let drives: Api<Drive> = Api::all(client.clone());
    let operations: Api<DriveOperation> = Api::all(client.clone());
    let version = version(action, seen);
    match action {
        Action::SetPoolId { pool, id } => {
            let patch = json!({"metadata": {"resourceVersion": version}, "spec": {"poolID": id}});
            pools.patch(pool, &merge(), &Patch::Merge(patch)).await?;
        }
        Action::HoldPool { pool, hold } => {
            let present = seen
                .pool(pool)
                .map(|p| p.finalizers().to_vec())
                .unwrap_or_default();
            let patch = finalizers(version, present, *hold);
            pools.patch(pool, &merge(), &Patch::Merge(patch)).await?;
        }
        Action::SetStatus { pool, status } => {
            let patch = object::<MemoryPool>(pool, version, json!({"status": status}));
            pools
                .patch_status(pool, &apply(), &Patch::Apply(patch))
                .await?;
        }
        Action::Want { drive, claim } => {
            drives
                .patch(
                    drive,
                    &apply(),
                    &Patch::Apply(want(drive, version, claim.as_ref())),
                )
                .await?;
        }
        Action::Explain { drive, refusal } => {
            let status = adopted_condition(seen.drive(drive), refusal.as_ref());
            let patch = object::<Drive>(drive, version, json!({"status": status}));
            drives
                .patch_status(drive, &apply(), &Patch::Apply(patch))
                .await?;
        }
        Action::DropDrive { drive } => delete(&drives, drive, version).await?,
        Action::PublishMap { pool, map } => {
            let maps: Api<PoolMap> = Api::all(client.clone());
            let mut object = PoolMap::new(pool, map.clone());
            object.metadata.owner_references = owner(seen.pool(pool));
            match version {
                Some(version) => {
                    object.metadata.resource_version = Some(version);
                    maps.replace(pool, &create(), &object).await?;
                }
                None => {
                    maps.create(&create(), &object).await?;
                }
            }
        }
        Action::Release {
            pool,
            drive,
            serial,
        } => {
            let operation = DriveOperation {
                metadata: ObjectMeta {
                    name: Some(release_name(drive)),
                    owner_references: owner(seen.pool(pool)),
                    ..Default::default()
                },
                spec: DriveOperationSpec {
                    type_: OperationType::Release,
                    rate: None,
                    drive: drive.clone(),
                    serial: serial.clone(),
                },
                status: None,
            };
            operations.create(&create(), &operation).await?;
        }
        Action::RetryRelease { operation } => delete(&operations, operation, version).await?,
        Action::Forget { operation, drive } => {
            let mut message = "there was no object left to forget".to_owned();
            if let Some(drive) = drive {
                forget(&drives, seen.drive(drive)).await?;
                message = format!("Drive {drive} was forgotten; the drive itself was not touched");
            }
            let patch = ended(operation, version, OperationPhase::Succeeded, &message);
            operations
                .patch_status(operation, &apply(), &Patch::Apply(patch))
                .await?;
        }
        Action::Deny { operation, message } => {
            let patch = ended(operation, version, OperationPhase::Failed, message);
            operations
                .patch_status(operation, &apply(), &Patch::Apply(patch))
                .await?;
        }
    }
    Ok(())
}

/// What an action changes, for metrics.
pub fn kind(action: &Action) -> &'static str {
    match action {
        Action::SetPoolId { .. } => "set_pool_id",
        Action::HoldPool { .. } => "hold_pool",
        Action::SetStatus { .. } => "set_status",
        Action::Want { .. } => "want",
        Action::Explain { .. } => "explain",
        Action::DropDrive { .. } => "drop_drive",
        Action::PublishMap { .. } => "publish_map",
        Action::Release { .. } => "release",
        Action::RetryRelease { .. } => "retry_release",
        Action::Forget { .. } => "forget",
        Action::Deny { .. } => "deny",
    }
}

/// Force: a drive's spec.pool may have been an administrator's wish before it was ours.
pub(crate) fn apply() -> PatchParams {
    PatchParams::apply(names::OPERATOR_MANAGER).force()
}

fn merge() -> PatchParams {
    PatchParams {
        field_manager: Some(names::OPERATOR_MANAGER.into()),
        ..Default::default()
    }
}

pub(crate) fn create() -> PostParams {
    PostParams {
        field_manager: Some(names::OPERATOR_MANAGER.into()),
        ..Default::default()
    }
}

pub(crate) fn object<K: Resource<DynamicType = ()>>(
    name: &str,
    version: Option<String>,
    mut rest: Value,
) -> Value {
    rest["apiVersion"] = json!(format!("{GROUP}/{VERSION}"));
    rest["kind"] = json!(K::kind(&()));
    rest["metadata"]["name"] = json!(name);
    rest["metadata"]["resourceVersion"] = json!(version);
    rest
}

fn want(drive: &str, version: Option<String>, claim: Option<&Claim>) -> Value {
    let rest = match claim {
        Some(claim) => json!({
            "metadata": {"finalizers": [names::FINALIZER]},
            "spec": {"pool": claim.pool, "poolID": claim.pool_id, "carve": claim.carve},
        }),
        None => json!({"spec": {}}),
    };
    object::<Drive>(drive, version, rest)
}

fn adopted_condition(drive: Option<&Drive>, refusal: Option<&Refusal>) -> Value {
    let Some(refusal) = refusal else {
        return json!({});
    };
    let earlier = drive
        .and_then(|d| d.status.as_ref())
        .map_or(&[][..], |s| &s.conditions);
    let generation = drive.and_then(|d| d.metadata.generation);
    let now = Time(Timestamp::now());
    let message = refusal.to_string();
    let condition = condition::condition(
        earlier,
        &now,
        names::ADOPTED,
        false,
        refusal.code(),
        message,
        generation,
    );
    json!({"conditions": [condition]})
}

fn finalizers(version: Option<String>, mut present: Vec<String>, hold: bool) -> Value {
    present.retain(|f| f != names::FINALIZER);
    if hold {
        present.push(names::FINALIZER.into());
    }
    json!({"metadata": {"resourceVersion": version, "finalizers": present}})
}

fn owner(
    pool: Option<&MemoryPool>,
) -> Option<Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference>> {
    Some(vec![pool?.owner_ref(&())?])
}

pub(crate) async fn delete<K>(api: &Api<K>, name: &str, version: Option<String>) -> kube::Result<()>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let preconditions = Preconditions {
        resource_version: version,
        uid: None,
    };
    let params = DeleteParams {
        preconditions: Some(preconditions),
        ..Default::default()
    };
    gone_is_fine(api.delete(name, &params).await.map(|_| ()))
}

async fn forget(drives: &Api<Drive>, drive: Option<&Drive>) -> kube::Result<()> {
    let Some(drive) = drive else { return Ok(()) };
    let name = drive.name_any();
    let patch = finalizers(drive.resource_version(), drive.finalizers().to_vec(), false);
    gone_is_fine(
        drives
            .patch(&name, &merge(), &Patch::Merge(patch))
            .await
            .map(|_| ()),
    )?;
    gone_is_fine(
        drives
            .delete(&name, &DeleteParams::default())
            .await
            .map(|_| ()),
    )
}

fn gone_is_fine(result: kube::Result<()>) -> kube::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other,
    }
}

fn ended(operation: &str, version: Option<String>, phase: OperationPhase, message: &str) -> Value {
    let now = Time(Timestamp::now());
    let reason = if phase == OperationPhase::Succeeded {
        "Succeeded"
    } else {
        "Failed"
    };
    let complete = condition::condition(&[], &now, "Complete", true, reason, message, None);
    object::<DriveOperation>(
        operation,
        version,
        json!({"status": {"phase": phase, "message": message, "conditions": [complete]}}),
    )
}
