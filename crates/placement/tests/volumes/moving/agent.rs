//! What the agent of a node does for the legs that lie there.

use super::*;

impl Run {
    pub(super) fn act(&mut self, node: usize) {
        let awake = !self.nodes[node].dozes;
        let Some(heard) = self.nodes[node].heard.clone().filter(|_| awake) else {
            return;
        };
        for leg in &heard {
            let status = self.tend(node, leg);
            let name = leg.metadata.name.as_deref().unwrap();
            let mut now = self.world.legs.iter_mut();
            let now = now.find(|l| named(&l.metadata, name) && l.metadata.uid == leg.metadata.uid);
            if let Some(now) = now {
                now.status = Some(status);
            }
        }
        self.make_objects_again(node, &heard);
    }

    /// The bytes that an object means.
    fn meant(&self, node: usize, leg: &PoolLeg) -> Option<String> {
        match known(leg) {
            Some(id) => self.bytes.contains_key(id).then(|| id.clone()),
            None => {
                let name = leg.metadata.name.as_deref().unwrap();
                let mine = |b: &&Bytes| b.name == name && b.node == node;
                let mut all = self.bytes.iter();
                all.find(|(_, b)| mine(b)).map(|(id, _)| id.clone())
            }
        }
    }

    fn tend(&mut self, node: usize, leg: &PoolLeg) -> PoolLegStatus {
        let name = leg.metadata.name.clone().unwrap();
        let found = self.meant(node, leg);
        let status = PoolLegStatus {
            observed_generation: leg.metadata.generation,
            ..PoolLegStatus::default()
        };
        if leg.spec.deletion_mark {
            self.half.remove(&name);
            let Some(id) = found else {
                return deleted(status);
            };
            let bytes = self.bytes.get_mut(&id).unwrap();
            bytes.exports.clear();
            if bytes.here.is_none() {
                self.bytes.remove(&id);
                return deleted(status);
            }
            return PoolLegStatus {
                phase: Some(LegPhase::Ready),
                uuid: Some(id),
                ..status
            };
        }
        let found = found.or_else(|| self.fetch(node, leg));
        let Some(id) = found else {
            let phase = match leg.spec.orphaned {
                true => LegPhase::Orphaned,
                false => LegPhase::Pending,
            };
            return PoolLegStatus {
                phase: Some(phase),
                ..status
            };
        };
        let bytes = self.bytes.get_mut(&id).unwrap();
        let stale = match leg.spec.orphaned {
            true => None,
            false => lend(bytes, leg),
        };
        let stale = stale.or(bytes.late.then_some(bytes.record.highest));
        // What was attached on its own node is not told, but where somebody comes too late, or nothing was told before.
        let earlier = leg.status.as_ref();
        let told = earlier.and_then(|s| s.attachment_generation);
        let lost = earlier.is_none_or(|s| s.uuid.is_none());
        let again = leg.spec.uuid.is_some() || leg.spec.copy.is_some() || lost;
        let record = (again && bytes.record.highest > 0).then_some(bytes.record.highest);
        let let_in = bytes.exports.keys().max().copied();
        PoolLegStatus {
            phase: Some(match leg.spec.orphaned {
                true => LegPhase::Orphaned,
                false => LegPhase::Ready,
            }),
            uuid: Some(id),
            size: ByteQuantity(10 << 30),
            attachment_generation: told.or(record).max(let_in).max(stale),
            exports: bytes.exports.keys().copied().map(exported_as).collect(),
            ..status
        }
    }

    /// Copies a leg of another node, one half at a time, as long as it is reached.
    fn fetch(&mut self, node: usize, leg: &PoolLeg) -> Option<String> {
        let of = leg.spec.copy.as_ref().filter(|_| known(leg).is_none())?;
        let name = leg.metadata.name.clone().unwrap();
        if !self.reaches(node, &of.uuid, of.generation) {
            return None;
        }
        let source = self.bytes[&of.uuid].clone();
        match self.half.remove(&name).filter(|(began, _)| began == of) {
            None => {
                self.half.insert(name, (of.clone(), source.writes));
                None
            }
            Some((_, first)) => {
                self.made += 1;
                let id = uuid(&format!("m{}", self.made));
                let copy = Bytes {
                    name,
                    node,
                    // What came between the halves is in the second one alone.
                    writes: first.intersection(&source.writes).copied().collect(),
                    record: Record {
                        highest: of.generation,
                        writer: of.generation,
                    },
                    exports: BTreeMap::new(),
                    here: None,
                    late: false,
                };
                self.bytes.insert(id.clone(), copy);
                Some(id)
            }
        }
    }

    fn make_objects_again(&mut self, node: usize, heard: &[PoolLeg]) {
        for (id, bytes) in self.bytes.clone() {
            let is = |leg: &PoolLeg| self.meant(node, leg).as_ref() == Some(&id);
            let there = heard.iter().any(is);
            if bytes.node != node || there || self.world.legs.iter().any(is) {
                continue;
            }
            let mut name = bytes.name.clone();
            if self.world.legs.iter().any(|l| named(&l.metadata, &name)) {
                name = format!("{name}-{}", &id[..8]);
            }
            if self.world.legs.iter().any(|l| named(&l.metadata, &name)) {
                continue;
            }
            let drive = format!("{}-a", NODES[node]);
            let short = &id[..8];
            let line = format!("leg {name} of=v on={drive} must={short} orphaned age=0");
            self.world.add(&line);
            let leg = self.world.legs.last_mut().unwrap();
            leg.metadata.uid = Some(format!("uid-again-{}", self.world.born));
        }
    }
}

/// Brings the exports of a leg to what its object says, as far as its record allows; what that has, if it is newer.
fn lend(bytes: &mut Bytes, leg: &PoolLeg) -> Option<i64> {
    let wanted = &leg.spec.exports;
    let is_wanted = |generation: i64| wanted.iter().any(|e| e.generation == generation);
    bytes.exports.retain(|generation, _| is_wanted(*generation));
    let highest = wanted.iter().map(|e| e.generation).max()?;
    let read_only = wanted.iter().all(|e| e.read_only);
    let one = read_only || wanted.len() == 1;
    let free = bytes.here.is_none_or(|reads| reads && read_only);
    if highest < bytes.record.oldest(read_only) {
        return Some(bytes.record.highest);
    }
    if one && free {
        bytes.record.take(highest, read_only);
        for e in wanted {
            let whom = (e.node.clone(), e.read_only);
            bytes.exports.insert(e.generation, whom);
        }
    }
    None
}

pub(super) fn known(leg: &PoolLeg) -> Option<&String> {
    let told = leg.status.as_ref().and_then(|s| s.uuid.as_ref());
    leg.spec.uuid.as_ref().or(told)
}

fn deleted(status: PoolLegStatus) -> PoolLegStatus {
    PoolLegStatus {
        phase: Some(LegPhase::Deleted),
        ..status
    }
}
