//! The array that a volume of several legs is: which legs hold all of it, and what its consumer tells of them.

use crate::Redundancy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The array of a volume that has several legs.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeArray {
    /// Its UUID, which is in the superblocks on the legs: the UID that the volume had when it was placed.
    #[schemars(length(min = 36, max = 36))]
    pub uuid: String,
    /// It was made, and its device may have been handed out: it is never made again.
    #[serde(default)]
    pub formed: bool,
    /// How often whoever has the volume attached for writing was asked to look at its legs, and to tell that it has.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0))]
    pub look: i64,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// Of which array a leg is a part; written beside its bytes, so that an import knows.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LegArray {
    /// The array's UUID.
    #[schemars(length(min = 36, max = 36))]
    pub uuid: String,
    /// How its legs hold the bytes.
    pub redundancy: Redundancy,
    /// How many legs it has.
    #[schemars(range(min = 2, max = 256))]
    pub legs: i32,
}

/// The array as the agent of the node sees it that has the volume attached for writing. It says nothing about an attachment with
/// another generation.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArrayStatus {
    /// The node.
    #[schemars(length(min = 1, max = 253))]
    pub node: String,
    /// The attachment.
    #[schemars(range(min = 1))]
    pub generation: i64,
    /// What is known of its legs: of all while the array runs, else of those that keep it from running.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["uuid".into()]))]
    pub legs: Vec<ArrayLeg>,
    /// Which look at its legs this is, as it was asked for in `spec.array.look`.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0))]
    pub looked: i64,
    /// It was not shut down in order, and its legs are still being made equal: a raid6 can spare none until they are, and no snapshot is
    /// taken of a mirror.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resyncing: bool,
    /// It was given back in order: it does not run any more, its legs are equal, and all that is to be known of them is recorded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stopped: bool,
    /// Why it does not run. Without this it does: the agent tells first when it runs, or cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<ArrayRefusal>,
}

/// Why an array does not run.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArrayRefusal {
    /// Code in CamelCase.
    #[schemars(length(min = 1, max = 64))]
    pub reason: String,
    /// A sentence for people.
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// Why a leg does not hold every acknowledged byte of its volume, and since when.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LegLack {
    /// What becomes of it.
    pub phase: LackPhase,
    /// Code in CamelCase.
    #[schemars(length(min = 1, max = 64))]
    pub reason: String,
    /// When it was recorded out.
    pub since: Time,
    /// The attachment in which it was recorded out; only within that one its missed writes are known.
    #[schemars(range(min = 0))]
    pub generation: i64,
}

/// What becomes of a leg that lacks writes.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LackPhase {
    /// Nothing is put together from it, whatever it looks like.
    Out,
    /// It is copied what it has missed, which the array's bitmap has.
    Returning,
    /// It is copied to from end to end.
    Rebuilding,
}

/// A leg as its consumer sees it.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArrayLeg {
    /// UUID of its bytes.
    #[schemars(length(min = 36, max = 36))]
    pub uuid: String,
    /// What it is to the array.
    pub holding: LegHolding,
    /// Since when.
    pub since: Time,
    /// While it is copied to: how far that is, in tens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub percent: Option<i64>,
}

/// What a leg is to an array.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LegHolding {
    /// It has every byte.
    Whole,
    /// It is copied to.
    Behind,
    /// The array has given it up: it failed a write.
    Lost,
    /// It can be reached, was a part of the array, and is none now.
    Apart,
    /// It can be reached, and is no part of the array.
    Empty,
    /// It cannot be reached.
    Away,
    /// It can be reached, and has missed writes that other legs have.
    Stale,
}
