//! `strandctl node`: a node is emptied of work, so that its machine can be away, and taken back.

use crate::{
    cluster::{Target, in_words},
    text::count,
};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use k8s_openapi::api::core::v1::{Node, PersistentVolume};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;
use std::{collections::BTreeMap, fmt::Write, time::Duration};
use strand_api::{Drive, PoolMap, PoolVolume, Redundancy};

/// On drives that were cordoned with their node: they are taken back with it.
const WITH_NODE: &str = "strand.dev/cordoned-with-node";
/// Between two looks at what still needs a node.
const LOOK: Duration = Duration::from_secs(1);
/// Volumes named in a sentence; the others are counted.
const NAMED: usize = 8;

/// One node.
#[derive(Args, Debug)]
pub struct NodeArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Cordon a node and its drives, and tell what still needs it. Ends with 0 once its machine can be away
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
    println!("node {}: cordoned, {drives}", args.node);
    let mut told = String::new();
    loop {
        let needs = Needs::of(&args.node, &Seen::read(&client).await?);
        let text = needs.to_string();
        if text != told {
            print!("{text}");
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

/// What is read to tell who needs a node.
struct Seen {
    maps: Vec<PoolMap>,
    volumes: Vec<PoolVolume>,
    /// Claims as `namespace/name`, by volume.
    claims: BTreeMap<String, String>,
}

impl Seen {
    async fn read(client: &Client) -> Result<Seen> {
        let params = ListParams::default();
        let maps = Api::<PoolMap>::all(client.clone());
        let volumes = Api::<PoolVolume>::all(client.clone());
        let persistent = Api::<PersistentVolume>::all(client.clone());
        let (maps, volumes, persistent) = tokio::try_join!(
            maps.list(&params),
            volumes.list(&params),
            persistent.list(&params)
        )
        .map_err(in_words)?;
        let claim = |volume: PersistentVolume| {
            let spec = volume.spec?;
            let claim = spec.claim_ref?;
            let claim = format!("{}/{}", claim.namespace?, claim.name?);
            Some((spec.csi?.volume_handle, claim))
        };
        Ok(Seen {
            maps: maps.items,
            volumes: volumes.items,
            claims: persistent.items.into_iter().filter_map(claim).collect(),
        })
    }

    fn name(&self, volume: &PoolVolume) -> String {
        let name = volume.name_any();
        match self.claims.get(&name) {
            Some(claim) => format!("{name} ({claim})"),
            None => name,
        }
    }
}

/// Who needs a node, and what is without it while its machine is away.
#[derive(Debug, Default, PartialEq, Eq)]
struct Needs {
    node: String,
    /// Pools whose map has drives of it.
    maps: Vec<String>,
    /// Volumes that its pods use.
    used: Vec<String>,
    /// Volumes that pods of other nodes use, and whose bytes are here: with those nodes.
    lent: Vec<(String, String)>,
    /// Volumes that nobody uses, and that cannot be used without it.
    kept: Vec<String>,
    /// Volumes that have copies elsewhere.
    thinner: Vec<String>,
}

impl Needs {
    fn of(node: &str, seen: &Seen) -> Needs {
        let mut needs = Needs {
            node: node.to_owned(),
            ..Needs::default()
        };
        let with = |map: &&PoolMap| map.spec.nodes.iter().any(|entry| entry.node == node);
        needs.maps = seen
            .maps
            .iter()
            .filter(with)
            .map(|m| m.name_any())
            .collect();
        for volume in &seen.volumes {
            let name = seen.name(volume);
            let attachments = volume.status.iter().flat_map(|s| &s.attachments);
            let users: Vec<&str> = attachments.map(|a| a.node.as_str()).collect();
            let here = volume.spec.legs.iter().any(|leg| leg.node_name == node);
            let copies = match volume.spec.redundancy {
                Redundancy::None | Redundancy::Stripe => false,
                Redundancy::Mirror | Redundancy::Raid6 => true,
            };
            match (users.contains(&node), here, copies, users.is_empty()) {
                (true, ..) => needs.used.push(name),
                (false, false, ..) => {}
                (false, true, true, _) => needs.thinner.push(name),
                (false, true, false, true) => needs.kept.push(name),
                (false, true, false, false) => needs.lent.push((name, users.join(", "))),
            }
        }
        needs
    }

    fn nobody(&self) -> bool {
        self.maps.is_empty() && self.used.is_empty() && self.lent.is_empty()
    }
}

impl std::fmt::Display for Needs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let node = &self.node;
        for pool in &self.maps {
            writeln!(f, "  the map of pool {pool} still has its drives: a moment")?;
        }
        for volume in &self.used {
            writeln!(f, "  volume {volume} is used by pods of the node")?;
        }
        for (volume, users) in &self.lent {
            writeln!(
                f,
                "  volume {volume} is used on {users}, and its bytes are here"
            )?;
        }
        if !self.used.is_empty() {
            writeln!(
                f,
                "  `kubectl drain {node} --ignore-daemonsets --delete-emptydir-data` ends the node's pods"
            )?;
        }
        if !self.lent.is_empty() {
            writeln!(f, "  pods of other nodes end as you end them")?;
        }
        if !self.nobody() {
            return Ok(());
        }
        writeln!(
            f,
            "node {node}: safe to reboot or power off; `strandctl node uncordon {node}` takes it back"
        )?;
        let mut tell = |volumes: &[String], words: &str| match volumes {
            [] => Ok(()),
            _ => writeln!(
                f,
                "  {} {words}: {}",
                count(volumes.len(), "volume"),
                some(volumes)
            ),
        };
        tell(
            &self.kept,
            "cannot be used meanwhile, since the only bytes are here",
        )?;
        tell(&self.thinner, "without one copy meanwhile")
    }
}

