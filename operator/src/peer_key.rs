//! The key by which the agents of a cluster know each other: made once, into a Secret that the chart has made empty.

use std::time::Duration;

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{Api, Client, api::PostParams};
use ring::rand::{SecureRandom, SystemRandom};

/// Between two attempts.
const RETRY: Duration = Duration::from_secs(2);
/// Key in the Secret, which agents mount.
const KEY: &str = "key";

/// Why there is no key yet.
#[derive(Debug, thiserror::Error)]
enum NoKey {
    #[error("the system gives no random bytes")]
    Random,
    #[error(transparent)]
    Api(#[from] kube::Error),
}

/// Sees to it that the Secret has a key; ends once it has. A key that is there is never changed.
pub async fn ensure(client: Client, namespace: &str, secret: &str) {
    let secrets: Api<Secret> = Api::namespaced(client, namespace);
    loop {
        match attempt(&secrets, secret).await {
            Ok(true) => return,
            // Another operator was faster, or the Secret is not there yet.
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(%secret, %error, "the agents' key is not there yet; trying again");
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn attempt(secrets: &Api<Secret>, name: &str) -> Result<bool, NoKey> {
    let Some(mut secret) = secrets.get_opt(name).await? else {
        tracing::warn!(
            secret = name,
            "the Secret for the agents' key is missing; install it with the chart"
        );
        return Ok(false);
    };
    let data = secret.data.get_or_insert_default();
    if data.get(KEY).is_some_and(|key| !key.0.is_empty()) {
        return Ok(true);
    }
    let mut bytes = [0; 32];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| NoKey::Random)?;
    let key: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    data.insert(KEY.into(), ByteString(key.into_bytes()));
    match secrets.replace(name, &PostParams::default(), &secret).await {
        Ok(_) => {
            tracing::info!(
                secret = name,
                "made the key by which agents know each other"
            );
            Ok(true)
        }
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error.into()),
    }
}
