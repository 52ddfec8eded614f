//! MemoryPool: what a platform engineer asks for.

use crate::{
    condition::Condition,
    quantity::{ByteQuantity, Share},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A pool of stranded NVMe drives: which nodes and drives it takes, how each drive is carved into
/// storage and context memory, and the policies of both sides.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "strand.dev",
    version = "v1alpha1",
    kind = "MemoryPool",
    plural = "memorypools",
    shortname = "mpool",
    category = "strand",
    status = "MemoryPoolStatus",
    derive = "PartialEq",
    doc = "A pool of stranded NVMe drives: which nodes and drives it takes, how each drive is carved into storage and context memory, and the policies of both sides.",
    validation = Rule::new("self.metadata.name.size() <= 63").message("the name of a pool is written on its drives and must have at most 63 characters"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status", description = "Whether the pool serves what it was asked for"),
    printcolumn(name = "Nodes", type_ = "integer", json_path = ".status.nodes", description = "Selected nodes with at least one drive in the pool"),
    printcolumn(name = "Drives", type_ = "string", json_path = ".status.display.drives", description = "Drives adopted / found on the selected nodes"),
    printcolumn(name = "Context", type_ = "string", json_path = ".status.display.contextMemory", description = "Context memory, used / capacity"),
    printcolumn(name = "Storage", type_ = "string", json_path = ".status.display.storage", description = "Storage, used / capacity"),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".status.mapEpoch", description = "Epoch of the pool map"),
    printcolumn(name = "Rejected", type_ = "string", json_path = ".status.display.rejected", description = "Most frequent reasons for which drives were not taken"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].message", priority = 1, description = "Why the pool is, or is not, ready")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(oldSelf.poolID) || (has(self.poolID) && self.poolID == oldSelf.poolID)").message("poolID is written on the pool's drives and cannot change; to use another identity, create another pool").reason(Reason::FieldValueForbidden))]
pub struct MemoryPoolSpec {
    /// Identity that is written on the pool's drives (a UUID). Leave it out: a new pool gets one,
    /// and a pool that is created again takes over the one that drives carry with its name. Give it
    /// to name the drives meant where several are possible. It cannot change.
    #[serde(rename = "poolID", default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(
        pattern = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
    ))]
    pub pool_id: Option<String>,

    /// Nodes whose drives the pool may take. Left out: all nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelector>,

    /// Drives that the pool may take. A drive must match all that is given here and nothing under
    /// `exclude`.
    pub drives: DriveSelector,

    /// Whether blank drives are taken by themselves or one by one by an administrator.
    #[serde(default)]
    pub adoption: Adoption,

    /// How each drive is split.
    #[serde(default)]
    pub carve: CarvePolicy,

    /// Label of nodes that names their failure domain (a rack, a zone). A node without it is a
    /// domain of its own.
    #[serde(default = "default_failure_domain_label")]
    #[schemars(length(min = 1, max = 317))]
    pub failure_domain_label: String,

    /// Policy of the context-memory side.
    #[serde(default)]
    pub context_memory: ContextMemoryPolicy,

    /// Which namespaces may use the pool: its context memory, its volumes and its scratch space.
    #[serde(default)]
    pub access: Access,

    /// Policy of the storage side.
    #[serde(default)]
    pub storage: StoragePolicy,

    /// Export volumes to other nodes without authenticating hosts. Only for fabrics where every
    /// host is trusted.
    #[serde(default)]
    pub insecure_fabric: bool,

    /// What becomes of the drives when the pool is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

fn default_failure_domain_label() -> String {
    crate::names::DEFAULT_FAILURE_DOMAIN_LABEL.into()
}

/// Which drives a pool may take.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.models) || has(self.serials) || has(self.minSize) || has(self.maxSize)").message("name the drives meant: give at least one of models, serials, minSize, maxSize (models: [\"*\"] takes every stranded drive)"),
    validation = Rule::new("!has(self.minSize) || !has(self.maxSize) || quantity(string(self.minSize)).compareTo(quantity(string(self.maxSize))) <= 0").message("minSize must not be above maxSize")
)]
pub struct DriveSelector {
    /// Models, as the drives report them; `*` stands for any characters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 64)))]
    pub models: Vec<String>,
    /// Serial numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 4096), inner(length(min = 1, max = 64)))]
    pub serials: Vec<String>,
    /// Smallest size taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_size: Option<ByteQuantity>,
    /// Largest size taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_size: Option<ByteQuantity>,
    /// Drives never taken, whatever else matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude: Option<DriveExclusions>,
}

/// Drives that a pool never takes.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DriveExclusions {
    /// Models; `*` stands for any characters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 64)))]
    pub models: Vec<String>,
    /// Serial numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4096), inner(length(min = 1, max = 64)))]
    pub serials: Vec<String>,
}

/// How drives come into the pool.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Adoption {
    /// Every selected drive that is provably blank is taken.
    #[default]
    Automatic,
    /// Only drives whose `spec.pool` an administrator has set are taken, and only if blank.
    Manual,
}

/// Which namespaces may use a pool. It is asked when a pod starts and when a volume is made; what is there stays.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// Every namespace; those with a PoolGrant have the share that it says.
    #[default]
    Open,
    /// Only those with a PoolGrant.
    Granted,
}

/// How each drive is split.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CarvePolicy {
    /// Context memory of each drive: a percentage of it (`60%`) or a size (`1.5Ti`). The rest is storage.
    #[serde(default = "default_context_share")]
    pub context_memory: Share,
    /// Leave a drive alone if its context side would be smaller than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_context_memory: Option<ByteQuantity>,
    /// Leave a drive alone if its storage side would be smaller than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_storage: Option<ByteQuantity>,
    /// Other shares for some models; the first that matches counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub overrides: Vec<CarveOverride>,
}

