//! A volume without redundancy whose drives are emptied, from node to node, while it is wanted here and there, and agents, nodes and operators are
//! killed, late, or have forgotten: what was acknowledged is always in the bytes that the volume names, and never more than one node writes.

use crate::record::Record;
use crate::world::{World, exported_as, named, uuid};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use strand_api::{
    AttachTo, Attachment, ByteQuantity, LegCopy, LegPhase, PoolLeg, PoolLegStatus, PoolVolume,
};

mod agent;
mod consumer;
mod left;

const NODES: [&str; 3] = ["n0", "n1", "n2"];
const ROUNDS: usize = 60;

#[derive(Clone, Debug)]
enum Event {
    Wish {
        node: usize,
        read_only: bool,
    },
    Withdraw {
        node: usize,
    },
    Empty {
        node: usize,
        on: bool,
    },
    /// The operator looks; what it plans afterwards is from this look.
    Look,
    /// It carries some of its plan out.
    Plan {
        seed: u64,
    },
    /// A node's agent takes notice of the objects of its legs.
    Hear {
        node: usize,
    },
    /// It acts on what it heard last, and tells.
    Act {
        node: usize,
    },
    /// It is killed, and knows nothing until it has heard again.
    Kill {
        node: usize,
    },
    Reboot {
        node: usize,
    },
    Cut {
        node: usize,
        cut: bool,
    },
    /// It is late with everything, or wakes up.
    Doze {
        node: usize,
        dozes: bool,
    },
    /// A consumer takes or gives back what it is granted, as far as it has heard.
    Consume {
        node: usize,
        hears: bool,
    },
    Write {
        node: usize,
    },
    LoseVolumeStatus,
    LoseLegStatus {
        leg: usize,
    },
    LoseLegObject {
        leg: usize,
    },
    /// The operator looks, and does all that it plans.
    Operator,
    /// A node's agent hears, and acts.
    Agent {
        node: usize,
    },
    /// Who uses the volume on a node hears, and writes what he can.
    User {
        node: usize,
    },
    Backup,
    /// The volume's object is what it was when the backup was made, without its status; a backup from before a move is of no use.
    Restore,
    /// A while in which everybody does what he can.
    Settle,
}

fn event() -> impl Strategy<Value = Event> {
    let n = 0..NODES.len();
    prop_oneof![
        8 => (n.clone(), prop::bool::weighted(0.2)).prop_map(|(node, read_only)| Event::Wish { node, read_only }),
        8 => n.clone().prop_map(|node| Event::Withdraw { node }),
        4 => (n.clone(), prop::bool::weighted(0.7)).prop_map(|(node, dozes)| Event::Doze { node, dozes }),
        4 => (n.clone(), prop::bool::weighted(0.6)).prop_map(|(node, on)| Event::Empty { node, on }),
        4 => Just(Event::Look),
        5 => any::<u64>().prop_map(|seed| Event::Plan { seed }),
        3 => n.clone().prop_map(|node| Event::Hear { node }),
        4 => n.clone().prop_map(|node| Event::Act { node }),
        20 => Just(Event::Operator),
        24 => n.clone().prop_map(|node| Event::Agent { node }),
        16 => n.clone().prop_map(|node| Event::User { node }),
        3 => n.clone().prop_map(|node| Event::Kill { node }),
        3 => n.clone().prop_map(|node| Event::Reboot { node }),
        2 => (n.clone(), prop::bool::weighted(0.3)).prop_map(|(node, cut)| Event::Cut { node, cut }),
        4 => (n.clone(), any::<bool>()).prop_map(|(node, hears)| Event::Consume { node, hears }),
        4 => n.prop_map(|node| Event::Write { node }),
        1 => Just(Event::Backup),
        1 => Just(Event::Restore),
        1 => Just(Event::LoseVolumeStatus),
        1 => (0..3usize).prop_map(|leg| Event::LoseLegStatus { leg }),
        1 => (0..3usize).prop_map(|leg| Event::LoseLegObject { leg }),
        1 => Just(Event::Settle),
    ]
}

/// The bytes of a leg, and the record beside them.
#[derive(Clone, Debug)]
struct Bytes {
    name: String,
    node: usize,
    writes: BTreeSet<u32>,
    record: Record,
    /// Whom the kernel lets in, and whether for reading only.
    exports: BTreeMap<i64, (String, bool)>,
    /// A consumer on its own node has it: for reading only?
    here: Option<bool>,
    /// One came there with an older generation than the record has.
    late: bool,
}

