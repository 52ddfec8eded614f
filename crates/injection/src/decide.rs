//! From a pod to a patch, or to a reason.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use serde_json::Value;

use crate::annotations::{
    CONTAINERS, INJECT, INJECTED, NOTE, PASSWORD_SECRET, POOL, PORT, SKIPPED, annotation, label,
};
use crate::config::Config;
use crate::environment;
use crate::patch::Patch;
use crate::sidecar::{self, CONTAINER, DOOR, Listen, PASSWORD_VOLUME, PORTS, VOLUME};
use crate::skip::Skip;

/// What has to be known of pools.
pub trait Pools {
    /// Whether pods of the namespace may use the pool.
    ///
    /// # Errors
    /// [`Skip::NoPool`] and [`Skip::NotGranted`].
    fn admit(&self, pool: &str, namespace: &str) -> Result<(), Skip>;
}

/// What to do with a pod.
#[derive(Debug, PartialEq)]
pub enum Answer {
    /// Nothing: it does not ask, or has everything.
    Leave,
    /// It is given context memory.
    Inject {
        /// The pool.
        pool: String,
        /// A JSON patch (RFC 6902).
        patch: Value,
    },
    /// It asks and gets nothing but an annotation that says why.
    Skip {
        /// Why.
        why: Skip,
        /// A JSON patch; none where the annotation is there already.
        patch: Option<Value>,
    },
}

/// Decides about a pod that is being created in `namespace`, whose label [`POOL`] is `namespace_pool`.
pub fn decide(
    pod: &Pod,
    namespace: &str,
    namespace_pool: Option<&str>,
    pools: &impl Pools,
    config: &Config,
) -> Answer {
    let Some(pool) = label(pod, POOL).or(namespace_pool) else {
        return Answer::Leave;
    };
    match inject(pod, namespace, pool, pools, config) {
        Ok(None) => Answer::Leave,
        Ok(Some(patch)) => Answer::Inject {
            pool: pool.to_owned(),
            patch,
        },
        Err(why) => {
            let said = why.to_string();
            let mut patch = Patch::default();
            if annotation(pod, SKIPPED) != Some(&said) {
                patch.annotate(pod, &[(SKIPPED, said)]);
            }
            Answer::Skip {
                why,
                patch: patch.into_value(),
            }
        }
    }
}

fn inject(
    pod: &Pod,
    namespace: &str,
    pool: &str,
    pools: &impl Pools,
    config: &Config,
) -> Result<Option<Value>, Skip> {
    let Some(spec) = &pod.spec else {
        return Ok(None);
    };
    match annotation(pod, INJECT) {
        None | Some("true") => {}
        Some("false") => return Err(Skip::OptedOut),
        Some(_) => {
            return Err(Skip::Annotation {
                name: INJECT,
                wanted: "\"true\" or \"false\"",
            });
        }
    }
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        return Err(Skip::Windows);
    }
    pools.admit(pool, namespace)?;
    let chosen = chosen(pod, spec)?;
    let listen = listen(pod, spec, config)?;
    let before = label(pod, INJECTED).is_some();
    names_are_free(spec, before)?;

    let mut patch = Patch::default();
    // A door that the pod has opened by itself is as good.
    let own = spec.volumes.iter().flatten();
    let own = own
        .filter(|volume| {
            sidecar::attributes(volume)
                .and_then(|a| a.get("pool"))
                .map(String::as_str)
                == Some(pool)
        })
        .map(|volume| volume.name.as_str())
        .next();
    let volume = own.unwrap_or(VOLUME);
    if own.is_none() {
        patch.volume(pod, sidecar::door(pool));
    }
    // The list is there from here on, whatever the pod had.
    let mut seen = pod.clone();
    if let Some(spec) = &mut seen.spec {
        spec.volumes.get_or_insert_default();
    }
    if let Some(secret) = &listen.password_secret
        && !names(spec).contains(PASSWORD_VOLUME)
    {
        let before_it = if own.is_none() { &seen } else { pod };
        patch.volume(before_it, sidecar::password(secret));
    }
    let sidecar_there = containers(spec).any(|(_, c)| c.name == CONTAINER);
    let mut notes = BTreeSet::new();
    for (at, container) in containers(spec) {
        if !chosen.contains(container.name.as_str()) {
            continue;
        }
        let mut told = environment::for_container(container, &listen);
        if let Some(left_out) = told.left_out {
            notes.insert(format!(
                "container {} did not get {left_out}",
                container.name
            ));
        }
        let mounts = || container.volume_mounts.iter().flatten();
        let mounted = mounts().any(|m| m.name == volume && m.mount_path == DOOR);
        if !mounted {
            if mounts().any(|m| m.mount_path == DOOR) {
                told.env
                    .retain(|variable| variable.name != "STRAND_KV_SOCKET");
                notes.insert(format!(
                    "container {} has something else at {DOOR}",
                    container.name
                ));
            } else {
                patch.mount(&at, container, sidecar::door_mount(volume));
            }
        }
        patch.environment(&at, container, told.env);
    }
    // Last: it moves the places of the other init containers.
    if !sidecar_there {
        patch.first_init_container(pod, sidecar::endpoint(config, &listen, volume));
    }
    let Some(operations) = patch.into_value() else {
        return Ok(None);
    };
    let mut named = Patch::default();
    if label(pod, INJECTED) != Some(pool) {
        named.label(pod, &[(INJECTED, pool.to_owned())]);
    }
    let notes: Vec<String> = notes.into_iter().collect();
    if !notes.is_empty() && annotation(pod, NOTE).is_none() {
        named.annotate(pod, &[(NOTE, notes.join("; "))]);
    }
    Ok(Some(joined(operations, named.into_value())))
}

