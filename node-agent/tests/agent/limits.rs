//! Limits on volumes' I/O, as their legs' objects say. Control groups are a directory that looks like them: what the kernel makes of it is
//! measured in `strand-volumes`. Needs root.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::json;
use strand_api::{IoLimits, LegPhase, names};

use crate::bed::{Cluster, until};
use crate::volumes::{
    Ground, agent_with, amend, ask, phase, reason, request, spec, taken, volumes, when,
};

fn limited(volume: &str, drive: &str) -> strand_api::PoolLegSpec {
    let mut spec = spec(volume, drive, 16);
    spec.limits = Some(IoLimits {
        iops: Some(100),
        bandwidth: None,
    });
    spec
}

/// What `io.max` says when it says it of this device: the directory keeps only the last line that was written.
async fn says(groups: &Path, device: &Path, limits: &str) {
    let number = fs::metadata(device).unwrap().rdev();
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    let line = format!("{major}:{minor} {limits}");
    let file = groups.join("kubepods.slice/io.max");
    until(&line, || async {
        (fs::read_to_string(&file).unwrap() == line).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_follow_their_object_and_go_with_the_attachment() {
    let (cluster, ground) = (Cluster::start().await, Ground::new());
    cluster.pool().await;
    let groups = ground.path("groups");
    fs::create_dir_all(groups.join("kubepods.slice")).unwrap();
    fs::write(groups.join("cgroup.controllers"), "cpu io").unwrap();
    fs::write(groups.join("kubepods.slice/io.max"), "").unwrap();
    let agent = agent_with(&cluster, &ground, &groups);
    let drive = ground.plug("S1");
    taken(&cluster, &drive).await;
    ask(&cluster, "v-0", limited("v", &drive)).await;
    phase(&cluster, "v-0", LegPhase::Ready).await;
    let attached = volumes(&agent).attach("v", request(1)).await.unwrap();
    says(
        &groups,
        &attached.device,
        "rbps=max wbps=max riops=100 wiops=100",
    )
    .await;

    let more = json!({"limits": {"iops": 200, "bandwidth": "1Mi"}});
    amend(&cluster, "v-0", more).await;
    let line = "rbps=1048576 wbps=1048576 riops=200 wiops=200";
    says(&groups, &attached.device, line).await;

    // Lost, whoever did that: the next agent has them there again.
    agent.stop().await;
    fs::write(groups.join("kubepods.slice/io.max"), "").unwrap();
    let agent = agent_with(&cluster, &ground, &groups);
    says(&groups, &attached.device, line).await;

    amend(&cluster, "v-0", json!({"limits": null})).await;
    let none = "rbps=max wbps=max riops=max wiops=max";
    says(&groups, &attached.device, none).await;
    amend(&cluster, "v-0", json!({"limits": {"iops": 300}})).await;
    let line = "rbps=max wbps=max riops=300 wiops=300";
    says(&groups, &attached.device, line).await;
    volumes(&agent).detach("v").await.unwrap();
    says(&groups, &attached.device, none).await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_this_node_cannot_limit_works_and_says_so() {
    let (cluster, ground) = (Cluster::start().await, Ground::new());
    cluster.pool().await;
    let groups = ground.path("groups");
    fs::create_dir_all(&groups).unwrap();
    let agent = agent_with(&cluster, &ground, &groups);
    let drive = ground.plug("S1");
    taken(&cluster, &drive).await;
    ask(&cluster, "v-0", limited("v", &drive)).await;
    phase(&cluster, "v-0", LegPhase::Ready).await;
    volumes(&agent).attach("v", request(1)).await.unwrap();
    let told = when(&cluster, "v-0", "told as not limited", |s| {
        reason(s, names::LIMITED).is_some()
    })
    .await;
    let told = strand_api::condition::find(&told.conditions, names::LIMITED).unwrap();
    assert_eq!(
        (told.status.as_str(), told.reason.as_str()),
        ("False", "NotEnforced")
    );
    assert!(told.message.contains("subtree_control"), "{}", told.message);
    let events: kube::Api<k8s_openapi::api::core::v1::Event> =
        kube::Api::default_namespaced(cluster.client.clone());
    until("an Event", || async {
        let events = events.list(&Default::default()).await.unwrap();
        let says = |reason: &str| reason == "LegNotLimited";
        let mut reasons = events.iter().filter_map(|event| event.reason.as_deref());
        reasons.any(says).then_some(())
    })
    .await;

    amend(&cluster, "v-0", json!({"limits": null})).await;
    when(&cluster, "v-0", "well", |s| s.conditions.is_empty()).await;
    volumes(&agent).detach("v").await.unwrap();
    agent.stop().await;
}
