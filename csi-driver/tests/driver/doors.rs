//! Inline volumes: doors to context memory.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use strand_csi::v1::NodePublishVolumeRequest;
use tonic::Code;

use crate::bed::{Bed, POOL, until, writer};
use crate::volumes::{publish_request, unpublish};

pub const ID: &str = "csi-0a5d1de62b0c4c2d9d2e5a1d3f0b7c110a5d1de62b0c4c2d9d2e5a1d3f0b7c11";

fn request(bed: &Bed, kind: &str, pool: &str) -> NodePublishVolumeRequest {
    let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
    NodePublishVolumeRequest {
        staging_target_path: String::new(),
        volume_context: HashMap::from([
            pair("csi.storage.k8s.io/ephemeral", "true"),
            pair("csi.storage.k8s.io/pod.namespace", "team-a"),
            pair(
                "csi.storage.k8s.io/pod.uid",
                "0a5d1de6-2b0c-4c2d-9d2e-5a1d3f0b7c11",
            ),
            pair("kind", kind),
            pair("pool", pool),
        ]),
        ..publish_request(bed, ID, "pod", writer(""))
    }
}

pub fn mount(bed: &Bed, kind: &str, pool: &str) -> NodePublishVolumeRequest {
    let mut request = request(bed, kind, pool);
    // The kubelet asks for a mount without a file system's name.
    request.volume_capability = Some(writer("xfs"));
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_ends_without_the_agent_and_its_door_is_closed_later() {
    let mut bed = Bed::new().await;
    bed.node()
        .node_publish_volume(mount(&bed, "kv", POOL))
        .await
        .unwrap();
    bed.node()
        .node_publish_volume(mount(&bed, "kv", POOL))
        .await
        .unwrap();
    let inside = Path::new(&bed.target("pod")).join("door.sock");
    assert!(inside.exists());
    let door = bed.stand_in.doors()[ID].clone();
    assert_eq!(
        (&door["namespace"], &door["pool"]),
        (&"team-a".into(), &POOL.into())
    );
    assert!(fs::write(Path::new(&bed.target("pod")).join("x"), "x").is_err());

    // A restarted agent binds again in the same directory, and the pod sees it.
    let directory = door["directory"].as_str().unwrap().to_owned();
    fs::remove_file(Path::new(&directory).join("door.sock")).unwrap();
    assert!(!inside.exists());
    drop(std::os::unix::net::UnixListener::bind(Path::new(&directory).join("door.sock")).unwrap());
    assert!(inside.exists());

    bed.stand_in.stop_agent();
    unpublish(&bed, ID, "pod").await;
    unpublish(&bed, ID, "pod").await;
    assert_eq!(bed.mounts(), Vec::<String>::new());
    assert!(bed.stand_in.doors().contains_key(ID));
    bed.kill_driver();
    bed.start_driver().await;
    bed.stand_in.start_agent();
    until("the door is closed", async || {
        let left = fs::read_dir(bed.path().join("doors")).unwrap().count();
        bed.stand_in.doors().is_empty() && left == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_inline_is_refused_and_leaves_nothing() {
    let bed = Bed::new().await;
    let mut node = bed.node();
    // A door that was refused is being closed for a moment, as another operation on its volume.
    let code = async |node: &mut strand_csi::v1::node_client::NodeClient<_>,
                      request: NodePublishVolumeRequest| {
        loop {
            let refused = node.node_publish_volume(request.clone()).await.unwrap_err();
            if refused.code() != Code::Aborted {
                return refused.code();
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    assert_eq!(
        code(&mut node, mount(&bed, "scratch", POOL)).await,
        Code::InvalidArgument
    );
    assert_eq!(
        code(&mut node, mount(&bed, "", POOL)).await,
        Code::InvalidArgument
    );
    assert_eq!(
        code(&mut node, mount(&bed, "kv", "../x")).await,
        Code::InvalidArgument
    );
    assert_eq!(
        code(&mut node, mount(&bed, "kv", "other")).await,
        Code::NotFound
    );
    assert_eq!(
        code(&mut node, request(&bed, "kv", POOL)).await,
        Code::InvalidArgument
    );
    let mut stranger = mount(&bed, "kv", POOL);
    stranger
        .volume_context
        .remove("csi.storage.k8s.io/pod.namespace");
    assert_eq!(code(&mut node, stranger).await, Code::InvalidArgument);
    until("nothing is left", async || {
        fs::read_dir(bed.path().join("doors")).is_ok_and(|left| left.count() == 0)
    })
    .await;
    assert!(bed.stand_in.doors().is_empty());
    assert_eq!(bed.left(), Vec::<String>::new());
}
