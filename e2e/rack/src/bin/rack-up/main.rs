//! `strandctl up --vms`: a rack of virtual machines to play with, up until it is told to go down.

mod words;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde_json::json;
use strand_api::{ByteQuantity, DrivePhase};
use strand_rack_bed::{Cluster, DrivePlan, Fault, Rack};
use tokio::io::{AsyncBufReadExt, BufReader};

use words::Word;

/// Longest that the drives may take until they are adopted; each is watched for a minute.
const ADOPTION: Duration = Duration::from_secs(600);

/// Brings a rack of virtual machines up and takes hands to it, a line each, from standard input. `strandctl up --vms` starts it.
#[derive(Parser, Debug)]
#[command(name = "rack-up", version)]
struct Args {
    /// Machines
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=strand_rack_bed::rack::MOST as i64))]
    nodes: u32,
    /// Drives of each
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=8))]
    drives: u32,
    /// Bytes of each drive; the files are sparse
    #[arg(long, default_value = "4Gi")]
    drive_size: ByteQuantity,
    /// Directory for the kubeconfig
    #[arg(long)]
    dir: PathBuf,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let args = Args::parse();
    fs::create_dir_all(&args.dir).with_context(|| args.dir.display().to_string())?;
    let kubeconfig = args.dir.join("kubeconfig");
    ensure!(
        !kubeconfig.exists(),
        "{} is there already: a rack's, which is up or was; name another directory by --dir, or remove the file",
        kubeconfig.display()
    );
    let outcome = tokio::select! {
        outcome = live(&args, &kubeconfig) => outcome,
        signal = tokio::signal::ctrl_c() => signal.context("signals cannot be handled"),
    };
    // None where it did not come that far.
    let _ = fs::remove_file(&kubeconfig);
    outcome
}

async fn live(args: &Args, kubeconfig: &Path) -> Result<()> {
    let plan = |machine| {
        let drives = 0..args.drives;
        let plan = drives.map(|drive| DrivePlan {
            bytes: args.drive_size.0,
            ..DrivePlan::new(format!("G{machine}D{drive}"))
        });
        plan.collect::<Vec<_>>()
    };
    let plans: Vec<Vec<DrivePlan>> = (1..=args.nodes).map(plan).collect();
    println!(
        "{} machines come up, emulated: about half a minute",
        args.nodes
    );
    let mut rack = Rack::boot("up", &plans).await?;
    let cluster = Cluster::start(&rack).await?;
    fs::copy(cluster.kubeconfig(), kubeconfig)?;
    cluster
        .pool("default", json!({"drives": {"models": ["*"]}}))
        .await?;
    for guest in rack.guests() {
        cluster.start_agent_with_volumes(guest).await?;
        cluster.start_csi(guest, "default").await?;
    }
    println!(
        "their drives are looked at, and watched for a minute before they are taken; meanwhile, in another terminal:\n\
         \x20 kubectl --kubeconfig {} get mpool,drv -w",
        kubeconfig.display()
    );
    let all: usize = plans.iter().map(Vec::len).sum();
    let ready = cluster.drives("all drives are Ready", ADOPTION, |drives| {
        let phases = drives
            .iter()
            .map(|d| d.status.as_ref().and_then(|s| s.phase));
        phases
            .filter(|phase| *phase == Some(DrivePhase::Ready))
            .count()
            == all
    });
    ready.await?;
    println!("the rack is up. Hands on it, a line each:\n{}", words::HELP);
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        if line.trim().is_empty() {
            continue;
        }
        match words::read(&line, rack.guests().len()) {
            Ok(Word::Quit) => break,
            Ok(Word::Help) => println!("{}", words::HELP),
            Ok(word) => match act(&mut rack, &cluster, &plans, word).await {
                Ok(said) => println!("{said}"),
                Err(error) => println!("{error:#}"),
            },
            Err(said) => println!("{said}"),
        }
    }
    println!("the rack goes down");
    Ok(())
}

/// Does what was typed; what there is to say about it.
async fn act(
    rack: &mut Rack,
    cluster: &Cluster,
    plans: &[Vec<DrivePlan>],
    word: Word<'_>,
) -> Result<String> {
    match word {
        Word::Run(machine, script) => {
            return Ok(rack.guest(machine).run(script).await?.to_string());
        }
        Word::Power(machine, false) => rack.guest_mut(machine).cut_power(),
        Word::Power(machine, true) => {
            rack.guest_mut(machine).power_on().await?;
            let guest = rack.guest(machine);
            cluster.start_agent_with_volumes(guest).await?;
            cluster.start_csi(guest, "default").await?;
        }
        Word::Link(machine, up) => rack.network().link(machine, up),
        Word::Delay(machine, by) => rack.network().delay(machine, by),
        Word::Heal => rack.network().heal(),
        Word::Pull(serial) => {
            let machine = holder(rack, serial)?;
            rack.guest_mut(machine).pull(serial).await?;
        }
        Word::Plug(serial) => {
            let all = plans.iter().enumerate();
            let mut all = all.flat_map(|(n, drives)| drives.iter().map(move |plan| (n, plan)));
            let found = all.find(|(_, plan)| plan.serial == serial);
            let (machine, plan) =
                found.with_context(|| format!("{serial} is no drive of this rack"))?;
            rack.guest_mut(machine).plug_in(plan).await?;
        }
        Word::Spoil(serial, sector) => {
            let machine = holder(rack, serial)?;
            rack.guest_mut(machine)
                .spoil(serial, Fault::Unreadable { sector })
                .await?;
        }
        Word::Mend(serial) => {
            let machine = holder(rack, serial)?;
            rack.guest_mut(machine).mend(serial).await?;
        }
        Word::Help | Word::Quit => {}
    }
    Ok("done".to_owned())
}

fn holder(rack: &Rack, serial: &str) -> Result<usize> {
    let mut guests = rack.guests().iter();
    let found = guests.position(|guest| guest.drive(serial).is_ok());
    found.with_context(|| format!("no machine has drive {serial}; they are named G1D0 and so on"))
}
