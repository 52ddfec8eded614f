//! kube-rs against the embedded server: what operators and agents do.

use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::{ConfigMap, Node},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, CustomResource, CustomResourceExt, ResourceExt,
    api::{
        DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, WatchEvent,
        WatchParams,
    },
    runtime::{WatchStreamExt, reflector, watcher},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

#[path = "support/access.rs"]
mod access;
#[path = "support/bed.rs"]
mod bed;
use access::client;
use bed::Bed;

#[derive(CustomResource, Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[kube(
    group = "test.strand.dev",
    version = "v1",
    kind = "Box",
    plural = "boxes",
    status = "BoxStatus",
    derive = "PartialEq"
)]
struct BoxSpec {
    size: u32,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
struct BoxStatus {
    used: u32,
}

async fn boxes(bed: &Bed) -> Api<Box> {
    let definitions: Api<CustomResourceDefinition> = Api::all(bed.client.clone());
    definitions
        .create(&PostParams::default(), &Box::crd())
        .await
        .expect("a definition");
    Api::all(bed.client.clone())
}

fn a_box(name: &str, size: u32) -> Box {
    Box::new(name, BoxSpec { size })
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future)
        .await
        .unwrap_or_else(|_| panic!("{what}: nothing came"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reflector_follows_changes_in_both_ways_of_listing() {
    let bed = Bed::new().await;
    let api = boxes(&bed).await;
    for i in 0..3 {
        api.create(&PostParams::default(), &a_box(&format!("b{i}"), i))
            .await
            .expect("created");
    }
    for config in [
        watcher::Config::default().page_size(2),
        watcher::Config::default().streaming_lists(),
    ] {
        let (store, writer) = reflector::store();
        let stream = reflector(writer, watcher(api.clone(), config)).applied_objects();
        let task = tokio::spawn(stream.for_each(|_| async {}));
        soon("ready", store.wait_until_ready())
            .await
            .expect("ready");
        assert_eq!(store.len(), 3);
        let patch = json!({"spec": {"size": 77}});
        api.patch("b1", &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .expect("patched");
        soon("the change", async {
            while !store.state().iter().any(|b| b.spec.size == 77) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        let patch = json!({"spec": {"size": 1}});
        api.patch("b1", &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .expect("patched");
        task.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_status_finalizers_and_generation() {
    let bed = Bed::new().await;
    let api = boxes(&bed).await;
    let mut wanted = a_box("a", 5);
    wanted.metadata.finalizers = Some(vec!["test.strand.dev/hold".into()]);
    let operator = PatchParams::apply("operator");
    let made = api
        .patch("a", &operator, &Patch::Apply(&wanted))
        .await
        .expect("applied");
    assert_eq!(made.metadata.generation, Some(1));
    let status = json!({"apiVersion": "test.strand.dev/v1", "kind": "Box", "status": {"used": 3}});
    let seen = api
        .patch_status("a", &PatchParams::apply("agent"), &Patch::Apply(&status))
        .await
        .expect("status");
    assert_eq!(
        (seen.metadata.generation, seen.status.expect("status").used),
        (Some(1), 3)
    );
    // Nothing changes: no new version.
    let again = api
        .patch("a", &operator, &Patch::Apply(&wanted))
        .await
        .expect("applied");
    let before = again.resource_version();
    let again = api
        .patch("a", &operator, &Patch::Apply(&wanted))
        .await
        .expect("applied");
    assert_eq!(again.resource_version(), before);
    let conflict = api
        .patch(
            "a",
            &PatchParams::apply("other"),
            &Patch::Apply(&a_box("a", 6)),
        )
        .await;
    assert!(
        matches!(conflict, Err(kube::Error::Api(s)) if s.code == 409 && s.message.contains("conflict with \"operator\": .spec.size"))
    );

    let gone = api
        .delete("a", &DeleteParams::default())
        .await
        .expect("deleted");
    assert!(
        gone.left()
            .expect("waits for its finalizer")
            .metadata
            .deletion_timestamp
            .is_some()
    );
    wanted.metadata.finalizers = None;
    api.patch("a", &operator, &Patch::Apply(&wanted))
        .await
        .expect("released");
    assert!(api.get_opt("a").await.expect("asked").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_won_by_one() {
    let bed = Bed::new().await;
    let api: Api<Lease> = Api::default_namespaced(bed.client.clone());
    let lease = |holder: &str, version: Option<String>| Lease {
        metadata: ObjectMeta {
            name: Some("leader".into()),
            resource_version: version,
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(holder.into()),
            ..LeaseSpec::default()
        }),
    };
    let first = api
        .create(&PostParams::default(), &lease("", None))
        .await
        .expect("created");
    let version = first.resource_version();
    let contenders = (0..8).map(|i| {
        let (api, lease) = (api.clone(), lease(&format!("c{i}"), version.clone()));
        tokio::spawn(async move { api.replace("leader", &PostParams::default(), &lease).await })
    });
    let results = futures::future::join_all(contenders).await;
    let won = results
        .iter()
        .filter(|r| r.as_ref().expect("joined").is_ok())
        .count();
    assert_eq!(won, 1);
    for result in results.into_iter().map(|r| r.expect("joined")) {
        assert!(
            result.is_ok() || matches!(&result, Err(kube::Error::Api(s)) if s.code == 409),
            "{result:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn patches_without_a_version_all_take_effect() {
    let bed = Bed::new().await;
    let api: Api<ConfigMap> = Api::default_namespaced(bed.client.clone());
    let map = ConfigMap {
        metadata: ObjectMeta {
            name: Some("m".into()),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    };
    api.create(&PostParams::default(), &map)
        .await
        .expect("created");
    let writers = (0..32).map(|i| {
        let api = api.clone();
        let patch = json!({"data": {format!("k{i}"): "v"}});
        tokio::spawn(async move {
            api.patch("m", &PatchParams::default(), &Patch::Merge(&patch))
                .await
        })
    });
    for result in futures::future::join_all(writers).await {
        result.expect("joined").expect("patched");
    }
    assert_eq!(
        api.get("m").await.expect("map").data.expect("data").len(),
        32
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn dependents_and_objects_of_a_deleted_definition_go() {
    let bed = Bed::new().await;
    let api = boxes(&bed).await;
    let owner = api
        .create(&PostParams::default(), &a_box("owner", 1))
        .await
        .expect("created");
    let reference = kube::Resource::controller_owner_ref(&owner, &()).expect("a reference");
    let mut dependent = a_box("dependent", 1);
    dependent.metadata.owner_references = Some(vec![reference]);
    api.create(&PostParams::default(), &dependent)
        .await
        .expect("created");
    api.delete("owner", &DeleteParams::background())
        .await
        .expect("deleted");
    soon("collection", async {
        while api.get_opt("dependent").await.expect("asked").is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;

    api.create(&PostParams::default(), &a_box("last", 1))
        .await
        .expect("created");
    let mut events = std::pin::pin!(
        api.watch(&WatchParams::default(), "0")
            .await
            .expect("watch")
    );
    let definitions: Api<CustomResourceDefinition> = Api::all(bed.client.clone());
    definitions
        .delete(&Box::crd().name_any(), &DeleteParams::default())
        .await
        .expect("deleted");
    soon("the end of the watch", async {
        let mut deleted = false;
        while let Some(Ok(event)) = events.next().await {
            deleted |= matches!(event, WatchEvent::Deleted(_));
        }
        assert!(deleted);
    })
    .await;
    assert!(
        matches!(api.list(&ListParams::default()).await, Err(kube::Error::Api(s)) if s.code == 404)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_holds_nobody_up() {
    let bed = Bed::new().await;
    let api: Api<Node> = Api::all(bed.client.clone());
    // Never polled: its buffers fill, then its queue.
    let slow = api
        .watch(&WatchParams::default(), "0")
        .await
        .expect("watch");
    let mut fast = std::pin::pin!(
        api.watch(&WatchParams::default(), "0")
            .await
            .expect("watch")
    );
    let node = Node {
        metadata: ObjectMeta {
            name: Some("n".into()),
            ..ObjectMeta::default()
        },
        ..Node::default()
    };
    api.create(&PostParams::default(), &node)
        .await
        .expect("created");
    let blob = "x".repeat(20_000);
    for i in 0..600 {
        let patch = json!({"metadata": {"annotations": {"blob": blob, "i": i.to_string()}}});
        soon(
            "a write",
            api.patch("n", &PatchParams::default(), &Patch::Merge(&patch)),
        )
        .await
        .expect("patched");
    }
    soon("the last event", async {
        while let Some(event) = fast.next().await {
            if let Ok(WatchEvent::Modified(node)) = event
                && node.annotations().get("i").map(String::as_str) == Some("599")
            {
                return;
            }
        }
        panic!("the watch ended early");
    })
    .await;
    drop(slow);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_counted_and_strangers_refused() {
    let bed = Bed::new().await;
    let before = bed.server.stats().writes();
    let api: Api<Node> = Api::all(bed.client.clone());
    let node = Node {
        metadata: ObjectMeta {
            name: Some("n".into()),
            ..ObjectMeta::default()
        },
        ..Node::default()
    };
    api.create(&PostParams::default(), &node)
        .await
        .expect("created");
    assert!(api.create(&PostParams::default(), &node).await.is_err());
    api.get("n").await.expect("there");
    assert_eq!(bed.server.stats().writes() - before, 2);
    let text = bed
        .client
        .request_text(
            axum::http::Request::get("/metrics")
                .body(Vec::new())
                .expect("request"),
        )
        .await;
    assert!(
        text.expect("metrics").contains(
            "strand_api_requests_total{verb=\"create\",resource=\"nodes\",code=\"409\"} 1"
        )
    );
    let stranger = bed.server.kubeconfig().replace("token: ", "token: x");
    let refused = Api::<Node>::all(client(&stranger).await)
        .list(&ListParams::default())
        .await;
    assert!(
        matches!(refused, Err(kube::Error::Api(s)) if s.code == 401 && s.reason == "Unauthorized")
    );
}
