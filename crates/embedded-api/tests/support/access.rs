//! A client for a kubeconfig.

use kube::{Client, Config, config::Kubeconfig};

pub async fn client(kubeconfig: &str) -> Client {
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(kubeconfig, &Default::default())
        .await
        .expect("a configuration");
    Client::try_from(config).expect("a client")
}
