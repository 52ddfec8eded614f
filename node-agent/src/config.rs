//! What an agent is told.

use std::path::PathBuf;
use std::time::Duration;

use crate::context::ContextConfig;
use crate::volumes::VolumesConfig;

/// Configuration of one agent. Which drives there are is told to its [`strand_drives::DriveHost`].
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// Name of the node, as its Node object and its Drives have it.
    pub node_name: String,
    /// Where pool maps are kept between runs. Without it the agent remembers them while it runs.
    pub state_dir: Option<PathBuf>,
    /// `host:port` at which this node serves context memory to its peers.
    pub peer_address: Option<String>,
    /// How context memory is served; none: not at all.
    pub context: Option<ContextConfig>,
    /// How volumes are served; none: not at all.
    pub volumes: Option<VolumesConfig>,
    /// Time between two looks at the node's drives when nothing reports a change.
    pub rescan: Duration,
}

impl AgentConfig {
    /// The slow rescan that is used where none is given.
    pub const RESCAN: Duration = Duration::from_secs(60);

    /// An agent for a node that keeps nothing between runs and serves no context memory.
    pub fn new(node_name: impl Into<String>) -> Self {
        Self {
            node_name: node_name.into(),
            state_dir: None,
            peer_address: None,
            context: None,
            volumes: None,
            rescan: Self::RESCAN,
        }
    }
}
