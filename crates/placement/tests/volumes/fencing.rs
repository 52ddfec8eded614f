//! Whoever asks for a volume, and whatever is lost, late or killed: never more than one node can write to it, nobody reads while
//! another writes, and in the end who asked for it has it.

use crate::record::Record;
use crate::world::{World, exported_as, named};
use proptest::prelude::*;
use std::collections::BTreeMap;
use strand_api::{AttachTo, Attachment, AttachmentPhase, PoolLeg, PoolLegStatus, condition, names};
use strand_placement::volumes::Action;

const HOME: &str = "n0";
const ROUNDS: usize = 40;

#[derive(Clone, Debug)]
enum Event {
    Wish {
        node: u8,
        read_only: bool,
    },
    Withdraw {
        node: u8,
    },
    /// The operator looks; what it plans afterwards is from this look.
    Look,
    /// It carries some of its plan out.
    Plan {
        seed: u64,
    },
    /// The agent of the leg's node takes notice of the object.
    Hear,
    /// It acts on what it heard last, and tells.
    Act,
    Reboot,
    /// A consumer does with its volume what is granted to it, as far as it has heard.
    Consume {
        node: u8,
        hears: bool,
    },
    LoseVolumeStatus,
    LoseLegStatus,
    LoseLegObject,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..4u8, prop::bool::weighted(0.4)).prop_map(|(node, read_only)| Event::Wish { node, read_only }),
        4 => (0..4u8).prop_map(|node| Event::Withdraw { node }),
        8 => Just(Event::Look),
        10 => any::<u64>().prop_map(|seed| Event::Plan { seed }),
        8 => Just(Event::Hear),
        10 => Just(Event::Act),
        1 => Just(Event::Reboot),
        8 => (0..4u8, any::<bool>()).prop_map(|(node, hears)| Event::Consume { node, hears }),
        1 => Just(Event::LoseVolumeStatus),
        1 => Just(Event::LoseLegStatus),
        1 => Just(Event::LoseLegObject),
    ]
}

/// What the kernel and the record of the leg's node have.
#[derive(Clone, Default)]
struct Node {
    record: Record,
    exports: BTreeMap<i64, (String, bool)>,
    /// A consumer on the node itself has it: for reading only?
    here: Option<bool>,
    /// A consumer on the node itself came with a generation that is over, which the volume's status has to know.
    came_late: bool,
    heard: Option<PoolLeg>,
}

#[derive(Default)]
struct Run {
    world: World,
    view: World,
    home: Node,
    /// What consumers have heard of their attachments.
    heard: BTreeMap<String, Attachment>,
    /// To whom each generation was given, since the volume's status was lost last.
    given: BTreeMap<i64, (String, bool)>,
    /// Who was ever let in by it.
    let_in: BTreeMap<i64, String>,
}

impl Run {
    fn new() -> Self {
        let mut world = World::default();
        for line in [
            "node n0",
            "node n1",
            "node n2",
            "node n3",
            "pool default",
            "drive n0/a storage=100Gi",
            "volume v legs=v-0@n0-a:u1",
            "leg v-0 of=v on=n0-a ready=u1",
        ] {
            world.add(line);
        }
        Self {
            view: world.clone(),
            world,
            ..Self::default()
        }
    }

