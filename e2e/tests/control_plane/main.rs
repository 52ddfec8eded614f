//! The chart on a real API server: etcd, kube-apiserver, Helm, and the operator under its own service account. No kubelet: what
//! runs on nodes is played. `make e2e` runs it, as root; it puts an address on `lo` and takes it away again.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that meets what it did not expect stops there"
)]

mod agents;
mod bed;

use bed::{Bed, within};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use strand_api::{Drive, DriveOperation, MemoryPool, PoolGrant, names};

fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn drive(name: &str, node: &str) -> Drive {
    object(
        json!({"apiVersion": "strand.dev/v1alpha1", "kind": "Drive", "metadata": {"name": name}, "spec": {"nodeName": node}}),
    )
}

/// What an agent writes to a status.
fn status(kind: &str, name: &str, status: Value) -> (PatchParams, Patch<Value>) {
    let patch = json!({"apiVersion": "strand.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "status": status});
    (
        PatchParams::apply(names::AGENT_MANAGER).force(),
        Patch::Apply(patch),
    )
}

fn refused<T: std::fmt::Debug>(result: kube::Result<T>, words: &str) {
    match result {
        Err(kube::Error::Api(status)) => {
            assert!(status.message.contains(words), "{}", status.message);
        }
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kube-apiserver and root: make e2e"]
async fn the_chart_on_a_real_api_server() {
    let mut bed = Bed::start().await;
    bed.install();
    installing_again_takes_the_definitions_over(&bed);
    let may = bed.token("strand-operator", None).await;
    within("the API server knows the operator's rights", || async {
        let pools: Api<MemoryPool> = Api::all(may.clone());
        pools.list(&ListParams::default()).await.is_ok()
    })
    .await;
    bed.node("n1").await;
    bed.node("n2").await;
    agents::tell_of_their_own_legs(&bed).await;
    agents::tell_of_arrays_that_they_have_attached(&bed).await;
    let operator = bed.operator();
    within("the operator is ready", || async { operator.ready().await }).await;

    an_agent_speaks_for_its_own_node(&bed).await;
    pods_are_injected(&bed).await;
    a_drive_is_adopted(&bed).await;
    // Rights that are missing show as failed actions, or as watches that are refused.
    assert_eq!(operator.failed_actions().await, Vec::<String>::new());
    assert!(!operator.log().contains("orbidden"), "{}", operator.log());

    an_upgrade_keeps_what_the_operator_wrote(&bed).await;
}

fn installing_again_takes_the_definitions_over(bed: &Bed) {
    // No hooks: nobody runs the pods of a Job here.
    let kept = bed.helm(&["uninstall", "strand", "-n", "strand-system", "--no-hooks"]);
    assert!(
        kept.contains("[CustomResourceDefinition] drives.strand.dev"),
        "{kept}"
    );
    bed.install();
}

async fn an_agent_speaks_for_its_own_node(bed: &Bed) {
    let own: Api<Drive> = Api::all(bed.agent("n1").await);
    let create = PostParams::default();
    own.create(&create, &drive("n1-0123456789", "n1"))
        .await
        .unwrap();
    let (params, patch) = status("Drive", "n1-0123456789", json!({"size": "1Gi"}));
    own.patch_status("n1-0123456789", &params, &patch)
        .await
        .unwrap();

    let nameless: Api<Drive> = Api::all(bed.token("strand-node", None).await);
    // The API server takes a moment to see new policies.
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    within("the policy of drives is in force", || async {
        nameless
            .create(&dry, &drive("n1-1123456789", "n1"))
            .await
            .is_err()
    })
    .await;
    refused(
        nameless
            .create(&create, &drive("n1-1123456789", "n1"))
            .await,
        "names no node",
    );
    refused(
        own.create(&create, &drive("n2-0123456789", "n2")).await,
        "may not write about node n2",
    );
    let mut claimed = drive("n1-1123456789", "n1");
    claimed.spec.pool = Some("rack".into());
    refused(own.create(&create, &claimed).await, "the operator decides");

    let other: Api<Drive> = Api::all(bed.agent("n2").await);
    other
        .create(&create, &drive("n2-0123456789", "n2"))
        .await
        .unwrap();
    let (params, patch) = status("Drive", "n2-0123456789", json!({"size": "1Gi"}));
    refused(
        own.patch_status("n2-0123456789", &params, &patch).await,
        "may not write about node n2",
    );
    refused(
        own.delete("n2-0123456789", &DeleteParams::default()).await,
        "may not write about node n2",
    );
    let cordon = Patch::Merge(json!({"spec": {"cordon": true}}));
    let spec = own
        .patch("n1-0123456789", &PatchParams::default(), &cordon)
        .await;
    refused(spec, "cannot patch resource");

    let operations: Api<DriveOperation> = Api::all(bed.admin());
    let reported: Api<DriveOperation> = Api::all(bed.agent("n1").await);
    let unnamed: Api<DriveOperation> = Api::all(bed.token("strand-node", None).await);
    for node in ["n1", "n2"] {
        let (name, about) = (format!("wipe-{node}"), format!("{node}-0123456789"));
        let spec = json!({"type": "Wipe", "drive": about, "serial": "S"});
        let operation = object(
            json!({"apiVersion": "strand.dev/v1alpha1", "kind": "DriveOperation", "metadata": {"name": name}, "spec": spec}),
        );
        // Refused until the operator, whom the API server asks, has seen the drive.
        within("the operation is taken", || async {
            operations.create(&create, &operation).await.is_ok()
        })
        .await;
    }
    let report = async |by: &Api<DriveOperation>, name: &str| {
        let (params, patch) = status("DriveOperation", name, json!({"message": "under way"}));
        by.patch_status(name, &params, &patch).await
    };
    within("the policy of operations is in force", || async {
        report(&reported, "wipe-n2").await.is_err()
    })
    .await;
    report(&reported, "wipe-n1").await.unwrap();
    for (by, name) in [(&reported, "wipe-n2"), (&unnamed, "wipe-n1")] {
        refused(report(by, name).await, "its own node's drives alone");
    }
    for name in ["wipe-n1", "wipe-n2"] {
        operations
            .delete(name, &DeleteParams::default())
            .await
            .unwrap();
    }
    other
        .delete("n2-0123456789", &DeleteParams::default())
        .await
        .unwrap();
    own.delete("n1-0123456789", &DeleteParams::default())
        .await
        .unwrap();
}

async fn pods_are_injected(bed: &Bed) {
    let admin = bed.admin();
    for (name, label) in [
        ("team-a", json!({"strand.dev/pool": "rack"})),
        ("team-b", json!({})),
    ] {
        let namespace: Namespace = object(json!({"metadata": {"name": name, "labels": label}}));
        Api::all(admin.clone())
            .create(&PostParams::default(), &namespace)
            .await
            .unwrap();
        let account = object::<k8s_openapi::api::core::v1::ServiceAccount>(
            json!({"metadata": {"name": "default"}}),
        );
        Api::namespaced(admin.clone(), name)
            .create(&PostParams::default(), &account)
            .await
            .unwrap();
    }
    let pool: MemoryPool = object(json!({
        "apiVersion": "strand.dev/v1alpha1", "kind": "MemoryPool", "metadata": {"name": "rack"},
        "spec": {"drives": {"models": ["*"]}, "access": "Granted"},
    }));
    Api::all(admin.clone())
        .create(&PostParams::default(), &pool)
        .await
        .unwrap();
    let skipped = |pod: Pod| pod.annotations().get("strand.dev/skipped").cloned();
    within("the namespace is told that it lacks a grant", || async {
        let said = skipped(dry_run(&admin, "team-a").await);
        said.is_some_and(|said| said.contains("rack.team-a"))
    })
    .await;
    let grant: PoolGrant = object(json!({
        "apiVersion": "strand.dev/v1alpha1", "kind": "PoolGrant", "metadata": {"name": "rack.team-a"},
        "spec": {"pool": "rack", "namespace": "team-a", "contextMemory": {"weight": 4}},
    }));
    Api::all(admin.clone())
        .create(&PostParams::default(), &grant)
        .await
        .unwrap();
    within("a pod is injected", || async {
        let spec = dry_run(&admin, "team-a").await.spec.unwrap();
        // The API server has checked every field of it.
        spec.init_containers
            .is_some_and(|init| init[0].name == "strand-kv-endpoint")
    })
    .await;
    let other = dry_run(&admin, "team-b").await;
    assert!(other.spec.unwrap().init_containers.is_none());
}

async fn dry_run(admin: &Client, namespace: &str) -> Pod {
    let pod: Pod = object(
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "a"}]}}),
    );
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let pods: Api<Pod> = Api::namespaced(admin.clone(), namespace);
    pods.create(&params, &pod).await.unwrap()
}

