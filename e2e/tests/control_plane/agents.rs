//! What the chart's policies let agents write about legs and volumes, and what not. No operator runs meanwhile: it would write there, too.

use crate::bed::{Bed, within};
use crate::{object, refused, status};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use strand_api::{ArrayStatus, LegPhase, PoolLeg, PoolVolume, names};

/// The API server takes a moment to see new policies.
async fn in_force<T>(words: &str, attempt: impl AsyncFn() -> kube::Result<T>) {
    within(&format!("it is refused: {words}"), || async {
        matches!(attempt().await, Err(kube::Error::Api(status)) if status.message.contains(words))
    })
    .await;
}

fn leg(name: &str, node: &str, orphaned: bool) -> PoolLeg {
    let spec = json!({
        "volume": "v", "nodeName": node, "drive": format!("{node}-0123456789"), "index": 0, "size": "1Gi",
        "uuid": "6d1b4a52-0d0b-4f0e-9c55-0a3f6f4e7a01", "orphaned": orphaned,
    });
    object(
        json!({"apiVersion": "strand.dev/v1alpha1", "kind": "PoolLeg", "metadata": {"name": name}, "spec": spec}),
    )
}

async fn report(legs: &Api<PoolLeg>, name: &str) -> kube::Result<PoolLeg> {
    let (params, patch) = status(
        "PoolLeg",
        name,
        json!({"phase": "Orphaned", "size": "1Gi", "observedGeneration": 1}),
    );
    legs.patch_status(name, &params, &patch).await
}

pub async fn tell_of_their_own_legs(bed: &Bed) {
    let admin: Api<PoolLeg> = Api::all(bed.admin());
    let own: Api<PoolLeg> = Api::all(bed.agent("n1").await);
    let nameless: Api<PoolLeg> = Api::all(bed.token("strand-node", None).await);
    let create = PostParams {
        field_manager: Some(names::AGENT_MANAGER.into()),
        ..PostParams::default()
    };
    let dry = PostParams {
        dry_run: true,
        ..create.clone()
    };
    in_force("names no node", async || {
        nameless.create(&dry, &leg("found", "n1", true)).await
    })
    .await;

    own.create(&create, &leg("found", "n1", true))
        .await
        .unwrap();
    // As the operator places them.
    for (name, node) in [("placed", "n1"), ("elsewhere", "n2")] {
        admin
            .create(&PostParams::default(), &leg(name, node, false))
            .await
            .unwrap();
    }
    for name in ["found", "placed"] {
        let told = report(&own, name).await.unwrap().status.unwrap();
        assert_eq!(told.phase, Some(LegPhase::Orphaned));
        refused(report(&nameless, name).await, "names no node");
    }
    let theirs = "the agent of node n1 may not write about node n2";
    refused(
        own.create(&create, &leg("theirs", "n2", true)).await,
        theirs,
    );
    refused(report(&own, "elsewhere").await, theirs);
    refused(
        own.create(&create, &leg("made", "n1", false)).await,
        "the operator places legs",
    );

    for name in ["found", "placed", "elsewhere"] {
        admin.delete(name, &DeleteParams::default()).await.unwrap();
    }
}

/// As the agent of the node writes it that has the volume attached.
fn array(node: &str) -> Value {
    let leg = json!({
        "uuid": "6d1b4a52-0d0b-4f0e-9c55-0a3f6f4e7a01", "holding": "Behind", "since": "2025-01-01T00:00:00Z", "percent": 60,
    });
    json!(object::<ArrayStatus>(
        json!({"node": node, "generation": 1, "legs": [leg]})
    ))
}

async fn tell(volumes: &Api<PoolVolume>, said: Value) -> kube::Result<PoolVolume> {
    let (params, patch) = status("PoolVolume", "v", said);
    volumes.patch_status("v", &params, &patch).await
}

fn condition(type_: &str, status: &str) -> Value {
    json!([{"type": type_, "status": status, "reason": "R", "message": "", "lastTransitionTime": "2025-01-01T00:00:00Z"}])
}

pub async fn tell_of_arrays_that_they_have_attached(bed: &Bed) {
    let unattached = "a volume that its own node has attached";
    let admin: Api<PoolVolume> = Api::all(bed.admin());
    let own: Api<PoolVolume> = Api::all(bed.agent("n1").await);
    let other: Api<PoolVolume> = Api::all(bed.agent("n2").await);
    let nameless: Api<PoolVolume> = Api::all(bed.token("strand-node", None).await);
    let volume: PoolVolume = object(json!({
        "apiVersion": "strand.dev/v1alpha1", "kind": "PoolVolume", "metadata": {"name": "v"},
        "spec": {"pool": "rack", "size": "1Gi", "redundancy": "mirror", "volumeMode": "Block"},
    }));
    admin.create(&PostParams::default(), &volume).await.unwrap();
    in_force(unattached, async || {
        let (params, patch) = status("PoolVolume", "v", json!({"array": array("n1")}));
        own.patch_status("v", &params.dry_run(), &patch).await
    })
    .await;
    let attach = async |node: &str| {
        let (_, patch) = status(
            "PoolVolume",
            "v",
            json!({
                "phase": "Ready", "size": "1Gi", "attachmentGeneration": 1, "observedGeneration": 1,
                "attachments": [{"node": node, "generation": 1}], "conditions": condition("Ready", "True"),
            }),
        );
        let params = PatchParams::apply(names::OPERATOR_MANAGER).force();
        admin.patch_status("v", &params, &patch).await.unwrap();
    };

    attach("n2").await;
    refused(tell(&own, json!({"array": array("n1")})).await, unattached);
    refused(tell(&own, json!({"array": array("n2")})).await, unattached);
    let claimed = json!({"array": array("n1"), "attachments": [{"node": "n1", "generation": 2}]});
    refused(tell(&own, claimed).await, "told by the operator");
    tell(&other, json!({"array": array("n2")})).await.unwrap();

    // What another node has told before is taken over.
    attach("n1").await;
    let told = tell(&own, json!({"array": array("n1")})).await.unwrap();
    let told = told.status.unwrap();
    assert_eq!(json!(told.array), array("n1"));
    assert_eq!(told.attachments.len(), 1);
    let stopped: ArrayStatus = object(json!({"node": "n1", "generation": 1, "stopped": true}));
    tell(&own, json!({"array": stopped})).await.unwrap();
    for agent in [&own, &other, &nameless] {
        refused(tell(agent, json!({"array": array("n2")})).await, unattached);
    }
    for agent in [&other, &nameless] {
        refused(tell(agent, json!({"array": array("n1")})).await, unattached);
    }
    for (field, value) in [
        ("attachments", json!([{"node": "n1", "generation": 2}])),
        ("attachments", json!([{"node": "n2", "generation": 2}])),
        ("phase", json!("Failed")),
        ("conditions", condition("Ready", "False")),
        ("conditions", condition("Degraded", "True")),
        ("size", json!("2Gi")),
        ("attachmentGeneration", json!(2)),
        ("observedGeneration", json!(2)),
    ] {
        let said = json!({"array": array("n1"), field: value});
        refused(tell(&own, said).await, "told by the operator");
        // Nor is it taken away; of attachments, none is left that would let it tell anything.
        let words = match field {
            "attachments" => unattached,
            _ => "told by the operator",
        };
        let gone = Patch::Merge(json!({"status": {field: null}}));
        let gone = own.patch_status("v", &PatchParams::default(), &gone).await;
        refused(gone, words);
    }
    admin.delete("v", &DeleteParams::default()).await.unwrap();
}
