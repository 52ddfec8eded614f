//! What goes into a bundle.

use super::{clean, logs};
use crate::{
    cluster::{Target, in_words},
    scrape::Agents,
};
use anyhow::Result;
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams},
};
use serde_json::Value;
use std::{collections::BTreeMap, fs, path::Path};
use strand_api::names;

/// Every pod of the chart.
pub const OURS: &str = "app.kubernetes.io/name=strand";

/// Files by their paths in the bundle, what could not be read, and what was not taken.
#[derive(Debug, Default)]
pub struct Found {
    /// Text by path.
    pub files: BTreeMap<String, String>,
    /// What is missing, each with why.
    pub missing: Vec<String>,
    /// What is there, and left out for its size.
    pub left_out: Vec<String>,
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
    /// Claims of our driver: also those that nobody has provisioned yet, or that were bound by hand.
    Claims,
    /// Those whose name begins with `strand-`.
    Named,
}

/// Group, version, kind, and which of them. Never Secrets. Volumes and classes come before the claims, which are known by them.
const KINDS: [(&str, &str, &str, Which); 28] = [
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
    ("", "v1", "PersistentVolumeClaim", Which::Claims),
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
    (
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingAdmissionPolicy",
        Which::Named,
    ),
    (
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingAdmissionPolicyBinding",
        Which::Named,
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
        None => logs::take(&client, lines, &mut found).await,
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
        _ => ListParams::default(),
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
        if !is_meant(which, &value, found) {
            continue;
        }
        clean::object(&mut value);
        let path = format!("objects/{}/{name}.yaml", resource.plural);
        found.files.insert(path, serde_yaml::to_string(&value)?);
    }
    Ok(())
}

/// Whether an object is one of those that are taken.
fn is_meant(which: Which, object: &Value, found: &Found) -> bool {
    let names_driver = || object.to_string().contains(names::DRIVER);
    match which {
        // The list has no others.
        Which::All | Which::Chart => true,
        Which::Driver => names_driver(),
        Which::Claims => {
            let of = |field: &str, plural: &str| {
                let name = object["spec"][field].as_str();
                name.is_some_and(|name| {
                    let path = format!("objects/{plural}/{name}.yaml");
                    found.files.contains_key(&path)
                })
            };
            of("volumeName", "persistentvolumes")
                || of("storageClassName", "storageclasses")
                || names_driver()
        }
        Which::Named => {
            let name = object["metadata"]["name"].as_str();
            name.is_some_and(|name| name.starts_with("strand-"))
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn claims_are_known_by_their_volume_class_or_provisioner() {
        let mut found = Found::default();
        for path in ["persistentvolumes/pv-1", "storageclasses/strand"] {
            found
                .files
                .insert(format!("objects/{path}.yaml"), String::new());
        }
        let is = |claim| is_meant(Which::Claims, &claim, &found);
        assert!(is(json!({"spec": {"volumeName": "pv-1"}})));
        assert!(is(json!({"spec": {"storageClassName": "strand"}})));
        let by = json!({"metadata": {"annotations": {"volume.kubernetes.io/storage-provisioner": "csi.strand.dev"}}});
        assert!(is(by));
        assert!(!is(
            json!({"spec": {"volumeName": "pv-2", "storageClassName": "other"}})
        ));
        assert!(!is(json!({"spec": {}})));
    }

    #[test]
    fn policies_are_known_by_their_names() {
        let is = |name| {
            let policy = json!({"metadata": {"name": name}});
            is_meant(Which::Named, &policy, &Found::default())
        };
        assert!(is("strand-node-objects") && !is("others") && !is("my-strand-"));
    }

    #[test]
    fn claims_come_behind_what_they_are_known_by() {
        let at = |kind| KINDS.iter().position(|(_, _, other, _)| *other == kind);
        let claims = at("PersistentVolumeClaim");
        assert!(at("PersistentVolume") < claims && at("StorageClass") < claims);
    }
}
