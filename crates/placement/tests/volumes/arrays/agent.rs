//! What the agent of a node that holds legs does.

use super::*;

impl Run {
    pub(super) fn agent(&mut self, node: usize, hears: bool) {
        let this = &mut self.nodes[node];
        if this.off {
            return;
        }
        if hears && !this.cut_off {
            let mine = self.world.legs.iter();
            this.legs = mine
                .filter(|l| l.spec.node_name == NODES[node])
                .cloned()
                .collect();
        }
        for leg in self.nodes[node].legs.clone() {
            let status = self.tend(node, &leg);
            let name = leg.metadata.name.as_deref().unwrap();
            let mut now = self.world.legs.iter_mut();
            let now = now.find(|l| named(&l.metadata, name) && l.metadata.uid == leg.metadata.uid);
            if let (Some(now), false) = (now, self.nodes[node].cut_off) {
                now.status = Some(status);
            }
        }
    }

    pub(super) fn tend(&mut self, node: usize, leg: &PoolLeg) -> PoolLegStatus {
        let name = leg.metadata.name.clone().unwrap();
        let known = |id: &&String| self.bytes.get(*id).is_some_and(|b| b.name == name);
        let found = self.bytes.keys().find(known).cloned();
        let status = PoolLegStatus {
            observed_generation: leg.metadata.generation,
            ..PoolLegStatus::default()
        };
        if leg.spec.deletion_mark {
            if let Some(id) = found {
                self.bytes.remove(&id);
            }
            return PoolLegStatus {
                phase: Some(LegPhase::Deleted),
                ..status
            };
        }
        if found.is_none()
            && let Some(of) = leg.spec.copy.as_ref().filter(|of| of.node_name.is_some())
            && !self.fetch(node, leg, of)
        {
            return PoolLegStatus {
                phase: Some(LegPhase::Pending),
                ..status
            };
        }
        let known = |id: &&String| self.bytes.get(*id).is_some_and(|b| b.name == name);
        let found = self.bytes.keys().find(known).cloned();
        // A snapshot has what its source has now.
        let taken = match &leg.spec.source {
            Some(source) if found.is_none() => {
                let mut bytes = self.bytes.values();
                let Some(of) = bytes.find(|b| b.name == *source && b.node == node) else {
                    return PoolLegStatus {
                        phase: Some(LegPhase::Pending),
                        ..status
                    };
                };
                of.writes.clone()
            }
            _ => BTreeSet::new(),
        };
        let id = found.unwrap_or_else(|| {
            assert!(leg.spec.uuid.is_none(), "{name} has lost its bytes");
            self.made += 1;
            uuid(&format!("m{:05}", self.made))
        });
        let bytes = self.bytes.entry(id.clone()).or_insert_with(|| Bytes {
            name,
            node,
            writes: taken,
            ..Bytes::default()
        });
        let wanted: BTreeSet<i64> = leg.spec.exports.iter().map(|e| e.generation).collect();
        bytes
            .exports
            .retain(|generation| wanted.contains(generation));
        if let Some(highest) = wanted.last()
            && !bytes.here
            && *highest >= bytes.record
        {
            bytes.record = *highest;
            bytes.exports.extend(&wanted);
        }
        PoolLegStatus {
            phase: Some(LegPhase::Ready),
            uuid: Some(id),
            size: leg.spec.size,
            attachment_generation: (bytes.record > 0).then_some(bytes.record),
            exports: bytes.exports.iter().copied().map(exported_as).collect(),
            ..status
        }
    }

    /// Copies a leg of another node, one half at a time, as long as it is reached; whether it is whole.
    fn fetch(&mut self, node: usize, leg: &PoolLeg, of: &LegCopy) -> bool {
        if !self.reaches(node, &of.uuid, of.generation) {
            return false;
        }
        let name = leg.metadata.name.clone().unwrap();
        let source = self.bytes[&of.uuid].clone();
        match self.half.remove(&name).filter(|(began, _)| began == of) {
            None => {
                self.half.insert(name, (of.clone(), source.writes));
                false
            }
            Some((_, first)) => {
                self.made += 1;
                let id = uuid(&format!("m{:05}", self.made));
                let copy = Bytes {
                    name,
                    node,
                    // What came between the halves is in the second one alone.
                    writes: first.intersection(&source.writes).copied().collect(),
                    record: of.generation,
                    exports: BTreeSet::new(),
                    here: false,
                    ..source
                };
                self.bytes.insert(id, copy);
                true
            }
        }
    }

    /// Whether a consumer's I/O gets to a leg.
    pub(super) fn reaches(&self, node: usize, id: &str, generation: i64) -> bool {
        let Some(bytes) = self.bytes.get(id) else {
            return false;
        };
        if bytes.node == node {
            return bytes.here;
        }
        let (here, there) = (&self.nodes[node], &self.nodes[bytes.node]);
        !there.off && !there.isolated && !here.isolated && bytes.exports.contains(&generation)
    }

    /// The agent of a consumer gives it the device of a leg on their own node.
    pub(super) fn take_here(&mut self, node: usize, id: &str, generation: i64) {
        if let Some(bytes) = self.bytes.get_mut(id)
            && bytes.node == node
            && bytes.exports.is_empty()
            && generation >= bytes.record
        {
            bytes.record = generation;
            bytes.here = true;
        }
    }

    pub(super) fn take_down(&mut self, node: usize) {
        self.nodes[node].md = None;
        self.nodes[node].told.clear();
        for bytes in self.bytes.values_mut().filter(|b| b.node == node) {
            bytes.here = false;
        }
    }
}
