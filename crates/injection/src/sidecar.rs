//! The endpoint's container and the volume with its door.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    CSIVolumeSource, Capabilities, Container, ContainerPort, EnvVar, HTTPGetAction, Probe,
    SeccompProfile, SecretVolumeSource, SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::config::Config;

/// Name of the endpoint's container.
pub(crate) const CONTAINER: &str = "strand-kv-endpoint";
/// Name of the volume with the door.
pub(crate) const VOLUME: &str = "strand-kv";
/// Name of the volume with the password.
pub(crate) const PASSWORD_VOLUME: &str = "strand-kv-password";
/// Where the door is in every container.
pub(crate) const DOOR: &str = "/run/strand/kv";
/// Where the endpoint finds its password.
const PASSWORD: &str = "/run/strand/password";
/// Key of the Secret.
pub(crate) const PASSWORD_KEY: &str = "password";
/// Port of metrics and health in a pod with a network of its own.
const METRICS: u16 = 9467;
/// The driver of the inline volume.
pub(crate) const DRIVER: &str = "csi.strand.dev";

/// Where and how an endpoint listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listen {
    /// Where misses may be padded, as LMCache's native client needs it.
    pub(crate) port: u16,
    pub(crate) host_network: bool,
    pub(crate) password_secret: Option<String>,
}

/// Of an endpoint's port and those after it that it uses, the last one's distance.
pub(crate) const PORTS: u16 = 2;

impl Listen {
    /// Where a miss is nil, whoever asks.
    pub(crate) fn plain_port(&self) -> u16 {
        self.port.saturating_add(1)
    }

    /// Metrics and health: on the node's network beside the others, else where all pods have them.
    fn metrics_port(&self) -> u16 {
        match self.host_network {
            true => self.port.saturating_add(PORTS),
            false => METRICS,
        }
    }
}

pub(crate) fn door(pool: &str) -> Volume {
    let attributes = [("kind", "kv"), ("pool", pool)];
    Volume {
        name: VOLUME.into(),
        csi: Some(CSIVolumeSource {
            driver: DRIVER.into(),
            read_only: Some(true),
            volume_attributes: Some(
                attributes
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .into(),
            ),
            ..CSIVolumeSource::default()
        }),
        ..Volume::default()
    }
}

pub(crate) fn password(secret: &str) -> Volume {
    Volume {
        name: PASSWORD_VOLUME.into(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret.into()),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

pub(crate) fn door_mount(volume: &str) -> VolumeMount {
    VolumeMount {
        name: volume.into(),
        mount_path: DOOR.into(),
        read_only: Some(true),
        ..VolumeMount::default()
    }
}

/// `volume` is the one with the door: ours, or one that the pod had.
pub(crate) fn endpoint(config: &Config, listen: &Listen, volume: &str) -> Container {
    let env = |name: &str, value: String| EnvVar {
        name: name.into(),
        value: Some(value),
        ..EnvVar::default()
    };
    // On the node's network nobody but the node itself shall see it.
    let address = match listen.host_network {
        true => "127.0.0.1",
        false => "0.0.0.0",
    };
    let metrics = listen.metrics_port();
    let mut variables = vec![
        env("STRAND_KV_DOOR", format!("{DOOR}/door.sock")),
        env("STRAND_RESP", format!("127.0.0.1:{}", listen.port)),
        env(
            "STRAND_RESP_OTHER",
            format!("127.0.0.1:{}", listen.plain_port()),
        ),
        env("STRAND_LISTEN", format!("{address}:{metrics}")),
        env("STRAND_LOG_FORMAT", "json".into()),
    ];
    let mut mounts = vec![door_mount(volume)];
    if listen.password_secret.is_some() {
        variables.push(env(
            "STRAND_RESP_PASSWORD_FILE",
            format!("{PASSWORD}/{PASSWORD_KEY}"),
        ));
        mounts.push(VolumeMount {
            name: PASSWORD_VOLUME.into(),
            mount_path: PASSWORD.into(),
            read_only: Some(true),
            ..VolumeMount::default()
        });
    }
    let probe = |path: &str, period, failures| Probe {
        http_get: Some(HTTPGetAction {
            host: listen.host_network.then(|| "127.0.0.1".into()),
            path: Some(path.into()),
            port: IntOrString::Int(metrics.into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        failure_threshold: Some(failures),
        ..Probe::default()
    };
    Container {
        name: CONTAINER.into(),
        image: Some(config.image.clone()),
        image_pull_policy: config.image_pull_policy.clone(),
        command: Some(vec!["/usr/bin/kv-endpoint".into()]),
        // A native sidecar: there before the others, and until they have ended.
        restart_policy: Some("Always".into()),
        env: Some(variables),
        ports: Some(ports(listen)),
        startup_probe: Some(probe("/healthz", 1, 30)),
        liveness_probe: Some(probe("/healthz", 20, 3)),
        resources: Some(config.resources.clone()),
        security_context: Some(restricted()),
        volume_mounts: Some(mounts),
        ..Container::default()
    }
}

/// Those that others have to know of: who collects metrics and, on the node's network, the scheduler, which keeps pods apart that want the same.
fn ports(listen: &Listen) -> Vec<ContainerPort> {
    // By that name metrics are collected, which on the node's loopback nobody could.
    let metrics = match listen.host_network {
        true => "strand-health",
        false => "strand-metrics",
    };
    let clients = [
        ("strand-resp", listen.port),
        ("strand-resp-nil", listen.plain_port()),
    ];
    let clients = clients.into_iter().filter(|_| listen.host_network);
    let port = |(name, port): (&str, u16)| ContainerPort {
        name: Some(name.into()),
        container_port: port.into(),
        host_port: listen.host_network.then_some(port.into()),
        host_ip: listen.host_network.then(|| "127.0.0.1".into()),
        protocol: listen.host_network.then(|| "TCP".into()),
    };
    clients
        .chain([(metrics, listen.metrics_port())])
        .map(port)
        .collect()
}

/// What the restricted pod security standard asks, so that the pod still fits it.
fn restricted() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".into()]),
            add: None,
        }),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(true),
        run_as_user: Some(65532),
        run_as_group: Some(65532),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".into(),
            localhost_profile: None,
        }),
        ..SecurityContext::default()
    }
}

/// Attributes of an inline volume with a door, if it is one.
pub(crate) fn attributes(volume: &Volume) -> Option<&BTreeMap<String, String>> {
    let csi = volume.csi.as_ref().filter(|csi| csi.driver == DRIVER)?;
    let attributes = csi.volume_attributes.as_ref()?;
    (attributes.get("kind").map(String::as_str) == Some("kv")).then_some(attributes)
}
