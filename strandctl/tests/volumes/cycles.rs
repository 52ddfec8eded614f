//! Volumes come and go while driver, agent and operator are killed with -9: nothing is lost, nothing is left.

use crate::bytes::{self, Numbers};
use crate::calls::{Calls, From, Kind};
use crate::rack::{Rack, until};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// How many cycles, where not this many.
const CYCLES: &str = "STRAND_CYCLES";
const FEW: u64 = 20;
/// Most calls between two kills, with few cycles and with more.
const APART: [u64; 2] = [32, 128];
/// Of so many kills one is the operator's, the first of them soon: its successor waits for its lease to run out, and so do all calls.
const OPERATOR: u64 = 20;
/// Volumes at once.
const AT_ONCE: u64 = 4;
const BYTES: usize = 1 << 20;

/// One volume from its creation to its deletion, used twice: what the first pod wrote is there for the second.
async fn cycle(calls: &Calls, number: u64) {
    let kind = [Kind::Xfs, Kind::Ext4, Kind::Block][number as usize % 3];
    let mib = if kind == Kind::Xfs { 300 } else { 64 };
    let name = format!("cycle-{number}");
    let volume = calls.create(&name, kind, mib, &[], From::Nothing).await;
    let at = calls.mount(&volume).await;
    bytes::write(&at, number, BYTES).unwrap();
    // Some are copied under their pod, by a snapshot or at once.
    let (mut last, mut snapshot, mut clone) = (number, None, None);
    let turn = number % 5;
    if turn < 2 {
        if turn == 0 {
            snapshot = Some(calls.snapshot(&volume, &format!("{name}-s")).await);
        }
        let from = snapshot.as_deref().map(From::Snapshot);
        let from = from.unwrap_or(From::Volume(&volume.id));
        let name = format!("{name}-c");
        clone = Some(calls.create(&name, kind, mib, &[], from).await);
        last = !number;
        bytes::write(&at, last, BYTES).unwrap();
    }
    calls.unmount(&volume).await;
    let at = calls.mount(&volume).await;
    bytes::check(&at, last, BYTES);
    calls.unmount(&volume).await;
    calls.delete(&volume).await;
    if let Some(clone) = clone {
        bytes::check(&calls.mount(&clone).await, number, BYTES);
        calls.unmount(&clone).await;
        calls.delete(&clone).await;
    }
    if let Some(snapshot) = snapshot {
        calls.delete_snapshot(&snapshot).await;
    }
}

/// After some calls kills one of the three, waits until it runs again, and so on; how often agent, driver and operator were killed.
async fn kill(rack: &Rack, calls: &Calls, apart: u64, ended: &AtomicBool) -> [u64; 3] {
    let mut numbers = Numbers(0x57a4);
    let mut kills = [0; 3];
    while !ended.load(Relaxed) {
        let next = calls.done() + 1 + numbers.below(apart);
        until("calls are done", async || {
            calls.done() >= next || ended.load(Relaxed)
        })
        .await;
        // The moment is the point here.
        tokio::time::sleep(Duration::from_millis(numbers.below(100))).await;
        let which = match kills.iter().sum::<u64>() % OPERATOR {
            2 => 2,
            _ => numbers.below(2) as usize,
        };
        let node = rack.node();
        kills[which] += 1;
        rack.kill([node.pid, node.csi_pid, rack.operator()][which])
            .await;
    }
    kills
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn nothing_is_lost_or_left_however_often_driver_agent_and_operator_are_killed() {
    let cycles = std::env::var(CYCLES).map_or(FEW, |number| number.parse().unwrap());
    let mut rack = Rack::new();
    rack.up(&["--drives", "2", "--drive-size", "20Gi"]);
    let start = Instant::now();
    let (calls, next) = (Arc::new(Calls::to(&rack)), Arc::new(AtomicU64::new(0)));
    let (apart, ended) = (APART[usize::from(cycles > FEW)], AtomicBool::new(false));
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..AT_ONCE {
        let (calls, next) = (Arc::clone(&calls), Arc::clone(&next));
        workers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Relaxed);
                if number >= cycles {
                    break;
                }
                cycle(&calls, number).await;
            }
        });
    }
    let all = async {
        while let Some(worker) = workers.join_next().await {
            worker.unwrap();
        }
        ended.store(true, Relaxed);
    };
    let ((), [agents, drivers, operators]) = tokio::join!(all, kill(&rack, &calls, apart, &ended));
    println!(
        "{cycles} cycles in {:.0} s, {AT_ONCE} at once; the agent was killed {agents} times, the driver {drivers} times, the operator {operators} times; tried again: {:?}",
        start.elapsed().as_secs_f64(),
        calls.refusals()
    );
    assert!(
        agents > 0 && drivers > 0 && operators > 0,
        "not all were killed"
    );
    rack.has_nothing_of_any_volume().await;
    rack.ends_with_nothing_left();
}
