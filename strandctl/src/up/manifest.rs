//! What a rack is told to be: Kubernetes objects in YAML, applied as `kubectl apply` would.

use crate::cluster::in_words;
use anyhow::{Context, Result, anyhow, bail};
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams},
    core::GroupVersionKind,
    discovery::{self, Scope},
};
use serde::Deserialize;
use serde_json::Value;

/// Field manager of what `strandctl up` applies.
pub const MANAGER: &str = "strandctl";

/// The manifest of a rack that is given none.
pub const DEFAULT: &str = "\
apiVersion: strand.dev/v1alpha1
kind: MemoryPool
metadata:
  name: default
spec:
  drives:
    models: [\"*\"]
  carve:
    contextMemory: 60%
  contextMemory:
    # Files wear out by nothing; a drive's budget would stop a benchmark within a minute.
    driveWritesPerDay: 100
";

/// Reads all documents of a YAML text. `source` names it in errors.
pub fn parse(text: &str, source: &str) -> Result<Vec<DynamicObject>> {
    let mut objects = Vec::new();
    for (number, document) in serde_yaml::Deserializer::from_str(text).enumerate() {
        let place = || format!("document {} of {source}", number + 1);
        let value = Value::deserialize(document)
            .with_context(|| format!("{} is not YAML that can be read", place()))?;
        if value.is_null() {
            continue;
        }
        let object: DynamicObject = serde_json::from_value(value)
            .with_context(|| format!("{} is not a Kubernetes object", place()))?;
        let kind = object.types.as_ref().map_or("", |types| &types.kind);
        if kind.is_empty()
            || object
                .types
                .as_ref()
                .is_none_or(|t| t.api_version.is_empty())
        {
            bail!("{} has no apiVersion or no kind", place());
        }
        if kind == "List" {
            bail!(
                "{} is a List; write its items as documents of their own, with --- between them",
                place()
            );
        }
        if object
            .metadata
            .name
            .as_deref()
            .unwrap_or_default()
            .is_empty()
        {
            bail!("{}, a {kind}, has no metadata.name", place());
        }
        objects.push(object);
    }
    if objects.is_empty() {
        bail!("{source} holds no object");
    }
    Ok(objects)
}

/// Names of the MemoryPools among the objects.
pub fn pools(objects: &[DynamicObject]) -> Vec<String> {
    let pools = objects.iter().filter(|object| {
        object.types.as_ref().is_some_and(|types| {
            types.kind == "MemoryPool" && types.api_version.starts_with("strand.dev/")
        })
    });
    pools
        .filter_map(|pool| pool.metadata.name.clone())
        .collect()
}

/// Applies an object of any kind that the server has.
pub async fn apply(client: &Client, object: &DynamicObject) -> Result<()> {
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let Some(types) = &object.types else {
        bail!("{name} has no kind");
    };
    let what = format!("{} {name}", types.kind);
    let gvk = GroupVersionKind::try_from(types)
        .map_err(|error| anyhow!("{what}: {} is no apiVersion: {error}", types.api_version))?;
    let (resource, capabilities) = discovery::pinned_kind(client, &gvk)
        .await
        .map_err(|error| {
            anyhow!(
                "{what}: the API server has no kind {} of {}: {error}",
                types.kind,
                types.api_version
            )
        })?;
    let api: Api<DynamicObject> = match (capabilities.scope, &object.metadata.namespace) {
        (Scope::Cluster, _) => Api::all_with(client.clone(), &resource),
        (Scope::Namespaced, Some(space)) => Api::namespaced_with(client.clone(), space, &resource),
        (Scope::Namespaced, None) => Api::namespaced_with(client.clone(), "default", &resource),
    };
    api.patch(
        name,
        &PatchParams::apply(MANAGER).force(),
        &Patch::Apply(object),
    )
    .await
    .map_err(in_words)
    .with_context(|| format!("cannot apply {what}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_may_hold_several_objects_of_any_kind() {
        let text = "# a pool\n---\n".to_owned()
            + DEFAULT
            + "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, namespace: n}\ndata: {a: b}\n---\n";
        let objects = parse(&text, "m.yaml").unwrap();
        assert_eq!(objects.len(), 2);
        assert_eq!(pools(&objects), ["default"]);
        assert_eq!(objects[1].data["data"]["a"], "b");
    }

    #[test]
    fn a_manifest_that_cannot_be_meant_is_refused_with_its_place() {
        for (text, complaint) in [
            ("", "m.yaml holds no object"),
            ("a: [", "document 1 of m.yaml is not YAML"),
            ("kind: X\nmetadata: {name: a}", "document 1 of m.yaml"),
            (
                "apiVersion: v1\nkind: X\nmetadata: {}",
                "has no metadata.name",
            ),
            ("apiVersion: v1\nkind: List\nitems: []", "is a List"),
            (
                "apiVersion: v1\nkind: X\nmetadata: {name: a}\n---\nb: 1",
                "document 2 of m.yaml",
            ),
        ] {
            let refused = format!("{:#}", parse(text, "m.yaml").unwrap_err());
            assert!(refused.contains(complaint), "{text:?}: {refused}");
        }
    }

    #[test]
    fn the_default_manifest_is_a_pool_that_the_definition_knows() {
        let pool: strand_api::MemoryPool = serde_yaml::from_str(DEFAULT).unwrap();
        assert_eq!(pool.spec.drives.models, ["*"]);
        assert_eq!(
            pool.spec.carve.context_memory,
            strand_api::Share::Percent(60)
        );
    }
}
