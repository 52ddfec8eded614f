//! How a volume may be used: mount options, SELinux' among them, and readers only.

use std::fs;
use std::io::Write;

use strand_csi::v1::volume_capability::AccessType;
use strand_csi::v1::volume_capability::access_mode::Mode;
use strand_csi::v1::*;
use tonic::Code;

use crate::bed::{Bed, NODE, capability, writer};
use crate::volumes::{create, end, nothing_left, publish, publish_request, stage, unpublish};

/// With mount options, as a StorageClass or, for SELinux, the kubelet gives them.
fn with_options(fs: &str, options: &[&str]) -> VolumeCapability {
    let mut capability = writer(fs);
    if let Some(AccessType::Mount(mount)) = &mut capability.access_type {
        mount.mount_flags = options.iter().map(|option| (*option).to_owned()).collect();
    }
    capability
}

/// Options of the mount at a path, as the kernel tells them.
fn options_at(path: &str) -> String {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table
        .lines()
        .rfind(|line| line.split(' ').nth(4) == Some(path));
    line.unwrap_or_else(|| panic!("nothing is mounted at {path}"))
        .to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn mount_options_are_the_file_systems_and_nothing_else() {
    let bed = Bed::new().await;
    // A kernel without SELinux has no contexts: mount(8) leaves the option out there.
    let label = "context=\"system_u:object_r:container_file_t:s0:c1,c2\"";
    for fs in ["xfs", "ext4"] {
        let wanted = with_options(fs, &["noatime", label]);
        let volume = create(&bed, fs, wanted.clone(), 400 << 20).await;
        let id = &volume.volume_id;
        stage(&bed, &volume, wanted.clone()).await;
        publish(&bed, id, fs, wanted).await;
        for path in [bed.staging(id), bed.target(fs)] {
            assert!(
                options_at(&path).contains("noatime"),
                "{}",
                options_at(&path)
            );
        }
        fs::write(format!("{}/file", bed.target(fs)), "bytes").unwrap();
        unpublish(&bed, id, fs).await;
        end(&bed, id).await;
    }
    let volume = create(&bed, "v", writer("ext4"), 64 << 20).await;
    let request = ControllerPublishVolumeRequest {
        volume_id: volume.volume_id.clone(),
        node_id: NODE.into(),
        volume_capability: Some(writer("ext4")),
        ..ControllerPublishVolumeRequest::default()
    };
    let attached = bed.controller().controller_publish_volume(request).await;
    let context = attached.unwrap().into_inner().publish_context;
    for option in ["nonsense", "remount", "loop", "noatime,bind"] {
        let capability = with_options("ext4", &[option]);
        let request = crate::volumes::stage_request(&bed, &volume, capability, &context);
        let refused = bed.node().node_stage_volume(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    }
    assert_eq!(bed.mounts(), Vec::<String>::new());
    end(&bed, &volume.volume_id).await;
    nothing_left(&bed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_share_a_volume_that_none_of_them_can_change() {
    let bed = Bed::new().await;
    for fs in ["xfs", "ext4", ""] {
        let name = format!("v{fs}");
        let volume = create(&bed, &name, writer(fs), 400 << 20).await;
        let id = &volume.volume_id;
        let file = |pod: &str| match fs {
            "" => bed.target(pod),
            _ => format!("{}/file", bed.target(pod)),
        };
        stage(&bed, &volume, writer(fs)).await;
        publish(&bed, id, "writer", writer(fs)).await;
        fs::write(file("writer"), "bytes").unwrap();
        unpublish(&bed, id, "writer").await;
        detach(&bed, id).await;

        let readers = capability(fs, Mode::MultiNodeReaderOnly);
        stage(&bed, &volume, readers.clone()).await;
        for pod in ["a", "b"] {
            publish(&bed, id, pod, readers.clone()).await;
            assert_eq!(fs::read(file(pod)).unwrap()[..5], *b"bytes");
            let open = fs::File::options().write(true).open(file(pod));
            let denied = open.and_then(|mut file| {
                file.write_all(b"other")?;
                file.sync_all()
            });
            denied.expect_err("nobody writes");
            assert_eq!(fs::read(file(pod)).unwrap()[..5], *b"bytes");
        }
        let stats = NodeGetVolumeStatsRequest {
            volume_id: id.clone(),
            volume_path: bed.target("a"),
            ..NodeGetVolumeStatsRequest::default()
        };
        let stats = bed.node().node_get_volume_stats(stats).await.unwrap();
        assert!(!stats.into_inner().volume_condition.unwrap().abnormal);
        // Whoever wants to write is told that others read.
        let request = ControllerPublishVolumeRequest {
            volume_id: id.clone(),
            node_id: NODE.into(),
            volume_capability: Some(writer(fs)),
            ..ControllerPublishVolumeRequest::default()
        };
        let refused = bed.controller().controller_publish_volume(request).await;
        assert_eq!(refused.unwrap_err().code(), Code::AlreadyExists);
        let request = publish_request(&bed, id, "c", writer(fs));
        match bed.node().node_publish_volume(request).await {
            Ok(_) => {
                assert!(
                    fs::write(file("c"), "x").is_err(),
                    "its device takes no writes"
                );
                unpublish(&bed, id, "c").await;
            }
            Err(refused) => assert_eq!(refused.code(), Code::AlreadyExists, "{refused}"),
        }
        for pod in ["a", "b"] {
            unpublish(&bed, id, pod).await;
        }
        end(&bed, id).await;
    }
    // Each call is a line with its volume and how long it took.
    let log = bed.log();
    let told = |method: &str| {
        let of = |line: &&str| {
            line.contains(method) && line.contains("vxfs") && line.contains("milliseconds")
        };
        log.lines().find(of).is_some()
    };
    for method in [
        "CreateVolume",
        "ControllerPublishVolume",
        "NodeStageVolume",
        "NodePublishVolume",
        "NodeUnpublishVolume",
        "DeleteVolume",
    ] {
        assert!(told(method), "{method}");
    }
    nothing_left(&bed).await;
}

/// A path that pods write to does not become one that they only read from, nor the other way; a volume can have one of each. What a
/// driver that was killed had begun is no hindrance.
#[tokio::test(flavor = "multi_thread")]
async fn a_path_is_published_in_one_way() {
    let bed = Bed::new().await;
    let volume = create(&bed, "v", writer("xfs"), 400 << 20).await;
    let id = &volume.volume_id;
    stage(&bed, &volume, writer("xfs")).await;
    let request = |pod: &str, readonly: bool| NodePublishVolumeRequest {
        readonly,
        ..publish_request(&bed, id, pod, writer("xfs"))
    };
    // A driver that was killed had made the mount, but not yet for reading only.
    let aside = bed.path().join("publishing").join(id);
    fs::create_dir_all(&aside).unwrap();
    rustix::mount::mount_bind(bed.staging(id), &aside).unwrap();
    for (pod, readonly) in [("writes", false), ("reads", true)] {
        for _ in 0..2 {
            let published = bed.node().node_publish_volume(request(pod, readonly)).await;
            published.unwrap();
        }
        let other = bed
            .node()
            .node_publish_volume(request(pod, !readonly))
            .await;
        assert_eq!(other.unwrap_err().code(), Code::AlreadyExists);
        let written = fs::write(format!("{}/file", bed.target(pod)), "bytes");
        assert_eq!(written.is_err(), readonly, "{written:?}");
    }
    assert!(!aside.exists(), "what was left is gone");
    for pod in ["writes", "reads"] {
        unpublish(&bed, id, pod).await;
    }
    end(&bed, id).await;
    nothing_left(&bed).await;
}

/// Unstages and detaches it.
async fn detach(bed: &Bed, id: &str) {
    let request = NodeUnstageVolumeRequest {
        volume_id: id.into(),
        staging_target_path: bed.staging(id),
    };
    bed.node().node_unstage_volume(request).await.unwrap();
    let request = ControllerUnpublishVolumeRequest {
        volume_id: id.into(),
        node_id: NODE.into(),
        ..ControllerUnpublishVolumeRequest::default()
    };
    let detached = bed.controller().controller_unpublish_volume(request).await;
    detached.unwrap();
}
