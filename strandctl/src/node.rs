//! `strandctl node`: a node is emptied of work, so that its machine can be away, and taken back.

mod needs;

use crate::{
    cluster::{Target, in_words},
    drive::empty,
    output::{Output, formed},
    text::count,
};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
};
use needs::{Needs, Seen};
use serde_json::json;
use std::{fmt::Write, time::Duration};
use strand_api::{ByteQuantity, Drive};

/// On drives that were cordoned with their node: they are taken back with it.
const WITH_NODE: &str = "strand.dev/cordoned-with-node";
/// Between two looks at what still needs a node.
const LOOK: Duration = Duration::from_secs(1);

/// One node.
#[derive(Args, Debug)]
pub struct NodeArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Cordon a node and its drives, and tell what still needs it. Ends with 0 once its machine can be away. With --move, volumes and
    /// snapshots that nobody uses go to drives of other nodes first
    Drain(DrainArgs),
    /// Take a drained node and its drives back into use
    Uncordon(UncordonArgs),
}

/// Drains a node.
#[derive(Args, Debug)]
struct DrainArgs {
    /// The node
    node: String,
    /// Stay until nothing needs the node any more
    #[arg(long)]
    wait: bool,
    /// Move volumes and snapshots that nobody uses to other nodes, as `strandctl drive evacuate` does: for a machine that is gone for long,
    /// or for good. It goes on without this command, until the node is taken back
    #[arg(long = "move")]
    moves: bool,
    /// Bytes a second that are copied from each drive at most, such as 200Mi
    #[arg(long, default_value = "200Mi", requires = "moves")]
    rate: ByteQuantity,
    /// Another form of what is said last: json and yaml are for programs, wide is the text. What is done on the way goes to standard error then
    #[arg(
        short,
        long,
        value_enum,
        hide_possible_values = true,
        conflicts_with = "moves"
    )]
    output: Option<Output>,
    #[command(flatten)]
    target: Target,
}

/// Takes a node back.
#[derive(Args, Debug)]
struct UncordonArgs {
    /// The node
    node: String,
    #[command(flatten)]
    target: Target,
}

/// Runs `strandctl node`.
pub async fn run(args: NodeArgs) -> Result<()> {
    match args.command {
        Command::Drain(args) => drain(args).await,
        Command::Uncordon(args) => {
            let client = args.target.client().await?;
            let drives = cordon(&client, &args.node, false).await?;
            println!("node {}: taken back, {drives}", args.node);
            Ok(())
        }
    }
}

async fn drain(args: DrainArgs) -> Result<()> {
    let client = args.target.client().await?;
    let drives = cordon(&client, &args.node, true).await?;
    let for_programs = matches!(args.output, Some(Output::Json | Output::Yaml));
    let say = |text: String| match for_programs {
        true => eprint!("{text}"),
        false => print!("{text}"),
    };
    say(format!("node {}: cordoned, {drives}\n", args.node));
    if args.moves {
        let drives = crate::cluster::drives(&client).await?;
        let ours = |drive: &&Drive| drive.spec.node_name == args.node && drive.spec.pool.is_some();
        for drive in drives.iter().filter(ours) {
            empty(&client, drive, args.rate).await?;
        }
        println!("  its drives are being emptied; `strandctl drives` tells how far that is");
    }
    let mut told = String::new();
    loop {
        let needs = Needs::of(&args.node, &Seen::read(&client).await?, args.moves);
        let text = needs.to_string();
        if for_programs && (needs.nobody() || !args.wait) {
            print!("{}", formed(args.output, || Ok(needs.facts()), |_| text)?);
        } else if text != told {
            say(text.clone());
            told = text;
        }
        match (needs.nobody(), args.wait) {
            (true, _) => return Ok(()),
            (false, true) => tokio::time::sleep(LOOK).await,
            (false, false) => bail!("node {} is still needed", args.node),
        }
    }
}

/// Cordons a node and those of its drives that are in a pool and are not cordoned, or takes that back; a drive that was cordoned for
/// itself stays so. Returns what was done to drives, in words.
async fn cordon(client: &Client, name: &str, cordon: bool) -> Result<String> {
    let nodes: Api<Node> = Api::all(client.clone());
    let found = nodes.get_opt(name).await.map_err(in_words)?;
    let Some(node) = found else {
        bail!("there is no node {name}; `strandctl status` has the names");
    };
    let is = node.spec.and_then(|spec| spec.unschedulable) == Some(true);
    if is != cordon {
        let patch = Patch::Merge(json!({"spec": {"unschedulable": cordon}}));
        let patched = nodes.patch(name, &PatchParams::default(), &patch).await;
        patched
            .map_err(in_words)
            .with_context(|| format!("node {name} was left as it is"))?;
    }
    let drives: Api<Drive> = Api::all(client.clone());
    let all = crate::cluster::drives(client).await?;
    let of_node = all.iter().filter(|drive| drive.spec.node_name == name);
    let (mut changed, mut others) = (0, 0);
    for drive in of_node.filter(|drive| drive.spec.pool.is_some()) {
        let with_node = drive.annotations().contains_key(WITH_NODE);
        let change = match cordon {
            true => !drive.spec.cordon,
            false => drive.spec.cordon && with_node,
        };
        if !change {
            others += usize::from(drive.spec.cordon && !with_node);
            continue;
        }
        let mark = cordon.then_some("true");
        let patch = Patch::Merge(
            json!({"metadata": {"annotations": {WITH_NODE: mark}}, "spec": {"cordon": cordon}}),
        );
        let drive = drive.name_any();
        let patched = drives.patch(&drive, &PatchParams::default(), &patch).await;
        patched
            .map_err(in_words)
            .with_context(|| format!("drive {drive} was left as it is"))?;
        changed += 1;
    }
    let mut words = format!("with {}", count(changed, "drive"));
    if others > 0 {
        let _ = write!(words, "; {} cordoned for itself", count(others, "more"));
    }
    Ok(words)
}
