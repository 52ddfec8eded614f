//! What the operator observes: local copies of the objects it decides from, kept by watches.

use futures::{FutureExt, StreamExt, future::BoxFuture};
use k8s_openapi::{
    api::core::v1::{Node, NodeSpec},
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::{
        WatchStreamExt,
        reflector::{self, Store},
        watcher,
    },
};
use serde::de::DeserializeOwned;
use std::{collections::BTreeMap, fmt::Debug, hash::Hash, sync::Arc};
use strand_api::{Drive, DriveOperation, MemoryPool, PoolLeg, PoolMap, PoolSnapshot, PoolVolume};
use strand_placement::{
    rack::{self, Action, Rack},
    volumes::{self, Storage},
};
use tokio::sync::Notify;

/// Local copies of everything that decisions are made from.
pub struct Observed {
    pools: Store<MemoryPool>,
    nodes: Store<Node>,
    drives: Store<Drive>,
    maps: Store<PoolMap>,
    operations: Store<DriveOperation>,
    volumes: Store<PoolVolume>,
    legs: Store<PoolLeg>,
    snapshots: Store<PoolSnapshot>,
    changed: Arc<Notify>,
    storage_changed: Arc<Notify>,
}

/// The watches could not fill the copies.
#[derive(Debug, thiserror::Error)]
#[error("a watch ended before its first list was complete; the process must be restarted")]
pub struct WatchEnded;

impl Observed {
    /// Starts the watches. The future drives them and must be polled for as long as the copies are used.
    pub fn watch(client: &Client) -> (Self, BoxFuture<'static, ()>) {
        let (changed, storage_changed) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let rack = || vec![changed.clone()];
        let storage = || vec![storage_changed.clone()];
        let both = || vec![changed.clone(), storage_changed.clone()];
        let (pools, a) = copy(Api::<MemoryPool>::all(client.clone()), both(), |_| {});
        let (nodes, b) = copy(Api::<Node>::all(client.clone()), both(), strip_node);
        let (drives, c) = copy(Api::<Drive>::all(client.clone()), both(), |_| {});
        let (maps, d) = copy(Api::<PoolMap>::all(client.clone()), rack(), |_| {});
        let (operations, e) = copy(Api::<DriveOperation>::all(client.clone()), both(), |_| {});
        let (volumes, f) = copy(Api::<PoolVolume>::all(client.clone()), storage(), |_| {});
        let (legs, g) = copy(Api::<PoolLeg>::all(client.clone()), storage(), |_| {});
        let (snapshots, h) = copy(Api::<PoolSnapshot>::all(client.clone()), storage(), |_| {});
        let watches = async move {
            tokio::join!(a, b, c, d, e, f, g, h);
        };
        (
            Self {
                pools,
                nodes,
                drives,
                maps,
                operations,
                volumes,
                legs,
                snapshots,
                changed,
                storage_changed,
            },
            watches.boxed(),
        )
    }

    /// Resolves once every copy is complete.
    ///
    /// # Errors
    /// [`WatchEnded`] if the watches are no longer driven.
    pub async fn complete(&self) -> Result<(), WatchEnded> {
        let ready = tokio::try_join!(
            self.pools.wait_until_ready(),
            self.nodes.wait_until_ready(),
            self.drives.wait_until_ready(),
            self.maps.wait_until_ready(),
            self.operations.wait_until_ready(),
            self.volumes.wait_until_ready(),
            self.legs.wait_until_ready(),
            self.snapshots.wait_until_ready(),
        );
        ready.map(|_| ()).map_err(|_| WatchEnded)
    }

    /// Resolves when something that the rack is planned from has changed since the last call.
    /// Legs are not among it: what they keep drives from waits for the next pass.
    pub async fn change(&self) {
        self.changed.notified().await;
    }

    /// Resolves when something that volumes are planned from has changed since the last call.
    pub async fn storage_change(&self) {
        self.storage_changed.notified().await;
    }

    /// The copies of pools, drives and nodes, as they go on.
    pub fn copies(&self) -> (Store<MemoryPool>, Store<Drive>, Store<Node>) {
        (self.pools.clone(), self.drives.clone(), self.nodes.clone())
    }

    /// Everything as it is now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            pools: self.pools.state(),
            nodes: self.nodes.state(),
            drives: self.drives.state(),
            maps: self.maps.state(),
            operations: self.operations.state(),
            volumes: self.volumes.state(),
            legs: self.legs.state(),
            snapshots: self.snapshots.state(),
        }
    }
}

/// One consistent look at the copies.
pub struct Snapshot {
    pools: Vec<Arc<MemoryPool>>,
    nodes: Vec<Arc<Node>>,
    drives: Vec<Arc<Drive>>,
    maps: Vec<Arc<PoolMap>>,
    operations: Vec<Arc<DriveOperation>>,
    volumes: Vec<Arc<PoolVolume>>,
    legs: Vec<Arc<PoolLeg>>,
    snapshots: Vec<Arc<PoolSnapshot>>,
}

