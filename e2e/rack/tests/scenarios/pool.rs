//! Our agent on real NVMe drives: found, judged, carved, served, watched.
//!
//! The agents watch each drive for the full minute that is promised before they take it.

use std::time::Duration;

use strand_api::{
    Drive, DriveOperationSpec, DrivePhase, DriveVerdict, OperationPhase, OperationType,
    PartitionRole, Transport, condition,
};
use strand_rack_bed::cluster::redis;
use strand_rack_bed::{Cluster, DrivePlan, Guest, Rack, wait};

const ADOPTION: Duration = Duration::from_secs(300);
const SOON: Duration = Duration::from_secs(120);
const MIB: usize = 1 << 20;

fn drives(guest: u32, count: u32) -> Vec<DrivePlan> {
    (0..count)
        .map(|drive| DrivePlan::new(format!("G{guest}D{drive}")))
        .collect()
}

fn serial(drive: &Drive) -> &str {
    let identity = drive
        .status
        .as_ref()
        .and_then(|status| status.identity.as_ref());
    identity.map_or("", |identity| &identity.serial)
}

fn phase(drive: &Drive) -> Option<DrivePhase> {
    drive.status.as_ref().and_then(|status| status.phase)
}

fn verdict(drive: &Drive) -> Option<DriveVerdict> {
    drive.status.as_ref().and_then(|status| status.verdict)
}

fn ready(drives: &[Drive]) -> usize {
    let ready = drives.iter();
    ready
        .filter(|drive| phase(drive) == Some(DrivePhase::Ready))
        .count()
}

fn is(drives: &[Drive], of: &str, what: impl Fn(&Drive) -> bool) -> bool {
    drives
        .iter()
        .any(|drive| serial(drive) == of && what(drive))
}

/// A rack whose drives are all in the pool `default`, 60 % of each context memory.
async fn pooled(name: &str, machines: &[Vec<DrivePlan>]) -> (Rack, Cluster) {
    let rack = Rack::boot(name, machines).await.unwrap();
    let cluster = Cluster::start(&rack).await.unwrap();
    let spec = serde_json::json!({
        "drives": {"models": ["*"]}, "carve": {"contextMemory": "60%"},
        "contextMemory": {"driveWritesPerDay": 100},
    });
    cluster.pool("default", spec).await.unwrap();
    for guest in rack.guests() {
        cluster.start_agent(guest).await.unwrap();
    }
    let all: usize = machines.iter().map(Vec::len).sum();
    cluster
        .drives("all drives are Ready", ADOPTION, |drives| {
            ready(drives) == all
        })
        .await
        .unwrap();
    (rack, cluster)
}

/// Bytes that do not compress and tell which block they are.
fn block(number: u8) -> Vec<u8> {
    let mut state = u64::from(number) + 1;
    (0..MIB)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

async fn get(guest: &Guest, key: &str) -> Result<Vec<u8>, String> {
    let answer = redis(guest, &[b"GET", key.as_bytes()]).await;
    let answer = answer.map_err(|error| format!("{error:#}"))?;
    let head = format!("${MIB}\r\n");
    let value = answer.strip_prefix(head.as_bytes());
    let value = value.and_then(|value| value.strip_suffix(b"\r\n"));
    value.map(<[u8]>::to_vec).ok_or_else(|| {
        let begin = &answer[..answer.len().min(80)];
        format!("GET {key}: {}", String::from_utf8_lossy(begin))
    })
}

/// Writes a block until it can be read where it was written: a write that cannot be taken is dropped, which is no error of a cache.
async fn keep(guest: &Guest, key: &str, value: &[u8]) {
    wait::until(&format!("{key} is kept"), SOON, || async {
        let set = redis(guest, &[b"SET", key.as_bytes(), value]).await;
        set.map_err(|error| format!("{error:#}"))?;
        match get(guest, key).await? == value {
            true => Ok(()),
            false => panic!("{key} reads as other bytes than were written"),
        }
    })
    .await
    .unwrap();
}

/// Blank NVMe drives of three machines are found, watched for a minute, labelled and carved; the pool is Ready; and a block that a
/// pod on one machine writes is read, the very same bytes, by a pod on another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn blank_drives_become_a_pool_whose_blocks_are_read_on_other_machines() {
    let (rack, cluster) = pooled("pool", &[drives(1, 4), drives(2, 4), drives(3, 4)]).await;
    let found = cluster
        .drives("all drives", SOON, |found| found.len() == 12)
        .await
        .unwrap();
    for drive in &found {
        let status = drive.status.as_ref().unwrap();
        assert_eq!(status.identity.as_ref().unwrap().transport, Transport::Pcie);
        let roles: Vec<_> = status
            .partitions
            .iter()
            .map(|partition| partition.role)
            .collect();
        assert_eq!(
            roles,
            [PartitionRole::Storage, PartitionRole::ContextMemory],
            "{status:?}"
        );
        assert!(status.health.is_some(), "{status:?}");
    }
    cluster
        .pool_until("default", SOON, |pool| {
            let status = pool.status.as_ref();
            status.is_some_and(|status| condition::is_true(&status.conditions, "Ready"))
        })
        .await
        .unwrap();

    let (writer, reader) = (rack.guest(0), rack.guest(2));
    for guest in [writer, reader] {
        cluster.start_pod(guest, "default").await.unwrap();
    }
    // Owners are spread over the machines: some of these lie with the writer, some with the reader, some with neither.
    for number in 0..6 {
        keep(writer, &format!("block-{number}"), &block(number)).await;
    }
    for number in 0..6 {
        let key = format!("block-{number}");
        let read = wait::until(&key, SOON, || get(reader, &key)).await.unwrap();
        assert!(read == block(number), "{key} came back as other bytes");
    }
}

