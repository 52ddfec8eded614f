//! `strandctl stand-down`: what the chart does before it is uninstalled, so that no object waits for an operator that never comes.

use crate::cluster::{Target, in_words};
use anyhow::{Context, Result, bail};
use clap::Args;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{apps::v1::Deployment, core::v1::Pod},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ListParams, PartialObjectMeta, Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::json;
use std::{fmt::Debug, time::Duration};
use strand_api::{DeletionPolicy, Drive, MemoryPool, names};
use tokio::time::{Instant, sleep};

/// Name of the operator's Deployment.
const OPERATOR: &str = "strand-operator";
/// Its pods, as the chart labels them.
const PODS: &str = "app.kubernetes.io/name=strand,app.kubernetes.io/component=operator";
/// Where Helm writes which release has installed an object.
const RELEASE: &str = "meta.helm.sh/release-name";
/// How long the operator may take to end, and between two looks.
const PATIENCE: Duration = Duration::from_secs(90);
const AGAIN: Duration = Duration::from_millis(500);

/// Stops the operator, and frees what it holds.
#[derive(Args, Debug)]
pub struct StandDownArgs {
    #[command(flatten)]
    target: Target,
    /// Namespace of the operator
    #[arg(short, long, default_value = "strand-system")]
    namespace: String,
    /// Only if this release of Helm has installed the operator: what the chart's hook says
    #[arg(long, value_name = "NAME")]
    release: Option<String>,
}

/// Runs `strandctl stand-down`. Objects, drives and bytes stay; an operator that comes back takes its finalizers again.
pub async fn run(args: StandDownArgs) -> Result<()> {
    let client = args.target.client().await?;
    if let Some(release) = &args.release {
        is_of_release(&client, &args.namespace, release).await?;
    }
    let (pools, drives) = stand_down(&client, &args.namespace).await?;
    println!("The operator has ended; freed of its finalizer: {pools} pools, {drives} drives.");
    Ok(())
}

/// A hook that came from `helm template` and was applied is a Job like any other: it would end the operator that came with it.
async fn is_of_release(client: &Client, namespace: &str, release: &str) -> Result<()> {
    let found = namespaced::<Deployment>(client, namespace)
        .get_metadata_opt(OPERATOR)
        .await
        .with_context(|| {
            format!("the Deployment {OPERATOR} of namespace {namespace} cannot be read")
        })?;
    let other = |found: &PartialObjectMeta<Deployment>| {
        found.annotations().get(RELEASE).map(String::as_str) != Some(release)
    };
    if found.as_ref().is_some_and(other) {
        bail!(
            "the Deployment {OPERATOR} of namespace {namespace} was not installed by Helm's release {release}, so nothing is done: \
             objects to apply come from helm template --no-hooks; by hand, run this without --release"
        );
    }
    Ok(())
}

/// How many pools and drives were freed.
async fn stand_down(client: &Client, namespace: &str) -> Result<(usize, usize)> {
    let elsewhere = |pod: &Pod| pod.namespace().filter(|of| of != namespace);
    if let Some(other) = active(client).await?.iter().find_map(elsewhere) {
        bail!(
            "the operator runs in namespace {other}, not in {namespace}: run again with -n {other}"
        );
    }
    none_is_released(&all(client).await?, namespace)?;
    end_operator(client, namespace).await?;
    // Anew: the operator wrote until it ended, and a pool may have been deleted meanwhile.
    let pools = all::<MemoryPool>(client).await?;
    none_is_released(&pools, namespace)?;
    let pools = free(client, pools).await?;
    let drives = free(client, all::<Drive>(client).await?).await?;
    Ok((pools, drives))
}

/// A pool that goes with its drives as they are needs no operator; one that gives them back does.
fn none_is_released(pools: &[MemoryPool], namespace: &str) -> Result<()> {
    let released = |pool: &&MemoryPool| {
        let goes = pool.metadata.deletion_timestamp.is_some();
        goes && held(*pool) && pool.spec.deletion_policy == DeletionPolicy::Release
    };
    let Some(name) = pools.iter().find(released).map(ResourceExt::name_any) else {
        return Ok(());
    };
    bail!(
        "MemoryPool {name} is being deleted and its drives released, which only an operator does, so nothing was freed: wait until it \
         is gone (kubectl wait --for=delete mpool/{name}; where no operator runs any more, first kubectl -n {namespace} scale \
         deployment {OPERATOR} --replicas=1), or set its spec.deletionPolicy to Retain; then try again"
    );
}

async fn end_operator(client: &Client, namespace: &str) -> Result<()> {
    let deployments = namespaced::<Deployment>(client, namespace);
    let none = Patch::Merge(json!({"spec": {"replicas": 0}}));
    match deployments
        .patch_scale(OPERATOR, &PatchParams::default(), &none)
        .await
    {
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        other => {
            other.with_context(|| {
                format!("the Deployment {OPERATOR} of namespace {namespace} cannot be scaled to 0")
            })?;
        }
    }
    let begun = Instant::now();
    loop {
        let left = active(client).await?;
        if left.is_empty() {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            let names: Vec<String> = left.iter().map(ResourceExt::name_any).collect();
            bail!(
                "pods of the operator have not ended in {} s: {}; delete them, then try again",
                PATIENCE.as_secs(),
                names.join(", ")
            );
        }
        sleep(AGAIN).await;
    }
}

/// The operator's pods that may still write, in whatever namespace. Evicted ones stay listed after their end.
async fn active(client: &Client) -> Result<Vec<Pod>> {
    let pods = Api::<Pod>::all(client.clone());
    let pods = pods.list(&ListParams::default().labels(PODS)).await;
    let mut pods = pods.context("the operator's pods cannot be listed")?.items;
    pods.retain(|pod| {
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        !matches!(phase, Some("Failed" | "Succeeded"))
    });
    Ok(pods)
}

fn namespaced<K>(client: &Client, namespace: &str) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    Api::namespaced(client.clone(), namespace)
}

/// None where their definition is gone.
async fn all<K>(client: &Client) -> Result<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let list = Api::<K>::all(client.clone());
    match list.list(&ListParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        other => Ok(other.map_err(in_words)?.items),
    }
}

fn held<K: Resource>(object: &K) -> bool {
    object.finalizers().iter().any(|f| f == names::FINALIZER)
}

/// Takes the operator's finalizer off all that have it; how many those were.
async fn free<K>(client: &Client, objects: Vec<K>) -> Result<usize>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let api = Api::<K>::all(client.clone());
    let mut freed = 0;
    for object in objects.iter().filter(|object| held(*object)) {
        let name = object.name_any();
        free_one(&api, &name)
            .await
            .with_context(|| format!("{} {name} cannot be freed of its finalizer", K::kind(&())))?;
        freed += 1;
    }
    Ok(freed)
}

async fn free_one<K>(api: &Api<K>, name: &str) -> kube::Result<()>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    loop {
        let Some(now) = api.get_metadata_opt(name).await? else {
            return Ok(());
        };
        let mut left = now.finalizers().to_vec();
        left.retain(|f| f != names::FINALIZER);
        let patch = Patch::Merge(json!({"metadata": {
            "resourceVersion": now.resource_version(), "finalizers": left,
        }}));
        match api
            .patch_metadata(name, &PatchParams::default(), &patch)
            .await
        {
            // Somebody else has written meanwhile.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            other => return other.map(|_| ()),
        }
    }
}

#[cfg(test)]
mod tests;
