//! The legs of a volume that has several: which hold all of it, and what its consumer tells of them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
