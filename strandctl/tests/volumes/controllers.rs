//! Two controllers at once, as while one takes over from another: the same calls to both never make two of anything.

use crate::calls::{Calls, From, Kind, wanted};
use crate::rack::Rack;
use std::sync::Arc;
use strand_api::{PoolLeg, PoolSnapshot, PoolVolume};
use strand_csi::v1::*;
use tonic::{Code, Response, Status};

const ROUNDS: usize = 6;
const MIB: i64 = 1 << 20;

/// Makes a call of each controller twice, all four at once; again where that is the answer. The answers, and what was refused for good.
macro_rules! of_both {
    ($both:expr, $requests:expr, |$calls:ident, $request:ident| $call:expr) => {{
        let mut calls = tokio::task::JoinSet::new();
        for (number, request) in $requests.into_iter().enumerate() {
            let $calls = Arc::clone(&$both[number % 2]);

            calls.spawn(async move {
                loop {
                    let $request = request.clone();
                    match outcome($call.await) {
                        None => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
                        Some(outcome) => return outcome,
                    }
                }
            });
        }
        let (mut done, mut refused) = (Vec::new(), Vec::new());
        while let Some(outcome) = calls.join_next().await {
            match outcome.unwrap() {
                Ok(answer) => done.push(answer),
                Err(status) => refused.push(status),
            }
        }
        (done, refused)
    }};
}

/// None: another call is at work on it, or was in the way.
fn outcome<T>(result: Result<Response<T>, Status>) -> Option<Result<T, Status>> {
    match result {
        Ok(answer) => Some(Ok(answer.into_inner())),
        Err(status) if status.code() == Code::Aborted => None,
        Err(status) => Some(Err(status)),
    }
}

fn four<T: Clone>(request: &T) -> [T; 4] {
    std::array::from_fn(|_| request.clone())
}

fn nothing<T>(answer: Response<T>) -> Response<()> {
    answer.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn two_controllers_at_once_make_one_of_everything_and_leave_nothing() {
    let mut rack = Rack::new();
    rack.up(&["--nodes", "2", "--drives", "1", "--drive-size", "20Gi"]);
    let both = [0, 1].map(|index| Arc::new(Calls::to_node(&rack, index)));
    for round in 0..ROUNDS {
        let name = format!("same-{round}");
        let request = wanted(&name, Kind::Block, 64, &[], From::Nothing);
        let (made, refused) = of_both!(both, four(&request), |calls, request| calls
            .controller()
            .create_volume(request));
        assert!(
            made.len() == 4 && made[1..] == made[..3],
            "{made:?} {refused:?}"
        );
        let id = made[0].volume.clone().unwrap().volume_id;
        let volumes = rack.all::<PoolVolume>().await;
        assert_eq!((volumes.len(), rack.all::<PoolLeg>().await.len()), (1, 1));
        let home = volumes[0].spec.legs[0].node_name.clone();

        // To two nodes at once: one of them at most, and everybody hears the same.
        let publish = |node: &str| ControllerPublishVolumeRequest {
            volume_id: id.clone(),
            node_id: node.into(),
            volume_capability: Some(Kind::Block.capability()),
            ..ControllerPublishVolumeRequest::default()
        };
        let requests = [0, 0, 1, 1].map(|index| publish(&both[index].node));
        let (attached, refused) = of_both!(both, requests, |calls, request| calls
            .controller()
            .controller_publish_volume(request));
        let same = attached.windows(2).all(|two| two[0] == two[1]);
        let volume = rack.all::<PoolVolume>().await.remove(0);
        // The one that came first is told; whether it can be there is another question.
        let [to] = volume.spec.attach_to.as_slice() else {
            panic!("{:?}", volume.spec.attach_to)
        };
        let expected = if to.node == home { 2 } else { 0 };
        assert!(
            attached.len() == expected && same,
            "{attached:?} {refused:?}"
        );
        let proper = |status: &Status| status.code() == Code::FailedPrecondition;
        assert!(refused.iter().all(proper), "{refused:?}");

        let request = CreateSnapshotRequest {
            source_volume_id: id.clone(),
            name: format!("{name}-s"),
            ..CreateSnapshotRequest::default()
        };
        let (taken, refused) = of_both!(both, four(&request), |calls, request| calls
            .controller()
            .create_snapshot(request));
        assert!(
            taken.len() == 4 && taken[1..] == taken[..3],
            "{taken:?} {refused:?}"
        );
        assert_eq!(rack.all::<PoolSnapshot>().await.len(), 1);
        let snapshot = taken[0].snapshot.clone().unwrap().snapshot_id;

        let grow = |mib: i64| ControllerExpandVolumeRequest {
            volume_id: id.clone(),
            capacity_range: Some(CapacityRange {
                required_bytes: mib * MIB,
                limit_bytes: 0,
            }),
            ..ControllerExpandVolumeRequest::default()
        };
        let requests = [80, 80, 96, 96].map(grow);
        let (grown, refused) = of_both!(both, requests, |calls, request| calls
            .controller()
            .controller_expand_volume(request));
        let most = grown.iter().map(|answer| answer.capacity_bytes).max();
        assert!(
            grown.len() == 4 && most == Some(96 * MIB),
            "{grown:?} {refused:?}"
        );

        let request = ControllerUnpublishVolumeRequest {
            volume_id: id.clone(),
            ..ControllerUnpublishVolumeRequest::default()
        };
        let (gone, refused) = of_both!(both, four(&request), |calls, request| calls
            .controller()
            .controller_unpublish_volume(request));
        assert_eq!(gone.len(), 4, "{refused:?}");

        let request = DeleteSnapshotRequest {
            snapshot_id: snapshot,
            ..DeleteSnapshotRequest::default()
        };
        let (gone, refused) = of_both!(both, four(&request), |calls, request| calls
            .controller()
            .delete_snapshot(request));
        assert_eq!(gone.len(), 4, "{refused:?}");
        // One controller deletes what the other makes anew: both end, and what is there then is one or none.
        let delete = DeleteVolumeRequest {
            volume_id: id.clone(),
            ..DeleteVolumeRequest::default()
        };
        let create = wanted(&name, Kind::Block, 64, &[], From::Nothing);
        let (create, delete_it) = (Ok(create), Err(delete.clone()));
        let requests = [create.clone(), delete_it.clone(), delete_it, create];
        let (_, refused) = of_both!(both, requests, |calls, request| async {
            let mut controller = calls.controller();
            match request {
                Ok(create) => controller.create_volume(create).await.map(nothing),
                Err(delete) => controller.delete_volume(delete).await.map(nothing),
            }
        });
        let proper = |status: &Status| {
            // It was deleted while it was being made; or the one of before is there still, and larger.
            [Code::NotFound, Code::AlreadyExists].contains(&status.code())
        };
        assert!(refused.iter().all(proper), "{refused:?}");
        assert!(rack.all::<PoolVolume>().await.len() <= 1);
        let (gone, refused) = of_both!(both, four(&delete), |calls, request| calls
            .controller()
            .delete_volume(request));
        assert_eq!(gone.len(), 4, "{refused:?}");
        rack.has_nothing_of_any_volume().await;
    }
    rack.ends_with_nothing_left();
}
