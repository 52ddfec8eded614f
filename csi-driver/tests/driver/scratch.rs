//! Inline volumes: scratch space. The agent's part of it is tested with the agent.

use std::fs;
use std::path::Path;

use strand_csi::v1::{NodeGetVolumeStatsRequest, NodePublishVolumeRequest};
use tonic::Code;

use crate::bed::{Bed, POOL, until};
use crate::doors::{ID, mount};
use crate::volumes::unpublish;

pub fn scratch(bed: &Bed, size: &str) -> NodePublishVolumeRequest {
    let mut request = mount(bed, "scratch", POOL);
    request.volume_context.insert("size".into(), size.into());
    request
}

async fn given_back(bed: &Bed) {
    until("it is given back", async || {
        bed.stand_in.scratch().is_empty() && bed.left().is_empty()
    })
    .await;
    assert_eq!(bed.stand_in.files(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_has_its_space_until_it_ends_whatever_is_killed() {
    let mut bed = Bed::new().await;
    let publish = scratch(&bed, "400Mi");
    for _ in 0..2 {
        bed.node()
            .node_publish_volume(publish.clone())
            .await
            .unwrap();
    }
    let target = bed.target("pod");
    let file = Path::new(&target).join("file");
    fs::write(&file, "of the pod").unwrap();
    let asked = bed.stand_in.scratch()[ID].clone();
    assert_eq!(
        (&asked["pool"], &asked["size"]),
        (&POOL.into(), &(400 << 20).into())
    );
    let stats = NodeGetVolumeStatsRequest {
        volume_id: ID.into(),
        volume_path: target.clone(),
        ..NodeGetVolumeStatsRequest::default()
    };
    let stats = bed
        .node()
        .node_get_volume_stats(stats)
        .await
        .unwrap()
        .into_inner();
    assert!(stats.usage[0].total > 300 << 20);

    // A driver that is killed leaves it to the pod; so does a machine that starts anew, where only the directory is left.
    bed.kill_driver();
    assert!(
        std::process::Command::new("umount")
            .arg(&target)
            .status()
            .unwrap()
            .success()
    );
    bed.start_driver().await;
    bed.node()
        .node_publish_volume(publish.clone())
        .await
        .unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "of the pod");

    // It ends without the agent, and is given back by the next driver.
    bed.stand_in.stop_agent();
    unpublish(&bed, ID, "pod").await;
    unpublish(&bed, ID, "pod").await;
    assert_eq!(bed.mounts(), Vec::<String>::new());
    assert!(bed.stand_in.scratch().contains_key(ID));
    bed.kill_driver();
    bed.start_driver().await;
    bed.stand_in.start_agent();
    given_back(&bed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_room_is_refused_and_leaves_nothing() {
    let bed = Bed::new().await;
    let code = async |size: &str| {
        let refused = bed.node().node_publish_volume(scratch(&bed, size)).await;
        refused.unwrap_err().code()
    };
    assert_eq!(code("200Gi").await, Code::ResourceExhausted);
    assert_eq!(code("much").await, Code::InvalidArgument);
    assert!(!Path::new(&bed.target("pod")).exists());
    let mut reader = scratch(&bed, "400Mi");
    reader.readonly = true;
    let refused = bed.node().node_publish_volume(reader).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);

    // A pod that vanishes without a call takes its directory with it.
    let kept = scratch(&bed, "400Mi");
    bed.node().node_publish_volume(kept).await.unwrap();
    let target = bed.target("pod");
    assert!(
        std::process::Command::new("umount")
            .arg(&target)
            .status()
            .unwrap()
            .success()
    );
    fs::remove_dir(&target).unwrap();
    unpublish(&bed, "another", "elsewhere").await;
    given_back(&bed).await;
}
