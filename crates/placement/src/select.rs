//! Which nodes and drives a pool's selectors mean, and how a drive of theirs would be split.

use crate::carve::{self, Geometry};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt};
use std::collections::BTreeMap;
use strand_api::{ByteQuantity, DriveStatus, MemoryPoolSpec};

/// Why the operator does not take a drive that its agent would give.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Refusal {
    /// No pool's node selector means the drive's node.
    #[error("no pool selects node {0}; label the node, or widen a MemoryPool's nodeSelector")]
    NodeNotSelected(String),
    /// Neither model nor serial is among those that the pool names.
    #[error(
        "model {model:?}, serial {serial:?} is not among spec.drives of pool {pool}; add it there if it is meant"
    )]
    NotSelected {
        /// The pool.
        pool: String,
        /// The drive's model.
        model: String,
        /// The drive's serial number.
        serial: String,
    },
    /// The pool excludes it.
    #[error("spec.drives.exclude of pool {pool} names this model or serial")]
    Excluded {
        /// The pool.
        pool: String,
    },
    /// The drive's size is outside the pool's limits.
    #[error("{size} is outside the sizes that pool {pool} takes (minSize {min}, maxSize {max})")]
    SizeOutOfRange {
        /// The pool.
        pool: String,
        /// The drive's size, rounded.
        size: String,
        /// Lower limit or `none`.
        min: String,
        /// Upper limit or `none`.
        max: String,
    },
    /// One side would be smaller than the pool wants.
    #[error(
        "carving it as pool {pool} asks leaves {context} of context memory and {storage} of storage, below the pool's minimum"
    )]
    SideTooSmall {
        /// The pool.
        pool: String,
        /// What context memory would get, rounded.
        context: String,
        /// What storage would get, rounded.
        storage: String,
    },
    /// Its geometry does not allow a carve.
    #[error("it cannot be carved: {0}")]
    NotCarvable(String),
    /// An administrator has cordoned it.
    #[error("the drive is cordoned; set spec.cordon to false to give it back")]
    Cordoned,
    /// The pool takes only what an administrator names.
    #[error(
        "pool {pool} has adoption Manual; to take the drive: kubectl patch drive {drive} --type merge -p '{{\"spec\":{{\"pool\":\"{pool}\"}}}}'"
    )]
    ManualAdoption {
        /// The pool.
        pool: String,
        /// The Drive object.
        drive: String,
    },
    /// Two nodes say that they have it.
    #[error(
        "nodes {0} report the same model, serial and namespace: a shared drive is never taken; if it has moved, delete the old node or run a DriveOperation of type Forget on the old Drive"
    )]
    SharedBetweenNodes(String),
    /// The pool has no identity yet.
    #[error("pool {pool} cannot tell its identity yet: {why}")]
    NoPoolId {
        /// The pool.
        pool: String,
        /// What stands in the way.
        why: String,
    },
    /// An administrator named a pool that is not there.
    #[error(
        "spec.pool names {pool}, and there is no such MemoryPool; create it, or take spec.pool away"
    )]
    NoSuchPool {
        /// The name.
        pool: String,
    },
}

impl Refusal {
    /// Stable code in CamelCase, for conditions and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NodeNotSelected(_) => "NodeNotSelected",
            Self::NotSelected { .. } => "NotSelected",
            Self::Excluded { .. } => "Excluded",
            Self::SizeOutOfRange { .. } => "SizeOutOfRange",
            Self::SideTooSmall { .. } => "SideTooSmall",
            Self::NotCarvable(_) => "NotCarvable",
            Self::Cordoned => "Cordoned",
            Self::ManualAdoption { .. } => "ManualAdoption",
            Self::SharedBetweenNodes(_) => "SharedBetweenNodes",
            Self::NoPoolId { .. } => "NoPoolID",
            Self::NoSuchPool { .. } => "NoSuchPool",
        }
    }
}

/// Whether `text` matches a pattern in which `*` stands for any characters.
pub fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let Some(last) = pattern.rsplit_once('*').map(|(_, last)| last) else {
        return rest.is_empty();
    };
    let middle: Vec<&str> = parts.collect();
    for part in &middle[..middle.len() - 1] {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// A pool's node selector, ready to match. A selector that Kubernetes itself would refuse matches no node.
pub enum NodeMatcher {
    /// No selector was given.
    Every,
    /// The selector's requirements.
    Some(Selector),
    /// It cannot be read.
    None,
}

impl NodeMatcher {
    /// Reads a pool's node selector.
    pub fn new(selector: Option<&LabelSelector>) -> Self {
        match selector {
            None => Self::Every,
            Some(selector) => Selector::try_from(selector.clone()).map_or(Self::None, Self::Some),
        }
    }

    /// Whether a node with these labels is meant.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Self::Every => true,
            Self::Some(selector) => selector.matches(labels),
            Self::None => false,
        }
    }
}

