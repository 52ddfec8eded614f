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
    api::{ListParams, Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::json;
use std::{fmt::Debug, time::Duration};
use strand_api::{Drive, MemoryPool, names};
use tokio::time::{Instant, sleep};

/// Name of the operator's Deployment.
const OPERATOR: &str = "strand-operator";
/// Its pods, as the chart labels them.
const PODS: &str = "app.kubernetes.io/name=strand,app.kubernetes.io/component=operator";
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
}

/// Runs `strandctl stand-down`. Objects, drives and bytes stay; an operator that comes back takes its finalizers again.
pub async fn run(args: StandDownArgs) -> Result<()> {
    let client = args.target.client().await?;
    let pools = all::<MemoryPool>(&client).await?;
    if let Some(pool) = pools.iter().find(|pool| held(*pool) && goes(*pool)) {
        let name = pool.name_any();
        bail!(
            "MemoryPool {name} is being deleted and its drives released, which nobody would go on with: wait until it is gone \
             (kubectl wait --for=delete mpool/{name}), or set its spec.deletionPolicy to Retain"
        );
    }
    end_operator(&client, &args.namespace).await?;
    // Anew: the operator wrote until it ended.
    let pools = free(&client, all::<MemoryPool>(&client).await?).await?;
    let drives = free(&client, all::<Drive>(&client).await?).await?;
    println!("The operator has ended; freed of its finalizer: {pools} pools, {drives} drives.");
    Ok(())
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
    let pods = namespaced::<Pod>(client, namespace);
    let begun = Instant::now();
    loop {
        let left = pods.list(&ListParams::default().labels(PODS)).await;
        let left = left.context("the operator's pods cannot be listed")?.items;
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

fn namespaced<K>(client: &Client, namespace: &str) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    Api::namespaced(client.clone(), namespace)
}

async fn all<K>(client: &Client) -> Result<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let list = Api::<K>::all(client.clone());
    let list = list.list(&ListParams::default()).await;
    Ok(list.map_err(in_words)?.items)
}

fn held<K: Resource>(object: &K) -> bool {
    object.finalizers().iter().any(|f| f == names::FINALIZER)
}

fn goes<K: Resource>(object: &K) -> bool {
    object.meta().deletion_timestamp.is_some()
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
