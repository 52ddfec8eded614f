//! Logs of a cluster's pods: the chart's, and the endpoints in pods of users.

use super::{
    clean,
    collect::{Found, OURS},
};
use crate::{cluster::in_words, text::count};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, LogParams},
};
use std::cmp::Reverse;

/// Label of pods that were given an endpoint (`strand_injection::INJECTED`).
const INJECTED: &str = "strand.dev/injected";
/// The endpoint's container in them. No other container's log is read: those are the users'.
const ENDPOINT: &str = "strand-kv-endpoint";
/// Of how many endpoints logs are taken: a cluster may have thousands, and they say the same.
const MOST: usize = 20;
/// Bytes of the end of an endpoint's log that are taken.
const LONGEST: usize = 1 << 20;

/// A container whose log is taken.
struct Wanted<'a> {
    pod: &'a Pod,
    container: &'a str,
    /// Whether there is a log of before its last restart, too.
    restarted: bool,
    /// Where it goes in the bundle, without an ending.
    path: String,
    /// Bytes of its end that are taken at most.
    most: usize,
}

/// Takes them; as many lines of each.
pub async fn take(client: &Client, lines: u32, found: &mut Found) {
    for pod in pods(client, OURS, "logs", found).await {
        let status = pod.status.iter();
        for container in status.flat_map(|status| status.container_statuses.iter().flatten()) {
            let wanted = Wanted {
                pod: &pod,
                container: &container.name,
                restarted: container.restart_count > 0,
                path: format!("logs/{}/{}", pod.name_any(), container.name),
                most: usize::MAX,
            };
            one(client, &wanted, lines, found).await;
        }
    }
    let all = pods(client, INJECTED, "logs of endpoints", found).await;
    let (chosen, others) = chosen(all);
    if others > 0 {
        found.left_out.push(format!(
            "logs of {ENDPOINT} in {}: those of {MOST} are here, which restarted or are not ready, or else are the newest; for another: \
             kubectl logs -n NAMESPACE POD -c {ENDPOINT}",
            count(others, "more pod")
        ));
    }
    for pod in &chosen {
        let namespace = pod.namespace().unwrap_or_default();
        let wanted = Wanted {
            pod,
            container: ENDPOINT,
            restarted: endpoint(pod).is_some_and(|status| status.restart_count > 0),
            path: format!("logs/endpoints/{namespace}_{}", pod.name_any()),
            most: LONGEST,
        };
        one(client, &wanted, lines, found).await;
    }
}

async fn pods(client: &Client, labels: &str, what: &str, found: &mut Found) -> Vec<Pod> {
    let pods = Api::<Pod>::all(client.clone());
    match pods.list(&ListParams::default().labels(labels)).await {
        Ok(list) => list.items,
        Err(error) => {
            found.missing.push(format!("{what}: {:#}", in_words(error)));
            Vec::new()
        }
    }
}

/// Of pods that were given an endpoint those whose log is taken, and the number of the others.
fn chosen(mut pods: Vec<Pod>) -> (Vec<Pod>, usize) {
    // The label can be anybody's.
    pods.retain(|pod| {
        let spec = pod.spec.as_ref();
        let sidecars = spec.and_then(|spec| spec.init_containers.as_ref());
        let mut names = sidecars.into_iter().flatten().map(|c| c.name.as_str());
        names.any(|name| name == ENDPOINT)
    });
    pods.sort_by_cached_key(|pod| {
        let created = pod.creation_timestamp().map(|time| time.0);
        (!is_ill(pod), Reverse(created), pod.name_any())
    });
    let others = pods.len().saturating_sub(MOST);
    pods.truncate(MOST);
    (pods, others)
}

/// Whether its endpoint restarted, or is not ready while the pod is to run.
fn is_ill(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    let ended = phase == Some("Succeeded");
    match endpoint(pod) {
        Some(status) => status.restart_count > 0 || !(status.ready || ended),
        None => !ended,
    }
}

/// What is known of a pod's endpoint: a sidecar stands among the containers for the beginning.
fn endpoint(pod: &Pod) -> Option<&ContainerStatus> {
    let mut all = pod
        .status
        .as_ref()?
        .init_container_statuses
        .iter()
        .flatten();
    all.find(|container| container.name == ENDPOINT)
}