fn joined(first: Value, then: Option<Value>) -> Value {
    let list = |value| match value {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    };
    let mut all = list(Some(first));
    all.extend(list(then));
    Value::Array(all)
}

/// The pod's containers with their places, init containers first.
fn containers(spec: &PodSpec) -> impl Iterator<Item = (String, &Container)> {
    let init = spec.init_containers.iter().flatten().enumerate();
    let init = init.map(|(n, c)| (format!("/spec/initContainers/{n}"), c));
    let main = spec.containers.iter().enumerate();
    init.chain(main.map(|(n, c)| (format!("/spec/containers/{n}"), c)))
}

fn names(spec: &PodSpec) -> BTreeSet<&str> {
    let volumes = spec.volumes.iter().flatten();
    volumes.map(|volume| volume.name.as_str()).collect()
}

/// Names of the containers that are told.
fn chosen<'a>(pod: &'a Pod, spec: &'a PodSpec) -> Result<BTreeSet<&'a str>, Skip> {
    let Some(list) = annotation(pod, CONTAINERS) else {
        return Ok(spec.containers.iter().map(|c| c.name.as_str()).collect());
    };
    let there: BTreeSet<&str> = containers(spec).map(|(_, c)| c.name.as_str()).collect();
    let named = list
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    named
        .map(|name| match name != CONTAINER && there.contains(name) {
            true => Ok(name),
            false => Err(Skip::NoContainer(name.to_owned())),
        })
        .collect()
}

/// What is named like ours is ours only where the pod was injected before.
fn names_are_free(spec: &PodSpec, before: bool) -> Result<(), Skip> {
    if before {
        return Ok(());
    }
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    let mut all = containers(spec)
        .map(|(_, c)| &c.name)
        .chain(ephemeral.map(|c| &c.name));
    if all.any(|name| name == CONTAINER) {
        return Err(Skip::NameTaken(CONTAINER));
    }
    for volume in spec.volumes.iter().flatten() {
        if volume.name == PASSWORD_VOLUME {
            return Err(Skip::NameTaken(PASSWORD_VOLUME));
        }
        if volume.name == VOLUME && sidecar::attributes(volume).is_none() {
            return Err(Skip::NameTaken(VOLUME));
        }
    }
    Ok(())
}

fn listen(pod: &Pod, spec: &PodSpec, config: &Config) -> Result<Listen, Skip> {
    let host_network = spec.host_network.unwrap_or(false);
    let password_secret = annotation(pod, PASSWORD_SECRET).map(str::to_owned);
    if password_secret
        .as_deref()
        .is_some_and(|name| !is_name(name))
    {
        return Err(Skip::Annotation {
            name: PASSWORD_SECRET,
            wanted: "the name of a Secret of the pod's namespace that has a key password",
        });
    }
    let port = match annotation(pod, PORT) {
        Some(text) => match text.parse() {
            // The ones above are the endpoint's too; below 1024 a process needs a privilege that it does not have.
            Ok(port @ 1024..=65_533) => Some(port),
            _ => {
                return Err(Skip::Annotation {
                    name: PORT,
                    wanted: "a port from 1024 to 65533",
                });
            }
        },
        None => None,
    };
    if host_network && (port.is_none() || password_secret.is_none()) {
        return Err(Skip::HostNetwork);
    }
    Ok(Listen {
        port: port
            .or_else(|| before(spec))
            .unwrap_or_else(|| free_port(spec, config.port)),
        host_network,
        password_secret,
    })
}

/// The port that the pod was given when it was decided about before.
fn before(spec: &PodSpec) -> Option<u16> {
    let (_, endpoint) = containers(spec).find(|(_, c)| c.name == CONTAINER)?;
    let mut env = endpoint.env.iter().flatten();
    let address = env.find(|v| v.name == "STRAND_RESP")?.value.as_deref()?;
    address.rsplit(':').next()?.parse().ok()
}

/// The wanted port, or the next thousand above it, where no container declares it or the next.
fn free_port(spec: &PodSpec, wanted: u16) -> u16 {
    let ports = containers(spec).flat_map(|(_, c)| c.ports.iter().flatten());
    let taken: BTreeSet<i32> = ports.map(|port| port.container_port).collect();
    let candidates = (0..).map_while(|n: u16| wanted.checked_add(n.checked_mul(1000)?));
    let mut candidates = candidates.take_while(|port| *port < u16::MAX - PORTS);
    let free = candidates.find(|port| {
        let mut all = i32::from(*port)..=i32::from(*port) + 1;
        all.all(|port| !taken.contains(&port))
    });
    free.unwrap_or(wanted)
}

/// A DNS subdomain, roughly: the API server checks the rest.
fn is_name(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
    !name.is_empty() && name.len() <= 253 && name.bytes().all(fits)
}
