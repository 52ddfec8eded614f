//! A mirror, or a raid6, whose nodes die, are cut off from the API or from each other, and come back, while it moves between consumers. What is
//! recorded in has every acknowledged write, and whoever lost the volume writes nothing over what a later one wrote.
//!
//! The agents and consumers here do what `docs/decisions/0019` says; what md knows of itself, and superblocks, help nobody.

mod agent;
mod consumer;
mod snapshots;
mod verdict;

use crate::world::{World, exported_as, named, uuid};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use strand_api::{
    ArrayLeg, ArrayRefusal, ArrayStatus, AttachTo, Attachment, LackPhase, LegCopy, LegHolding,
    LegPhase, PlacedLeg, PoolLeg, PoolLegStatus, PoolVolume, VolumePhase,
};

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
    /// The drive of a node is emptied, or not any more.
    Empty {
        node: usize,
        on: bool,
    },
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
        2 => (n.clone(), any::<bool>()).prop_map(|(node, cut)| Event::Isolate { node, cut }),
        2 => (n, any::<bool>()).prop_map(|(node, on)| Event::Empty { node, on }),
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
    /// Copies half made, by name of the leg: what they are of, and what the first half had.
    half: BTreeMap<String, (LegCopy, BTreeSet<u32>)>,
    acknowledged: BTreeSet<u32>,
    written: u32,
    made: u32,
    /// md gives legs up by itself, and until that is recorded they are in and lack writes.
    legs_fail: bool,
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
            half: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            written: 0,
            made: 0,
            legs_fail: false,
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
            Event::Empty { node, on } => self.empty(*node, *on),
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

    fn empty(&mut self, node: usize, on: bool) {
        let name = format!("{}-a", NODES[node]);
        let mut drives = self.world.drives.iter_mut();
        let Some(drive) = drives.find(|drive| named(&drive.metadata, &name)) else {
            return;
        };
        drive.spec.cordon = on;
        self.world.operations.retain(|o| o.spec.drive != name);
        if on {
            self.world.add(&format!("evacuate {name} running"));
        }
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
        for (i, action) in self.view.plan().iter().enumerate() {
            let current = self.world.is_as_in(&self.view, action);
            if seed >> (i % 64) & 1 == 1 && current {
                self.world.apply(action);
                self.look()?;
            }
        }
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
