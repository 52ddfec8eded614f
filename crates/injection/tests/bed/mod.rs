//! Pools that there are, and what a patch makes of a pod.

use k8s_openapi::api::core::v1::Pod;
use strand_injection::{Answer, Config, Pools, Skip};

/// Pools `rack` (everybody's) and `granted` (not `team-a`'s).
pub struct Known;

impl Pools for Known {
    fn admit(&self, pool: &str, namespace: &str) -> Result<(), Skip> {
        match pool {
            "rack" => Ok(()),
            "granted" => Err(Skip::NotGranted {
                pool: pool.into(),
                namespace: namespace.into(),
            }),
            other => Err(Skip::NoPool(other.into())),
        }
    }
}

pub fn config() -> Config {
    serde_json::from_value(serde_json::json!({
        "image": "strand:0.1.0",
        "imagePullPolicy": "IfNotPresent",
        "port": 6379,
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
    }))
    .unwrap()
}

/// The pod as the API server has it after the patch.
pub fn apply(pod: &Pod, answer: &Answer) -> Pod {
    let patch = match answer {
        Answer::Leave => None,
        Answer::Inject { patch, .. } => Some(patch.clone()),
        Answer::Skip { patch, .. } => patch.clone(),
    };
    let mut object = serde_json::to_value(pod).unwrap();
    if let Some(patch) = patch {
        let patch: json_patch::Patch = serde_json::from_value(patch).unwrap();
        json_patch::patch(&mut object, &patch).unwrap();
    }
    serde_json::from_value(object).unwrap()
}
