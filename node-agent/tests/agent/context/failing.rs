//! A drive that fails while it serves: it goes, and neither the other drive nor the agent with it.

use std::ops::ControlFlow;
use std::sync::OnceLock;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use strand_api::{DriveStatus, DriveVerdict};
use strand_drives::{
    CarveOrder, DataOnRelease, DriveError, DriveHost, OpenPartition, OwnedDrive, Resumed,
    SeenDrive, WipeOrder, WipeProgress,
};
use strand_placement::carve::{Role, Split};
use strand_placement::verdict::{Health, KnownPools, Observation};
use tokio::sync::watch;

use super::*;

const FAILING: &str = "S2";

/// The kernel's drives, of which one has its context side in memory, where it can be made to fail.
struct Breaking {
    drives: KernelHost,
    memory: OnceLock<File>,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Writes,
    Reads,
}

impl Breaking {
    fn fail(&self, fault: Fault) {
        let memory = self.memory.get().unwrap();
        match fault {
            Fault::Writes => fcntl_add_seals(memory, SealFlags::WRITE).unwrap(),
            Fault::Reads => ftruncate(memory, 0).unwrap(),
        }
    }
}

impl DriveHost for Breaking {
    fn open_partition(&self, drive: &OwnedDrive, role: Role) -> Result<OpenPartition, DriveError> {
        let partition = self.drives.open_partition(drive, role)?;
        if role != Role::Context || drive.seen.key.serial != FAILING {
            return Ok(partition);
        }
        let memory = self.memory.get_or_init(|| {
            let memory = memfd_create("context", MemfdFlags::ALLOW_SEALING).unwrap();
            ftruncate(&memory, partition.len).unwrap();
            memory.into()
        });
        Ok(OpenPartition {
            file: memory.try_clone().unwrap(),
            offset: 0,
            len: partition.len,
        })
    }

    fn scan(&self) -> Result<Vec<SeenDrive>, DriveError> {
        self.drives.scan()
    }

    fn observe(
        &self,
        drive: &SeenDrive,
        earlier: Option<&Observation>,
    ) -> Result<Observation, DriveError> {
        self.drives.observe(drive, earlier)
    }

    fn adopt(
        &self,
        drive: &SeenDrive,
        watched: &Observation,
        order: &CarveOrder,
    ) -> Result<OwnedDrive, DriveError> {
        self.drives.adopt(drive, watched, order)
    }

    fn resume(&self, drive: &SeenDrive, pools: &KnownPools) -> Result<Resumed, DriveError> {
        self.drives.resume(drive, pools)
    }

    fn recarve(&self, drive: &OwnedDrive, split: &Split) -> Result<OwnedDrive, DriveError> {
        self.drives.recarve(drive, split)
    }

    fn release(&self, drive: &OwnedDrive, data: DataOnRelease) -> Result<(), DriveError> {
        self.drives.release(drive, data)
    }

    fn wipe(
        &self,
        drive: &SeenDrive,
        order: &WipeOrder,
        pools: &KnownPools,
        progress: &mut dyn FnMut(WipeProgress) -> ControlFlow<()>,
    ) -> Result<(), DriveError> {
        self.drives.wipe(drive, order, pools, progress)
    }

    fn health(&self, drive: &SeenDrive) -> Health {
        self.drives.health(drive)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.drives.changes()
    }
}

fn key(number: usize) -> Vec<u8> {
    format!("{number}").into_bytes()
}

fn block(number: usize) -> Vec<u8> {
    vec![number as u8; 20_000 + number]
}

