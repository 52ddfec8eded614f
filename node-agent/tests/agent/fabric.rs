//! Volumes across nodes where the kernel has no part in it: what is missing is said, and volumes of the node itself work. What it does where
//! the kernel has everything is shown on virtual machines (`e2e/rack`). Needs root.

use std::path::Path;

use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use node_agent::volumes::AttachError;
use serde_json::json;
use strand_api::{LegPhase, PoolLeg, PoolVolume, condition, names};

use crate::bed::{Cluster, NODE, until};
use crate::volumes::{
    Ground, agent_with, amend, ask, phase, reason, request, spec, taken, volumes, when,
};

fn kernel_has(module: &str) -> bool {
    Path::new("/sys/module").join(module).exists()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leg_that_cannot_be_exported_says_what_is_missing_and_works_here() {
    if kernel_has("nvmet") {
        return;
    }
    let (cluster, ground) = (Cluster::start().await, Ground::new());
    cluster.pool().await;
    let agent = agent_with(&cluster, &ground, Path::new("/sys/fs/cgroup"));
    let drive = ground.plug("S1");
    taken(&cluster, &drive).await;
    ask(&cluster, "v-0", spec("v", &drive, 16)).await;
    phase(&cluster, "v-0", LegPhase::Ready).await;

    let exports = json!([{"generation": 1, "node": "other"}]);
    amend(&cluster, "v-0", json!({"exports": exports})).await;
    let told = when(&cluster, "v-0", "told why it is not exported", |s| {
        reason(s, names::EXPORTED).is_some()
    })
    .await;
    assert_eq!(reason(&told, names::EXPORTED).as_deref(), Some("NoModule"));
    let words = condition::find(&told.conditions, names::EXPORTED).unwrap();
    assert!(words.message.contains("modprobe nvmet"), "{words:?}");
    assert!(told.exports.is_empty() && told.phase == Some(LegPhase::Ready));

    amend(&cluster, "v-0", json!({"exports": null})).await;
    when(&cluster, "v-0", "at rest", |s| s.conditions.is_empty()).await;
    volumes(&agent).attach("v", request(2)).await.unwrap();
    // Lent it is not as long as somebody here has it.
    let exports = json!([{"generation": 3, "node": "other"}]);
    amend(&cluster, "v-0", json!({"exports": exports})).await;
    when(&cluster, "v-0", "not exported", |s| {
        reason(s, names::EXPORTED).is_some() && s.exports.is_empty()
    })
    .await;
    volumes(&agent).detach("v").await.unwrap();
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_of_another_node_is_refused_for_what_is_missing() {
    let (cluster, ground) = (Cluster::start().await, Ground::new());
    let agent = agent_with(&cluster, &ground, Path::new("/sys/fs/cgroup"));
    let client = &cluster.client;
    let uuid = "00000000-0000-4000-8000-000000000001";
    let (api, legs): (Api<PoolVolume>, Api<PoolLeg>) =
        (Api::all(client.clone()), Api::all(client.clone()));
    let volume = serde_json::from_value(json!({
        "metadata": {"name": "far"},
        "spec": {
            "pool": "default", "size": "16Mi", "volumeMode": "Block", "attachTo": [{"node": NODE}],
            "legs": [{"name": "far-0", "index": 0, "nodeName": "other", "drive": "other-d", "uuid": uuid}],
        },
    }));
    api.create(&PostParams::default(), &volume.unwrap())
        .await
        .unwrap();
    // At first the agent does not know its own drives.
    until("the volume is not granted", || async {
        let waits = volumes(&agent).attach("far", request(4)).await.unwrap_err();
        waits.to_string().contains("not granted").then_some(())
    })
    .await;

    let (params, apply) = (PatchParams::default(), Patch::Merge);
    let status = json!({"status": {"attachments": [{"node": NODE, "generation": 4}], "attachmentGeneration": 4}});
    api.patch_status("far", &params, &apply(status))
        .await
        .unwrap();
    let leg = serde_json::from_value(json!({
        "metadata": {"name": "far-0"},
        "spec": {
            "volume": "far", "nodeName": "other", "drive": "other-d", "index": 0, "size": "16Mi", "uuid": uuid,
            "exports": [{"generation": 4, "node": NODE, "insecure": true}],
        },
    }));
    legs.create(&PostParams::default(), &leg.unwrap())
        .await
        .unwrap();
    let waits = volumes(&agent).attach("far", request(4)).await.unwrap_err();
    assert!(waits.to_string().contains("not exported"), "{waits}");

    // Nobody listens there; it does not come to that here.
    let there = json!({"generation": 4, "address": "127.0.0.1", "port": 1});
    let status = json!({"status": {"phase": "Ready", "uuid": uuid, "exports": [there]}});
    legs.patch_status("far-0", &params, &apply(status))
        .await
        .unwrap();
    let refused = volumes(&agent).attach("far", request(4)).await.unwrap_err();
    let why = match kernel_has("nvme_fabrics") {
        true => "node other does not answer",
        false => "modprobe nvme-tcp",
    };
    assert!(refused.to_string().contains(why), "{refused}");
    // A late request of an attachment that is over gets what is granted now; one that is ahead waits.
    let ahead = volumes(&agent).attach("far", request(5)).await.unwrap_err();
    assert!(matches!(ahead, AttachError::NotYet { .. }), "{ahead}");
    let other = volumes(&agent).detach("../far").await.unwrap_err();
    assert!(matches!(other, AttachError::NotHere { .. }), "{other}");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leg_that_comes_from_another_node_waits_for_it_and_goes_when_it_is_not_wanted() {
    let (cluster, ground) = (Cluster::start().await, Ground::new());
    cluster.pool().await;
    let agent = agent_with(&cluster, &ground, Path::new("/sys/fs/cgroup"));
    let drive = ground.plug("S1");
    taken(&cluster, &drive).await;
    let uuid = "00000000-0000-4000-8000-000000000001";
    let mut copy = spec("v", &drive, 16);
    let of = json!({"uuid": uuid, "drive": "other-d", "nodeName": "other", "generation": 5, "rate": "10Mi"});
    copy.copy = Some(serde_json::from_value(of).unwrap());
    ask(&cluster, "v-0.1", copy).await;
    let why = |s: &strand_api::PoolLegStatus| {
        let told = condition::find(&s.conditions, names::READY);
        told.filter(|c| c.reason == names::SOURCE_AWAY)
            .map(|c| c.message.clone())
    };
    let waits = when(&cluster, "v-0.1", "waiting", |s| why(s).is_some()).await;
    assert_eq!(waits.phase, Some(LegPhase::Pending));
    assert!(why(&waits).unwrap().contains("node other does not export"));

    // As the agent of the other node would tell it; nobody listens there.
    let legs: Api<PoolLeg> = Api::all(cluster.client.clone());
    let export =
        json!({"generation": 5, "node": NODE, "readOnly": true, "copy": true, "insecure": true});
    let source = serde_json::from_value(json!({
        "metadata": {"name": "v-0"},
        "spec": {
            "volume": "v", "nodeName": "other", "drive": "other-d", "index": 0, "size": "16Mi", "uuid": uuid, "exports": [export],
        },
    }));
    legs.create(&PostParams::default(), &source.unwrap())
        .await
        .unwrap();
    let there = json!({"generation": 5, "address": "127.0.0.1", "port": 1});
    let status =
        Patch::Merge(json!({"status": {"phase": "Ready", "uuid": uuid, "exports": [there]}}));
    legs.patch_status("v-0", &PatchParams::default(), &status)
        .await
        .unwrap();
    let next = match kernel_has("nvme_fabrics") {
        true => "node other does not answer",
        false => "modprobe nvme-tcp",
    };
    when(&cluster, "v-0.1", "told what is missing", |s| {
        why(s).is_some_and(|why| why.contains(next))
    })
    .await;

    amend(&cluster, "v-0.1", json!({"deletionMark": true})).await;
    phase(&cluster, "v-0.1", LegPhase::Deleted).await;
    agent.stop().await;
}
