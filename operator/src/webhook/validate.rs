//! Objects of ours, as far as the definitions' own rules cannot see: what depends on other objects. Messages say what to
//! write instead.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;
use kube::ResourceExt;
use serde::de::DeserializeOwned;
use strand_api::{Access, Drive, DriveOperation, MemoryPool, OperationType, PoolGrant, Share};
use strand_placement::select::{self, NodeMatcher};

use super::review::{Request, Response};
use super::seen::Seen;

/// Answers about an object of ours.
pub(super) fn answer(request: &Request, seen: &Seen) -> Response {
    match request.kind.kind.as_str() {
        "MemoryPool" => read(request, |pool| memory_pool(&pool, seen)),
        "PoolGrant" => read(request, |grant| pool_grant(&grant, seen)),
        "DriveOperation" if request.operation == "CREATE" => {
            read(request, |operation| drive_operation(&operation, seen))
        }
        _ => Response::default(),
    }
}

/// What cannot be read is left to the API server, which knows the fields better.
fn read<T: DeserializeOwned>(request: &Request, judge: impl FnOnce(T) -> Response) -> Response {
    serde_json::from_value(request.object.clone()).map_or_else(|_| Response::default(), judge)
}

fn memory_pool(pool: &MemoryPool, seen: &Seen) -> Response {
    let (name, spec) = (pool.name_any(), &pool.spec);
    let requirements = spec
        .node_selector
        .iter()
        .flat_map(|s| s.match_expressions.iter().flatten());
    for (n, requirement) in requirements.enumerate() {
        if let Some(instead) = wrong(requirement) {
            return Response::refuse(format!(
                "spec.nodeSelector.matchExpressions[{n}] ({} {}): {instead}",
                requirement.key, requirement.operator
            ));
        }
    }
    let all = spec.carve.context_memory == Share::Percent(100);
    let nothing = spec.carve.context_memory == Share::Percent(0);
    if all && spec.carve.min_storage.is_some_and(|min| min.0 > 0) {
        return Response::refuse(
            "spec.carve.contextMemory is 100%, which leaves nothing for minStorage: write a smaller percentage, or leave minStorage out",
        );
    }
    if nothing && spec.carve.min_context_memory.is_some_and(|min| min.0 > 0) {
        return Response::refuse(
            "spec.carve.contextMemory is 0%, which is below minContextMemory: write a larger percentage, or leave minContextMemory out",
        );
    }
    let others = seen.pools.state();
    let mut others = others.iter().filter(|other| other.name_any() != name);
    if let Some(id) = &spec.pool_id
        && let Some(other) = others.find(|other| other.spec.pool_id.as_ref() == Some(id))
    {
        return Response::refuse(format!(
            "spec.poolID {id} is pool {}'s: leave poolID out, and the pool gets one of its own",
            other.name_any()
        ));
    }
    Response {
        warnings: warnings(pool, seen),
        ..Response::default()
    }
}

/// What will work, and may not be meant.
fn warnings(pool: &MemoryPool, seen: &Seen) -> Vec<String> {
    let (name, spec) = (pool.name_any(), &pool.spec);
    let mut warnings = Vec::new();
    let selector = NodeMatcher::new(spec.node_selector.as_ref());
    let nodes = seen.nodes.state();
    let selected = |node: &str| {
        let node = nodes.iter().find(|n| n.name_any() == node);
        node.is_some_and(|node| selector.matches(node.labels()))
    };
    if !nodes.iter().any(|node| selector.matches(node.labels())) {
        warnings.push(
            "spec.nodeSelector selects no node of the cluster; see kubectl get nodes --show-labels"
                .into(),
        );
    }
    let drives = seen.drives.state();
    let taken = |drive: &&std::sync::Arc<Drive>| {
        let identity = drive.status.as_ref().and_then(|s| s.identity.as_ref());
        let model = |identity: &strand_api::DriveIdentity| {
            spec.drives
                .models
                .iter()
                .any(|m| select::glob(m, &identity.model))
        };
        let elsewhere = drive.spec.pool.as_ref().is_some_and(|pool| *pool != name);
        elsewhere && selected(&drive.spec.node_name) && identity.is_some_and(model)
    };
    let taken = drives.iter().filter(taken).count();
    if taken > 0 {
        warnings.push(format!(
            "{taken} drives that this pool selects are in other pools and stay there; make the selectors disjoint (kubectl get drives)"
        ));
    }
    let granted = || {
        seen.grants
            .state()
            .iter()
            .any(|grant| grant.spec.pool == name)
    };
    if spec.access == Access::Granted && !granted() {
        warnings.push(format!(
            "spec.access is Granted and no namespace has a grant: none gets context memory, volumes or scratch space until there is a PoolGrant named {name}.NAMESPACE"
        ));
    }
    warnings
}

/// What is wrong with a requirement; the definitions take any words.
fn wrong(requirement: &LabelSelectorRequirement) -> Option<&'static str> {
    let values = requirement.values.as_ref().is_some_and(|v| !v.is_empty());
    match (requirement.operator.as_str(), values) {
        ("In" | "NotIn", true) | ("Exists" | "DoesNotExist", false) => None,
        ("In" | "NotIn", false) => Some("write the values, or Exists for any value"),
        ("Exists" | "DoesNotExist", true) => Some("leave the values out, or write In or NotIn"),
        _ => Some("write In, NotIn, Exists or DoesNotExist"),
    }
}

fn pool_grant(grant: &PoolGrant, seen: &Seen) -> Response {
    let spec = &grant.spec;
    let mut warnings = Vec::new();
    if seen.pool(&spec.pool).is_none() {
        warnings.push(format!("there is no MemoryPool {} yet", spec.pool));
    }
    let namespace = &spec.namespace;
    if !seen
        .namespaces
        .state()
        .iter()
        .any(|n| n.name_any() == *namespace)
    {
        warnings.push(format!("there is no namespace {namespace} yet"));
    }
    Response {
        warnings,
        ..Response::default()
    }
}

fn drive_operation(operation: &DriveOperation, seen: &Seen) -> Response {
    let spec = &operation.spec;
    let drives = seen.drives.state();
    let Some(drive) = drives.iter().find(|drive| drive.name_any() == spec.drive) else {
        return Response::refuse(format!(
            "there is no Drive {}: write a name that kubectl get drives shows",
            spec.drive
        ));
    };
    let identity = drive.status.as_ref().and_then(|s| s.identity.as_ref());
    if let Some(identity) = identity.filter(|identity| identity.serial != spec.serial) {
        return Response::refuse(format!(
            "Drive {} has serial {}, not {}: write that one if this is the drive that you mean",
            spec.drive, identity.serial, spec.serial
        ));
    }
    match (spec.type_, &drive.spec.pool) {
        (OperationType::Wipe, Some(pool)) => Response::refuse(format!(
            "Drive {} is in pool {pool}: set its spec.cordon to true and write an operation of type Release instead",
            spec.drive
        )),
        _ => Response::default(),
    }
}
