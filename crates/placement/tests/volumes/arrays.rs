//! A mirror, or a raid6, whose nodes die, are cut off from the API or from each other, and come back, while it moves between consumers. What is
//! recorded in has every acknowledged write, and whoever lost the volume writes nothing over what a later one wrote.
//!
//! The agents and consumers here do what `docs/decisions/0019` says; what md knows of itself, and superblocks, help nobody.

use crate::world::{World, named, uuid};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use strand_api::{
    ArrayLeg, ArrayRefusal, ArrayStatus, AttachTo, Attachment, ExportedLeg, LackPhase, LegHolding,
    LegPhase, PlacedLeg, PoolLeg, PoolLegStatus, PoolVolume, VolumePhase,
};
use strand_placement::volumes::Action;

const NODES: [&str; 7] = ["n0", "n1", "n2", "n3", "n4", "n5", "n6"];
/// Rounds within which everything has come to rest.
const ROUNDS: usize = 30;

/// A rack for a volume of one redundancy.
struct Kind {
    redundancy: &'static str,
    /// Size of each leg of 10 GiB.
    leg: &'static str,
    /// So many nodes, from the first on, hold its legs.
    legs: usize,
    /// Nodes with drives.
    drives: &'static [usize],
    /// Nodes that it is wanted on.
    consumers: &'static [usize],
}

const MIRROR: Kind = Kind {
    redundancy: "mirror",
    leg: "10241Mi",
    legs: 2,
    drives: &[0, 1, 2],
    consumers: &[0, 1, 2, 3],
};
const RAID6: Kind = Kind {
    redundancy: "raid6",
    leg: "5121Mi",
    legs: 4,
    drives: &[0, 1, 2, 3, 6],
    consumers: &[4, 5],
};

#[derive(Clone, Debug)]
enum Event {
    /// Somebody wants it on one of the nodes where it can be attached, and nowhere else.
    Want {
        node: usize,
    },
    NobodyWants,
    Look,
    Plan {
        seed: u64,
    },
    Agent {
        node: usize,
        hears: bool,
    },
    Consumer {
        node: usize,
        hears: bool,
    },
    Write {
        node: usize,
    },
    Copy {
        node: usize,
    },
    Power {
        node: usize,
        on: bool,
    },
    /// From the API.
    CutOff {
        node: usize,
        cut: bool,
    },
    /// From the other nodes.
    Isolate {
        node: usize,
        cut: bool,
    },
    LoseVolumeStatus,
    Wait {
        seconds: i64,
    },
    /// A while in which everybody does what he can.
    Settle,
}

fn event() -> impl Strategy<Value = Event> {
    let n = 0..NODES.len();
    prop_oneof![
        3 => n.clone().prop_map(|node| Event::Want { node }),
        1 => Just(Event::NobodyWants),
        6 => Just(Event::Look),
        8 => any::<u64>().prop_map(|seed| Event::Plan { seed }),
        8 => (n.clone(), any::<bool>()).prop_map(|(node, hears)| Event::Agent { node, hears }),
        8 => (n.clone(), any::<bool>()).prop_map(|(node, hears)| Event::Consumer { node, hears }),
        8 => n.clone().prop_map(|node| Event::Write { node }),
        4 => n.clone().prop_map(|node| Event::Copy { node }),
        2 => (n.clone(), any::<bool>()).prop_map(|(node, on)| Event::Power { node, on }),
        2 => (n.clone(), any::<bool>()).prop_map(|(node, cut)| Event::CutOff { node, cut }),
        2 => (n, any::<bool>()).prop_map(|(node, cut)| Event::Isolate { node, cut }),
        1 => Just(Event::LoseVolumeStatus),
        3 => prop::sample::select(vec![1, 6, 70, 1300]).prop_map(|seconds| Event::Wait { seconds }),
        4 => Just(Event::Settle),
    ]
}

/// The bytes of a leg.
#[derive(Clone, Debug, Default)]
struct Bytes {
    name: String,
    node: usize,
    writes: BTreeSet<u32>,
    /// The highest attachment that has written to them.
    used: i64,
    /// The highest attachment that its agent has let in.
    record: i64,
    exports: BTreeSet<i64>,
    /// Its bitmap: writes that other legs may have missed, and in which attachment. What it has of earlier ones is not relied on.
    marked: (i64, BTreeSet<u32>),
    /// A consumer on its own node has it.
    here: bool,
}

