//! The API server in this process.

use anyhow::Result;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// A running API server.
pub struct ApiServer;

impl ApiServer {
    /// Starts.
    pub async fn start(
        _dir: PathBuf,
        _listen: SocketAddr,
        _kubeconfig: &Path,
    ) -> Result<ApiServer> {
        anyhow::bail!("not there yet")
    }
    /// Stops.
    pub async fn stop(self) {}
}
