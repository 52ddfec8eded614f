//! `strandctl volumes check`: one volume's life, with bytes in it.

use super::life::{Driver, Mounted};
use crate::up::rack::{Rack, RackNode};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

const MIB: i64 = 1 << 20;
/// The volume's first size; XFS needs 300 MiB.
const SIZE: i64 = 300 * MIB;
/// Bytes of the file that is written.
const BYTES: usize = 8 << 20;

/// Takes a volume through its life.
#[derive(Args, Debug)]
pub struct CheckArgs {
    /// The rack that `strandctl up --dir DIR` runs
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The node that mounts it [default: the rack's first]
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Kill the node's agent with -9 while the volume is written to
    #[arg(long)]
    kill_agent: bool,
}

pub async fn run(args: CheckArgs) -> Result<()> {
    let rack = Rack::read(&args.dir)?;
    if let Some(need) = &rack.volumes_need {
        bail!("this rack serves no volumes, for want of {need}");
    }
    let node = match &args.node {
        Some(name) => rack.nodes.iter().find(|node| node.name == *name),
        None => rack.nodes.first(),
    };
    let node = node.context("the rack has no such node")?;
    let places = args
        .dir
        .canonicalize()?
        .join("nodes")
        .join(&node.name)
        .join("pods/volumes");
    let driver = Driver::new(&node.name, &node.csi, &places)?;
    let name = format!("check-{}", std::process::id());
    let outcome = live(&driver, node, &name, args.kill_agent).await;
    // Where it broke off, what is left is left to be looked at.
    if outcome.is_ok() {
        let _ = fs::remove_dir_all(&places);
    }
    outcome
}

async fn live(driver: &Driver, node: &RackNode, name: &str, kill: bool) -> Result<()> {
    let start = Instant::now();
    let volume = driver.create(name, SIZE, None).await?;
    say(
        start,
        &format!("volume {name} made, {} MiB", volume.capacity_bytes / MIB),
    );
    let start = Instant::now();
    let origin = driver.mount(&volume).await?;
    say(
        start,
        &format!(
            "attached, an XFS made on it, mounted at {}",
            origin.at.display()
        ),
    );
    let first = random()?;
    let file = origin.at.join("file");
    write(&file, &first)?;

    let start = Instant::now();
    let snapshot = driver
        .snapshot(&origin.id, &format!("{name}-snapshot"))
        .await?;
    say(start, "snapshot taken while it is mounted");
    let second = random()?;
    write(&file, &second)?;
    let start = Instant::now();
    let clone = driver
        .create(&format!("{name}-clone"), SIZE, Some(&snapshot))
        .await?;
    say(start, "clone of the snapshot made");
    let clone = driver.mount(&clone).await?;
    same(
        &clone.at.join("file"),
        &first,
        "the clone has what was written before the snapshot",
    )?;
    same(&file, &second, "the volume has what was written after it")?;

    if kill {
        killed(&origin, node)?;
    }
    let start = Instant::now();
    driver.grow(&origin, SIZE + 20 * MIB).await?;
    say(
        start,
        &format!("grown to {} MiB while it is mounted", SIZE / MIB + 20),
    );
    same(&file, &second, "its bytes are what they were")?;

    let start = Instant::now();
    driver.end(origin).await?;
    driver.end(clone).await?;
    driver.delete_snapshot(&snapshot).await?;
    say(start, "unmounted, detached and deleted, all three");
    Ok(())
}

/// Kills the agent, and goes on writing and reading as a pod would.
fn killed(origin: &Mounted, node: &RackNode) -> Result<()> {
    let start = Instant::now();
    let agent = Pid::from_raw(node.pid.cast_signed()).context("the agent has just ended")?;
    kill_process(agent, Signal::KILL).context("the agent cannot be killed")?;
    let mut written = 0;
    while start.elapsed() < Duration::from_millis(500) {
        let bytes = random()?;
        let file = origin.at.join("while-away");
        write(&file, &bytes)?;
        ensure!(
            fs::read(&file)? == bytes,
            "{} came back otherwise",
            file.display()
        );
        written += bytes.len() >> 20;
    }
    say(
        start,
        &format!(
            "the agent (pid {}) was killed with -9; {written} MiB written and read back meanwhile",
            node.pid
        ),
    );
    Ok(())
}

fn say(since: Instant, what: &str) {
    println!("{:>7.0} ms  {what}", since.elapsed().as_secs_f64() * 1000.0);
}

fn random() -> Result<Vec<u8>> {
    let mut bytes = vec![0; BYTES];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let put = || {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    put().with_context(|| format!("cannot write {}", path.display()))
}

fn same(path: &Path, bytes: &[u8], what: &str) -> Result<()> {
    let read = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(read == bytes, "{} is not what was written", path.display());
    println!(
        "            {what}: {} MiB, every byte right",
        bytes.len() >> 20
    );
    Ok(())
}
