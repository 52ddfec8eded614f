//! The CSI driver's node part on machines with real drives and all privileges.

use std::time::Duration;

use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use strand_api::{AttachmentPhase, PoolVolume};
use strand_rack_bed::csi::Access;
use strand_rack_bed::{Cluster, CsiNode, Guest, wait};

use super::remote::bed::{SOON, pool_on, volumes};

const MIB: i64 = 1 << 20;
/// What is written into a volume and deleted again, in MiB.
const BULK: u64 = 192;

/// Makes a volume and waits until it is granted to a machine; the generation.
pub async fn attach(cluster: &Cluster, guest: &Guest, name: &str, mib: i64) -> i64 {
    let volume = serde_json::from_value(json!({
        "apiVersion": "strand.dev/v1alpha1", "kind": "PoolVolume", "metadata": {"name": name},
        "spec": {
            "pool": "default", "size": format!("{mib}Mi"), "volumeMode": "Filesystem",
            "attachTo": [{"node": guest.name(), "readOnly": false}],
        },
    }));
    let api = volumes(cluster);
    api.create(&PostParams::default(), &volume.unwrap())
        .await
        .unwrap();
    wait::until(&format!("{name} is granted"), SOON, || async {
        let volume: PoolVolume = api.get(name).await.map_err(|e| e.to_string())?;
        let mut attachments = volume.status.iter().flat_map(|status| &status.attachments);
        let granted = attachments.find(|a| a.phase == AttachmentPhase::Granted);
        granted
            .map(|granted| granted.generation)
            .ok_or_else(|| json!(volume.status).to_string())
    })
    .await
    .unwrap()
}

/// Wishes a volume larger, and has its file system grow as soon as its device has.
async fn grow(cluster: &Cluster, node: &CsiNode, name: &str, mib: i64) {
    let patch = Patch::Merge(json!({"spec": {"size": format!("{mib}Mi")}}));
    volumes(cluster)
        .patch(name, &PatchParams::default(), &patch)
        .await
        .unwrap();
    wait::until(&format!("{name} has grown"), SOON, || async {
        let grown = node.expand(name, mib * MIB).await;
        grown.map_err(|error| format!("{error:#}"))
    })
    .await
    .unwrap();
}

/// Size of the file system that a pod sees, in MiB.
async fn size(guest: &Guest, name: &str) -> i64 {
    let script = format!("df -m {} | awk 'END {{print $2}}'", CsiNode::at(name));
    guest.sh(&script).await.unwrap().parse().unwrap()
}

/// ext4 and XFS volumes, staged and published by the CSI driver, grow while they are mounted and keep their bytes. What is deleted in
/// them and trimmed is deallocated on the drive. Mounted with a label of SELinux, every file in them has that label.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn volumes_grow_under_their_mounts_carry_labels_and_give_the_drive_its_blocks_back() {
    let (rack, cluster) = pool_on("csi", 1, 3 << 30, json!({})).await;
    let guest = rack.guest(0);
    let node = cluster.start_csi(guest, "default").await.unwrap();
    // Without its configuration, mount(8) takes SELinux for switched off and leaves labels out.
    let policy = "mount -t selinuxfs selinuxfs /sys/fs/selinux && cat /etc/selinux.policy >/sys/fs/selinux/load &&
                  mkdir -p /etc/selinux && echo SELINUX=permissive >/etc/selinux/config";
    guest.sh(policy).await.unwrap();
    // As kubelet writes it.
    let label = "system_u:object_r:container_file_t:s0:c1,c2";
    let context = format!("context=\"{label}\"");

    for (name, kind) in [("ext4", "ext4"), ("xfs", "xfs")] {
        let at = CsiNode::at(name);
        let generation = attach(&cluster, guest, name, 384).await;
        node.publish(name, generation, Access::Files(kind, &[&context]))
            .await
            .unwrap();
        let made = format!(
            "grep -q ' {at} {kind} ' /proc/mounts && dd if=/dev/urandom of={at}/kept bs=1M count=8 conv=fsync 2>/dev/null && sha256sum {at}/kept"
        );
        let sum = guest.sh(&made).await.unwrap();
        let labelled = format!(
            "getfattr --only-values --absolute-names -n security.selinux {at}/kept | tr -d '\\0'"
        );
        assert_eq!(guest.sh(&labelled).await.unwrap(), label);

        let before = size(guest, name).await;
        grow(&cluster, &node, name, 640).await;
        let after = size(guest, name).await;
        assert!(
            after - before > 200,
            "{kind}: {before} MiB, then {after} MiB"
        );

        let drive = guest.drive("G1D0").unwrap();
        let bulk = format!(
            "dd if=/dev/urandom of={at}/bulk bs=1M count={BULK} conv=fsync 2>/dev/null; sync"
        );
        guest.sh(&bulk).await.unwrap();
        let full = drive.allocated().unwrap();
        // A pod's or an administrator's trim of the volume; then that which the agent does once a day.
        let trim = format!("rm {at}/bulk && sync && fstrim {at} && fstrim /run/volumes/*");
        guest.sh(&trim).await.unwrap();
        wait::until(
            "the drive has its blocks back",
            Duration::from_secs(60),
            || async {
                let left = drive.allocated().map_err(|e| e.to_string())?;
                match full.saturating_sub(left) >= (BULK << 20) * 9 / 10 {
                    true => Ok(()),
                    false => Err(format!("{full} bytes allocated, now {left}")),
                }
            },
        )
        .await
        .unwrap();

        let again = "echo 3 >/proc/sys/vm/drop_caches";
        guest.sh(again).await.unwrap();
        let kept = guest.sh(&format!("sha256sum {at}/kept")).await.unwrap();
        assert_eq!(kept, sum);
        node.take_away(name).await.unwrap();
        let left = guest.sh("grep -c /run/kubelet /proc/mounts; true").await;
        assert_eq!(left.unwrap(), "0");
    }
}
