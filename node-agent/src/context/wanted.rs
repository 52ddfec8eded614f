//! What the agent's plans say shall be served.

use std::collections::BTreeMap;
use std::sync::Arc;

use strand_api::{ContextMemoryPolicy, PoolMapSpec};
use strand_drives::OwnedDrive;
use strand_placement::access::Rights;
use uuid::Uuid;

/// The pools of the cluster and this node's drives that serve context memory for them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// By identity.
    pub pools: BTreeMap<Uuid, WantedPool>,
    /// By name of the Drive object; each has a context partition.
    pub drives: BTreeMap<String, OwnedDrive>,
}

/// A pool, as far as context memory goes.
#[derive(Clone, Debug, PartialEq)]
pub struct WantedPool {
    /// Its name.
    pub name: String,
    /// Its policy; none before the API was seen.
    pub policy: Option<ContextMemoryPolicy>,
    /// Who may use it; none before the API was seen.
    pub rights: Option<Rights>,
    /// Its newest map.
    pub map: Option<Arc<PoolMapSpec>>,
}