/// Through the rights of the operator: finalizers, specs, statuses and the map.
async fn a_drive_is_adopted(bed: &Bed) {
    let own: Api<Drive> = Api::all(bed.agent("n1").await);
    let name = names::drive_name("n1", "m", "S1", 1);
    own.create(&PostParams::default(), &drive(&name, "n1"))
        .await
        .unwrap();
    let blank = json!({
        "identity": {"model": "m", "serial": "S1", "namespaceID": 1, "transport": "Pcie", "devicePath": "/dev/x"},
        "verdict": "Stranded", "phase": "Available", "size": "1Ti", "logicalBlockBytes": 512, "peerAddress": "127.0.0.1:7420",
    });
    let (params, patch) = status("Drive", &name, blank);
    own.patch_status(&name, &params, &patch).await.unwrap();
    let drives: Api<Drive> = Api::all(bed.admin());
    within("the drive is in the pool", || async {
        drives.get(&name).await.unwrap().spec.pool.as_deref() == Some("rack")
    })
    .await;
}

async fn an_upgrade_keeps_what_the_operator_wrote(bed: &Bed) {
    let before = bed.bundles().await;
    assert!(before.iter().all(|bundle| !bundle.is_empty()), "{before:?}");
    let key = bed.secret("strand-peer-key", "key").await;
    assert_eq!(key.len(), 64);
    bed.helm(&[
        "upgrade",
        "strand",
        &bed.chart(),
        "-n",
        "strand-system",
        "--set",
        "node.arenaMiB=512",
    ]);
    assert_eq!(bed.secret("strand-peer-key", "key").await, key);
    within("the API server trusts the operator", || async {
        bed.bundles().await == before
    })
    .await;
}
