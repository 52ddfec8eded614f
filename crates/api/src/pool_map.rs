//! PoolMap: the drives that serve context memory, as agents and endpoints need them.

use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// The epoch-numbered list of drives that serve a pool's context memory. Written by the operator
/// alone, always as a whole; named like its pool.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "strand.dev",
    version = "v1alpha1",
    kind = "PoolMap",
    plural = "poolmaps",
    shortname = "pmap",
    category = "strand",
    derive = "PartialEq",
    doc = "The epoch-numbered list of drives that serve a pool's context memory. Written by the operator alone, always as a whole; named like its pool.",
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".spec.epoch"),
    printcolumn(name = "PoolID", type_ = "string", json_path = ".spec.poolID"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.epoch >= oldSelf.epoch").message("the epoch of a pool map never goes back"),
    validation = Rule::new("self.epoch > oldSelf.epoch || self == oldSelf").message("a changed pool map needs a higher epoch")
)]
pub struct PoolMapSpec {
    /// Grows with every change.
    #[schemars(range(min = 1))]
    pub epoch: i64,
    /// Identity of the pool.
    #[serde(rename = "poolID")]
    #[schemars(length(max = 36))]
    pub pool_id: String,
    /// Nodes with at least one serving drive, sorted by name.
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[schemars(length(max = 20_000))]
    pub nodes: Vec<MapNode>,
}

/// One node's entry. It is one text, since there may be 10,000 of them in one object: `NODE HOST:PORT DOMAIN DRIVES`, with `-` for
/// a domain that is the node itself, and drives grouped as `WEIGHT@SINCE:KEY,KEY;WEIGHT@SINCE:KEY`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct MapNode {
    /// Name of the node.
    pub node: String,
    /// `host:port` at which the node's agent serves its peers.
    pub at: String,
    /// Failure domain; none where it is the node itself.
    pub domain: Option<String>,
    /// The node's drives, sorted.
    pub drives: Vec<MapDrive>,
}

/// A drive's entry in a pool map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MapDrive {
    /// Size of the context partition in units of 64 MiB, at least 1.
    pub weight: u32,
    /// Epoch since which the drive has been in the map without a gap. Blocks that it held before a gap may have been deleted or
    /// overwritten meanwhile elsewhere.
    pub since: i64,
    /// First 32 bits of the drive's id, in the map eight hexadecimal digits.
    pub key: u32,
}

/// An entry that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no entry of a pool map at {part:?}; expected NODE HOST:PORT DOMAIN WEIGHT@SINCE:KEY,KEY;WEIGHT@SINCE:KEY"
)]
pub struct MapNodeError {
    text: String,
    part: String,
}

/// Longest entry in bytes: a name of 253, an address of 128, a domain of 63, and about 400 drives.
const LONGEST: u32 = 4608;

impl JsonSchema for MapNode {
    fn schema_name() -> Cow<'static, str> {
        "MapNode".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": LONGEST,
            "description": "One node: NODE HOST:PORT DOMAIN DRIVES. The domain is - where it is the node itself. Drives are WEIGHT@SINCE:KEY,KEY;WEIGHT@SINCE:KEY: a weight in units of 64 MiB, the epoch since which the drive has been in the map without a gap, and the first eight hexadecimal digits of the drive's id.",
        })
    }
}

impl From<MapNode> for String {
    fn from(node: MapNode) -> String {
        let domain = node.domain.as_deref().unwrap_or("-");
        let mut text = format!("{} {} {domain} ", node.node, node.at);
        let mut drives = node.drives;
        drives.sort_unstable();
        let together = |a: &MapDrive, b: &MapDrive| (a.weight, a.since) == (b.weight, b.since);
        for (number, group) in drives.chunk_by(together).enumerate() {
            let between = if number > 0 { ";" } else { "" };
            let keys: Vec<String> = group.iter().map(|d| format!("{:08x}", d.key)).collect();
            let MapDrive { weight, since, .. } = group[0];
            text.push_str(&format!("{between}{weight}@{since}:{}", keys.join(",")));
        }
        text
    }
}

impl TryFrom<String> for MapNode {
    type Error = MapNodeError;

    fn try_from(text: String) -> Result<Self, MapNodeError> {
        let error = |part: &str| MapNodeError {
            text: text.clone(),
            part: part.into(),
        };
        let fields: Vec<&str> = text.split(' ').collect();
        let [node, at, domain, groups] = fields[..] else {
            return Err(error(""));
        };
        if let Some(empty) = [node, at, domain].iter().find(|field| field.is_empty()) {
            return Err(error(empty));
        }
        let mut drives = Vec::new();
        for group in groups.split(';') {
            let parts = group.split_once(':').and_then(|(head, keys)| {
                let (weight, since) = head.split_once('@')?;
                let weight = weight.parse().ok().filter(|weight| *weight > 0)?;
                let since = since.parse().ok().filter(|since| *since > 0)?;
                Some((weight, since, keys))
            });
            let (weight, since, keys) = parts.ok_or_else(|| error(group))?;
            for digits in keys.split(',') {
                let hex = digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_hexdigit());
                let key = u32::from_str_radix(digits, 16).ok().filter(|_| hex);
                let key = key.ok_or_else(|| error(group))?;
                drives.push(MapDrive { weight, since, key });
            }
        }
        Ok(Self {
            node: node.into(),
            at: at.into(),
            domain: (domain != "-").then(|| domain.into()),
            drives,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drive(weight: u32, since: i64, key: u32) -> MapDrive {
        MapDrive { weight, since, key }
    }

    #[test]
    fn an_entry_is_one_short_text_and_read_back() {
        let node = MapNode {
            node: "gpu-1".into(),
            at: "10.0.0.1:9466".into(),
            domain: None,
            drives: vec![
                drive(15_000, 3, 7),
                drive(30_000, 3, 1),
                drive(30_000, 3, 0xdead_beef),
                drive(30_000, 9, 2),
            ],
        };
        let text = String::from(node.clone());
        assert_eq!(
            text,
            "gpu-1 10.0.0.1:9466 - 15000@3:00000007;30000@3:00000001,deadbeef;30000@9:00000002"
        );
        assert_eq!(MapNode::try_from(text), Ok(node.clone()));
        let apart = MapNode {
            domain: Some("rack-7".into()),
            ..node
        };
        assert_eq!(MapNode::try_from(String::from(apart.clone())), Ok(apart));
    }

    #[test]
    fn a_damaged_entry_is_refused() {
        for text in [
            "",
            "a b -",
            "a b - 1@1:00000001 c",
            " b - 1@1:00000001",
            "a b - ",
            "a b - 1",
            "a b - 1:00000001",
            "a b - x@1:00000001",
            "a b - 0@1:00000001",
            "a b - 1@0:00000001",
            "a b - 1@1:0001",
            "a b - 1@1:0000000g",
            "a b - 1@1:",
            "a b - 1@1:+0000001",
            "a b - 1@1:00000001,",
        ] {
            assert!(MapNode::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
