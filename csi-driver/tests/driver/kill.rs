//! The driver is killed between any two steps; whoever comes next goes on.

use std::fs;

use crate::bed::{Bed, writer};
use crate::volumes::{create, end, nothing_left, publish, stage, stage_request, unpublish};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_driver_leaves_nothing_and_breaks_nothing() {
    for fs in ["xfs", "ext4", ""] {
        let mut bed = Bed::new().await;
        let volume = create(&bed, "v", writer(fs), 400 << 20).await;
        let id = volume.volume_id.clone();
        let context = stage(&bed, &volume, writer(fs)).await;
        bed.kill_driver();
        bed.start_driver().await;
        let again = stage_request(&bed, &volume, writer(fs), &context);
        bed.node()
            .node_stage_volume(again)
            .await
            .expect("staged already");
        publish(&bed, &id, "a", writer(fs)).await;
        let file = match fs {
            "" => bed.target("a"),
            _ => format!("{}/file", bed.target("a")),
        };
        fs::write(&file, "bytes").unwrap();
        bed.kill_driver();
        // A pod keeps what it has.
        assert_eq!(fs::read(&file).unwrap()[..5], *b"bytes");
        bed.start_driver().await;
        publish(&bed, &id, "a", writer(fs)).await;
        unpublish(&bed, &id, "a").await;
        bed.kill_driver();
        bed.start_driver().await;
        unpublish(&bed, &id, "a").await;
        end(&bed, &id).await;
        nothing_left(&bed).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_of_staging() {
    let mut bed = Bed::new().await;
    let volume = create(&bed, "v", writer("xfs"), 400 << 20).await;
    let id = volume.volume_id.clone();
    let context = stage(&bed, &volume, writer("xfs")).await;
    for milliseconds in [0, 3, 8, 15, 30, 60] {
        let unstage = strand_csi::v1::NodeUnstageVolumeRequest {
            volume_id: id.clone(),
            staging_target_path: bed.staging(&id),
        };
        bed.node()
            .node_unstage_volume(unstage)
            .await
            .expect("unstaged");
        // As blank as it was at first.
        let file = fs::File::create(bed.stand_in.file(&id)).unwrap();
        file.set_len(400 << 20).unwrap();
        let mut node = bed.node();
        let request = stage_request(&bed, &volume, writer("xfs"), &context);
        let staging = tokio::spawn(async move { node.node_stage_volume(request).await });
        // The moment is the point here; every outcome is fine.
        tokio::time::sleep(std::time::Duration::from_millis(milliseconds)).await;
        bed.kill_driver();
        let _ = staging.await;
        bed.start_driver().await;
        crate::bed::until("it is staged", async || {
            let request = stage_request(&bed, &volume, writer("xfs"), &context);
            bed.node().node_stage_volume(request).await.is_ok()
        })
        .await;
        publish(&bed, &id, "a", writer("xfs")).await;
        fs::write(format!("{}/file", bed.target("a")), "bytes").unwrap();
        unpublish(&bed, &id, "a").await;
    }
    end(&bed, &id).await;
    nothing_left(&bed).await;
}
