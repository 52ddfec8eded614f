//! Against an API server that has no Deployments of its own: the operator is its pods, which are ended by hand.

use super::*;
use crate::cluster::client_of;
use k8s_openapi::{
    api::core::v1::Namespace,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::api::{DeleteParams, PostParams};
use serde::Serialize;
use serde_json::Value;
use strand_api::crds;
use strand_embedded_api::{Config, Server};
use tokio::time::timeout;

const NAMESPACE: &str = "strand-system";

struct Bed {
    server: Server,
    client: Client,
    _dir: tempfile::TempDir,
}

impl Bed {
    async fn bare() -> Bed {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(Config::new(dir.path())).await.unwrap();
        let kubeconfig = dir.path().join("kubeconfig");
        server.write_kubeconfig(&kubeconfig).unwrap();
        let bed = Bed {
            server,
            client: client_of(&kubeconfig).await.unwrap(),
            _dir: dir,
        };
        for name in [NAMESPACE, "other"] {
            let namespace = json!({"metadata": {"name": name}});
            make::<Namespace>(Api::all(bed.client.clone()), namespace).await;
        }
        bed
    }

    /// With the definitions, and a pool and a drive that are held.
    async fn new(policy: &str) -> Bed {
        let bed = Bed::bare().await;
        for definition in crds() {
            let definition = serde_json::to_value(definition).unwrap();
            make::<CustomResourceDefinition>(Api::all(bed.client.clone()), definition).await;
        }
        let pool = json!({
            "apiVersion": "strand.dev/v1alpha1", "kind": "MemoryPool",
            "metadata": {"name": "rack", "finalizers": [names::FINALIZER]},
            "spec": {"drives": {"models": ["*"]}, "deletionPolicy": policy},
        });
        make(bed.pools(), pool).await;
        let drive = json!({
            "apiVersion": "strand.dev/v1alpha1", "kind": "Drive",
            "metadata": {"name": "n1-0", "finalizers": ["example.com/own", names::FINALIZER]},
            "spec": {"nodeName": "n1", "pool": "rack"},
        });
        make(Api::<Drive>::all(bed.client.clone()), drive).await;
        bed
    }

    fn pools(&self) -> Api<MemoryPool> {
        Api::all(self.client.clone())
    }

    async fn delete_pool(&self) {
        let gone = self.pools().delete("rack", &DeleteParams::default()).await;
        gone.unwrap();
    }

    /// A pod of the operator.
    async fn pod(&self, namespace: &str, phase: &str) -> Api<Pod> {
        let pods = namespaced::<Pod>(&self.client, namespace);
        let pod = json!({
            "metadata": {"name": phase.to_lowercase(), "labels": {
                "app.kubernetes.io/name": "strand", "app.kubernetes.io/component": "operator",
            }},
            "spec": {"containers": [{"name": "operator", "image": "i"}]},
        });
        make(pods.clone(), pod).await;
        let status = Patch::Merge(json!({"status": {"phase": phase}}));
        let written = pods
            .patch_status(&phase.to_lowercase(), &PatchParams::default(), &status)
            .await;
        written.unwrap();
        pods
    }

    async fn stand_down(&self) -> Result<(usize, usize)> {
        stand_down(&self.client, NAMESPACE).await
    }

    async fn finalizers(&self) -> Vec<String> {
        let drive = Api::<Drive>::all(self.client.clone()).get("n1-0").await;
        drive.unwrap().finalizers().to_vec()
    }

    /// It is refused, and whatever is held stays so.
    async fn refuses(&self, done: Result<(usize, usize)>, words: &str) {
        let said = done.unwrap_err().to_string();
        assert!(said.contains(words), "{said}");
        assert!(held(&self.pools().get("rack").await.unwrap()));
        assert_eq!(self.finalizers().await.len(), 2);
    }
}

async fn make<K>(api: Api<K>, object: Value)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize,
{
    let object: K = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap();
}

#[tokio::test]
async fn what_the_operator_held_is_freed_and_nothing_else() {
    let bed = Bed::new("Release").await;
    bed.pod(NAMESPACE, "Failed").await;
    bed.pod("other", "Succeeded").await;
    assert_eq!(bed.stand_down().await.unwrap(), (1, 1));
    assert_eq!(bed.finalizers().await, ["example.com/own"]);
    assert_eq!(bed.stand_down().await.unwrap(), (0, 0));
}

#[tokio::test]
async fn a_pool_whose_drives_are_being_released_is_waited_for_until_they_are_retained() {
    let bed = Bed::new("Release").await;
    bed.delete_pool().await;
    bed.refuses(bed.stand_down().await, "rack is being deleted")
        .await;
    let retain = Patch::Merge(json!({"spec": {"deletionPolicy": "Retain"}}));
    let written = bed
        .pools()
        .patch("rack", &PatchParams::default(), &retain)
        .await;
    written.unwrap();
    assert_eq!(bed.stand_down().await.unwrap(), (1, 1));
    assert!(bed.pools().get_opt("rack").await.unwrap().is_none());
}

#[tokio::test]
async fn a_pool_that_is_deleted_while_the_operator_ends_is_seen() {
    let bed = Bed::new("Release").await;
    let pods = bed.pod(NAMESPACE, "Running").await;
    let looked_twice = || {
        let requests = bed.server.stats().requests;
        let lists = requests
            .iter()
            .filter(|(r, _)| r.verb == "list" && r.resource == "pods");
        lists.map(|(_, n)| n).sum::<u64>() >= 2
    };
    let meanwhile = async {
        while !looked_twice() {
            sleep(Duration::from_millis(5)).await;
        }
        bed.delete_pool().await;
        pods.delete("running", &DeleteParams::default())
            .await
            .unwrap();
    };
    let both = async { tokio::join!(bed.stand_down(), meanwhile) };
    let (done, ()) = timeout(2 * PATIENCE, both).await.unwrap();
    bed.refuses(done, "rack is being deleted").await;
}

#[tokio::test]
async fn an_operator_of_another_namespace_is_named() {
    let bed = Bed::new("Retain").await;
    bed.pod("other", "Running").await;
    bed.refuses(bed.stand_down().await, "run again with -n other")
        .await;
}

#[tokio::test]
async fn without_definitions_there_is_nothing_to_free() {
    let bed = Bed::bare().await;
    assert_eq!(bed.stand_down().await.unwrap(), (0, 0));
}

#[tokio::test]
async fn a_hook_ends_only_the_operator_that_its_release_has_installed() {
    let bed = Bed::bare().await;
    let named = |release| is_of_release(&bed.client, NAMESPACE, release);
    named("strand").await.unwrap();
    let definition = json!({
        "metadata": {"name": "deployments.apps", "annotations": {"api-approved.kubernetes.io": "unapproved"}},
        "spec": {
            "group": "apps", "scope": "Namespaced",
            "names": {"kind": "Deployment", "plural": "deployments", "singular": "deployment"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true,
            }}}],
        },
    });
    make::<CustomResourceDefinition>(Api::all(bed.client.clone()), definition).await;
    let deployments = namespaced::<Deployment>(&bed.client, NAMESPACE);
    let deployment = json!({"metadata": {"name": OPERATOR}});
    make(deployments.clone(), deployment).await;
    let refused = named("strand").await.unwrap_err().to_string();
    assert!(refused.contains("not installed by Helm's release strand"));
    let installed = Patch::Merge(json!({"metadata": {"annotations": {RELEASE: "strand"}}}));
    let written = deployments
        .patch(OPERATOR, &PatchParams::default(), &installed)
        .await;
    written.unwrap();
    named("strand").await.unwrap();
    assert!(named("other").await.is_err());
}
