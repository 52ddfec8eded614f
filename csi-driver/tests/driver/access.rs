//! A pool that is granted: volumes of it are for claims of namespaces with a grant.

use kube::Api;
use kube::api::DeleteParams;
use strand_api::PoolGrant;
use strand_csi::v1::volume_content_source::{Type, VolumeSource};
use strand_csi::v1::*;
use tonic::Code;

use crate::bed::{Bed, POOL, bytes, grant, grant_the_pool, writer};
use crate::doors::ID;
use crate::scratch::scratch;
use crate::volumes::{create, made, stage};

/// As the provisioner asks for a claim of a namespace; without one, as whoever has no claims does.
fn claim(name: &str, namespace: Option<&str>) -> CreateVolumeRequest {
    let pair = |namespace: &str| {
        let key = "csi.storage.k8s.io/pvc/namespace";
        (key.to_owned(), namespace.to_owned())
    };
    CreateVolumeRequest {
        name: name.into(),
        capacity_range: Some(bytes(64 << 20)),
        volume_capabilities: vec![writer("ext4")],
        parameters: namespace.map(pair).into_iter().collect(),
        ..CreateVolumeRequest::default()
    }
}

async fn refused(bed: &Bed, request: CreateVolumeRequest) -> (Code, String) {
    let refused = bed.controller().create_volume(request).await.unwrap_err();
    (refused.code(), refused.message().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_of_a_namespace_without_a_grant_is_refused_in_words_and_made_once_it_has_one() {
    let bed = Bed::new().await;
    let before = create(&bed, "before", writer("ext4"), 64 << 20).await;
    grant_the_pool(&bed.client).await;
    let (code, words) = refused(&bed, claim("pvc-1", Some("team-a"))).await;
    assert_eq!(code, Code::PermissionDenied);
    assert_eq!(
        words,
        format!(
            "namespace team-a may not use MemoryPool {POOL}, which is for namespaces that it is granted to: ask an administrator for a PoolGrant named {POOL}.team-a"
        )
    );
    // A copy is a volume like any other; so is one that names its pool.
    let copy = CreateVolumeRequest {
        volume_content_source: Some(VolumeContentSource {
            r#type: Some(Type::Volume(VolumeSource {
                volume_id: before.volume_id.clone(),
            })),
        }),
        ..claim("pvc-2", Some("team-a"))
    };
    assert_eq!(refused(&bed, copy.clone()).await.0, Code::PermissionDenied);
    let mut named = claim("pvc-3", Some("team-a"));
    named.parameters.insert("pool".into(), POOL.into());
    assert_eq!(refused(&bed, named).await.0, Code::PermissionDenied);
    let (code, words) = refused(&bed, claim("pvc-4", None)).await;
    assert_eq!(code, Code::InvalidArgument);
    assert!(words.contains("--extra-create-metadata"), "{words}");
    assert_eq!(bed.objects().await.0, 1, "nothing was begun");

    // What was there stays usable.
    stage(&bed, &before, writer("ext4")).await;
    let snapshot = CreateSnapshotRequest {
        name: "snapshot".into(),
        source_volume_id: before.volume_id.clone(),
        ..CreateSnapshotRequest::default()
    };
    bed.controller().create_snapshot(snapshot).await.unwrap();

    grant(&bed.client, "team-a").await;
    let made_now = made(&bed, claim("pvc-1", Some("team-a"))).await;
    made(&bed, copy).await;
    let (code, _) = refused(&bed, claim("pvc-5", Some("team-b"))).await;
    assert_eq!(code, Code::PermissionDenied);

    // What was made stays: the provisioner asks again where it has not heard the answer.
    let grants = Api::<PoolGrant>::all(bed.client.clone());
    let name = format!("{POOL}.team-a");
    grants
        .delete(&name, &DeleteParams::default())
        .await
        .unwrap();
    assert_eq!(made(&bed, claim("pvc-1", Some("team-a"))).await, made_now);
    let (code, _) = refused(&bed, claim("pvc-6", Some("team-a"))).await;
    assert_eq!(code, Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_hears_whose_scratch_space_it_is_and_its_refusal_reaches_the_pod() {
    let bed = Bed::new().await;
    grant_the_pool(&bed.client).await;
    let publish = scratch(&bed, "400Mi");
    let refused = bed.node().node_publish_volume(publish.clone()).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let words = format!("a PoolGrant named {POOL}.team-a");
    assert!(refused.message().contains(&words), "{refused}");
    assert_eq!(bed.left(), Vec::<String>::new());
    grant(&bed.client, "team-a").await;
    bed.node().node_publish_volume(publish).await.unwrap();
    assert_eq!(bed.stand_in.scratch()[ID]["namespace"], "team-a");
}
