//! The API as this agent sees it: watches, and the mirror that they fill.

use std::collections::BTreeMap;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt};
use strand_api::{Drive, DriveOperation, MemoryPool, PoolGrant, PoolMap};
use strand_placement::access::Rights;

use crate::cached::Cached;
use crate::effects::Written;
use crate::operation::concerns_agent;
use crate::view::Pools;

/// What a watch delivered.
pub enum Heard {
    /// About a drive of this node.
    Drive(Event<Drive>),
    /// About a pool.
    Pool(Event<MemoryPool>),
    /// About a namespace's right to a pool.
    Grant(Event<PoolGrant>),
    /// About a pool's map.
    Map(Event<PoolMap>),
    /// About an operation.
    Operation(Event<DriveOperation>),
    /// A watch failed, and is begun again after a while.
    Failed {
        /// What was watched.
        what: &'static str,
        /// Why.
        error: watcher::Error,
    },
}

/// Watches everything that an agent needs.
pub fn watch_all(client: Client, node: &str) -> stream::SelectAll<BoxStream<'static, Heard>> {
    let all = watcher::Config::default;
    let own = all().fields(&format!("spec.nodeName={node}"));
    stream::select_all([
        watch(Api::all(client.clone()), own, "drives", Heard::Drive),
        watch(Api::all(client.clone()), all(), "memorypools", Heard::Pool),
        watch(Api::all(client.clone()), all(), "poolgrants", Heard::Grant),
        watch(Api::all(client.clone()), all(), "poolmaps", Heard::Map),
        watch(Api::all(client), all(), "driveoperations", Heard::Operation),
    ])
}

fn watch<K>(
    api: Api<K>,
    config: watcher::Config,
    what: &'static str,
    heard: fn(Event<K>) -> Heard,
) -> BoxStream<'static, Heard>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    watcher(api, config)
        .default_backoff()
        .map(move |event| match event {
            Ok(event) => heard(event),
            Err(error) => Heard::Failed { what, error },
        })
        .boxed()
}

/// What this agent knows of the API's objects.
#[derive(Debug, Default)]
pub struct Mirror {
    /// This node's drives.
    pub drives: Cached<Drive>,
    /// Operations of this kind of process that have not ended.
    pub operations: Cached<DriveOperation>,
    /// The pools by identity.
    pub index: Pools,
    pools: Cached<MemoryPool>,
    grants: Cached<PoolGrant>,
    maps: Cached<PoolMap>,
}

impl Mirror {
    /// Nothing but these pools, from before the API was seen.
    pub fn remembering(index: Pools) -> Self {
        Self {
            index,
            ..Self::default()
        }
    }

    /// Whether all lists were seen at least once.
    pub fn synced(&self) -> bool {
        self.drives.synced()
            && self.operations.synced()
            && self.pools.synced()
            && self.grants.synced()
            && self.maps.synced()
    }

    /// Takes what a watch delivered.
    pub fn take(&mut self, heard: Heard, node: &str) {
        match heard {
            Heard::Drive(event) => {
                // A server that knows no field selectors would show all nodes' drives.
                if about(&event).is_none_or(|drive| drive.spec.node_name == node) {
                    self.drives.take(event);
                }
            }
            Heard::Pool(event) => {
                self.pools.take(event.modify(|pool| pool.status = None));
                // Until the list is whole, what is remembered stands.
                if self.pools.synced() {
                    self.index = Pools::new(self.pools.iter().map(|(_, pool)| pool));
                }
            }
            Heard::Grant(event) => self.grants.take(event),
            Heard::Map(event) => self
                .maps
                .take(event.modify(|map| map.spec.nodes = Vec::new())),
            Heard::Operation(event) => self.take_operation(event),
            Heard::Failed { .. } => {}
        }
    }

    /// Operations that have ended are of no more use here, and there may be many.
    fn take_operation(&mut self, event: Event<DriveOperation>) {
        let event = match event {
            Event::Apply(operation) if !concerns_agent(&operation) => Event::Delete(operation),
            Event::InitApply(operation) if !concerns_agent(&operation) => return,
            event => event,
        };
        self.operations.take(event);
    }

    /// Takes the answer to a write.
    pub fn written(&mut self, written: Written) {
        match written {
            Written::Created(drive) => self.drives.written(*drive, true),
            Written::Applied(drive) => self.drives.written(*drive, false),
            Written::Operation(operation) => {
                if concerns_agent(&operation) {
                    self.operations.written(*operation, false);
                } else {
                    self.operations.take(Event::Delete(*operation));
                }
            }
            Written::Read(drive, pool) => {
                if let Some(drive) = drive {
                    self.drives.written(*drive, false);
                }
                if let Some(pool) = pool {
                    self.pools.written(*pool, false);
                    self.index = Pools::new(self.pools.iter().map(|(_, pool)| pool));
                }
            }
            Written::AsWatched => {}
        }
    }

    /// The oldest operation on a drive that has not ended.
    pub fn operation(&self, drive: &str) -> Option<&DriveOperation> {
        self.operations
            .iter()
            .map(|(_, operation)| operation)
            .filter(|operation| operation.spec.drive == drive)
            .min_by_key(|operation| {
                let created = operation.metadata.creation_timestamp.as_ref().map(|t| t.0);
                (created, operation.name_any())
            })
    }

    /// Who may use a pool, once that is known.
    pub fn rights(&self, pool: &MemoryPool) -> Option<Rights> {
        let known = self.pools.synced() && self.grants.synced();
        known.then(|| Rights::of(pool, self.grants.iter().map(|(_, grant)| grant)))
    }

    /// Epochs of the API's maps, by pool id.
    pub fn epochs(&self) -> BTreeMap<String, i64> {
        let mut epochs = BTreeMap::new();
        for (_, map) in self.maps.iter() {
            let epoch = epochs.entry(map.spec.pool_id.clone()).or_insert(0);
            *epoch = map.spec.epoch.max(*epoch);
        }
        epochs
    }
}

fn about<K>(event: &Event<K>) -> Option<&K> {
    match event {
        Event::Apply(object) | Event::InitApply(object) | Event::Delete(object) => Some(object),
        Event::Init | Event::InitDone => None,
    }
}
