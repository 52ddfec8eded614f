//! Volumes with redundancy, as CSI calls make them: where their legs lie, what fits, and what is refused.

use crate::calls::{Calls, From, Kind, wanted};
use crate::rack::{Rack, until};
use std::collections::{BTreeSet, HashMap};
use std::fs;
use strand_api::{PoolLeg, PoolVolume};
use strand_csi::v1::{CreateSnapshotRequest, GetCapacityRequest};
use tonic::Code;

const MIB: i64 = 1 << 20;

const RACK: [&str; 6] = ["--nodes", "3", "--drives", "1", "--drive-size", "2Gi"];

/// The largest volume of a StorageClass that there is room for, in MiB.
async fn largest(calls: &Calls, redundancy: &str) -> i64 {
    let request = GetCapacityRequest {
        parameters: HashMap::from([("redundancy".into(), redundancy.into())]),
        ..GetCapacityRequest::default()
    };
    let room = calls.controller().get_capacity(request).await.unwrap();
    let room = room.into_inner();
    assert!(room.available_capacity >= 0);
    room.maximum_volume_size.unwrap() / MIB
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_of_room_fits_in_legs_that_are_apart() {
    let mut rack = Rack::new();
    rack.up(&RACK);
    rack.storage_is_told().await;
    let calls = Calls::to(&rack);
    for (redundancy, legs) in [("mirror", 2), ("stripe", 3)] {
        let parameters = [("redundancy", redundancy)];
        let most = largest(&calls, redundancy).await;
        assert!(most > 512, "{redundancy}: {most} MiB");
        let more = calls.refused_volume("more", most + 1, &parameters).await;
        assert_eq!(more, Code::ResourceExhausted);
        let made = calls.create(redundancy, Kind::Block, most, &parameters, From::Nothing);
        let made = made.await;

        let volume = rack.all::<PoolVolume>().await.remove(0);
        let nodes: BTreeSet<&str> = volume.spec.legs.iter().map(|l| &*l.node_name).collect();
        assert_eq!((volume.spec.legs.len(), nodes.len()), (legs, legs));
        let array = volume.spec.array.as_ref().unwrap();
        assert_eq!(Some(&array.uuid), volume.metadata.uid.as_ref());
        for leg in rack.all::<PoolLeg>().await {
            let of = leg.spec.array.unwrap();
            assert_eq!((&of.uuid, of.legs), (&array.uuid, legs as i32));
        }

        // What cannot be had of it is refused, and nothing of the attempt stays.
        let snapshot = CreateSnapshotRequest {
            source_volume_id: made.id.clone(),
            name: format!("{redundancy}-s"),
            ..CreateSnapshotRequest::default()
        };
        let taken = calls.controller().create_snapshot(snapshot).await;
        match (redundancy, taken) {
            // There is no room for it beside either leg.
            ("mirror", taken) => assert_eq!(taken.unwrap_err().code(), Code::ResourceExhausted),
            (_, taken) => {
                let refused = taken.unwrap_err();
                assert_eq!(refused.code(), Code::InvalidArgument);
                assert!(refused.message().contains(redundancy), "{refused}");
            }
        }
        let copy = wanted("copy", Kind::Block, most, &[], From::Volume(&made.id));
        let refused = calls.controller().create_volume(copy).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains(redundancy), "{refused}");

        calls.delete(&made).await;
        rack.has_nothing_of_any_volume().await;
    }
    let mirror = [("redundancy", "mirror")];
    let small = calls.create("small", Kind::Block, 64, &mirror, From::Nothing);
    let small = small.await;
    let taken = calls.snapshot(&small, "small-s").await;
    let of = || From::Snapshot(&taken);
    let restored = calls.create("restored", Kind::Block, 64, &[], of()).await;
    let legs = rack.all::<PoolLeg>().await;
    let sizes = legs.iter().filter(|leg| leg.spec.array.is_none());
    let sizes: Vec<u64> = sizes.map(|leg| leg.spec.size.0 >> 20).collect();
    assert_eq!(
        sizes,
        [64, 64],
        "the snapshot and what is made of it, without md's part"
    );
    let again = wanted("again", Kind::Block, 64, &mirror, of());
    let refused = calls.controller().create_volume(again).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("redundancy none"), "{refused}");
    calls.delete(&restored).await;
    calls.delete_snapshot(&taken).await;
    calls.delete(&small).await;
    rack.has_nothing_of_any_volume().await;
    assert_eq!(largest(&calls, "raid6").await, 0, "that needs four nodes");
    let raid6 = wanted(
        "r",
        Kind::Block,
        64,
        &[("redundancy", "raid6")],
        From::Nothing,
    );
    let refused = calls.controller().create_volume(raid6).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let words = "in 4 different failure domains";
    assert!(refused.message().contains(words), "{refused}");
    rack.has_nothing_of_any_volume().await;
    rack.ends_with_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_lost_all_its_objects_loses_no_mirror() {
    let mut rack = Rack::new();
    rack.up(&RACK);
    let calls = Calls::to(&rack);
    let mirror = [("redundancy", "mirror")];
    let made = calls.create("m", Kind::Block, 64, &mirror, From::Nothing);
    let made = made.await;
    let before = rack.all::<PoolVolume>().await.remove(0).spec;
    assert!(rack.down());
    fs::remove_dir_all(rack.path("api")).unwrap();
    rack.up(&RACK);
    until("both legs are told as orphaned", async || {
        let legs = rack.all::<PoolLeg>().await;
        legs.len() == 2 && legs.iter().all(|leg| leg.spec.orphaned)
    })
    .await;
    let (done, said) = rack.strandctl(&["volumes", "import", "m"]);
    assert!(done, "{said}");
    until("nothing is orphaned any more", async || {
        let (_, said) = rack.strandctl(&["volumes", "list"]);
        !said.contains("ORPHANED")
    })
    .await;
    let after = rack.all::<PoolVolume>().await.remove(0).spec;
    assert_eq!((&after.legs, after.size), (&before.legs, before.size));
    let (array, was) = (after.array.unwrap(), before.array.unwrap());
    assert_eq!(array.uuid, was.uuid);
    assert!(array.formed, "it is never made again");
    Calls::to(&rack).delete(&made).await;
    rack.has_nothing_of_any_volume().await;
    rack.ends_with_nothing_left();
}
