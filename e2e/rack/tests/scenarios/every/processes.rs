//! Everything of ours that runs, and the API server.

use std::time::{Duration, Instant};

use super::bed::{ALL, WRITER, end, go_on, rack, stalls, whole};
use crate::redundant::bed::{STALL, restart_agent};

/// How long the API server is away.
const AWAY: Duration = Duration::from_secs(300);

/// Under writes to volumes of every redundancy: the agents of all machines are killed and start again, one by one, as in an upgrade; the operator
/// is away; clocks are an hour apart; the API server is away for five minutes, in which the writer's agent is killed once more. No write
/// fails or stalls, and no leg is given up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make rack-test"]
async fn io_goes_on_without_agents_operator_and_api_server() {
    let (rack, mut cluster) = rack("every-processes", &ALL).await;
    let writer = rack.guest(WRITER);
    // Whose clock is how far off; the API's is the host's.
    for (guest, offset) in [(writer, 3600), (rack.guest(0), -3600)] {
        let script = format!("date -s @$(($(date +%s) + {offset}))");
        guest.sh(&script).await.unwrap();
    }
    for guest in rack.guests() {
        restart_agent(&cluster, guest).await;
        go_on(writer, &ALL).await;
    }
    cluster.kill_operator();
    for _ in 0..5 {
        go_on(writer, &ALL).await;
    }
    cluster.restart_operator().unwrap();
    whole(&cluster, writer, &ALL).await;
    let stall = stalls(writer, &ALL).await;
    println!("longest stall while agents and operator were killed: {stall:.1} s");
    assert!(stall <= STALL, "{stall} s");

    cluster.stop_api().await;
    let begun = Instant::now();
    restart_agent(&cluster, writer).await;
    while begun.elapsed() < AWAY {
        go_on(writer, &ALL).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    cluster.serve_api().await.unwrap();
    whole(&cluster, writer, &ALL).await;
    let stall = stalls(writer, &ALL).await;
    println!("longest stall while the API server was away: {stall:.1} s");
    assert!(stall <= STALL, "{stall} s");
    end(&rack, &cluster, &ALL).await;
}
