//! Why a pod that asks for a pool is not injected.

use std::fmt;

use crate::annotations::{INJECT, PASSWORD_SECRET, PORT};

/// The reason; its text says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Skip {
    /// The pod says so.
    OptedOut,
    /// There is no such pool.
    NoPool(String),
    /// The pool's administrator has not granted it to the namespace.
    NotGranted {
        /// The pool.
        pool: String,
        /// The pod's namespace.
        namespace: String,
    },
    /// The pod is on the node's network, where its loopback is everybody's.
    HostNetwork,
    /// The pod runs on Windows.
    Windows,
    /// A container or volume of the pod has a name that the injection needs.
    NameTaken(&'static str),
    /// An annotation cannot be read.
    Annotation {
        /// Its name.
        name: &'static str,
        /// What it has to be.
        wanted: &'static str,
    },
    /// No container has a name that the pod's annotation has.
    NoContainer(String),
}

impl Skip {
    /// A short code, for metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Skip::OptedOut => "OptedOut",
            Skip::NoPool(_) => "NoPool",
            Skip::NotGranted { .. } => "NotGranted",
            Skip::HostNetwork => "HostNetwork",
            Skip::Windows => "Windows",
            Skip::NameTaken(_) => "NameTaken",
            Skip::Annotation { .. } => "Annotation",
            Skip::NoContainer(_) => "NoContainer",
        }
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Skip::OptedOut => write!(f, "the pod's annotation {INJECT} is false"),
            Skip::NoPool(pool) => write!(
                f,
                "there is no MemoryPool {pool:?}; see kubectl get memorypools, and make the pod again once there is"
            ),
            Skip::NotGranted { pool, namespace } => write!(
                f,
                "pool {pool} is for namespaces that it is granted to, and {namespace} is not one; ask for a PoolGrant named {pool}.{namespace}"
            ),
            Skip::HostNetwork => write!(
                f,
                "the pod has hostNetwork, where every process of the node reaches its loopback; give the endpoint a free port with annotation {PORT} and a password with {PASSWORD_SECRET}"
            ),
            Skip::Windows => write!(f, "context memory needs Linux"),
            Skip::NameTaken(name) => write!(
                f,
                "the pod has a container or volume named {name} of its own; rename it"
            ),
            Skip::Annotation { name, wanted } => write!(f, "annotation {name} has to be {wanted}"),
            Skip::NoContainer(name) => {
                write!(
                    f,
                    "annotation strand.dev/containers names {name:?}, and no container of the pod has that name"
                )
            }
        }
    }
}