/// The log of now, and that of before its last restart.
async fn one(client: &Client, wanted: &Wanted<'_>, lines: u32, found: &mut Found) {
    let namespace = wanted.pod.namespace().unwrap_or_default();
    let api = Api::<Pod>::namespaced(client.clone(), &namespace);
    for previous in [false, true] {
        if previous && !wanted.restarted {
            continue;
        }
        let params = LogParams {
            container: Some(wanted.container.to_owned()),
            previous,
            tail_lines: Some(i64::from(lines)),
            timestamps: true,
            ..LogParams::default()
        };
        let ending = if previous { ".previous.log" } else { ".log" };
        let path = format!("{}{ending}", wanted.path);
        match api.logs(&wanted.pod.name_any(), &params).await {
            Ok(text) => {
                // Cut behind the cleaning: a key whose beginning is gone would not be known as one. The API server's own limit of bytes
                // would keep the beginning.
                let text = clean::log(&text);
                let kept = end(&text, wanted.most);
                if kept.len() < text.len() {
                    let cut = text.len() - kept.len();
                    let cut = format!("{path}: the {cut} bytes before its last {}", kept.len());
                    found.left_out.push(cut);
                }
                found.files.insert(path, kept.to_owned());
            }
            Err(error) => found.missing.push(format!("{path}: {:#}", in_words(error))),
        }
    }
}

/// The last whole lines of a text that are no longer than so many bytes.
fn end(text: &str, most: usize) -> &str {
    let Some(from) = text.len().checked_sub(most).filter(|from| *from > 0) else {
        return text;
    };
    // A line that begins just there is whole.
    let behind = text.as_bytes()[from - 1..]
        .iter()
        .position(|byte| *byte == b'\n');
    behind.map_or("", |at| &text[from + at..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, minute: u8, restarts: u32, ready: bool, phase: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": name, "creationTimestamp": format!("2026-01-01T00:{minute:02}:00Z")},
            "spec": {
                "initContainers": [{"name": "strand-kv-endpoint"}],
                "containers": [{"name": "model"}],
            },
            "status": {"phase": phase, "initContainerStatuses": [{
                "name": "strand-kv-endpoint", "image": "i", "imageID": "i", "ready": ready, "restartCount": restarts,
            }]},
        }))
        .unwrap()
    }

    #[test]
    fn endpoints_with_something_to_tell_come_first_then_the_newest() {
        let mut pods: Vec<_> = (10..40)
            .map(|minute| pod(&format!("quiet-{minute}"), minute, 0, true, "Running"))
            .collect();
        pods.push(pod("restarted", 1, 3, true, "Running"));
        pods.push(pod("not-ready", 2, 0, false, "Running"));
        pods.push(pod("ended", 3, 0, false, "Succeeded"));
        let mut bare = pod("label-alone", 50, 9, false, "Running");
        bare.spec.as_mut().unwrap().init_containers = None;
        pods.push(bare);
        let mut unseen = pod("unseen", 4, 0, false, "Pending");
        unseen.status = None;
        pods.push(unseen);
        let (chosen, others) = chosen(pods);
        let names: Vec<_> = chosen.iter().map(ResourceExt::name_any).collect();
        assert_eq!(
            names[..5],
            ["unseen", "not-ready", "restarted", "quiet-39", "quiet-38"]
        );
        assert_eq!((names.len(), others), (MOST, 34 - MOST));
    }

    #[test]
    fn of_a_long_log_the_last_whole_lines_are_kept() {
        assert_eq!(end("one\ntwo\nthree\n", 100), "one\ntwo\nthree\n");
        assert_eq!(end("one\ntwo\nthree\n", 14), "one\ntwo\nthree\n");
        assert_eq!(end("one\ntwo\nthree\n", 10), "two\nthree\n");
        assert_eq!(end("one\ntwo\nthree\n", 9), "three\n");
        assert_eq!(end("ä\nü\n", 4), "ü\n");
        assert_eq!(end("endless", 3), "");
    }
}
