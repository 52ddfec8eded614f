//! What goes into a bundle.

use super::clean;
use crate::{
    cluster::{Target, in_words},
    scrape::Agents,
};
use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, LogParams},
};
use std::{collections::BTreeMap, fs, path::Path};
use strand_api::names;

/// Every pod of the chart.
const OURS: &str = "app.kubernetes.io/name=strand";

/// Files by their paths in the bundle, and what could not be read.
#[derive(Debug, Default)]
pub struct Found {
    /// Text by path.
    pub files: BTreeMap<String, String>,
    /// What is missing, each with why.
    pub missing: Vec<String>,
}

/// Whose objects of a kind are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    /// All.
    All,
    /// Those that the chart made.
    Chart,
    /// Those that name our driver somewhere.
    Driver,
}

/// Group, version, kind, and which of them. Never Secrets.
const KINDS: [(&str, &str, &str, Which); 25] = [
    ("strand.dev", "v1alpha1", "MemoryPool", Which::All),
    ("strand.dev", "v1alpha1", "Drive", Which::All),
    ("strand.dev", "v1alpha1", "DriveOperation", Which::All),
    ("strand.dev", "v1alpha1", "PoolGrant", Which::All),
    ("strand.dev", "v1alpha1", "PoolLeg", Which::All),
    ("strand.dev", "v1alpha1", "PoolMap", Which::All),
    ("strand.dev", "v1alpha1", "PoolSnapshot", Which::All),
    ("strand.dev", "v1alpha1", "PoolVolume", Which::All),
    ("", "v1", "Node", Which::All),
    ("", "v1", "Event", Which::All),
    ("", "v1", "Pod", Which::Chart),
    ("", "v1", "Service", Which::Chart),
    ("", "v1", "ConfigMap", Which::Chart),
    ("", "v1", "PersistentVolume", Which::Driver),
    ("apps", "v1", "Deployment", Which::Chart),
    ("apps", "v1", "DaemonSet", Which::Chart),
    ("coordination.k8s.io", "v1", "Lease", Which::Chart),
    ("storage.k8s.io", "v1", "StorageClass", Which::Driver),
    ("storage.k8s.io", "v1", "CSIDriver", Which::Driver),
    ("storage.k8s.io", "v1", "CSINode", Which::All),
    ("storage.k8s.io", "v1", "CSIStorageCapacity", Which::All),
    ("storage.k8s.io", "v1", "VolumeAttachment", Which::Driver),
    (
        "snapshot.storage.k8s.io",
        "v1",
        "VolumeSnapshotContent",
        Which::Driver,
    ),
    (
        "admissionregistration.k8s.io",
        "v1",
        "MutatingWebhookConfiguration",
        Which::Chart,
    ),
    (
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingWebhookConfiguration",
        Which::Chart,
    ),
];

/// Everything.
///
/// # Errors
/// The cluster cannot be reached at all.
pub async fn all(target: &Target, lines: u32) -> Result<Found> {
    let client = target.client().await?;
    let mut found = Found::default();
    let server = client.apiserver_version().await.map_err(in_words)?;
    found.files.insert(
        "versions.txt".into(),
        format!(
            "strandctl {}\nAPI server {} ({})\n",
            env!("CARGO_PKG_VERSION"),
            server.git_version,
            server.platform
        ),
    );
    for (group, version, kind, which) in KINDS {
        let kind = GroupVersionKind::gvk(group, version, kind);
        if let Err(error) = objects(&client, &kind, which, &mut found).await {
            found
                .missing
                .push(format!("objects of kind {}: {error:#}", kind.kind));
        }
    }
    match target.directory() {
        Some(dir) => files(&dir.join("logs"), lines, &mut found),
        None => logs(&client, lines, &mut found).await,
    }
    metrics(target, &mut found).await;
    Ok(found)
}

async fn objects(
    client: &Client,
    kind: &GroupVersionKind,
    which: Which,
    found: &mut Found,
) -> Result<()> {
    let resource = ApiResource::from_gvk(kind);
    let api = Api::<DynamicObject>::all_with(client.clone(), &resource);
    let params = match which {
        Which::Chart => ListParams::default().labels(OURS),
        Which::All | Which::Driver => ListParams::default(),
    };
    let list = match api.list(&params).await {
        Ok(list) => list,
        // Not every cluster has every kind.
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
        Err(error) => return Err(in_words(error)),
    };
    for object in list {
        let name = match object.namespace() {
            Some(namespace) => format!("{namespace}_{}", object.name_any()),
            None => object.name_any(),
        };
        let mut value = serde_json::to_value(&object)?;
        if which == Which::Driver && !value.to_string().contains(names::DRIVER) {
            continue;
        }
        clean::object(&mut value);
        let path = format!("objects/{}/{name}.yaml", resource.plural);
        found.files.insert(path, serde_yaml::to_string(&value)?);
    }
    Ok(())
}

/// Logs of the chart's pods, of now and of before their last restart.
async fn logs(client: &Client, lines: u32, found: &mut Found) {
    let pods = Api::<Pod>::all(client.clone());
    let pods = match pods.list(&ListParams::default().labels(OURS)).await {
        Ok(list) => list.items,
        Err(error) => {
            found.missing.push(format!("logs: {:#}", in_words(error)));
            return;
        }
    };
    for pod in pods {
        let api = Api::<Pod>::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
        let name = pod.name_any();
        let states = pod
            .status
            .as_ref()
            .and_then(|status| status.container_statuses.clone());
        for container in states.unwrap_or_default() {
            let restarted = container.restart_count > 0;
            for previous in [false, true]
                .into_iter()
                .filter(|previous| !previous || restarted)
            {
                let params = LogParams {
                    container: Some(container.name.clone()),
                    previous,
                    tail_lines: Some(i64::from(lines)),
                    timestamps: true,
                    ..LogParams::default()
                };
                let what = if previous { ".previous" } else { "" };
                let path = format!("logs/{name}/{}{what}.log", container.name);
                match api.logs(&name, &params).await {
                    Ok(text) => drop(found.files.insert(path, clean::log(&text))),
                    Err(error) => found.missing.push(format!("{path}: {:#}", in_words(error))),
                }
            }
        }
    }
}

/// Logs of a rack on this machine.
fn files(directory: &Path, lines: u32, found: &mut Found) {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            found
                .missing
                .push(format!("logs in {}: {error}", directory.display()));
            return;
        }
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        match fs::read(&path) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                let skipped = text.lines().count().saturating_sub(lines as usize);
                let last: Vec<_> = text.lines().skip(skipped).collect();
                found
                    .files
                    .insert(format!("logs/{name}"), clean::log(&last.join("\n")));
            }
            Err(error) => found
                .missing
                .push(format!("log {}: {error}", path.display())),
        }
    }
}

async fn metrics(target: &Target, found: &mut Found) {
    let pages = match target.agents().await {
        Ok(agents) => Agents::pages(&agents).await,
        Err(error) => Err(error),
    };
    match pages {
        Ok(pages) => {
            for (node, page) in pages {
                match page {
                    Ok(page) => drop(found.files.insert(format!("metrics/{node}.txt"), page)),
                    Err(error) => found
                        .missing
                        .push(format!("metrics of node {node}: {error:#}")),
                }
            }
        }
        Err(error) => found.missing.push(format!("metrics: {error:#}")),
    }
}
