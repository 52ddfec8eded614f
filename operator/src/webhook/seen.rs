//! What answers are made from: copies of objects, so that no question waits for another answer of the API server.

use futures::{FutureExt, future::BoxFuture};
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::{
    Api, Client,
    runtime::reflector::{ObjectRef, Store},
};
use std::sync::Arc;
use strand_api::{Drive, MemoryPool, PoolGrant};
use strand_injection::{POOL, Pools, Skip};
use strand_placement::access::{self, Denied};

use crate::observe::{Observed, WatchEnded, copy};

/// Copies of pools, grants, drives, nodes and namespaces. Clones are the same.
#[derive(Clone)]
pub struct Seen {
    pub(super) pools: Store<MemoryPool>,
    pub(super) drives: Store<Drive>,
    pub(super) nodes: Store<Node>,
    pub(super) grants: Store<PoolGrant>,
    pub(super) namespaces: Store<Namespace>,
}

impl Seen {
    /// Starts what has to be watched beside what is. The future drives it.
    pub fn watch(client: &Client, observed: &Observed) -> (Self, BoxFuture<'static, ()>) {
        let (pools, drives, nodes) = observed.copies();
        let (grants, a) = copy(Api::<PoolGrant>::all(client.clone()), Vec::new(), |_| {});
        let (namespaces, b) = copy(Api::<Namespace>::all(client.clone()), Vec::new(), |n| {
            n.metadata.annotations = None;
        });
        let seen = Self {
            pools,
            drives,
            nodes,
            grants,
            namespaces,
        };
        let watches = async move {
            tokio::join!(a, b);
        };
        (seen, watches.boxed())
    }

    /// Resolves once the copies are complete.
    ///
    /// # Errors
    /// [`WatchEnded`].
    pub async fn complete(&self) -> Result<(), WatchEnded> {
        let ready = tokio::try_join!(
            self.pools.wait_until_ready(),
            self.drives.wait_until_ready(),
            self.nodes.wait_until_ready(),
            self.grants.wait_until_ready(),
            self.namespaces.wait_until_ready(),
        );
        ready.map(|_| ()).map_err(|_| WatchEnded)
    }

    /// The pool that a namespace's label names.
    pub(super) fn namespace_pool(&self, namespace: &str) -> Option<String> {
        let object = self.namespaces.get(&ObjectRef::new(namespace))?;
        object.metadata.labels.as_ref()?.get(POOL).cloned()
    }

    pub(super) fn pool(&self, name: &str) -> Option<Arc<MemoryPool>> {
        self.pools.get(&ObjectRef::new(name))
    }
}

impl Pools for Seen {
    fn admit(&self, pool: &str, namespace: &str) -> Result<(), Skip> {
        let object = self.pool(pool);
        let grants = self.grants.state();
        let share = access::share(
            object.as_deref(),
            grants.iter().map(AsRef::as_ref),
            namespace,
        );
        match share {
            Ok(_) => Ok(()),
            Err(Denied::NoPool) => Err(Skip::NoPool(pool.to_owned())),
            Err(Denied::NotGranted) => Err(Skip::NotGranted {
                pool: pool.to_owned(),
                namespace: namespace.to_owned(),
            }),
        }
    }
}