/// A drive that holds somebody's file system is refused and keeps its bytes; a Wipe that names its serial number makes it blank,
/// down to the drive: the host's file shrinks. The same with another serial number is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn a_drive_with_data_is_refused_until_it_is_wiped_by_name() {
    let plan = DrivePlan {
        bytes: 1 << 30,
        ..DrivePlan::new("G1D0")
    };
    let rack = Rack::boot("wiped", &[vec![plan]]).await.unwrap();
    let guest = rack.guest(0);
    guest
        .sh("/sbin/mkfs.ext4 -q /dev/nvme0n1 && dd if=/dev/urandom of=/dev/nvme0n1 bs=1M seek=512 count=32 conv=fsync 2>/dev/null")
        .await
        .unwrap();
    let full = guest.drive("G1D0").unwrap().allocated().unwrap();
    assert!(full >= 32 * MIB as u64, "{full} bytes");
    let cluster = Cluster::start(&rack).await.unwrap();
    let spec = serde_json::json!({"drives": {"models": ["*"]}, "carve": {"contextMemory": "60%"}});
    cluster.pool("default", spec).await.unwrap();
    cluster.start_agent(guest).await.unwrap();
    let found = cluster
        .drives("the drive is Foreign", SOON, |found| {
            is(found, "G1D0", |drive| {
                verdict(drive) == Some(DriveVerdict::Foreign)
            })
        })
        .await
        .unwrap();
    let name = found[0].metadata.name.clone().unwrap();

    for (serial, end) in [
        ("OTHER", OperationPhase::Failed),
        ("G1D0", OperationPhase::Succeeded),
    ] {
        assert_eq!(guest.drive("G1D0").unwrap().allocated().unwrap(), full);
        let wipe = DriveOperationSpec {
            type_: OperationType::Wipe,
            drive: name.clone(),
            serial: serial.into(),
            rate: None,
        };
        let named = format!("wipe-{}", serial.to_lowercase());
        cluster.operate(&named, wipe, SOON, end).await.unwrap();
    }
    let left = guest.drive("G1D0").unwrap().allocated().unwrap();
    assert!(
        left < MIB as u64,
        "{left} bytes on the host after the wipe, {full} before"
    );
}

/// A drive whose SMART log warns is Failed and serves no more; one that is pulled is Missing and comes back with its label when it
/// is plugged in again; one that is new is found and taken. The others serve on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn drives_that_fail_leave_or_come_are_seen() {
    let (mut rack, cluster) = pooled("watched", &[drives(1, 3)]).await;
    let guest = rack.guest_mut(0);

    guest.pull("G1D1").await.unwrap();
    cluster
        .drives("the pulled one is Missing", SOON, |drives| {
            is(drives, "G1D1", |drive| {
                phase(drive) == Some(DrivePhase::Missing)
            })
        })
        .await
        .unwrap();
    guest.plug_in(&DrivePlan::new("NEW")).await.unwrap();
    guest.plug_in(&DrivePlan::new("G1D1")).await.unwrap();
    cluster
        .drives(
            "the pulled one is back, the new one is taken",
            ADOPTION,
            |drives| ready(drives) == 4 && is(drives, "NEW", |_| true),
        )
        .await
        .unwrap();

    // Bit 2: reliability is degraded.
    guest.warn("G1D0", 1 << 2).await.unwrap();
    let seen = cluster
        .drives("the one that warns is Failed", ADOPTION, |drives| {
            is(drives, "G1D0", |drive| {
                verdict(drive) == Some(DriveVerdict::Failed)
            })
        })
        .await
        .unwrap();
    assert_eq!(ready(&seen), 3, "the others serve on");
}

/// What a pod deletes of its blocks is deallocated on the drive: the host's file shrinks by what they were.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn deleted_blocks_are_deallocated_on_the_drive() {
    const BLOCKS: u8 = 40;
    let (rack, cluster) = pooled("blocks-trimmed", &[drives(1, 1)]).await;
    let guest = rack.guest(0);
    cluster.start_pod(guest, "default").await.unwrap();
    let drive = guest.drive("G1D0").unwrap();
    let before = drive.allocated().unwrap();
    for number in 0..BLOCKS {
        keep(guest, &format!("block-{number}"), &block(number)).await;
    }
    let full = drive.allocated().unwrap();
    let held = usize::from(BLOCKS) * MIB;
    assert!(
        full - before >= held as u64,
        "{before} bytes on the host, then {full}"
    );

    assert_eq!(redis(guest, &[b"FLUSHDB"]).await.unwrap(), b"+OK\r\n");
    wait::until("the drive has its blocks back", SOON, || async {
        let left = drive.allocated().map_err(|error| error.to_string())?;
        // But for the segment that is being written: each is deallocated as a whole.
        match full.saturating_sub(left) >= held as u64 * 3 / 4 {
            true => Ok(()),
            false => Err(format!("{full} bytes allocated, now {left}")),
        }
    })
    .await
    .unwrap();
    assert!(
        get(guest, "block-0").await.is_err(),
        "a deleted block is read"
    );
    keep(guest, "block-0", &block(0)).await;
}