/// What a consumer has: bytes, by which generation, and for reading only?
#[derive(Clone, Debug)]
struct Device {
    id: String,
    generation: i64,
    read_only: bool,
}

#[derive(Clone, Default)]
struct Node {
    cut: bool,
    dozes: bool,
    /// The objects of its legs; none before it has read them.
    heard: Option<Vec<PoolLeg>>,
    granted: Option<Attachment>,
    device: Option<Device>,
}

struct Run {
    world: World,
    view: World,
    nodes: Vec<Node>,
    bytes: BTreeMap<String, Bytes>,
    /// Copies half made, by name: what they are of, and what the first half had.
    half: BTreeMap<String, (LegCopy, BTreeSet<u32>)>,
    backup: Option<PoolVolume>,
    acknowledged: BTreeSet<u32>,
    written: u32,
    made: u32,
}

impl Run {
    fn new() -> Self {
        let mut world = World::default();
        for node in NODES {
            world.add(&format!("node {node}"));
            world.add(&format!("drive {node}/a storage=100Gi"));
        }
        for line in [
            "pool default",
            "volume v legs=v-0@n0-a:u1",
            "leg v-0 of=v on=n0-a ready=u1",
        ] {
            world.add(line);
        }
        let first = Bytes {
            name: "v-0".into(),
            node: 0,
            writes: BTreeSet::new(),
            record: Record::default(),
            exports: BTreeMap::new(),
            here: None,
            late: false,
        };
        Self {
            view: world.clone(),
            world,
            nodes: vec![Node::default(); NODES.len()],
            bytes: BTreeMap::from([(uuid("u1"), first)]),
            half: BTreeMap::new(),
            backup: None,
            acknowledged: BTreeSet::new(),
            written: 0,
            made: 0,
        }
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Wish { node, read_only } => {
                let wish = AttachTo {
                    node: NODES[*node].into(),
                    read_only: *read_only,
                };
                let wishes = &mut self.world.volume_mut("v").unwrap().spec.attach_to;
                if wishes.iter().all(|w| w.node != wish.node) {
                    wishes.push(wish);
                }
            }
            Event::Withdraw { node } => {
                let wishes = &mut self.world.volume_mut("v").unwrap().spec.attach_to;
                wishes.retain(|wish| wish.node != NODES[*node]);
            }
            Event::Empty { node, on } => self.empty(*node, *on),
            Event::Look => self.view = self.world.clone(),
            Event::Plan { seed } => self.plan(*seed),
            Event::Hear { node } if self.nodes[*node].dozes => {}
            Event::Hear { node } => {
                let mine = self.world.legs.iter();
                let mine = mine.filter(|leg| leg.spec.node_name == NODES[*node]);
                self.nodes[*node].heard = Some(mine.cloned().collect());
            }
            Event::Act { node } => self.act(*node),
            Event::Doze { node, dozes } => self.nodes[*node].dozes = *dozes,
            Event::Kill { node } => self.nodes[*node].heard = None,
            Event::Reboot { node } => {
                self.nodes[*node].heard = None;
                self.nodes[*node].device = None;
                for bytes in self.bytes.values_mut().filter(|b| b.node == *node) {
                    bytes.exports.clear();
                    bytes.here = None;
                }
            }
            Event::Cut { node, cut } => self.nodes[*node].cut = *cut,
            Event::Consume { node, hears } => self.consume(*node, *hears),
            Event::Write { node } => self.write(*node),
            Event::LoseVolumeStatus => self.world.volume_mut("v").unwrap().status = None,
            Event::LoseLegStatus { leg } => {
                if let Some(leg) = self.world.legs.get_mut(*leg) {
                    leg.status = None;
                }
            }
            Event::LoseLegObject { leg } => {
                if *leg < self.world.legs.len() {
                    self.world.legs.remove(*leg);
                }
            }
            Event::Operator => {
                self.view = self.world.clone();
                self.plan(u64::MAX);
            }
            Event::Agent { node } => {
                self.happen(&Event::Hear { node: *node });
                self.act(*node);
            }
            Event::User { node } => {
                self.consume(*node, true);
                self.write(*node);
            }
            Event::Backup => self.backup = self.world.volume_mut("v").cloned(),
            Event::Restore => {
                if let Some(backup) = self.backup.clone() {
                    let volume = self.world.volume_mut("v").unwrap();
                    if backup.spec.legs[0].uuid == volume.spec.legs[0].uuid {
                        let attach_to = std::mem::take(&mut volume.spec.attach_to);
                        volume.spec = backup.spec;
                        volume.spec.attach_to = attach_to;
                        volume.status = None;
                        *volume.metadata.generation.as_mut().unwrap() += 1;
                    }
                }
            }
            Event::Settle => (0..6).for_each(|_| self.settle()),
        }
    }

    fn empty(&mut self, node: usize, on: bool) {
        let name = format!("{}-a", NODES[node]);
        let mut drives = self.world.drives.iter_mut();
        let drive = drives.find(|drive| named(&drive.metadata, &name)).unwrap();
        drive.spec.cordon = on;
        self.world.operations.retain(|o| o.spec.drive != name);
        if on {
            self.world.add(&format!("evacuate {name} running"));
        }
    }

    /// Carries out the actions whose bit is set, as far as their objects are still what they were when that was decided.
    fn plan(&mut self, seed: u64) {
        for (i, action) in self.view.plan().iter().enumerate() {
            let current = self.world.is_as_in(&self.view, action);
            if seed >> (i % 64) & 1 == 1 && current {
                self.world.apply(action);
            }
        }
    }

    fn settle(&mut self) {
        self.world.seconds += 20;
        self.happen(&Event::Look);
        self.plan(u64::MAX);
        for node in 0..NODES.len() {
            self.happen(&Event::Hear { node });
            self.act(node);
            self.consume(node, true);
            self.write(node);
        }
    }

    /// What must hold at every moment.
    fn look(&mut self) -> Result<(), TestCaseError> {
        let volume = self.world.volume_mut("v").unwrap().clone();
        let id = volume.spec.legs[0].uuid.clone().unwrap();
        let bytes = self.bytes.get(&id);
        prop_assert!(bytes.is_some(), "the bytes that the volume names are gone");
        let lacks: Vec<_> = self
            .acknowledged
            .difference(&bytes.unwrap().writes)
            .collect();
        prop_assert!(
            lacks.is_empty(),
            "{} lacks {lacks:?}",
            volume.spec.legs[0].name
        );
        let users: Vec<(usize, &Device)> = (0..NODES.len())
            .filter_map(|node| Some((node, self.nodes[node].device.as_ref()?)))
            .filter(|(node, device)| self.reaches(*node, &device.id, device.generation))
            .collect();
        let writers = users.iter().filter(|(_, device)| !device.read_only);
        prop_assert!(
            writers.count() == 0 || users.len() == 1,
            "at once: {users:?}"
        );
        Ok(())
    }

    /// Everything is well again: nothing is left to be done, drives that are emptied are empty, and who wants the volume writes to it.
    fn rest(&mut self) -> Result<(), TestCaseError> {
        for node in 0..NODES.len() {
            self.nodes[node].cut = false;
            self.nodes[node].dozes = false;
        }
        self.empty(2, false);
        for _ in 0..ROUNDS {
            self.settle();
            self.look()?;
        }
        let plan: Vec<String> = self.world.plan().iter().map(ToString::to_string).collect();
        prop_assert!(plan.is_empty(), "not at rest; next: {plan:#?}");
        let volume = self.world.volume_mut("v").unwrap().clone();
        let granted: Vec<Attachment> = volume.status.unwrap_or_default().attachments;
        let wishes = &volume.spec.attach_to;
        prop_assert_eq!(granted.is_empty(), wishes.is_empty());
        let reads = |wishes: &[AttachTo]| wishes.iter().all(|wish| wish.read_only);
        if wishes.is_empty() {
            let left = self.world.operations.iter();
            let left = left.map(|o| &o.spec.drive).collect::<Vec<_>>();
            let drive = &volume.spec.legs[0].drive;
            prop_assert!(!left.contains(&drive), "{drive} is not empty");
            // Of what has no owner any more, exports are left alone.
            let exports = self.bytes[volume.spec.legs[0].uuid.as_ref().unwrap()]
                .exports
                .len();
            prop_assert_eq!(exports, 0, "exported to nobody");
            let orphans = self.world.legs.iter().filter(|leg| leg.spec.orphaned);
            prop_assert_eq!(self.world.legs.len(), 1 + orphans.count());
        } else if !reads(wishes) && wishes.len() == 1 {
            let before = self.acknowledged.len();
            self.settle();
            prop_assert_eq!(self.acknowledged.len(), before + 1, "it can be written to");
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_moves_between_nodes_keeps_what_was_acknowledged(events in prop::collection::vec(event(), 1..160)) {
        let mut run = Run::new();
        run.happen(&Event::Settle);
        for event in &events {
            run.happen(event);
            run.look()?;
        }
        run.rest()?;
    }
}