/// An array as a consumer's kernel runs it.
#[derive(Clone, Debug)]
struct Md {
    generation: i64,
    whole: BTreeSet<String>,
    behind: BTreeSet<String>,
}

#[derive(Clone, Default)]
struct Node {
    off: bool,
    cut_off: bool,
    isolated: bool,
    legs: Vec<PoolLeg>,
    volume: Option<PoolVolume>,
    md: Option<Md>,
    told: BTreeMap<String, (LegHolding, Time)>,
}

struct Run {
    kind: &'static Kind,
    world: World,
    view: World,
    nodes: Vec<Node>,
    bytes: BTreeMap<String, Bytes>,
    acknowledged: BTreeSet<u32>,
    written: u32,
    made: u32,
}

fn index(node: &str) -> usize {
    NODES.iter().position(|name| *name == node).unwrap()
}

impl Run {
    fn new(kind: &'static Kind) -> Self {
        let mut world = World::default();
        for node in NODES {
            world.add(&format!("node {node}"));
        }
        world.add("pool default");
        for drive in kind.drives {
            world.add(&format!("drive n{drive}/a storage=100Gi"));
        }
        let places = 0..kind.legs;
        let places: Vec<String> = places.map(|i| format!("v-{i}@n{i}-a:u{i}")).collect();
        let (redundancy, places) = (kind.redundancy, places.join(","));
        world.add(&format!(
            "volume v redundancy={redundancy} legs={places} array=u9"
        ));
        let mut bytes = BTreeMap::new();
        for i in 0..kind.legs {
            let size = kind.leg;
            world.add(&format!("leg v-{i} of=v on=n{i}-a size={size} ready=u{i}"));
            let leg = Bytes {
                name: format!("v-{i}"),
                node: i,
                ..Bytes::default()
            };
            bytes.insert(uuid(&format!("u{i}")), leg);
        }
        Self {
            kind,
            view: world.clone(),
            world,
            nodes: vec![Node::default(); NODES.len()],
            bytes,
            acknowledged: BTreeSet::new(),
            written: 0,
            made: 0,
        }
    }

    fn volume(&mut self) -> &mut PoolVolume {
        self.world.volume_mut("v").unwrap()
    }

    fn happen(&mut self, event: &Event) -> Result<(), TestCaseError> {
        match event {
            Event::Want { node } => {
                let consumers = self.kind.consumers;
                let node = consumers[*node % consumers.len()];
                self.volume().spec.attach_to = vec![AttachTo {
                    node: NODES[node].into(),
                    read_only: false,
                }];
            }
            Event::NobodyWants => self.volume().spec.attach_to.clear(),
            Event::Look => self.view = self.world.clone(),
            Event::Plan { seed } => self.plan(*seed)?,
            Event::Agent { node, hears } => self.agent(*node, *hears),
            Event::Consumer { node, hears } => self.consumer(*node, *hears)?,
            Event::Write { node } => self.write(*node)?,
            Event::Copy { node } => self.copy(*node)?,
            Event::Power { node, on } => self.power(*node, *on),
            Event::CutOff { node, cut } => {
                self.nodes[*node].cut_off = *cut;
                self.told_of_nodes();
            }
            Event::Isolate { node, cut } => self.nodes[*node].isolated = *cut,
            Event::LoseVolumeStatus => self.volume().status = None,
            Event::Wait { seconds } => self.world.seconds += seconds,
            Event::Settle => self.settle(6)?,
        }
        Ok(())
    }

    fn power(&mut self, node: usize, on: bool) {
        if self.nodes[node].off == on {
            let network = (self.nodes[node].cut_off, self.nodes[node].isolated);
            self.nodes[node] = Node {
                off: !on,
                cut_off: network.0,
                isolated: network.1,
                ..Node::default()
            };
            for bytes in self.bytes.values_mut().filter(|b| b.node == node) {
                bytes.exports.clear();
                bytes.here = false;
            }
        }
        self.told_of_nodes();
    }

    /// Nodes that the API server does not hear from are not ready.
    fn told_of_nodes(&mut self) {
        for (node, object) in self.nodes.iter().zip(&mut self.world.nodes) {
            let conditions = object.status.as_mut().unwrap().conditions.as_mut();
            let ready = if node.off || node.cut_off {
                "Unknown"
            } else {
                "True"
            };
            conditions.unwrap()[0].status = ready.into();
        }
    }

