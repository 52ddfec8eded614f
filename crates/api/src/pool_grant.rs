//! PoolGrant: a namespace's right to a pool, and its share of the context memory.

use crate::quantity::ByteQuantity;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Grants a pool to a namespace, with a share and a quota of its context memory. Its name is `POOL.NAMESPACE`, so that there is one
/// at most. Written by administrators alone.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "strand.dev",
    version = "v1alpha1",
    kind = "PoolGrant",
    plural = "poolgrants",
    shortname = "pgrant",
    category = "strand",
    derive = "PartialEq",
    selectable = ".spec.pool",
    doc = "Grants a pool to a namespace, with a share and a quota of its context memory. Its name is POOL.NAMESPACE.",
    validation = Rule::new("self.metadata.name == self.spec.pool + '.' + self.spec.__namespace__").message("a grant is named POOL.NAMESPACE, so that a namespace has one grant of a pool at most"),
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.pool"),
    printcolumn(name = "Namespace", type_ = "string", json_path = ".spec.namespace"),
    printcolumn(name = "Weight", type_ = "integer", json_path = ".spec.contextMemory.weight"),
    printcolumn(name = "Quota", type_ = "string", json_path = ".spec.contextMemory.quota"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.pool == oldSelf.pool && self.__namespace__ == oldSelf.__namespace__").message("a grant stays one pool's and one namespace's: create another one").reason(Reason::FieldValueForbidden))]
pub struct PoolGrantSpec {
    /// The MemoryPool.
    #[schemars(length(min = 1, max = 63))]
    pub pool: String,
    /// The namespace.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Its part of context memory.
    #[serde(default)]
    pub context_memory: ContextShare,
}

/// A namespace's part of a pool's context memory.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContextShare {
    /// Weight among the namespaces that use it: of room, and of the drives' time. Namespaces without a grant have 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    pub weight: i32,
    /// The most that it may keep over the whole pool; beyond it its own coldest blocks go. Left out: what its weight gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<ByteQuantity>,
}

fn one() -> i32 {
    1
}

impl Default for ContextShare {
    fn default() -> Self {
        Self {
            weight: one(),
            quota: None,
        }
    }
}
