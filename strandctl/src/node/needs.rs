//! Who needs a node, from what the API has.

use crate::{
    cluster::{Evacuations, evacuations, in_words},
    text::count,
};
use anyhow::Result;
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::{Api, Client, ResourceExt, api::ListParams};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};
use strand_api::{Locality, PlacedLeg, PoolLeg, PoolMap, PoolSnapshot, PoolVolume, Redundancy};

/// Volumes named in a sentence; the others are counted.
const NAMED: usize = 8;

/// What is read to tell who needs a node.
pub(super) struct Seen {
    maps: Vec<PoolMap>,
    volumes: Vec<PoolVolume>,
    snapshots: Vec<PoolSnapshot>,
    legs: Vec<PoolLeg>,
    evacuations: Evacuations,
    /// Claims as `namespace/name`, by volume.
    claims: BTreeMap<String, String>,
}

impl Seen {
    pub(super) async fn read(client: &Client) -> Result<Seen> {
        let params = ListParams::default();
        let maps = Api::<PoolMap>::all(client.clone());
        let volumes = Api::<PoolVolume>::all(client.clone());
        let snapshots = Api::<PoolSnapshot>::all(client.clone());
        let legs = Api::<PoolLeg>::all(client.clone());
        let persistent = Api::<PersistentVolume>::all(client.clone());
        let (maps, volumes, snapshots, legs, persistent) = tokio::try_join!(
            maps.list(&params),
            volumes.list(&params),
            snapshots.list(&params),
            legs.list(&params),
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
            snapshots: snapshots.items,
            legs: legs.items,
            evacuations: evacuations(client).await?,
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
pub(super) struct Needs {
    node: String,
    /// Pools whose map has drives of it.
    maps: Vec<String>,
    /// Volumes that its pods use.
    used: Vec<String>,
    /// Volumes that pods of other nodes use, and whose bytes are here: with those nodes.
    lent: Vec<(String, String)>,
    /// Volumes and snapshots that nobody uses, and that are to leave it.
    leaving: Vec<String>,
    /// How far its drives are with that.
    progress: Vec<String>,
    /// Volumes that nobody uses, and that cannot be used without it.
    kept: Vec<String>,
    /// Volumes that have copies elsewhere.
    thinner: Vec<String>,
}

impl Needs {
    /// Who needs a node. With `moves`, what can leave it has to.
    pub(super) fn of(node: &str, seen: &Seen, moves: bool) -> Needs {
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
            let leaves = moves && users.is_empty() && volume.spec.locality == Locality::Fabric;
            match (users.contains(&node), here, copies, users.is_empty()) {
                (_, true, ..) if leaves => needs.leaving.push(format!("volume {name}")),
                (true, ..) => needs.used.push(name),
                (false, false, ..) => {}
                (false, true, true, _) => needs.thinner.push(name),
                (false, true, false, true) => needs.kept.push(name),
                (false, true, false, false) => needs.lent.push((name, users.join(", "))),
            }
        }
        let volumes = seen.volumes.iter().flat_map(|v| &v.spec.legs);
        let snapshots = seen.snapshots.iter().flat_map(|s| &s.spec.legs);
        let legs = volumes.chain(snapshots).filter(|leg| leg.node_name == node);
        let drives: BTreeSet<&String> = legs.map(|leg| &leg.drive).collect();
        let emptied = drives.into_iter().filter(|_| moves);
        let emptied = emptied.filter_map(|drive| Some((drive, seen.evacuations.get(drive)?)));
        needs.progress = emptied
            .map(|(drive, status)| format!("drive {drive}: {}", status.message))
            .collect();
        let tied = |snapshot: &PoolSnapshot| {
            let mut volumes = seen.volumes.iter();
            let volume = volumes.find(|v| v.metadata.name.as_ref() == Some(&snapshot.spec.volume));
            volume.is_some_and(|volume| volume.spec.locality == Locality::Node)
        };
        // Bytes that a volume has left behind must not come back with their node: they are gone before it goes.
        let left = |leg: &&PoolLeg| {
            let names =
                |legs: &[PlacedLeg]| legs.iter().any(|placed| placed.name == leg.name_any());
            let volumes = seen.volumes.iter().map(|v| (&v.metadata.uid, &v.spec.legs));
            let snapshots = seen
                .snapshots
                .iter()
                .map(|s| (&s.metadata.uid, &s.spec.legs));
            let mut owners = volumes.chain(snapshots);
            let owner = owners.find(|(uid, _)| uid.as_ref() == Some(&leg.spec.owner_uid));
            moves && leg.spec.node_name == node && owner.is_some_and(|(_, legs)| !names(legs))
        };
        for leg in seen.legs.iter().filter(left) {
            needs
                .leaving
                .push(format!("what is left of leg {}", leg.name_any()));
        }
        for snapshot in seen.snapshots.iter().filter(|s| moves && !tied(s)) {
            if snapshot.spec.legs.iter().any(|leg| leg.node_name == node) {
                needs
                    .leaving
                    .push(format!("snapshot {}", snapshot.name_any()));
            }
        }
        needs
    }

    /// The same for programs; of what moves nothing, which is told in words alone.
    pub(super) fn facts(&self) -> Value {
        let lent = self.lent.iter();
        let lent = lent.map(|(volume, users)| json!({"volume": volume, "users": users}));
        json!({
            "node": self.node,
            "safe": self.nobody(),
            "maps": self.maps,
            "used": self.used,
            "lent": lent.collect::<Vec<_>>(),
            "kept": self.kept,
            "thinner": self.thinner,
        })
    }

    pub(super) fn nobody(&self) -> bool {
        let used = !self.used.is_empty() || !self.lent.is_empty();
        self.maps.is_empty() && self.leaving.is_empty() && !used
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
        if !self.leaving.is_empty() {
            writeln!(f, "  still being moved: {}", some(&self.leaving))?;
            for drive in &self.progress {
                writeln!(f, "  {drive}")?;
            }
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
            snapshots: Vec::new(),
            legs: Vec::new(),
            evacuations: Evacuations::new(),
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
        let needs = Needs::of("n1", &seen(&["n1", "n2"], volumes), false);
        assert!(!needs.nobody());
        assert_eq!(
            needs.to_string(),
            "  the map of pool rack still has its drives: a moment\n  \
             volume v1 (team-a/weights) is used by pods of the node\n  \
             volume v2 is used on n2, and its bytes are here\n  \
             `kubectl drain n1 --ignore-daemonsets --delete-emptydir-data` ends the node's pods\n  \
             pods of other nodes end as you end them\n"
        );
        let facts = needs.facts();
        assert_eq!(facts["safe"], false);
        assert_eq!(facts["used"], json!(["v1 (team-a/weights)"]));
        assert_eq!(facts["lent"], json!([{"volume": "v2", "users": "n2"}]));
    }

    #[test]
    fn a_node_that_nobody_needs_tells_what_is_without_it() {
        let volumes = vec![
            volume("v1", "none", "n1", &[]),
            volume("v2", "mirror", "n1", &["n2"]),
            volume("v3", "stripe", "n1", &[]),
            volume("v4", "none", "n2", &["n2"]),
        ];
        let needs = Needs::of("n1", &seen(&["n2"], volumes), false);
        assert!(needs.nobody());
        assert_eq!(
            needs.to_string(),
            "node n1: safe to reboot or power off; `strandctl node uncordon n1` takes it back\n  \
             2 volumes cannot be used meanwhile, since the only bytes are here: v1 (team-a/weights), v3\n  \
             1 volume without one copy meanwhile: v2\n"
        );
    }

    #[test]
    fn what_can_leave_a_node_has_to_where_that_is_asked_for() {
        let mut tied = volume("v2", "none", "n1", &[]);
        (tied.spec.locality, tied.spec.node_name) = (Locality::Node, Some("n1".into()));
        let volumes = vec![
            volume("v1", "none", "n1", &[]),
            tied,
            volume("v3", "mirror", "n1", &["n2"]),
        ];
        let mut seen = seen(&["n2"], volumes);
        let snapshot = |name: &str, of: &str| {
            let object = json!({
                "apiVersion": "strand.dev/v1alpha1", "kind": "PoolSnapshot", "metadata": {"name": name},
                "spec": {"volume": of, "legs": [{"name": name, "index": 0, "nodeName": "n1", "drive": "d"}]},
            });
            serde_json::from_value(object).unwrap()
        };
        seen.snapshots = vec![snapshot("s1", "v1"), snapshot("s2", "v2")];
        let status = strand_api::DriveOperationStatus {
            message: "512Mi of 1Gi moved".into(),
            ..Default::default()
        };
        seen.evacuations = [("d".to_owned(), status)].into();
        let needs = Needs::of("n1", &seen, true);
        assert!(!needs.nobody());
        assert_eq!(
            needs.to_string(),
            "  still being moved: volume v1 (team-a/weights), snapshot s1\n  drive d: 512Mi of 1Gi moved\n"
        );
        assert!(Needs::of("n1", &seen, false).nobody());
    }

    #[test]
    fn what_a_volume_has_left_behind_is_gone_before_its_node_is() {
        let mut moved = volume("v1", "none", "n2", &[]);
        moved.metadata.uid = Some("u1".into());
        let mut seen = seen(&["n2"], vec![moved]);
        let leg = |name: &str, node: &str, owner: &str| -> PoolLeg {
            let object = json!({
                "apiVersion": "strand.dev/v1alpha1", "kind": "PoolLeg", "metadata": {"name": name},
                "spec": {"volume": "v1", "ownerUID": owner, "nodeName": node, "drive": "d", "index": 0, "size": "1Gi", "provisioning": "Thick"},
            });
            serde_json::from_value(object).unwrap()
        };
        seen.legs = vec![leg("old", "n1", "u1"), leg("other", "n1", "nobody")];
        let needs = Needs::of("n1", &seen, true);
        assert!(!needs.nobody());
        assert_eq!(
            needs.to_string(),
            "  still being moved: what is left of leg old\n"
        );
        assert!(Needs::of("n1", &seen, false).nobody());
    }

    #[test]
    fn many_names_are_counted() {
        let names: Vec<String> = (0..10).map(|n| format!("v{n}")).collect();
        assert_eq!(some(&names), "v0, v1, v2, v3, v4, v5, v6, v7 and 2 more");
    }
}
