//! Drives that lose their write cache when the power is cut.

use std::collections::BTreeMap;

use serde_json::json;
use strand_rack_bed::cluster::redis;
use strand_rack_bed::csi::Access;
use strand_rack_bed::{Cluster, CsiNode, DrivePlan, Guest, Rack, wait};

use super::csi::attach;
use super::remote::bed::{SOON, pool_of};

/// How often the power is cut.
const CUTS: u64 = 3;
/// Rounds of writing before each cut; whatever is acknowledged in one has been flushed.
const ROUNDS: u64 = 4;
const BLOCK: usize = 256 << 10;
const VOLUME: &str = "v";

/// Under writes to a volume and to context memory, a machine's power is cut three times, and each time its drive loses a part of what
/// no flush had covered, some of it torn. Every file that was synced is there with its bytes, what was overwritten in place is what was
/// synced last, and a block of context memory is the one that was written or is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn a_drive_that_loses_its_cache_keeps_every_byte_that_was_synced() {
    let plan = DrivePlan {
        bytes: 2 << 30,
        cached: true,
        ..DrivePlan::new("G1D0")
    };
    let context = json!({
        "carve": {"contextMemory": "40%"}, "contextMemory": {"driveWritesPerDay": 100},
    });
    let (mut rack, cluster) = pool_of("power", &[vec![plan]], context).await;
    let generation = attach(&cluster, rack.guest(0), VOLUME, 512).await;
    let mut kept = Kept::default();
    for cut in 0..=CUTS {
        let guest = rack.guest(0);
        let node = cluster.start_csi(guest, "default").await.unwrap();
        wait::until("the volume is published", SOON, || async {
            let access = Access::Files("xfs", &[]);
            let published = node.publish(VOLUME, generation, access).await;
            published.map_err(|error| format!("{error:#}"))
        })
        .await
        .unwrap();
        cluster.start_pod(guest, "default").await.unwrap();
        // Until the drive's context memory is served, every block is missing.
        keep(guest, &format!("served-{cut}"), b"there").await;
        kept.look(guest).await;
        if cut == CUTS {
            node.take_away(VOLUME).await.unwrap();
            break;
        }
        let at = CsiNode::at(VOLUME);
        let noise = format!(
            "sh -c 'while dd if=/dev/urandom of={at}/noise bs=64k count=32 conv=notrunc oflag=direct; do :; done'"
        );
        guest.start(&noise).await.unwrap();
        for round in 0..ROUNDS {
            kept.write(guest, cut * ROUNDS + round).await;
        }
        again(&mut rack, &cluster, cut).await;
    }
}

/// Cuts the power, and has the machine come up again.
async fn again(rack: &mut Rack, cluster: &Cluster, seed: u64) {
    // A node's own disk keeps what its agent knows; these machines have none. Without it, blocks of before would be discarded.
    let state = rack.guest(0).run("tar -C /var/lib -c strand").await;
    let state = state.unwrap().output;
    for lost in rack.guest_mut(0).lose_power(seed).unwrap() {
        println!(
            "cut {seed}: {} writes, no flush had covered {}, lost or torn {}",
            lost.told, lost.uncovered, lost.lost
        );
        assert!(lost.uncovered > 0, "the drive had nothing to lose");
    }
    rack.guest_mut(0).power_on().await.unwrap();
    let restored = rack.guest(0).feed("tar -C /var/lib -x", &state).await;
    assert_eq!(restored.unwrap().status, 0);
    let agent = cluster.start_agent_with_volumes(rack.guest(0)).await;
    agent.unwrap();
}

/// Writes a block until it can be read: while the drive is not served yet, or takes nothing for once, a write is dropped.
async fn keep(guest: &Guest, name: &str, value: &[u8]) {
    wait::until(&format!("{name} is kept"), SOON, || async {
        let words = |error| format!("{error:#}");
        let set = redis(guest, &[b"SET", name.as_bytes(), value]).await;
        set.map_err(words)?;
        let got = redis(guest, &[b"GET", name.as_bytes()]).await;
        match is(&got.map_err(words)?, value) {
            Some(true) => Ok(()),
            Some(false) => panic!("{name} reads as other bytes than were written"),
            None => Err("it is missing".to_owned()),
        }
    })
    .await
    .unwrap();
}

/// Whether an answer is this value; none: the block is missing.
fn is(answer: &[u8], value: &[u8]) -> Option<bool> {
    let head = format!("${}\r\n", value.len()).into_bytes();
    match answer.strip_prefix(head.as_slice()) {
        Some(got) => Some(got.strip_suffix(b"\r\n") == Some(value)),
        None => (answer.len() >= 16).then_some(false),
    }
}

/// What was acknowledged.
#[derive(Default)]
struct Kept {
    /// SHA-256 of synced files.
    files: BTreeMap<String, String>,
    /// What was written in place and synced last.
    counter: u64,
    /// Blocks of context memory.
    blocks: u64,
}

impl Kept {
    async fn write(&mut self, guest: &Guest, round: u64) {
        let at = CsiNode::at(VOLUME);
        let script = format!(
            "cd {at} || exit 1
             for n in 0 1 2 3; do
                 dd if=/dev/urandom of=file-{round}-$n bs=96k count=1 conv=fsync 2>/dev/null || exit 1
             done
             sha256sum file-{round}-*
             printf %016d {round} | dd of=counter bs=16 conv=notrunc,fsync 2>/dev/null"
        );
        for line in guest.sh(&script).await.unwrap().lines() {
            let (sum, file) = line.split_once("  ").unwrap();
            self.files.insert(file.into(), sum.into());
        }
        self.counter = round;
        for _ in 0..3 {
            let (name, value) = (format!("block-{}", self.blocks), block(self.blocks));
            keep(guest, &name, &value).await;
            self.blocks += 1;
        }
    }

    async fn look(&self, guest: &Guest) {
        if self.files.is_empty() {
            return;
        }
        let at = CsiNode::at(VOLUME);
        let script = format!("cd {at} && cat counter && echo && sha256sum file-*");
        let found = guest.sh(&script).await.unwrap();
        let (counter, files) = found.split_once('\n').unwrap();
        let counter: u64 = counter.parse().unwrap();
        assert_eq!(counter, self.counter, "written in place");
        let files: BTreeMap<String, String> = files
            .lines()
            .filter_map(|line| line.split_once("  "))
            .map(|(sum, file)| (file.to_owned(), sum.to_owned()))
            .collect();
        for (file, sum) in &self.files {
            assert_eq!(files.get(file), Some(sum), "{file}");
        }
        let mut hits = 0;
        for number in 0..self.blocks {
            let name = format!("block-{number}");
            let answer = redis(guest, &[b"GET", name.as_bytes()]).await.unwrap();
            let right = is(&answer, &block(number));
            assert_ne!(right, Some(false), "{name} is wrong");
            hits += u64::from(right.is_some());
        }
        println!(
            "{} files whole, {hits} of {} blocks there",
            self.files.len(),
            self.blocks
        );
        assert!(hits > 0, "no block was left");
    }
}

/// Bytes that tell which block they are.
fn block(number: u64) -> Vec<u8> {
    let words = (0..BLOCK as u64 / 8).map(|at| (at + 1).wrapping_mul(2 * number + 3));
    words.flat_map(u64::to_le_bytes).collect()
}