async fn one_drive_goes(fault: Fault) {
    let bed = Bed::new().await;
    let image = bed.path(&format!("drives/{FAILING}.img"));
    File::create(image).unwrap().set_len(SIZE).unwrap();
    let failing = names::drive_name(NODE, "strand stand-in", FAILING, 1);
    let host = Arc::new(Breaking {
        drives: bed.host(),
        memory: OnceLock::new(),
    });
    let agent = bed.agent_on(host.clone());
    let mut drives = Vec::new();
    for drive in [&bed.drive, &failing] {
        bed.cluster.phase(drive, DrivePhase::Available).await;
        bed.cluster.claim(drive, 256 * MIB).await;
        bed.cluster.phase(drive, DrivePhase::Ready).await;
        let object = bed.cluster.get(drive).await.unwrap();
        let id = object.status.unwrap().label.unwrap().drive_id;
        drives.push(format!("5@1:{}", &id[..8]));
    }
    let node = format!("{NODE} 127.0.0.1:7420 - {}", drives.join(";"));
    let spec = PoolMapSpec {
        epoch: 1,
        pool_id: POOL_ID.into(),
        nodes: vec![MapNode::try_from(node).unwrap()],
    };
    let maps: Api<PoolMap> = Api::all(bed.cluster.client.clone());
    let map = PoolMap::new(POOL, spec);
    maps.create(&PostParams::default(), &map).await.unwrap();
    (context(&agent).open_door("pod-a", bed.door()).await).unwrap();
    let state = |drive: &str| {
        let report = context(&agent).report();
        report.drives.get(drive).map(|drive| drive.state)
    };
    until("both drives to serve", || async {
        let all = [&bed.drive, &failing].map(|drive| state(drive));
        (all == [Some(DriveState::Serving); 2]).then_some(())
    })
    .await;
    let client = bed.client();
    for number in 0..60 {
        put(&client, &key(number), &block(number)).await;
    }
    let before = context(&agent).report().drives;
    let many = |drive: &str| before[drive].holds.as_ref().map_or(0, |holds| holds.blocks);
    let (on_sound, on_failing) = (many(&bed.drive), many(&failing));
    assert_eq!(on_sound + on_failing, 60);
    assert!(on_sound > 5 && on_failing > 5, "{on_sound}, {on_failing}");

    host.fail(fault);
    until("the drive to be taken out", || async {
        for number in 0..60 {
            // What is on the drive is a miss or a dropped put, or is refused: never another block's bytes.
            match fault {
                Fault::Writes => {
                    let key = key(100 + number);
                    let put = client.put(&key, b"more", PutOptions::default());
                    let _taken_or_not = put.await;
                }
                Fault::Reads => {
                    if let Ok(Some(found)) = client.get(&key(number)).await {
                        assert!(found[..] == block(number)[..]);
                    }
                }
            }
        }
        (state(&failing) != Some(DriveState::Serving)).then_some(())
    })
    .await;
    let is_failed = |status: &DriveStatus| status.verdict == Some(DriveVerdict::Failed);
    bed.cluster.when(&failing, "failed", is_failed).await;

    // The other drive still has what it had, and takes what was the failed one's.
    assert_eq!(state(&bed.drive), Some(DriveState::Serving));
    let mut found = 0;
    for number in 0..60 {
        if let Some(value) = get(&client, &key(number)).await {
            assert!(value == block(number));
            found += 1;
        }
    }
    assert_eq!(found, on_sound, "of {on_sound} on the sound drive");
    // The operator's next map is without it.
    let node = format!("{NODE} 127.0.0.1:7420 - {}", drives[0]);
    let patch = serde_json::json!({"spec": {"epoch": 2, "nodes": [node]}});
    let params = PatchParams::default();
    let patched = maps.patch(POOL, &params, &Patch::Merge(patch)).await;
    patched.unwrap();
    for number in 0..60 {
        put(&client, &key(number), &block(number)).await;
        assert_eq!(get(&client, &key(number)).await, Some(block(number)));
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drive_that_fails_to_write_goes_and_not_the_agent() {
    one_drive_goes(Fault::Writes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drive_that_fails_to_read_goes_and_not_the_agent() {
    one_drive_goes(Fault::Reads).await;
}