impl Snapshot {
    /// What to do with the rack.
    pub fn plan(&self, now: Timestamp) -> Vec<Action> {
        rack::plan(
            &Rack {
                pools: self.pools.iter().map(AsRef::as_ref).collect(),
                nodes: by_name(&self.nodes),
                drives: self.drives.iter().map(AsRef::as_ref).collect(),
                maps: by_name(&self.maps),
                operations: self.operations.iter().map(AsRef::as_ref).collect(),
                legs: volumes::stored_legs(self.legs.iter().map(AsRef::as_ref)),
            },
            now,
        )
    }

    /// What volumes are planned from.
    pub fn storage(&self) -> Storage<'_> {
        Storage {
            pools: self.pools.iter().map(AsRef::as_ref).collect(),
            nodes: by_name(&self.nodes),
            drives: self.drives.iter().map(AsRef::as_ref).collect(),
            volumes: self.volumes.iter().map(AsRef::as_ref).collect(),
            legs: self.legs.iter().map(AsRef::as_ref).collect(),
            snapshots: self.snapshots.iter().map(AsRef::as_ref).collect(),
            operations: self.operations.iter().map(AsRef::as_ref).collect(),
            heard: None,
        }
    }

    /// The volume of that name.
    pub fn volume(&self, name: &str) -> Option<&PoolVolume> {
        find(&self.volumes, name)
    }

    /// The leg of that name.
    pub fn leg(&self, name: &str) -> Option<&PoolLeg> {
        find(&self.legs, name)
    }

    /// The snapshot of that name.
    pub fn volume_snapshot(&self, name: &str) -> Option<&PoolSnapshot> {
        find(&self.snapshots, name)
    }

    /// The pool of that name.
    pub fn pool(&self, name: &str) -> Option<&MemoryPool> {
        find(&self.pools, name)
    }

    /// The drive of that name.
    pub fn drive(&self, name: &str) -> Option<&Drive> {
        find(&self.drives, name)
    }

    /// The map of the pool of that name.
    pub fn map(&self, name: &str) -> Option<&PoolMap> {
        find(&self.maps, name)
    }

    /// The operation of that name.
    pub fn operation(&self, name: &str) -> Option<&DriveOperation> {
        find(&self.operations, name)
    }

    /// All drives.
    pub fn drives(&self) -> impl Iterator<Item = &Drive> {
        self.drives.iter().map(AsRef::as_ref)
    }

    /// How many agents a new map goes to.
    pub fn agents(&self) -> usize {
        self.nodes.len()
    }
}

fn find<'a, K: ResourceExt>(objects: &'a [Arc<K>], name: &str) -> Option<&'a K> {
    objects
        .iter()
        .map(AsRef::as_ref)
        .find(|o| o.meta().name.as_deref() == Some(name))
}

fn by_name<K: ResourceExt>(objects: &[Arc<K>]) -> BTreeMap<&str, &K> {
    objects
        .iter()
        .map(AsRef::as_ref)
        .filter_map(|o| Some((o.meta().name.as_deref()?, o)))
        .collect()
}

/// A node weighs several KiB; decisions need its labels, whether it is ready, and whether it is cordoned.
fn strip_node(node: &mut Node) {
    node.metadata.annotations = None;
    node.spec = node.spec.take().map(|spec| NodeSpec {
        unschedulable: spec.unschedulable,
        ..NodeSpec::default()
    });
    if let Some(status) = &mut node.status {
        let conditions = status.conditions.take();
        *status = Default::default();
        status.conditions =
            conditions.map(|all| all.into_iter().filter(|c| c.type_ == "Ready").collect());
    }
}

/// A copy of all objects of a kind, with what keeps it.
pub(crate) fn copy<K>(
    api: Api<K>,
    changed: Vec<Arc<Notify>>,
    strip: fn(&mut K),
) -> (Store<K>, BoxFuture<'static, ()>)
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Default + Eq + Hash + Clone,
{
    let (store, writer) = reflector::store();
    let kind = K::kind(&K::DynamicType::default()).into_owned();
    let driver = watcher(api, watcher::Config::default())
        .default_backoff()
        .modify(move |object: &mut K| {
            object.meta_mut().managed_fields = None;
            strip(object);
        })
        .reflect(writer)
        .for_each(move |event| {
            match event {
                Ok(_) => changed.iter().for_each(|changed| changed.notify_one()),
                Err(error) => {
                    tracing::warn!(%kind, %error, "the watch was interrupted and is taken up again")
                }
            }
            futures::future::ready(())
        });
    (store, driver.boxed())
}
