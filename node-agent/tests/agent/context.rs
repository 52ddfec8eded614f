//! Context memory on stand-in files: served through doors, kept over restarts, closed for what changes its partition.

mod failing;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use node_agent::AgentConfig;
use node_agent::context::{
    ContextConfig, ContextMemory, DoorError, DoorRequest, DriveState, Prefill,
};
use strand_api::{
    DrivePhase, MapNode, MemoryPool, OperationPhase, OperationType, PoolMap, PoolMapSpec, names,
};
use strand_drives::{DriveHost, HostConfig, KernelHost, WatchTimes};
use strand_kv_client::{Client, Options, Put, PutOptions};
use tempfile::TempDir;

use crate::bed::{Cluster, NODE, POOL, POOL_ID, Running, until};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 512 * MIB;
const SERIAL: &str = "S1";

/// A cluster with a pool, and a directory for one node with one drive.
struct Bed {
    cluster: Cluster,
    dir: TempDir,
    drive: String,
}

impl Bed {
    async fn new() -> Self {
        let cluster = Cluster::start().await;
        cluster.pool().await;
        let dir = tempfile::tempdir().unwrap();
        for folder in ["drives", "pod", "state"] {
            std::fs::create_dir(dir.path().join(folder)).unwrap();
        }
        let image = dir.path().join(format!("drives/{SERIAL}.img"));
        File::create(image).unwrap().set_len(SIZE).unwrap();
        let drive = names::drive_name(NODE, "strand stand-in", SERIAL, 1);
        Self {
            cluster,
            dir,
            drive,
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn agent(&self) -> Running {
        self.agent_on(Arc::new(self.host()))
    }

    fn host(&self) -> KernelHost {
        KernelHost::start(HostConfig {
            watch: WatchTimes {
                nvme: Duration::from_secs(60),
                stand_in: Duration::from_millis(50),
            },
            ..HostConfig::stand_ins([self.path("drives")])
        })
    }

    fn agent_on(&self, host: Arc<dyn DriveHost>) -> Running {
        let config = AgentConfig {
            state_dir: Some(self.path("state")),
            rescan: Duration::from_secs(1),
            peer_address: Some("127.0.0.1:7420".into()),
            context: Some(ContextConfig {
                arena_bytes: 128 << 20,
                peer_listen: None,
                peer_key_file: None,
                prefill: Some(Prefill {
                    token_bytes: 1 << 20,
                    tokens_per_second: 2.0,
                }),
            }),
            ..AgentConfig::new(NODE)
        };
        Running::with(&self.cluster, host, config)
    }

    /// Has the drive taken into the pool, and waits until it is Ready.
    async fn taken(&self, context: u64) {
        self.cluster.phase(&self.drive, DrivePhase::Available).await;
        self.cluster.claim(&self.drive, context).await;
        self.cluster.phase(&self.drive, DrivePhase::Ready).await;
    }

    /// What the operator writes when the drive is in the map since that epoch.
    async fn map(&self, epoch: i64, since: i64) {
        let drive = self.cluster.get(&self.drive).await.unwrap();
        let label = drive.status.unwrap().label.unwrap();
        let node = format!("{NODE} 127.0.0.1:7420 - 5@{since}:{}", &label.drive_id[..8]);
        let spec = PoolMapSpec {
            epoch,
            pool_id: POOL_ID.into(),
            nodes: vec![MapNode::try_from(node).unwrap()],
        };
        let maps: Api<PoolMap> = Api::all(self.cluster.client.clone());
        let map = PoolMap::new(POOL, spec);
        match maps.get_opt(POOL).await.unwrap() {
            None => {
                maps.create(&PostParams::default(), &map).await.unwrap();
            }
            Some(_) => {
                let patch = serde_json::json!({"spec": map.spec});
                let params = PatchParams::default();
                let patched = maps.patch(POOL, &params, &Patch::Merge(patch)).await;
                patched.unwrap();
            }
        }
    }

    fn door(&self) -> DoorRequest {
        DoorRequest {
            pool: POOL.into(),
            namespace: "team-a".into(),
            directory: self.path("pod"),
            arena_bytes: None,
            pod_uid: None,
        }
    }

    fn client(&self) -> Client {
        Client::new(Options::new(self.path("pod/door.sock")))
    }
}

fn context(agent: &Running) -> &ContextMemory {
    agent.handle.context().unwrap()
}

/// Waits until the drive serves, with the map of this epoch.
async fn serves(agent: &Running, bed: &Bed, epoch: i64) {
    until("the drive to serve", || async {
        let report = context(agent).report();
        let drive = report.drives.get(&bed.drive)?;
        let there = report.pools.iter().any(|pool| pool.epoch == epoch);
        (drive.state == DriveState::Serving && there).then_some(())
    })
    .await;
}

async fn put(client: &Client, key: &[u8], value: &[u8]) {
    until("a put to be taken", || async {
        let put = client.put(key, value, PutOptions::default()).await;
        matches!(put, Ok(Put::Stored)).then_some(())
    })
    .await;
}

async fn get(client: &Client, key: &[u8]) -> Option<Vec<u8>> {
    let block = client.get(key).await.unwrap();
    block.map(|block| block.to_vec())
}

/// Waits until a key is a hit.
async fn hit(client: &Client, key: &[u8]) -> Vec<u8> {
    until("a hit", || get(client, key)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_keeps_its_door_and_its_blocks_over_a_restart_even_without_the_api() {
    let mut bed = Bed::new().await;
    let agent = bed.agent();
    bed.taken(256 * MIB).await;
    bed.map(3, 1).await;
    let opened = context(&agent)
        .open_door("pod-a", bed.door())
        .await
        .unwrap();
    assert_eq!(opened.socket, bed.path("pod/door.sock"));
    serves(&agent, &bed, 3).await;
    let client = bed.client();
    let value = vec![7; 3 << 20];
    put(&client, b"block", &value).await;
    assert_eq!(get(&client, b"block").await.as_ref(), Some(&value));
    agent.stop().await;
    assert_eq!(get(&client, b"block").await, None, "no agent: a miss");

    bed.cluster.away().await;
    let agent = bed.agent();
    assert_eq!(hit(&client, b"block").await, value, "the same connection");
    put(&client, b"another", b"one").await;
    agent.stop().await;
    bed.cluster.back().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_the_partition_finds_it_closed() {
    let bed = Bed::new().await;
    let agent = bed.agent();
    bed.taken(256 * MIB).await;
    bed.map(1, 1).await;
    context(&agent)
        .open_door("pod-a", bed.door())
        .await
        .unwrap();
    serves(&agent, &bed, 1).await;
    let client = bed.client();
    put(&client, b"before", b"the carve changed").await;

    bed.cluster.claim(&bed.drive, 128 * MIB).await;
    bed.cluster
        .when(&bed.drive, "carved anew", |status| {
            let sizes = status.partitions.iter().map(|p| p.size.0);
            sizes.clone().any(|size| size == 128 * MIB)
        })
        .await;
    serves(&agent, &bed, 1).await;
    assert_eq!(get(&client, b"before").await, None);
    put(&client, b"after", b"it serves again").await;

    bed.cluster.cordon(&bed.drive, true).await;
    let (release, drive) = (OperationType::Release, &bed.drive);
    bed.cluster
        .operation("give-back", release, drive, SERIAL)
        .await;
    let (phase, message) = bed.cluster.ended("give-back").await;
    assert_eq!(phase, OperationPhase::Succeeded, "{message}");
    until("the drive to serve no more", || async {
        let report = context(&agent).report();
        (!report.drives.contains_key(&bed.drive)).then_some(())
    })
    .await;
    assert_eq!(get(&client, b"after").await, None);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_drive_held_before_a_gap_in_the_map_is_gone() {
    let bed = Bed::new().await;
    let agent = bed.agent();
    bed.taken(256 * MIB).await;
    bed.map(1, 1).await;
    context(&agent)
        .open_door("pod-a", bed.door())
        .await
        .unwrap();
    serves(&agent, &bed, 1).await;
    let client = bed.client();
    put(&client, b"key", b"old").await;
    bed.map(2, 1).await;
    serves(&agent, &bed, 2).await;
    assert_eq!(hit(&client, b"key").await, b"old", "no gap");

    bed.map(7, 6).await;
    serves(&agent, &bed, 7).await;
    assert_eq!(get(&client, b"key").await, None);
    put(&client, b"key", b"new").await;
    agent.stop().await;
    // Also one that slept through the gap.
    let agent = bed.agent();
    assert_eq!(hit(&client, b"key").await, b"new");
    agent.stop().await;
    bed.map(9, 9).await;
    let agent = bed.agent();
    serves(&agent, &bed, 9).await;
    assert_eq!(get(&client, b"key").await, None);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doors_are_refused_in_words() {
    let bed = Bed::new().await;
    let agent = bed.agent();
    bed.taken(256 * MIB).await;
    let context = context(&agent);
    let elsewhere = DoorRequest {
        pool: "none".into(),
        ..bed.door()
    };
    let refused = context.open_door("a", elsewhere).await.unwrap_err();
    assert!(matches!(refused, DoorError::NoPool { .. }), "{refused}");
    let refused = context.open_door("../a", bed.door()).await.unwrap_err();
    assert!(matches!(refused, DoorError::Id { .. }), "{refused}");
    let missing = DoorRequest {
        directory: Path::new("/nowhere").into(),
        ..bed.door()
    };
    let refused = context.open_door("a", missing).await.unwrap_err();
    assert!(matches!(refused, DoorError::Socket(_)), "{refused}");
    assert!(context.doors().await.is_empty());

    context.open_door("a", bed.door()).await.unwrap();
    context.open_door("a", bed.door()).await.unwrap();
    let other = DoorRequest {
        namespace: "team-b".into(),
        ..bed.door()
    };
    let refused = context.open_door("a", other).await.unwrap_err();
    assert!(matches!(refused, DoorError::Differs { .. }), "{refused}");
    context.close_door("a").await.unwrap();
    context.close_door("a").await.unwrap();
    assert!(!bed.path("pod/door.sock").exists());
    agent.stop().await;
    let agent = bed.agent();
    assert!(
        self::context(&agent).doors().await.is_empty(),
        "closed for good"
    );
    agent.stop().await;
}

/// Whoever writes the inline volume by hand gets past admission, and no further.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_is_granted_opens_doors_for_those_it_is_granted_to() {
    let bed = Bed::new().await;
    let client = bed.cluster.client.clone();
    let merge = async |access: &str| {
        let patch = serde_json::json!({"spec": {"access": access}});
        let pools = Api::<MemoryPool>::all(client.clone());
        let params = PatchParams::default();
        pools
            .patch(POOL, &params, &Patch::Merge(patch))
            .await
            .unwrap();
    };
    merge("Granted").await;
    let agent = bed.agent();
    bed.taken(256 * MIB).await;
    let refused = context(&agent).open_door("a", bed.door()).await;
    let refused = refused.unwrap_err();
    assert!(matches!(refused, DoorError::Denied { .. }), "{refused}");
    assert!(refused.to_string().contains(&format!("{POOL}.team-a")));
    assert!(!bed.path("pod/door.sock").exists());

    let share = serde_json::json!({"weight": 3});
    bed.cluster.grant("team-a", share).await;
    until("the grant to count", || async {
        context(&agent).open_door("a", bed.door()).await.ok()
    })
    .await;
    let other = DoorRequest {
        namespace: "team-b".into(),
        ..bed.door()
    };
    let refused = context(&agent).open_door("b", other).await.unwrap_err();
    assert!(matches!(refused, DoorError::Denied { .. }), "{refused}");

    // Who is in stays in; it is asked when a pod starts.
    bed.cluster.ungrant("team-a").await;
    std::fs::create_dir(bed.path("late")).unwrap();
    let late = DoorRequest {
        directory: bed.path("late"),
        ..bed.door()
    };
    until("the grant to be gone", || async {
        let asked = context(&agent).open_door("c", late.clone()).await;
        context(&agent).close_door("c").await.unwrap();
        matches!(asked, Err(DoorError::Denied { .. })).then_some(())
    })
    .await;
    agent.stop().await;
    let agent = bed.agent();
    until("the door to be open again", || async {
        (context(&agent).doors().await.len() == 1).then_some(())
    })
    .await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_bounds_what_a_namespace_keeps_though_there_is_room() {
    let bed = Bed::new().await;
    let agent = bed.agent();
    bed.taken(256 * MIB).await;
    bed.map(1, 1).await;
    context(&agent).open_door("a", bed.door()).await.unwrap();
    serves(&agent, &bed, 1).await;
    let client = bed.client();
    let key = |number: u32| number.to_le_bytes();
    let block = vec![9; 1 << 20];
    for number in 0..60 {
        put(&client, &key(number), &block).await;
    }
    let used = || {
        let labels = format!(
            "drive=\"{}\",namespace=\"team-a\",pool=\"{POOL}\"",
            bed.drive
        );
        agent.metric(&format!(
            "strand_context_namespace_drive_used_bytes{{{labels}}}"
        ))
    };
    assert!(used() > Some(f64::from(60 << 20)));

    // A tenth of the 320 MiB that the map tells; and of the drive, which has somewhat less.
    let share = serde_json::json!({"quota": "32Mi"});
    bed.cluster.grant("team-a", share).await;
    let within = async || {
        until("the coldest blocks to go", || async {
            (used() <= Some(f64::from(32 << 20))).then_some(())
        })
        .await;
    };
    within().await;
    assert!(used() > Some(f64::from(16 << 20)), "{:?}", used());
    assert!(get(&client, &key(59)).await.is_some(), "the newest went");
    assert!(
        get(&client, &key(0)).await.is_none(),
        "the oldest is still there"
    );
    // New ones are taken, and others go for them.
    until("a new block to be taken", || async {
        put(&client, &key(60), &block).await;
        get(&client, &key(60)).await
    })
    .await;
    within().await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_tell_what_namespaces_do_on_a_drive_and_how_long_it_takes() {
    let bed = Bed::new().await;
    let agent = bed.agent();
    bed.taken(256 * MIB).await;
    bed.map(1, 1).await;
    context(&agent)
        .open_door("pod-a", bed.door())
        .await
        .unwrap();
    serves(&agent, &bed, 1).await;
    let client = bed.client();
    put(&client, b"block", &vec![7; 3 << 20]).await;
    for _ in 0..2 {
        assert!(get(&client, b"block").await.is_some());
    }
    assert!(get(&client, b"another").await.is_none());
    assert!(client.exists(b"block").await.unwrap());

    let drive = &bed.drive;
    let place = format!("drive=\"{drive}\",namespace=\"team-a\"");
    let of = |name: &str, labels: &str| {
        let line = format!("strand_context_{name}{{{labels}pool=\"{POOL}\"}}");
        agent.metric(&line)
    };
    let namespace = |name: &str| of(&format!("namespace_drive_{name}"), &format!("{place},"));
    assert_eq!(namespace("hits_total"), Some(2.0));
    assert_eq!(namespace("misses_total"), Some(1.0));
    assert_eq!(namespace("in_bytes_total"), Some(f64::from(3 << 20)));
    assert_eq!(namespace("out_bytes_total"), Some(f64::from(6 << 20)));
    assert!(namespace("used_bytes") > Some(f64::from(3 << 20)));
    assert!(namespace("share_bytes") > Some(f64::from(100 << 20)));
    let times = |operation: &str, part: &str| {
        let labels = format!("{place},operation=\"{operation}\",");
        of(&format!("operation_seconds_{part}"), &labels)
    };
    for (operation, count) in [("get", 2.0), ("put", 1.0), ("exists", 1.0)] {
        assert_eq!(times(operation, "count"), Some(count), "{operation}");
    }
    assert!(times("get", "sum") > Some(0.0));
    assert_eq!(times("delete", "count"), None, "it was not asked for");
    let drive = format!("drive=\"{drive}\",");
    for phase in ["read", "write", "wait"] {
        let labels = format!("{drive}phase=\"{phase}\",");
        let count = of("transfer_seconds_count", &labels);
        assert!(count >= Some(3.0), "{phase}: {count:?}");
    }
    for class in ["read", "write", "own"] {
        let labels = format!("class=\"{class}\",{drive}");
        assert!(of("queued_bytes", &labels).is_some(), "{class}");
    }
    assert!(of("write_amplification", &drive) > Some(1.0));
    assert!(of("recovery_seconds", &drive).is_some());
    // 6 MiB of hits, 1 MiB a token, 2 tokens a second.
    let saved = of("prefill_seconds_saved_total", "namespace=\"team-a\",");
    assert_eq!(saved, Some(3.0));
    client.delete(b"block").await.unwrap();
    assert_eq!(times("delete", "count"), Some(1.0));
    agent.stop().await;
}
