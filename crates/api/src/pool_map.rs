//! PoolMap: the drives that serve context memory, as agents and endpoints need them.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

/// One node's entry; short, since there may be 10,000 of them in one object.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MapNode {
    /// Name of the node.
    #[schemars(length(max = 253))]
    pub node: String,
    /// `host:port` at which the node's agent serves its peers.
    #[schemars(length(max = 128))]
    pub at: String,
    /// Failure domain; left out where it is the node itself.
    #[serde(rename = "in", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub domain: Option<String>,
    /// Drives by weight: `WEIGHT:KEY,KEY;WEIGHT:KEY`. The weight is the size of the context
    /// partition in units of 64 MiB, a key the first eight hexadecimal digits of the drive's id.
    #[schemars(length(max = 4096))]
    pub drives: String,
}

/// One drive of a map entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MapDrive {
    /// Size of the context partition in units of 64 MiB; never 0.
    pub weight: u32,
    /// First 32 bits of the drive's id. Unique within its node.
    pub key: u32,
}

/// Why [`MapNode::drives`] cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a list of drives of a pool map at {part:?}; expected WEIGHT:KEY,KEY;WEIGHT:KEY"
)]
pub struct MapDrivesError {
    text: String,
    part: String,
}

/// Writes drives as [`MapNode::drives`] has them: sorted, those of one weight together.
pub fn format_drives(drives: &[MapDrive]) -> String {
    let mut sorted = drives.to_vec();
    sorted.sort_unstable();
    let mut text = String::new();
    for group in sorted.chunk_by(|a, b| a.weight == b.weight) {
        if !text.is_empty() {
            text.push(';');
        }
        let keys: Vec<String> = group.iter().map(|d| format!("{:08x}", d.key)).collect();
        text.push_str(&format!("{}:{}", group[0].weight, keys.join(",")));
    }
    text
}

/// Reads [`MapNode::drives`].
pub fn parse_drives(text: &str) -> Result<Vec<MapDrive>, MapDrivesError> {
    let error = |part: &str| MapDrivesError {
        text: text.into(),
        part: part.into(),
    };
    let mut drives = Vec::new();
    for group in text.split(';').filter(|group| !group.is_empty()) {
        let (weight, keys) = group.split_once(':').ok_or_else(|| error(group))?;
        let weight = weight
            .parse()
            .ok()
            .filter(|w| *w > 0)
            .ok_or_else(|| error(group))?;
        for key in keys.split(',') {
            let digits = key.len() == 8 && key.bytes().all(|b| b.is_ascii_hexdigit());
            let key = u32::from_str_radix(key, 16)
                .ok()
                .filter(|_| digits)
                .ok_or_else(|| error(group))?;
            drives.push(MapDrive { weight, key });
        }
    }
    Ok(drives)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drives_are_grouped_by_weight_and_read_back() {
        let drives = [
            MapDrive {
                weight: 30_000,
                key: 0xdead_beef,
            },
            MapDrive {
                weight: 15_000,
                key: 7,
            },
            MapDrive {
                weight: 30_000,
                key: 1,
            },
        ];
        let text = format_drives(&drives);
        assert_eq!(text, "15000:00000007;30000:00000001,deadbeef");
        let mut expected = drives.to_vec();
        expected.sort_unstable();
        assert_eq!(parse_drives(&text), Ok(expected));
        assert_eq!(parse_drives(""), Ok(vec![]));
    }

    #[test]
    fn a_damaged_list_is_refused() {
        for text in [
            "1",
            "x:00000001",
            "0:00000001",
            "1:0001",
            "1:0000000g",
            "1:",
            "1:+0000001",
            "1:00000001,",
        ] {
            assert!(parse_drives(text).is_err(), "{text}");
        }
    }
}