fn some(names: &[String]) -> String {
    let mut text = names[..names.len().min(NAMED)].join(", ");
    if names.len() > NAMED {
        let _ = write!(text, " and {} more", names.len() - NAMED);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(name: &str, redundancy: &str, leg: &str, attached: &[&str]) -> PoolVolume {
        let attachments: Vec<_> = (1..)
            .zip(attached)
            .map(|(generation, node)| json!({"generation": generation, "node": node}))
            .collect();
        serde_json::from_value(json!({
            "apiVersion": "strand.dev/v1alpha1", "kind": "PoolVolume", "metadata": {"name": name},
            "spec": {
                "pool": "rack", "size": "1Gi", "redundancy": redundancy, "volumeMode": "Block",
                "legs": [{"name": format!("{name}-0"), "index": 0, "nodeName": leg, "drive": "d"}],
            },
            "status": {"attachments": attachments},
        }))
        .unwrap()
    }

    fn seen(map: &[&str], volumes: Vec<PoolVolume>) -> Seen {
        let nodes: Vec<String> = map
            .iter()
            .map(|node| format!("{node} {node}:1 - 1@1:00000001"))
            .collect();
        let map = serde_json::from_value(json!({
            "apiVersion": "strand.dev/v1alpha1", "kind": "PoolMap", "metadata": {"name": "rack"},
            "spec": {"epoch": 1, "poolID": "p", "nodes": nodes},
        }));
        Seen {
            maps: vec![map.unwrap()],
            volumes,
            claims: [("v1".to_owned(), "team-a/weights".to_owned())].into(),
        }
    }

    #[test]
    fn a_node_is_needed_while_somebody_uses_what_is_on_it() {
        let volumes = vec![
            volume("v1", "none", "n1", &["n1"]),
            volume("v2", "none", "n1", &["n2"]),
            volume("v3", "none", "n2", &["n2"]),
        ];
        let needs = Needs::of("n1", &seen(&["n1", "n2"], volumes));
        assert!(!needs.nobody());
        assert_eq!(
            needs.to_string(),
            "  the map of pool rack still has its drives: a moment\n  \
             volume v1 (team-a/weights) is used by pods of the node\n  \
             volume v2 is used on n2, and its bytes are here\n  \
             `kubectl drain n1 --ignore-daemonsets --delete-emptydir-data` ends the node's pods\n  \
             pods of other nodes end as you end them\n"
        );
    }

    #[test]
    fn a_node_that_nobody_needs_tells_what_is_without_it() {
        let volumes = vec![
            volume("v1", "none", "n1", &[]),
            volume("v2", "mirror", "n1", &["n2"]),
            volume("v3", "stripe", "n1", &[]),
            volume("v4", "none", "n2", &["n2"]),
        ];
        let needs = Needs::of("n1", &seen(&["n2"], volumes));
        assert!(needs.nobody());
        assert_eq!(
            needs.to_string(),
            "node n1: safe to reboot or power off; `strandctl node uncordon n1` takes it back\n  \
             2 volumes cannot be used meanwhile, since the only bytes are here: v1 (team-a/weights), v3\n  \
             1 volume without one copy meanwhile: v2\n"
        );
    }

    #[test]
    fn many_names_are_counted() {
        let names: Vec<String> = (0..10).map(|n| format!("v{n}")).collect();
        assert_eq!(some(&names), "v0, v1, v2, v3, v4, v5, v6, v7 and 2 more");
    }
}
