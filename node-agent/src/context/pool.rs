//! One pool on this node: its rack of stores, and the doors of its pods.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use strand_api::{ContextMemoryPolicy, PoolMapSpec};
use strand_context_store::{Share, Store};
use strand_drives::OwnedDrive;
use strand_kv_door::{ArenaBudget, Door, DoorOptions, Namespace, Node, PodUid};
use strand_kv_rack::Rack;
use strand_placement::access::Part;
use strand_placement::map::capacity;
use uuid::Uuid;

use super::discard;
use super::doors::{DoorRequest, namespace_of};
use super::network::Network;
use super::report::OpenPool;
use super::wanted::WantedPool;
use super::{DoorError, OpenDoor};

pub(super) struct Pool {
    name: String,
    rack: Rack,
    node: Arc<Node<Rack>>,
    map: Option<Arc<PoolMapSpec>>,
    doors: BTreeMap<String, (DoorRequest, Door)>,
    /// Of every namespace that had a door here.
    names: BTreeMap<Namespace, String>,
}

impl Pool {
    pub(super) fn new(
        id: Uuid,
        name: &str,
        policy: &ContextMemoryPolicy,
        network: &Network,
        budget: &Arc<ArenaBudget>,
    ) -> io::Result<Self> {
        let rack = network.rack(id, policy)?;
        Ok(Self {
            name: name.to_owned(),
            node: Node::new(rack.clone(), Arc::clone(budget)),
            rack,
            map: None,
            doors: BTreeMap::new(),
            names: BTreeMap::new(),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Takes the pool's policy and newest map.
    pub(super) fn follow(&mut self, wanted: &WantedPool) {
        self.name.clone_from(&wanted.name);
        let epoch = self.map.as_ref().map_or(0, |map| map.epoch);
        if let Some(map) = wanted.map.as_ref().filter(|map| map.epoch > epoch) {
            self.rack.set_map(map);
            self.map = Some(Arc::clone(map));
        }
        if let Some(rights) = &wanted.rights {
            let capacity = self.map.as_deref().map_or(0, capacity);
            let shares = rights.parts(capacity).map(|(namespace, part)| {
                let Part { weight, most } = part;
                (namespace_of(namespace), Share { weight, most })
            });
            self.rack.set_shares(shares.collect());
        }
    }

    /// Makes a store part of the rack, once what is owed to it is done.
    pub(super) fn add_drive(
        &self,
        drive: &OwnedDrive,
        store: &Store,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (rack, key, store) = (self.rack.clone(), key(drive), Arc::new(store.clone()));
        async move { rack.add_drive(key, store).await }
    }

    pub(super) fn remove_drive(&self, drive: &OwnedDrive) {
        self.rack.remove_drive(key(drive));
    }

    pub(super) fn open_door(
        &mut self,
        id: &str,
        request: DoorRequest,
    ) -> Result<OpenDoor, DoorError> {
        let options = DoorOptions {
            socket: request.socket(),
            namespace: namespace_of(&request.namespace),
            arena_bytes: request.arena_bytes.unwrap_or(DoorOptions::ARENA_BYTES),
        };
        let door = match &request.pod_uid {
            Some(uid) => self.node.open_for(PodUid::new(uid), options)?,
            None => self.node.open(options)?,
        };
        let opened = OpenDoor::of(&request);
        let number = namespace_of(&request.namespace);
        self.names.insert(number, request.namespace.clone());
        self.doors.insert(id.to_owned(), (request, door));
        Ok(opened)
    }

    pub(super) fn close_door(&mut self, id: &str) {
        self.doors.remove(id);
    }

    pub(super) fn close_doors(&mut self) {
        self.doors.clear();
    }

    pub(super) fn has_doors(&self) -> bool {
        !self.doors.is_empty()
    }

    pub(super) fn door(&self, id: &str) -> Option<&DoorRequest> {
        self.doors.get(id).map(|(request, _)| request)
    }

    pub(super) fn doors(&self) -> impl Iterator<Item = (String, DoorRequest)> + '_ {
        let doors = self.doors.iter();
        doors.map(|(id, (request, _))| (id.clone(), request.clone()))
    }

    /// Since when the newest map has a drive of this node.
    pub(super) fn listed(&self, node: &str, drive: &OwnedDrive) -> Option<i64> {
        discard::listed(self.map.as_ref()?, node, key(drive))
    }

    pub(super) fn open(&self) -> OpenPool {
        OpenPool {
            name: self.name.clone(),
            epoch: self.map.as_ref().map_or(0, |map| map.epoch),
            doors: self.doors.len(),
            namespaces: (self.doors.values())
                .map(|(request, _)| (namespace_of(&request.namespace), request.namespace.clone()))
                .collect(),
            names: self.names.clone(),
            node: Arc::clone(&self.node),
            rack: self.rack.clone(),
        }
    }
}

/// The drive's key in the pool map.
fn key(drive: &OwnedDrive) -> u32 {
    drive.drive_id.as_fields().0
}
