//! How many volumes a node can have attached. The scheduler keeps to that by itself; this is for whoever does not ask it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use k8s_openapi::api::storage::v1::CSINode;
use kube::runtime::reflector::Store;
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, ResourceExt};
use strand_api::PoolVolume;
use tokio::sync::OnceCell;

use crate::cluster::Cluster;
use crate::error::Error;
use crate::identity::DRIVER;

/// A node and a volume.
type Coming = (String, String);

/// The count of nodes' volumes. Clones are the same.
#[derive(Clone)]
pub(super) struct Limits {
    cluster: Cluster,
    max_volumes: i64,
    /// All volumes as they were a moment ago, from the first attachment on.
    seen: Arc<OnceCell<Store<PoolVolume>>>,
    /// What is being attached now.
    coming: Arc<Mutex<BTreeSet<Coming>>>,
    /// Near the limit, one after the other.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// A place for one volume on a node, until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    coming: Arc<Mutex<BTreeSet<Coming>>>,
    this: Coming,
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.coming).remove(&self.this);
    }
}

fn lock(coming: &Mutex<BTreeSet<Coming>>) -> MutexGuard<'_, BTreeSet<Coming>> {
    coming.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Limits {
    pub fn new(cluster: Cluster, max_volumes: i64) -> Self {
        Self {
            cluster,
            max_volumes,
            seen: Arc::default(),
            coming: Arc::default(),
            turn: Arc::default(),
        }
    }

    /// Takes a place for a volume on a node.
    pub async fn place(&self, node: &str, volume: &str) -> Result<Place, Error> {
        let limit = self.of(node).await?;
        let seen = self.seen.get_or_try_init(|| self.watch()).await?;
        let seen = seen.state();
        let there = attached(seen.iter().map(AsRef::as_ref), node);
        // What was seen may be a moment old, which does not matter far from the limit.
        if let Some(place) = self.take(there, node, volume, limit - limit / 4 - 1) {
            return Ok(place);
        }
        let _turn = self.turn.lock().await;
        let all = self.cluster.all::<PoolVolume>().await?;
        let place = self.take(attached(all.iter(), node), node, volume, limit);
        place.ok_or_else(|| Error::Limit {
            node: node.to_owned(),
            limit,
        })
    }

    fn take(
        &self,
        mut there: BTreeSet<String>,
        node: &str,
        volume: &str,
        limit: i64,
    ) -> Option<Place> {
        let mut coming = lock(&self.coming);
        let here = coming.iter().filter(|(to, _)| to == node);
        there.extend(here.map(|(_, volume)| volume.clone()));
        there.remove(volume);
        if i64::try_from(there.len()).is_ok_and(|there| there >= limit) {
            return None;
        }
        let this = (node.to_owned(), volume.to_owned());
        coming.insert(this.clone());
        Some(Place {
            coming: Arc::clone(&self.coming),
            this,
        })
    }

    /// What the kubelet has written down of NodeGetInfo's answer.
    async fn of(&self, node: &str) -> Result<i64, Error> {
        let found = self.cluster.find::<CSINode>(node).await?;
        let drivers = found.map(|node| node.spec.drivers).unwrap_or_default();
        let ours = drivers.into_iter().find(|driver| driver.name == DRIVER);
        let count = ours.and_then(|driver| driver.allocatable?.count);
        Ok(count.map_or(self.max_volumes, i64::from))
    }

    async fn watch(&self) -> Result<Store<PoolVolume>, Error> {
        let (store, writer) = reflector::store();
        let volumes: Api<PoolVolume> = self.cluster.api();
        let watched = watcher(volumes, watcher::Config::default())
            .modify(|volume| {
                // Who is attached where is all that is asked for.
                volume.metadata.managed_fields = None;
                volume.spec.legs.clear();
                volume.status = None;
            })
            .default_backoff()
            .reflect(writer);
        tokio::spawn(watched.for_each(|_| std::future::ready(())));
        let late = |_| Error::Late {
            what: "the list of volumes".into(),
            state: "complete",
        };
        store.wait_until_ready().await.map_err(late)?;
        Ok(store)
    }
}

fn attached<'a>(volumes: impl Iterator<Item = &'a PoolVolume>, node: &str) -> BTreeSet<String> {
    let attached = |v: &&PoolVolume| v.spec.attach_to.iter().any(|to| to.node == node);
    volumes
        .filter(attached)
        .map(ResourceExt::name_any)
        .collect()
}