    /// Carries out the actions whose bit is set, as far as their objects are still what they were when that was decided.
    fn plan(&mut self, seed: u64) -> Result<(), TestCaseError> {
        let leg_of = |world: &World, name: &str| {
            let mut legs = world.legs.iter();
            legs.find(|l| named(&l.metadata, name)).cloned()
        };
        for (i, action) in self.view.plan().iter().enumerate() {
            let current = match action {
                Action::PlaceVolume { .. } | Action::SetVolumeStatus { .. } => {
                    self.view.volumes == self.world.volumes
                }
                Action::ChangeLeg { leg, .. } | Action::DropLeg { leg } => {
                    let then = leg_of(&self.view, leg);
                    then.is_some() && then == leg_of(&self.world, leg)
                }
                _ => true,
            };
            if seed >> (i % 64) & 1 == 1 && current {
                self.world.apply(action);
                self.look()?;
            }
        }
        Ok(())
    }

    fn agent(&mut self, node: usize, hears: bool) {
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

    fn tend(&mut self, node: usize, leg: &PoolLeg) -> PoolLegStatus {
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
        let id = found.unwrap_or_else(|| {
            assert!(leg.spec.uuid.is_none(), "{name} has lost its bytes");
            self.made += 1;
            uuid(&format!("m{}", self.made))
        });
        let bytes = self.bytes.entry(id.clone()).or_insert_with(|| Bytes {
            name,
            node,
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
        let exported = |generation: &i64| ExportedLeg {
            generation: *generation,
            address: "10.0.0.1".into(),
            port: 4420,
        };
        PoolLegStatus {
            phase: Some(LegPhase::Ready),
            uuid: Some(id),
            size: leg.spec.size,
            attachment_generation: (bytes.record > 0).then_some(bytes.record),
            exports: bytes.exports.iter().map(exported).collect(),
            ..status
        }
    }

    /// Whether a consumer's I/O gets to a leg.
    fn reaches(&self, node: usize, id: &str, generation: i64) -> bool {
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
    fn take_here(&mut self, node: usize, id: &str, generation: i64) {
        if let Some(bytes) = self.bytes.get_mut(id)
            && bytes.node == node
            && bytes.exports.is_empty()
            && generation >= bytes.record
        {
            bytes.record = generation;
            bytes.here = true;
        }
    }

    fn take_down(&mut self, node: usize) {
        self.nodes[node].md = None;
        self.nodes[node].told.clear();
        for bytes in self.bytes.values_mut().filter(|b| b.node == node) {
            bytes.here = false;
        }
    }

    fn consumer(&mut self, node: usize, hears: bool) -> Result<(), TestCaseError> {
        if self.nodes[node].off {
            return Ok(());
        }
        if hears && !self.nodes[node].cut_off {
            self.nodes[node].volume = Some(self.volume().clone());
        }
        let Some(volume) = self.nodes[node].volume.clone() else {
            return Ok(());
        };
        let mut attachments = volume.status.iter().flat_map(|s| &s.attachments);
        let granted = |a: &&Attachment| a.node == NODES[node] && a.phase.is_granted();
        let Some(generation) = attachments.find(granted).map(|a| a.generation) else {
            // Its pod may not have been told yet; but what has no status is not taken for an answer.
            if volume.status.is_some() {
                self.take_down(node);
            }
            return Ok(());
        };
        if self.nodes[node]
            .md
            .as_ref()
            .is_some_and(|md| md.generation != generation)
        {
            self.take_down(node);
        }
        let legs: Vec<(&PlacedLeg, String)> = volume
            .spec
            .legs
            .iter()
            .filter_map(|placed| Some((placed, placed.uuid.clone()?)))
            .collect();
        for (_, id) in &legs {
            self.take_here(node, id, generation);
        }
        let mut refused = None;
        let is_in = |placed: &PlacedLeg| placed.lack.is_none();
        let in_legs = || legs.iter().filter(|(placed, _)| is_in(placed));
        if self.nodes[node].md.is_none() {
            let all_there = volume
                .spec
                .legs
                .iter()
                .filter(|p| is_in(p))
                .all(|p| p.uuid.is_some())
                && in_legs().all(|(_, id)| self.reaches(node, id, generation));
            if !all_there {
                refused = Some(ArrayRefusal {
                    reason: "LegsAway".into(),
                    message: String::new(),
                });
            } else {
                if !volume.spec.array.as_ref().unwrap().formed {
                    prop_assert!(
                        self.acknowledged.is_empty(),
                        "made again over {:?}",
                        self.acknowledged
                    );
                }
                let whole = in_legs().map(|(_, id)| id.clone()).collect();
                self.nodes[node].md = Some(Md {
                    generation,
                    whole,
                    behind: BTreeSet::new(),
                });
            }
        }
        let reached: Vec<bool> = legs
            .iter()
            .map(|(_, id)| self.reaches(node, id, generation))
            .collect();
        if let Some(md) = &mut self.nodes[node].md {
            // One that is not named any more was replaced.
            let named = |id: &String| legs.iter().any(|(_, named)| named == id);
            md.whole.retain(named);
            md.behind.retain(named);
            for ((placed, id), reached) in legs.iter().zip(&reached) {
                match placed.lack.as_ref().map(|lack| lack.phase) {
                    Some(LackPhase::Out) => {
                        md.whole.remove(id);
                        md.behind.remove(id);
                    }
                    Some(_) if *reached && !md.whole.contains(id) => {
                        md.behind.insert(id.clone());
                    }
                    _ => {}
                }
            }
        }
        self.tell(node, generation, &legs, &reached, refused);
        Ok(())
    }

    fn tell(
        &mut self,
        node: usize,
        generation: i64,
        legs: &[(&PlacedLeg, String)],
        reached: &[bool],
        refused: Option<ArrayRefusal>,
    ) {
        let now = Time(self.world.now());
        let md = self.nodes[node].md.clone();
        let mut list = Vec::new();
        for ((placed, id), reached) in legs.iter().zip(reached) {
            let holding = match &md {
                _ if !reached => LegHolding::Away,
                Some(md) if md.whole.contains(id) => LegHolding::Whole,
                Some(md) if md.behind.contains(id) => LegHolding::Behind,
                Some(_) => LegHolding::Apart,
                // Of an array that does not run, only what keeps it from that is told.
                None => continue,
            };
            if md.is_none() && placed.lack.is_some() {
                continue;
            }
            let told = self.nodes[node].told.entry(id.clone());
            let told = told.or_insert((holding, now.clone()));
            if told.0 != holding {
                *told = (holding, now.clone());
            }
            list.push(ArrayLeg {
                uuid: id.clone(),
                holding,
                since: told.1.clone(),
                percent: None,
            });
        }
        if self.nodes[node].cut_off {
            return;
        }
        if let Some(status) = &mut self.volume().status {
            status.array = Some(ArrayStatus {
                node: NODES[node].into(),
                generation,
                legs: list,
                refused,
            });
        }
    }

    fn write(&mut self, node: usize) -> Result<(), TestCaseError> {
        let Some(md) = self.nodes[node].md.clone() else {
            return Ok(());
        };
        self.written += 1;
        let write = self.written;
        let members: Vec<&String> = md.whole.iter().chain(&md.behind).collect();
        let mut everywhere = !md.whole.is_empty();
        for id in &members {
            if !self.reaches(node, id, md.generation) {
                // What is written waits.
                everywhere = false;
                continue;
            }
            let bytes = self.bytes.get_mut(*id).unwrap();
            prop_assert!(
                bytes.used <= md.generation,
                "attachment {} on {} writes to {id}, which {} has written to",
                md.generation,
                NODES[node],
                bytes.used
            );
            bytes.used = md.generation;
            bytes.writes.insert(write);
        }
        if everywhere {
            self.acknowledged.insert(write);
        }
        if !everywhere || members.len() < self.bytes.len() {
            for id in &md.whole {
                if self.reaches(node, id, md.generation) {
                    let marked = &mut self.bytes.get_mut(id).unwrap().marked;
                    if marked.0 != md.generation {
                        *marked = (md.generation, BTreeSet::new());
                    }
                    marked.1.insert(write);
                }
            }
        }
        self.look()
    }

    fn copy(&mut self, node: usize) -> Result<(), TestCaseError> {
        let (Some(md), Some(volume)) =
            (self.nodes[node].md.clone(), self.nodes[node].volume.clone())
        else {
            return Ok(());
        };
        let returning = |id: &String| {
            let mut legs = volume.spec.legs.iter();
            let leg = legs.find(|leg| leg.uuid.as_ref() == Some(id));
            let lack = leg.and_then(|leg| leg.lack.as_ref());
            lack.is_some_and(|lack| lack.phase == LackPhase::Returning)
        };
        let mut whole = md.whole.iter();
        let from = whole.find(|id| self.reaches(node, id, md.generation));
        let Some(from) = from.map(|id| self.bytes[id].clone()) else {
            return Ok(());
        };
        for id in &md.behind {
            if !self.reaches(node, id, md.generation) {
                continue;
            }
            let by_bitmap = returning(id);
            let bytes = self.bytes.get_mut(id).unwrap();
            prop_assert!(
                bytes.used <= md.generation,
                "{id} is copied to by {}",
                md.generation
            );
            bytes.used = md.generation;
            match by_bitmap {
                true if from.marked.0 != md.generation => {}
                true => bytes.writes.extend(&from.marked.1),
                false => bytes.writes = from.writes.clone(),
            }
            // Every member has the array's bitmap.
            bytes.marked = from.marked.clone();
            let md = self.nodes[node].md.as_mut().unwrap();
            md.behind.remove(id);
            md.whole.insert(id.clone());
        }
        self.look()
    }

    /// What must hold at every moment.
    fn look(&mut self) -> Result<(), TestCaseError> {
        let volume = self.volume().clone();
        for placed in volume.spec.legs.iter().filter(|leg| leg.lack.is_none()) {
            let bytes = placed.uuid.as_ref().and_then(|id| self.bytes.get(id));
            let has = bytes.map(|bytes| &bytes.writes);
            let nothing = BTreeSet::new();
            let missing: Vec<_> = self
                .acknowledged
                .difference(has.unwrap_or(&nothing))
                .collect();
            prop_assert!(
                missing.is_empty(),
                "{} is in and lacks {missing:?}",
                placed.name
            );
        }
        Ok(())
    }

    fn settle(&mut self, rounds: usize) -> Result<(), TestCaseError> {
        for _ in 0..rounds {
            self.world.seconds += 7;
            self.happen(&Event::Look)?;
            self.plan(u64::MAX)?;
            for node in 0..NODES.len() {
                self.agent(node, true);
                self.consumer(node, true)?;
                self.copy(node)?;
                self.write(node)?;
                self.consumer(node, true)?;
            }
        }
        Ok(())
    }

    /// Everything is well again; nothing is left to be done.
    fn rest(&mut self) -> Result<(), TestCaseError> {
        for node in 0..NODES.len() {
            self.nodes[node].isolated = false;
            self.nodes[node].cut_off = false;
            self.power(node, true);
        }
        self.settle(ROUNDS)?;
        let plan: Vec<String> = self.world.plan().iter().map(ToString::to_string).collect();
        prop_assert!(plan.is_empty(), "not at rest; next: {plan:#?}");
        let volume = self.volume().clone();
        let status = volume.status.clone().unwrap();
        let wishes: Vec<&String> = volume.spec.attach_to.iter().map(|a| &a.node).collect();
        let granted: Vec<&String> = status.attachments.iter().map(|a| &a.node).collect();
        prop_assert_eq!(&wishes, &granted);
        if wishes.is_empty() {
            return Ok(());
        }
        prop_assert_eq!(
            status.phase,
            Some(VolumePhase::Ready),
            "{:?}",
            status.conditions
        );
        prop_assert!(volume.spec.legs.iter().all(|leg| leg.lack.is_none()));
        let legs = self.kind.legs;
        prop_assert_eq!(self.world.legs.len(), legs, "what was replaced is gone");
        let domains: BTreeSet<&String> = volume.spec.legs.iter().map(|l| &l.node_name).collect();
        prop_assert_eq!(domains.len(), legs);
        let before = self.acknowledged.len();
        self.write(index(wishes[0]))?;
        prop_assert_eq!(self.acknowledged.len(), before + 1, "it can be written to");
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_mirror_keeps_what_was_acknowledged_and_comes_back(events in prop::collection::vec(event(), 1..90)) {
        hold(&MIRROR, &events)?;
    }

    #[test]
    fn raid6_keeps_what_was_acknowledged_and_comes_back(events in prop::collection::vec(event(), 1..90)) {
        hold(&RAID6, &events)?;
    }
}

fn hold(kind: &'static Kind, events: &[Event]) -> Result<(), TestCaseError> {
    let mut run = Run::new(kind);
    run.happen(&Event::Want { node: 0 })?;
    run.settle(4)?;
    for event in events {
        run.happen(event)?;
        run.look()?;
    }
    run.rest()
}
