//! What the administrator says about endpoints.

use k8s_openapi::api::core::v1::ResourceRequirements;
use serde::{Deserialize, Serialize};

/// How endpoints are run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// The image with `kv-endpoint`.
    pub image: String,
    /// Always, IfNotPresent or Never; left out: as Kubernetes chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<String>,
    /// Port on the pod's loopback, 1024 or above; another is taken where a container of the pod declares it.
    pub port: u16,
    /// Requests and limits of an endpoint.
    #[serde(default)]
    pub resources: ResourceRequirements,
}