    fn wishes(&mut self) -> &mut Vec<AttachTo> {
        &mut self.world.volume_mut("v").unwrap().spec.attach_to
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Wish { node, read_only } => {
                let node = format!("n{node}");
                let read_only = *read_only;
                let wishes = self.wishes();
                if wishes.iter().all(|wish| wish.node != node) {
                    wishes.push(AttachTo { node, read_only });
                }
            }
            Event::Withdraw { node } => self.wishes().retain(|w| w.node != format!("n{node}")),
            Event::Look => self.view = self.world.clone(),
            Event::Plan { seed } => self.plan(*seed),
            Event::Hear => self.home.heard = self.world.legs.first().cloned(),
            Event::Act => self.act(),
            Event::Reboot => {
                self.home.exports.clear();
                self.home.here = None;
                self.home.came_late = false;
                // Nothing is exported before the object as it is now was read.
                self.home.heard = None;
            }
            Event::Consume { node, hears } => self.consume(&format!("n{node}"), *hears),
            Event::LoseVolumeStatus => {
                self.world.volume_mut("v").unwrap().status = None;
                self.given.clear();
            }
            Event::LoseLegStatus => self.world.legs.iter_mut().for_each(|leg| leg.status = None),
            Event::LoseLegObject => self.world.legs.clear(),
        }
    }

    /// Carries out the actions whose bit is set, as far as their objects are still what they were when that was decided.
    fn plan(&mut self, seed: u64) {
        let plan = self.view.plan();
        for (i, action) in plan.iter().enumerate() {
            if seed >> (i % 64) & 1 == 1 && self.world.is_as_in(&self.view, action) {
                self.world.apply(action);
                if let Action::ChangeLeg { .. } | Action::SetVolumeStatus { .. } = action {
                    self.note();
                }
            }
        }
    }

    /// A generation is one node's for good.
    fn note(&mut self) {
        let volume = self.world.volume_mut("v").unwrap().clone();
        for a in volume.status.iter().flat_map(|s| &s.attachments) {
            let whose = (a.node.clone(), a.read_only);
            let given = self.given.entry(a.generation).or_insert(whose.clone());
            assert_eq!(*given, whose, "generation {} twice", a.generation);
        }
    }

    fn act(&mut self) {
        let Some(leg) = self.home.heard.clone() else {
            return;
        };
        let came_late = std::mem::take(&mut self.home.came_late);
        let mut stale = came_late.then_some(self.home.record.highest);
        let mut refused = false;
        if !leg.spec.orphaned {
            let wanted = &leg.spec.exports;
            let home = &mut self.home;
            home.exports
                .retain(|generation, _| wanted.iter().any(|e| e.generation == *generation));
            let highest = wanted.iter().map(|e| e.generation).max().unwrap_or(0);
            let read_only = wanted.iter().all(|e| e.read_only);
            let shared = home.here.is_none_or(|reads| reads) && read_only;
            if highest > 0 && highest < home.record.oldest(read_only) {
                stale = Some(home.record.highest);
            } else if highest > 0 && home.here.is_some() && !shared {
                refused = true;
            } else if highest > 0 {
                home.record.take(highest, read_only);
                for e in wanted {
                    home.exports
                        .insert(e.generation, (e.node.clone(), e.read_only));
                }
            }
        }
        let name = leg.metadata.name.clone().unwrap();
        let exports: Vec<_> = self.home.exports.keys().copied().map(exported_as).collect();
        let again = leg.spec.uuid.as_ref().map(|_| self.home.record.highest);
        let at = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.world.now());
        let busy = condition::condition(&[], &at, names::EXPORTED, false, "InUse", "", None);
        let now = self
            .world
            .legs
            .iter_mut()
            .find(|l| named(&l.metadata, &name));
        // It was made anew meanwhile: the answer is about another object.
        let Some(now) = now.filter(|now| now.metadata.uid == leg.metadata.uid) else {
            return;
        };
        let told = now.status.as_ref().and_then(|s| s.attachment_generation);
        let lost = now.status.as_ref().is_none_or(|s| s.uuid.is_none());
        let known = (!exports.is_empty() || lost).then_some(self.home.record.highest);
        let again = again.max(known);
        now.status = Some(PoolLegStatus {
            phase: Some(match leg.spec.orphaned {
                true => strand_api::LegPhase::Orphaned,
                false => strand_api::LegPhase::Ready,
            }),
            uuid: Some(crate::world::uuid("u1")),
            size: leg.spec.size,
            observed_generation: leg.metadata.generation,
            attachment_generation: stale.max(told).max(again.filter(|g| *g > 0)),
            exports,
            conditions: refused.then_some(busy).into_iter().collect(),
            ..Default::default()
        });
    }

    /// A consumer over the fabric needs nothing but its export. One on the node itself gets the device, if nobody else has it.
    fn consume(&mut self, node: &str, hears: bool) {
        if hears {
            let volume = self.world.volume_mut("v").unwrap();
            let mut granted = volume.status.iter().flat_map(|s| &s.attachments);
            match granted.find(|a| a.node == node && a.phase == AttachmentPhase::Granted) {
                Some(a) => drop(self.heard.insert(node.into(), a.clone())),
                None => drop(self.heard.remove(node)),
            }
        }
        if node != HOME {
            return;
        }
        let home = &mut self.home;
        match self.heard.get(node) {
            None => home.here = None,
            // It may have missed that what it has was given up between; it has to let go of that first.
            Some(a) if home.here.is_some_and(|reads| reads != a.read_only) => home.here = None,
            Some(a) => {
                let lent = !home.exports.is_empty();
                let lent_to_readers = home.exports.values().all(|(_, reads)| *reads);
                let free = !lent || a.read_only && lent_to_readers;
                let late = a.generation < home.record.oldest(a.read_only);
                home.came_late |= late;
                if free && !late {
                    home.record.take(a.generation, a.read_only);
                    home.here = Some(a.read_only);
                }
            }
        }
    }

    fn look(&mut self) -> Result<(), TestCaseError> {
        for (generation, (node, _)) in &self.home.exports {
            let first = self.let_in.entry(*generation).or_insert(node.clone());
            prop_assert_eq!(&*first, node, "let in by generation {}", generation);
        }
        let volume = self.world.volume_mut("v").unwrap();
        let recorded = || volume.status.iter().flat_map(|s| &s.attachments);
        // Who has it by another generation now, and for the same, may be let in by the earlier one a little longer.
        let over = |(generation, (node, reads)): (&i64, &(String, bool))| {
            let mut all = recorded();
            let goes_on = all
                .any(|a| a.generation == *generation || a.node == *node && a.read_only == *reads);
            (!goes_on).then_some(*generation)
        };
        let mut ended = self.given.iter().filter_map(over);
        let reached = ended.find(|g| self.home.exports.contains_key(g));
        prop_assert!(reached.is_none(), "{reached:?} is over, and lets in");
        for a in volume.status.iter().flat_map(|s| &s.attachments) {
            for (generation, (node, reads)) in &self.home.exports {
                let shares = *reads && a.read_only || *node == a.node;
                prop_assert!(
                    shares || a.generation == *generation || a.phase == AttachmentPhase::Fencing,
                    "{node} is let in by {generation} while {a:?} is recorded"
                );
            }
        }
        let mut users: Vec<(String, bool)> = self.home.exports.values().cloned().collect();
        users.extend(self.home.here.map(|reads| (HOME.to_owned(), reads)));
        let writers = users.iter().filter(|(_, reads)| !reads).count();
        prop_assert!(writers == 0 || users.len() == 1, "at once: {users:?}");
        Ok(())
    }

    /// Everything is carried out and heard, until nothing is left to do.
    fn rest(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..ROUNDS {
            self.world.seconds += 20;
            self.make_object_again();
            for event in [
                Event::Look,
                Event::Plan { seed: u64::MAX },
                Event::Hear,
                Event::Act,
            ] {
                self.happen(&event);
                self.look()?;
            }
            for node in 0..4 {
                self.happen(&Event::Consume { node, hears: true });
                self.look()?;
            }
        }
        let plan: Vec<String> = self.world.plan().iter().map(ToString::to_string).collect();
        prop_assert!(plan.is_empty(), "not at rest; next: {plan:#?}");
        let volume = self.world.volume_mut("v").unwrap().clone();
        let granted: Vec<Attachment> = volume.status.unwrap_or_default().attachments;
        let wishes = &volume.spec.attach_to;
        prop_assert!(
            granted.iter().all(|a| a.phase == AttachmentPhase::Granted),
            "{granted:?}"
        );
        prop_assert_eq!(granted.is_empty(), wishes.is_empty());
        if wishes.iter().all(|wish| wish.read_only) {
            prop_assert_eq!(granted.len(), wishes.len());
        }
        let mut exported: Vec<&String> = self.home.exports.values().map(|(node, _)| node).collect();
        let mut remote: Vec<&String> = granted
            .iter()
            .map(|a| &a.node)
            .filter(|n| *n != HOME)
            .collect();
        exported.sort();
        remote.sort();
        prop_assert_eq!(
            exported,
            remote,
            "what is granted is exported, and nothing else"
        );
        prop_assert_eq!(
            self.home.here.is_some(),
            granted.iter().any(|a| a.node == HOME)
        );
        Ok(())
    }

    /// The agent finds bytes without an object.
    fn make_object_again(&mut self) {
        if self.world.legs.is_empty() {
            let orphan = "leg v-0 of=v on=n0-a orphan=u1 must=u1 orphaned age=0";
            self.world.add(orphan);
            let born = self.world.born;
            let leg = &mut self.world.legs[0];
            leg.status = None;
            leg.metadata.uid = Some(format!("uid-again-{born}"));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_writes_or_many_read_and_who_asks_gets_it(events in prop::collection::vec(event(), 1..80)) {
        let mut run = Run::new();
        for event in &events {
            run.happen(event);
            run.look()?;
        }
        run.rest()?;
    }
}
