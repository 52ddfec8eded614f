//! What the containers of a pod are told, and what they are not.

use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, SecretKeySelector};

use crate::sidecar::{DOOR, Listen, PASSWORD_KEY};

/// What is added to one container.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) env: Vec<EnvVar>,
    /// What was left out, where that is not what the user wrote in so many words.
    pub(crate) left_out: Option<String>,
}

/// The variables that this container lacks.
///
/// LMCache is told only where nothing says that the user chose otherwise: its own configuration file, another remote, or
/// variables that come from a ConfigMap or Secret, which cannot be seen here and which ours would go before.
pub(crate) fn for_container(container: &Container, listen: &Listen) -> Told {
    let has = |name: &str| {
        let mut all = container.env.iter().flatten();
        all.any(|variable| variable.name == name)
    };
    let (port, plain) = (listen.port, listen.plain_port());
    let mut told = Told::default();
    let mut add = |variable: EnvVar| {
        if !has(&variable.name) {
            told.env.push(variable);
        }
    };

    let password = listen.password_secret.as_deref();
    // Before those that refer to it.
    if let Some(secret) = password {
        add(from_secret("STRAND_KV_PASSWORD", secret));
    }
    let who = password.map_or("", |_| ":$(STRAND_KV_PASSWORD)@");
    add(value(
        "STRAND_KV_URL",
        format!("redis://{who}127.0.0.1:{plain}"),
    ));
    add(value("STRAND_KV_SOCKET", format!("{DOOR}/door.sock")));

    let unseen = container
        .env_from
        .as_ref()
        .is_some_and(|from| !from.is_empty());
    if unseen {
        told.left_out = Some(format!(
            "LMCACHE_* and PYTHONHASHSEED, since envFrom may set them: write LMCACHE_REMOTE_URL=resp://127.0.0.1:{port} there"
        ));
        return told;
    }
    // Keys of Python's hash have to be the same in every pod.
    add(value("PYTHONHASHSEED", "0".into()));
    let own = [
        "LMCACHE_CONFIG_FILE",
        "LMCACHE_REMOTE_URL",
        "LMCACHE_EXTRA_CONFIG",
    ];
    if own.into_iter().any(has) {
        return told;
    }
    add(value(
        "LMCACHE_REMOTE_URL",
        format!("resp://127.0.0.1:{port}"),
    ));
    add(value("LMCACHE_RESP_HOST", "127.0.0.1".into()));
    add(value("LMCACHE_RESP_PORT", port.to_string()));
    if let Some(secret) = password {
        add(from_secret("LMCACHE_RESP_PASSWORD", secret));
    }
    let extra = r#"{"save_chunk_meta": false, "save_unfull_chunk": false}"#;
    add(value("LMCACHE_EXTRA_CONFIG", extra.into()));
    told
}

fn value(name: &str, value: String) -> EnvVar {
    EnvVar {
        name: name.into(),
        value: Some(value),
        ..EnvVar::default()
    }
}

fn from_secret(name: &str, secret: &str) -> EnvVar {
    EnvVar {
        name: name.into(),
        value_from: Some(EnvVarSource {
            secret_key_ref: Some(SecretKeySelector {
                name: secret.into(),
                key: PASSWORD_KEY.into(),
                optional: None,
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}