fn default_context_share() -> Share {
    Share::Percent(50)
}

impl Default for CarvePolicy {
    fn default() -> Self {
        Self {
            context_memory: default_context_share(),
            min_context_memory: None,
            min_storage: None,
            overrides: Vec::new(),
        }
    }
}

/// Another share of context memory for drives of a model.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CarveOverride {
    /// Model; `*` stands for any characters.
    #[schemars(length(min = 1, max = 64))]
    pub model: String,
    /// Context memory of such a drive: a percentage of it or a size.
    pub context_memory: Share,
}

/// Policy of the context-memory side.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.lowWatermarkPercent < self.highWatermarkPercent").message("lowWatermarkPercent must be below highWatermarkPercent: eviction starts at the high one and stops at the low one"))]
pub struct ContextMemoryPolicy {
    /// Eviction starts when a partition is this full, in percent.
    #[serde(default = "default_high_watermark")]
    #[schemars(range(min = 2, max = 99))]
    pub high_watermark_percent: i32,
    /// Eviction stops when a partition is only this full, in percent.
    #[serde(default = "default_low_watermark")]
    #[schemars(range(min = 1, max = 98))]
    pub low_watermark_percent: i32,
    /// Blocks are forgotten this many seconds after they were written. Left out: never by age.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub ttl_seconds: Option<i64>,
    /// Endurance budget: how much context memory may write to a drive a day, in sizes of the whole drive (as drives are rated, JESD218).
    #[serde(default = "default_drive_writes_per_day")]
    #[schemars(range(min = 0.01, max = 100.0))]
    pub drive_writes_per_day: f64,
    /// Copies of each block on different drives.
    #[serde(default = "default_copies")]
    #[schemars(range(min = 1, max = 2))]
    pub copies: i32,
}

fn default_high_watermark() -> i32 {
    95
}
fn default_low_watermark() -> i32 {
    90
}
fn default_drive_writes_per_day() -> f64 {
    1.0
}
fn default_copies() -> i32 {
    1
}

impl Default for ContextMemoryPolicy {
    fn default() -> Self {
        Self {
            high_watermark_percent: default_high_watermark(),
            low_watermark_percent: default_low_watermark(),
            ttl_seconds: None,
            drive_writes_per_day: default_drive_writes_per_day(),
            copies: default_copies(),
        }
    }
}

/// Policy of the storage side.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoragePolicy {
    /// Redundancy of volumes whose StorageClass names none.
    #[serde(default)]
    pub default_redundancy: Redundancy,
    /// Whether the drives of this pool reserve the full size of every volume.
    #[serde(default)]
    pub provisioning: Provisioning,
}

/// How many losses a volume outlives.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Redundancy {
    /// One leg; lost with its drive.
    #[default]
    None,
    /// Several legs for bandwidth; lost with any of them.
    Stripe,
    /// Two legs; outlives the loss of one.
    Mirror,
    /// Four or more legs; outlives the loss of two.
    Raid6,
}

/// Whether space is reserved.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Provisioning {
    /// Every volume, snapshot and clone is counted at its full size and can never run out of space.
    #[default]
    Thick,
    /// Space is taken as it is written; a drive can fill up under its volumes.
    Thin,
}

/// What becomes of a pool's drives when the pool is deleted.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeletionPolicy {
    /// Drives and data stay as they are; a pool with the same poolID takes them back.
    #[default]
    Retain,
    /// Drives without durable data are released: label and partition table are taken away.
    Release,
}

/// What the operator observed.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemoryPoolStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`: selected nodes' drives are adopted and serve. `Conflict`: an older pool has drives
    /// that this one selects too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Nodes with at least one drive in the pool.
    #[serde(default)]
    pub nodes: i64,
    /// Drives on the selected nodes, counted.
    #[serde(default)]
    pub drives: DriveCounts,
    /// The context-memory side.
    #[serde(default)]
    pub context_memory: SideStatus,
    /// The storage side.
    #[serde(default)]
    pub storage: SideStatus,
    /// Epoch of the newest pool map; 0 before the first.
    #[serde(default)]
    pub map_epoch: i64,
    /// The same in the words of `kubectl get`.
    #[serde(default)]
    pub display: PoolDisplay,
}

/// Drives on a pool's selected nodes, counted.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DriveCounts {
    /// Drives that agents see on the selected nodes.
    #[serde(default)]
    pub found: i64,
    /// Drives of this pool.
    #[serde(default)]
    pub adopted: i64,
    /// Drives of this pool that serve.
    #[serde(default)]
    pub ready: i64,
    /// Drives that this pool does not take.
    #[serde(default)]
    pub rejected: i64,
    /// Why, the most frequent reasons first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub top_reasons: Vec<ReasonCount>,
}

/// How many drives have a reason.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReasonCount {
    /// The reason's code, as in the drives' status.
    pub reason: String,
    /// Drives with that reason.
    pub count: i64,
}

/// Capacity and use of one side of a pool.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SideStatus {
    /// Bytes of that side on the drives that serve.
    #[serde(default)]
    pub capacity: ByteQuantity,
    /// Bytes in use.
    #[serde(default)]
    pub used: ByteQuantity,
}

/// Columns of `kubectl get`.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolDisplay {
    /// `adopted/found`.
    #[serde(default)]
    pub drives: String,
    /// `used/capacity` of context memory.
    #[serde(default)]
    pub context_memory: String,
    /// `used/capacity` of storage.
    #[serde(default)]
    pub storage: String,
    /// The most frequent reasons, as `2 FileSystem, 1 Mounted`.
    #[serde(default)]
    pub rejected: String,
}
