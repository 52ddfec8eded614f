//! The way to the cluster.

use anyhow::Context;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use std::path::Path;

/// A client for the cluster that a kubeconfig file names; without a file, for that of `$KUBECONFIG` or of the pod's service account.
///
/// # Errors
/// A sentence that names the file or flag to look at. That the cluster answers is not tried.
pub async fn connect(kubeconfig: Option<&Path>) -> anyhow::Result<Client> {
    let config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path)
                .with_context(|| format!("cannot read kubeconfig {}", path.display()))?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("kubeconfig {} names no usable cluster", path.display()))?
        }
        None => Config::infer().await.context(
            "no cluster found; give --kubeconfig, or run in a pod with a service account",
        )?,
    };
    Client::try_from(config).context("no client can be made for the cluster")
}
