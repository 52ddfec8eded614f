//! The objects that a rack needs before its processes start: definitions, namespaces, nodes.

use super::manifest::MANAGER;
use crate::cluster::in_words;
use anyhow::{Context, Result, bail};
use k8s_openapi::{
    api::core::v1::{Namespace, Node},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
    runtime::{conditions::is_crd_established, wait::await_condition},
};
use serde_json::{Value, json};
use std::time::Duration;

/// Namespace of the operator's Lease.
pub const NAMESPACE: &str = "strand-system";

/// Applies the definitions of our objects and waits until the server serves them.
pub async fn define(client: &Client) -> Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in strand_api::crds() {
        let name = crd.metadata.name.clone().unwrap_or_default();
        api.patch(&name, &apply(), &Patch::Apply(&crd))
            .await
            .map_err(in_words)
            .with_context(|| format!("cannot define {name}"))?;
        let established = await_condition(api.clone(), &name, is_crd_established());
        match tokio::time::timeout(Duration::from_secs(10), established).await {
            Ok(done) => done.with_context(|| format!("cannot see whether {name} is served"))?,
            Err(_) => bail!("the API server does not serve {name} 10 s after it was defined"),
        };
    }
    Ok(())
}

/// Makes sure of the namespaces that the rack's objects live in.
pub async fn namespaces(client: &Client) -> Result<()> {
    let api: Api<Namespace> = Api::all(client.clone());
    for name in ["default", NAMESPACE] {
        let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        api.patch(name, &apply(), &Patch::Apply(space))
            .await
            .map_err(in_words)
            .with_context(|| format!("cannot make the namespace {name}"))?;
    }
    Ok(())
}

/// Makes the node unless it is there, and says that it is ready. Labels that were changed since
/// stay as they are.
pub async fn node(client: &Client, name: &str) -> Result<()> {
    let api: Api<Node> = Api::all(client.clone());
    let fresh: Node = serde_json::from_value(blueprint(name))?;
    match api.create(&PostParams::default(), &fresh).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.is_already_exists() => {}
        Err(error) => {
            return Err(in_words(error)).with_context(|| format!("cannot make the node {name}"));
        }
    }
    let status = json!({"apiVersion": "v1", "kind": "Node", "status": {
        "addresses": [
            {"type": "InternalIP", "address": "127.0.0.1"},
            {"type": "Hostname", "address": name},
        ],
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "StrandctlUp",
            "message": "a node of a rack on one machine",
        }],
    }});
    api.patch_status(name, &apply(), &Patch::Apply(status))
        .await
        .map_err(in_words)
        .with_context(|| format!("cannot set the status of the node {name}"))?;
    Ok(())
}

fn blueprint(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": architecture(),
            "topology.kubernetes.io/region": "this-machine",
            "topology.kubernetes.io/zone": "rack-1",
        }},
    })
}

/// As Go, and with it Kubernetes, names it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn apply() -> PatchParams {
    PatchParams::apply(MANAGER).force()
}