/// Whether a pool's drive selector means this drive.
///
/// # Errors
/// The first reason for which it does not.
pub fn drive_selected(
    pool: &str,
    spec: &MemoryPoolSpec,
    status: &DriveStatus,
) -> Result<(), Refusal> {
    let (model, serial) = status.identity.as_ref().map_or(("", ""), |identity| {
        (identity.model.as_str(), identity.serial.as_str())
    });
    let wanted = &spec.drives;
    let any = |patterns: &[String]| patterns.iter().any(|pattern| glob(pattern, model));
    if let Some(exclude) = &wanted.exclude
        && (any(&exclude.models) || exclude.serials.iter().any(|s| s == serial))
    {
        return Err(Refusal::Excluded { pool: pool.into() });
    }
    let by_model = wanted.models.is_empty() || any(&wanted.models);
    let by_serial = wanted.serials.is_empty() || wanted.serials.iter().any(|s| s == serial);
    if !by_model || !by_serial {
        return Err(Refusal::NotSelected {
            pool: pool.into(),
            model: model.into(),
            serial: serial.into(),
        });
    }
    let too_small = wanted.min_size.is_some_and(|min| status.size < min);
    let too_large = wanted.max_size.is_some_and(|max| status.size > max);
    if too_small || too_large {
        let limit = |limit: Option<ByteQuantity>| limit.map_or("none".into(), |l| l.to_string());
        return Err(Refusal::SizeOutOfRange {
            pool: pool.into(),
            size: status.size.rounded(),
            min: limit(wanted.min_size),
            max: limit(wanted.max_size),
        });
    }
    Ok(())
}

/// The bytes of context memory that a pool's policy gives a drive, before alignment.
///
/// # Errors
/// [`Refusal::NotCarvable`] or [`Refusal::SideTooSmall`].
pub fn context_bytes(
    pool: &str,
    spec: &MemoryPoolSpec,
    status: &DriveStatus,
) -> Result<u64, Refusal> {
    let geometry = geometry(status);
    let usable = carve::usable(&geometry).map_err(|e| Refusal::NotCarvable(e.to_string()))?;
    let model = status
        .identity
        .as_ref()
        .map_or("", |identity| identity.model.as_str());
    let policy = &spec.carve;
    let share = policy
        .overrides
        .iter()
        .find(|o| glob(&o.model, model))
        .map_or(policy.context_memory, |o| o.context_memory);
    let context = share.of(usable).min(usable);
    let storage = usable - context;
    let below = |side: u64, minimum: Option<ByteQuantity>| minimum.is_some_and(|m| side < m.0);
    if below(context, policy.min_context_memory) || below(storage, policy.min_storage) {
        return Err(Refusal::SideTooSmall {
            pool: pool.into(),
            context: ByteQuantity(context).rounded(),
            storage: ByteQuantity(storage).rounded(),
        });
    }
    Ok(context)
}

fn geometry(status: &DriveStatus) -> Geometry {
    let bytes = |value: i64| u32::try_from(value).unwrap_or(0);
    Geometry {
        size: status.size.0,
        logical_block: bytes(status.logical_block_bytes),
        optimal_write: bytes(status.optimal_write_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn globs() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*", "anything", true),
            ("SAMSUNG*", "SAMSUNG MZQL2", true),
            ("SAMSUNG*", "INTEL", false),
            ("*MZQL2*", "SAMSUNG MZQL2 3T8", true),
            ("a*b*c", "abbc", true),
            ("a*b*c", "acb", false),
            ("ab", "abc", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} against {text}");
        }
    }

    proptest! {
        #[test]
        fn a_glob_matches_what_it_was_made_from(parts in prop::collection::vec("[a-c]{0,3}", 1..5), fills in prop::collection::vec("[a-c]{0,3}", 5)) {
            let pattern = parts.join("*");
            let mut text = parts[0].clone();
            for (part, fill) in parts[1..].iter().zip(&fills) {
                text.push_str(fill);
                text.push_str(part);
            }
            prop_assert!(glob(&pattern, &text));
        }
    }
}
