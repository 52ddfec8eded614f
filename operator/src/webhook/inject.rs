//! Pods.

use k8s_openapi::api::core::v1::Pod;
use strand_injection::{Answer, Config, decide};

use super::review::{Request, Response};
use super::seen::Seen;

/// Answers about a pod. Never refuses: a pod without its cache is better than none.
pub(super) fn answer(request: &Request, seen: &Seen, config: &Config) -> (Response, &'static str) {
    let Ok(pod) = serde_json::from_value::<Pod>(request.object.clone()) else {
        return (Response::default(), "Unreadable");
    };
    let namespace = &request.namespace;
    let pool = seen.namespace_pool(namespace);
    match decide(&pod, namespace, pool.as_deref(), seen, config) {
        Answer::Leave => (Response::default(), "Left"),
        Answer::Inject { patch, .. } => {
            let response = Response {
                patch: Some(patch),
                ..Response::default()
            };
            (response, "Injected")
        }
        Answer::Skip { why, patch } => {
            let response = Response {
                patch,
                warnings: vec![format!("strand: the pod gets no context memory: {why}")],
                ..Response::default()
            };
            (response, why.code())
        }
    }
}
