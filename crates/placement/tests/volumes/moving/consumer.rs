//! Who uses the volume on a node: its agent gives the device of bytes that lie there, or connects to what the volume names.

use super::agent::known;
use super::*;

impl Run {
    pub(super) fn consume(&mut self, node: usize, hears: bool) {
        if hears {
            let volume = self.world.volume_mut("v").unwrap();
            let mut granted = volume.status.iter().flat_map(|s| &s.attachments);
            let granted = granted.find(|a| a.node == NODES[node] && a.phase.is_granted());
            self.nodes[node].granted = granted.cloned();
        }
        let granted = self.nodes[node].granted.clone();
        let has = self.nodes[node].device.clone();
        let same = |device: &Device| {
            granted.as_ref().is_some_and(|a| {
                a.read_only == device.read_only && a.generation == device.generation
            })
        };
        if has.as_ref().is_some_and(|device| !same(device)) {
            self.nodes[node].device = None;
            for bytes in self.bytes.values_mut().filter(|b| b.node == node) {
                bytes.here = None;
            }
        }
        if let (None, Some(granted)) = (&self.nodes[node].device, granted) {
            self.nodes[node].device = self.attach(node, &granted);
        }
    }

    fn attach(&mut self, node: usize, granted: &Attachment) -> Option<Device> {
        let device = |id: String| Device {
            id,
            generation: granted.generation,
            read_only: granted.read_only,
        };
        let here = self.bytes.iter().filter(|(_, b)| b.node == node);
        let here: Vec<String> = here.map(|(id, _)| id.clone()).collect();
        let mut usable = here.into_iter().filter(|id| self.is_usable(node, id));
        let (first, second) = (usable.next(), usable.next());
        drop(usable);
        if first.is_none() {
            let volume = self.world.volume_mut("v").unwrap();
            let id = volume.spec.legs[0].uuid.clone().unwrap();
            let mut now = volume.status.iter().flat_map(|s| &s.attachments);
            let is_granted = now.any(|a| a == granted);
            let elsewhere = volume.spec.legs[0].node_name != NODES[node];
            let reached = is_granted && elsewhere && self.reaches(node, &id, granted.generation);
            return reached.then(|| device(id));
        }
        let (Some(id), None) = (first, second) else {
            return None;
        };
        let bytes = self.bytes.get_mut(&id).unwrap();
        let reads = granted.read_only;
        let lent_to_readers = bytes.exports.values().all(|(_, reads)| *reads);
        let free = bytes.exports.is_empty() || reads && lent_to_readers;
        let current = granted.generation >= bytes.record.oldest(reads);
        bytes.late |= !current;
        (free && current).then(|| {
            bytes.record.take(granted.generation, reads);
            bytes.here = Some(reads);
            device(id)
        })
    }

    /// Whether an agent takes bytes for the volume's, by what it has heard of their objects; before it has heard of any, what is attached is.
    fn is_usable(&self, node: usize, id: &String) -> bool {
        let Some(heard) = &self.nodes[node].heard else {
            return self.bytes[id].here.is_some();
        };
        let name = &self.bytes[id].name;
        let object = heard.iter().find(|leg| match known(leg) {
            Some(known) => known == id,
            None => named(&leg.metadata, name),
        });
        let half = |leg: &PoolLeg| leg.spec.copy.as_ref().is_some_and(|copy| !copy.live);
        object.is_some_and(|leg| !leg.spec.orphaned && !leg.spec.deletion_mark && !half(leg))
    }

    /// Whether I/O of a node gets to bytes by a generation.
    pub(super) fn reaches(&self, node: usize, id: &str, generation: i64) -> bool {
        let Some(bytes) = self.bytes.get(id) else {
            return false;
        };
        if bytes.node == node {
            return bytes.here.is_some();
        }
        let whom = bytes.exports.get(&generation);
        whom.is_some_and(|(whom, _)| whom == NODES[node])
            && !self.nodes[node].cut
            && !self.nodes[bytes.node].cut
    }

    /// Whoever has it for writing does write, if he gets there: what arrives is acknowledged.
    pub(super) fn write(&mut self, node: usize) {
        let Some(device) = self.nodes[node].device.clone() else {
            return;
        };
        if device.read_only || !self.reaches(node, &device.id, device.generation) {
            return;
        }
        self.written += 1;
        self.acknowledged.insert(self.written);
        let bytes = self.bytes.get_mut(&device.id).unwrap();
        bytes.writes.insert(self.written);
    }
}
