//! A server of its own for each test, in a directory that goes with it.

use kube::Client;
use strand_embedded_api::{Config, Server};
use tempfile::TempDir;

use crate::access::client;

pub struct Bed {
    pub server: Server,
    pub client: Client,
    _dir: TempDir,
}

impl Bed {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let server = Server::start(Config::new(dir.path()))
            .await
            .expect("starts");
        let client = client(&server.kubeconfig()).await;
        Self {
            server,
            client,
            _dir: dir,
        }
    }
}
