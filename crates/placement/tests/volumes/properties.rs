//! Whatever happens to objects, agents and drives: nobody's bytes go without a mark or turn into
//! others, no thick drive is promised more than it has, and plans come to rest.

use crate::{
    agent::Disks,
    world::{World, named},
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use strand_api::{AttachTo, PoolLeg, PoolSnapshot, PoolSnapshotSpec, VolumePhase};
use strand_placement::volumes::Action;

/// Rounds within which everything has come to rest, with time passing between them.
const ROUNDS: usize = 40;

#[derive(Clone, Debug)]
enum Event {
    Create {
        volume: u8,
        gib: u64,
        thin: bool,
        from: Option<(bool, u8)>,
        node: Option<u8>,
    },
    Attach {
        volume: u8,
        node: u8,
        read_only: bool,
    },
    Detach {
        volume: u8,
    },
    Grow {
        volume: u8,
        gib: u64,
    },
    Snapshot {
        snapshot: u8,
        volume: u8,
    },
    Mark {
        volume: u8,
    },
    MarkSnapshot {
        snapshot: u8,
    },
    Cordon {
        drive: u8,
        cordon: bool,
    },
    Evacuate {
        drive: u8,
    },
    StopEvacuation {
        drive: u8,
    },
    LoseLegObject {
        leg: u8,
    },
    LoseLegStatus {
        leg: u8,
    },
    LoseVolumeStatus {
        volume: u8,
    },
    /// From a backup: without status, under another UID.
    RestoreVolume {
        volume: u8,
    },
    LoseVolume {
        volume: u8,
    },
    /// A plan of which only some actions are carried out.
    Plan {
        seed: u64,
    },
    Agents,
    Wait {
        seconds: i64,
    },
}

fn event() -> impl Strategy<Value = Event> {
    let v = 0..5u8;
    prop_oneof![
        6 => (v.clone(), 1..80u64, any::<bool>(), prop::option::weighted(0.4, (any::<bool>(), 0..5u8)), prop::option::of(0..2u8))
            .prop_map(|(volume, gib, thin, from, node)| Event::Create { volume, gib, thin: thin && volume == 0, from, node }),
        4 => (v.clone(), 0..2u8, any::<bool>()).prop_map(|(volume, node, read_only)| Event::Attach { volume, node, read_only }),
        2 => v.clone().prop_map(|volume| Event::Detach { volume }),
        3 => (v.clone(), 1..90u64).prop_map(|(volume, gib)| Event::Grow { volume, gib }),
        4 => (0..3u8, v.clone()).prop_map(|(snapshot, volume)| Event::Snapshot { snapshot, volume }),
        2 => v.clone().prop_map(|volume| Event::Mark { volume }),
        1 => (0..3u8).prop_map(|snapshot| Event::MarkSnapshot { snapshot }),
        1 => (0..4u8, any::<bool>()).prop_map(|(drive, cordon)| Event::Cordon { drive, cordon }),
        3 => (0..4u8).prop_map(|drive| Event::Evacuate { drive }),
        1 => (0..4u8).prop_map(|drive| Event::StopEvacuation { drive }),
        2 => any::<u8>().prop_map(|leg| Event::LoseLegObject { leg }),
        1 => any::<u8>().prop_map(|leg| Event::LoseLegStatus { leg }),
        1 => v.clone().prop_map(|volume| Event::LoseVolumeStatus { volume }),
        1 => v.clone().prop_map(|volume| Event::RestoreVolume { volume }),
        1 => v.prop_map(|volume| Event::LoseVolume { volume }),
        12 => any::<u64>().prop_map(|seed| Event::Plan { seed }),
        8 => Just(Event::Agents),
        1 => (1..120i64).prop_map(|seconds| Event::Wait { seconds }),
    ]
}

/// A rack, and what an onlooker knows of it.
struct Run {
    world: World,
    disks: Disks,
    stingy: Vec<String>,
    /// UUID of the bytes of every volume that was ever called ready, until it was marked or its object lost.
    promised: BTreeMap<String, String>,
    /// What is on them.
    content: BTreeMap<String, String>,
    generations: BTreeSet<(String, i64)>,
    granted: BTreeMap<String, Vec<(String, i64)>>,
}

impl Run {
    fn new(stingy: bool) -> Self {
        let mut world = World::default();
        for line in [
            "node n0",
            "node n1",
            "pool default",
            "drive n0/a storage=100Gi",
            "drive n0/b storage=60Gi",
            "drive n1/a storage=100Gi wear=40",
            "drive n1/b storage=200Gi",
        ] {
            world.add(line);
        }
        Self {
            world,
            disks: Disks::default(),
            stingy: if stingy {
                vec!["n1-b".into()]
            } else {
                Vec::new()
            },
            promised: BTreeMap::new(),
            content: BTreeMap::new(),
            generations: BTreeSet::new(),
            granted: BTreeMap::new(),
        }
    }

    fn happen(&mut self, event: &Event) -> Result<(), TestCaseError> {
        let volume = |n: &u8| format!("v{n}");
        match event {
            Event::Create {
                volume: n,
                gib,
                thin,
                from,
                node,
            } => {
                if self.world.volume_mut(&volume(n)).is_none() {
                    let thin = if *thin { "thin" } else { "" };
                    let from = from.map_or(String::new(), |(snapshot, n)| {
                        if snapshot {
                            format!("from=snapshot:s{n}")
                        } else {
                            format!("from=volume:v{n}")
                        }
                    });
                    let node = node.map_or(String::new(), |n| format!("node=n{n}"));
                    self.world.add(&format!(
                        "volume {} size={gib}Gi {thin} {from} {node} age=0",
                        volume(n)
                    ));
                    let uid = format!("uid-{n}-{}", self.world.born);
                    self.world.volume_mut(&volume(n)).unwrap().metadata.uid = Some(uid);
                }
            }
            Event::Attach {
                volume: n,
                node,
                read_only,
            } => {
                let node = format!("n{node}");
                if let Some(v) = self.world.volume_mut(&volume(n))
                    && !v.spec.deletion_mark
                    && v.spec.attach_to.iter().all(|a| a.node != node)
                {
                    v.spec.attach_to.push(AttachTo {
                        node,
                        read_only: *read_only,
                    });
                }
            }
            Event::Detach { volume: n } => {
                if let Some(v) = self.world.volume_mut(&volume(n)) {
                    v.spec.attach_to.pop();
                }
            }
            Event::Grow { volume: n, gib } => {
                if let Some(v) = self.world.volume_mut(&volume(n)) {
                    v.spec.size = v.spec.size.max(strand_api::ByteQuantity(gib << 30));
                }
            }
            Event::Snapshot {
                snapshot,
                volume: n,
            } => {
                let name = format!("s{snapshot}");
                if !self
                    .world
                    .snapshots
                    .iter()
                    .any(|s| named(&s.metadata, &name))
                {
                    let spec = PoolSnapshotSpec {
                        group: None,
                        volume: volume(n),
                        legs: vec![],
                        check: None,
                        deletion_mark: false,
                    };
                    let mut object = PoolSnapshot::new(&name, spec);
                    object.metadata = self.world.meta(&name, String::new());
                    object.metadata.uid = Some(format!("uid-{name}-{}", self.world.born));
                    self.world.snapshots.push(object);
                }
            }
            Event::Mark { volume: n } => {
                if let Some(v) = self.world.volume_mut(&volume(n)) {
                    v.spec.deletion_mark = true;
                    self.promised.remove(&volume(n));
                    self.content.remove(&volume(n));
                }
            }
            Event::MarkSnapshot { snapshot } => {
                let name = format!("s{snapshot}");
                if let Some(s) = self
                    .world
                    .snapshots
                    .iter_mut()
                    .find(|s| named(&s.metadata, &name))
                {
                    s.spec.deletion_mark = true;
                    self.promised.remove(&name);
                    self.content.remove(&name);
                }
            }
            Event::Cordon { drive, cordon } => {
                let n = usize::from(*drive) % self.world.drives.len();
                self.world.drives[n].spec.cordon = *cordon;
            }
            Event::Evacuate { drive } => {
                let n = usize::from(*drive) % self.world.drives.len();
                self.world.drives[n].spec.cordon = true;
                let name = self.world.drives[n].metadata.name.clone().unwrap();
                self.world.operations.retain(|o| o.spec.drive != name);
                self.world.add(&format!("evacuate {name}"));
            }
            Event::StopEvacuation { drive } => {
                let n = usize::from(*drive) % self.world.drives.len();
                let name = self.world.drives[n].metadata.name.clone().unwrap();
                self.world.operations.retain(|o| o.spec.drive != name);
            }
            Event::LoseLegObject { leg } => {
                if !self.world.legs.is_empty() {
                    let n = usize::from(*leg) % self.world.legs.len();
                    self.world.legs.remove(n);
                }
            }
            Event::LoseLegStatus { leg } => {
                if !self.world.legs.is_empty() {
                    let n = usize::from(*leg) % self.world.legs.len();
                    self.world.legs[n].status = None;
                }
            }
            Event::LoseVolumeStatus { volume: n } => {
                if let Some(v) = self.world.volume_mut(&volume(n)) {
                    v.status = None;
                    self.granted.remove(&volume(n));
                }
            }
            Event::RestoreVolume { volume: n } => {
                let born = self.world.born;
                if let Some(v) = self.world.volume_mut(&volume(n)) {
                    v.status = None;
                    v.metadata.uid = Some(format!("uid-{n}-restored-{born}"));
                    self.granted.remove(&volume(n));
                }
            }
            Event::LoseVolume { volume: n } => {
                let name = volume(n);
                self.world.volumes.retain(|v| !named(&v.metadata, &name));
                self.granted.remove(&name);
                // Its bytes stay: what was promised is still to be found under its UUID.
                if let Some(id) = self.promised.remove(&name) {
                    let orphan = format!("orphan {id}");
                    if let Some(content) = self.content.remove(&name) {
                        self.content.insert(orphan.clone(), content);
                    }
                    self.promised.insert(orphan, id);
                }
            }
            Event::Plan { seed } => self.plan(*seed)?,
            Event::Agents => self.agents()?,
            Event::Wait { seconds } => self.world.seconds += seconds,
        }
        Ok(())
    }

    /// Carries out the actions whose bit is set.
    fn plan(&mut self, seed: u64) -> Result<(), TestCaseError> {
        let plan = self.world.plan();
        let mut touched = BTreeSet::new();
        for (i, action) in plan.iter().enumerate() {
            if seed >> (i % 64) & 1 == 1 && touched.insert(target(action)) {
                self.justified(action)?;
                self.world.apply(action);
            }
        }
        self.look()
    }

    fn agents(&mut self) -> Result<(), TestCaseError> {
        self.disks.act(&mut self.world, &self.stingy);
        self.look()?;
        // Whoever may write does.
        for volume in self.world.volumes.clone() {
            let name = volume.metadata.name.clone().unwrap();
            let granted = volume.status.iter().flat_map(|s| &s.attachments);
            let wished = |node: &str| volume.spec.attach_to.iter().any(|a| a.node == node);
            let mut granted = granted.filter(|a| a.phase.is_granted());
            let Some(writer) = granted.find(|a| !a.read_only && wished(&a.node)) else {
                continue;
            };
            let world = self.world.clone();
            if let [leg] = self
                .disks
                .attachable(&world, &name, &writer.node)
                .as_slice()
            {
                let content = self.disks.write(leg, writer.generation);
                let named = volume.spec.legs[0].uuid.as_ref();
                let id = leg
                    .spec
                    .uuid
                    .as_ref()
                    .or(leg.status.as_ref().unwrap().uuid.as_ref());
                prop_assert_eq!(named, id, "{} is written to where it is not", &name);
                if self.promised.contains_key(&name) {
                    self.content.insert(name, content);
                }
            }
        }
        self.look()
    }

    /// A mark is set only where the decision says that it may be.
    fn justified(&self, action: &Action) -> Result<(), TestCaseError> {
        let (leg, spec) = match action {
            Action::MakeLeg { leg, spec } | Action::ChangeLeg { leg, spec } => (leg, spec),
            _ => return Ok(()),
        };
        let present = self.world.legs.iter().find(|l| named(&l.metadata, leg));
        if !spec.deletion_mark || present.is_some_and(|l| l.spec.deletion_mark) {
            return Ok(());
        }
        let marked_volume = self.world.volumes.iter().any(|v| {
            v.spec.deletion_mark
                && v.spec.attach_to.is_empty()
                && v.metadata.uid.as_deref() == Some(&spec.owner_uid)
        });
        let marked_snapshot =
            self.world.snapshots.iter().any(|s| {
                s.spec.deletion_mark && s.metadata.uid.as_deref() == Some(&spec.owner_uid)
            });
        let never_made = present
            .and_then(|l| l.status.as_ref())
            .is_some_and(|s| s.uuid.is_none());
        let id = |l: &PoolLeg| l.spec.uuid.clone().or(l.status.as_ref()?.uuid.clone());
        let mine = present.and_then(id);
        let in_its_place = self.world.legs.iter().any(|l| {
            let live = l.spec.copy.as_ref().filter(|c| c.live);
            live.is_some_and(|c| Some(&c.uuid) == mine.as_ref())
                && id(l).is_some_and(|id| self.disks.bytes.contains_key(&id))
        });
        let mere_copy = spec
            .copy
            .as_ref()
            .is_some_and(|copy| !copy.live && self.disks.bytes.contains_key(&copy.uuid));
        prop_assert!(
            marked_volume || marked_snapshot || never_made || in_its_place || mere_copy,
            "marked for no reason: {action}"
        );
        Ok(())
    }

    /// What must hold at every moment.
    fn look(&mut self) -> Result<(), TestCaseError> {
        let oversold = self.disks.oversold(&self.world);
        prop_assert!(oversold.is_empty(), "oversold: {oversold:?}");
        for drive in ["n0-a", "n0-b", "n1-a", "n1-b"] {
            prop_assert!(!self.disks.mixed(drive), "{drive} has thick and thin legs");
        }
        for volume in &self.world.volumes {
            let name = volume.metadata.name.clone().unwrap();
            let Some(status) = &volume.status else {
                continue;
            };
            if status.phase == Some(VolumePhase::Ready) && !volume.spec.deletion_mark {
                let id = volume.spec.legs[0].uuid.clone().unwrap();
                self.promised.entry(name.clone()).or_insert(id);
            }
            let writers = status.attachments.iter().filter(|a| !a.read_only).count();
            prop_assert!(
                writers == 0 || status.attachments.len() == 1,
                "{name}: {:?}",
                status.attachments
            );
            for a in &status.attachments {
                let mine = (a.node.clone(), a.generation);
                let granted = self.granted.entry(name.clone()).or_default();
                if !granted.contains(&mine) {
                    let uid = volume.metadata.uid.clone().unwrap();
                    let fresh = self
                        .generations
                        .insert((format!("{uid}{}", granted.is_empty()), a.generation));
                    let highest = granted.iter().map(|(_, g)| *g).max().unwrap_or(0);
                    prop_assert!(
                        a.generation > highest && (fresh || granted.is_empty()),
                        "{name}: generation {} again",
                        a.generation
                    );
                    granted.push(mine);
                }
            }
        }
        for snapshot in &self.world.snapshots {
            if snapshot.spec.deletion_mark
                || !snapshot.status.as_ref().is_some_and(|s| s.ready_to_use)
            {
                continue;
            }
            let name = snapshot.metadata.name.clone().unwrap();
            let id = snapshot.spec.legs[0].uuid.clone().unwrap();
            self.promised.entry(name.clone()).or_insert(id);
        }
        self.follow()?;
        for (name, id) in &self.promised {
            let bytes = self.disks.bytes.get(id);
            prop_assert!(bytes.is_some(), "the bytes of {name} are gone");
            let found = &bytes.unwrap().content;
            let content = self.content.entry(name.clone());
            let content = content.or_insert_with(|| found.clone());
            prop_assert_eq!(&*content, found, "{} has other content now", name);
        }
        Ok(())
    }

    /// Bytes that were promised are others only where those are a copy of them.
    fn follow(&mut self) -> Result<(), TestCaseError> {
        let volumes = self.world.volumes.iter();
        let volumes = volumes.map(|v| (&v.metadata.name, &v.spec.legs, v.spec.deletion_mark));
        let snapshots = self.world.snapshots.iter();
        let snapshots = snapshots.map(|s| (&s.metadata.name, &s.spec.legs, s.spec.deletion_mark));
        for (name, legs, marked) in volumes.chain(snapshots) {
            let now = legs.first().and_then(|leg| leg.uuid.as_ref());
            let name = name.as_deref().unwrap();
            let (Some(now), Some(before), false) = (now, self.promised.get_mut(name), marked)
            else {
                continue;
            };
            if now != before {
                let copy = self.disks.bytes[now].record.copy.as_ref();
                let of = copy.map(|copy| &copy.uuid);
                prop_assert_eq!(of, Some(&*before), "{} is other bytes now", name);
                before.clone_from(now);
            }
        }
        Ok(())
    }

    /// Lets everything be carried out, and time pass, until nothing is left to do.
    fn rest(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..ROUNDS {
            self.plan(u64::MAX)?;
            self.agents()?;
            self.world.seconds += 20;
            if self.world.plan().is_empty() {
                break;
            }
        }
        let plan: Vec<String> = self.world.plan().iter().map(ToString::to_string).collect();
        prop_assert!(plan.is_empty(), "not at rest; next: {plan:#?}");
        for volume in &self.world.volumes {
            let name = volume.metadata.name.as_deref().unwrap();
            prop_assert!(
                !volume.spec.deletion_mark || !volume.spec.attach_to.is_empty() || self.waits(name),
                "{name} is marked and still there: {:?}",
                volume.status
            );
        }
        Ok(())
    }

    /// Whether something may still be made from a volume.
    fn waits(&self, volume: &str) -> bool {
        let unmade = |legs: &[strand_api::PlacedLeg]| legs.iter().any(|l| l.uuid.is_none());
        let snapshots = self.world.snapshots.iter();
        let volumes = self.world.volumes.iter();
        snapshots
            .clone()
            .any(|s| s.spec.volume == volume && unmade(&s.spec.legs))
            || volumes.clone().any(|v| {
                v.spec
                    .source
                    .as_ref()
                    .is_some_and(|s| s.volume.as_deref() == Some(volume))
                    && unmade(&v.spec.legs)
            })
    }
}

fn target(action: &Action) -> (u8, String) {
    match action.clone() {
        Action::PlaceVolume { volume, .. }
        | Action::SetVolumeStatus { volume, .. }
        | Action::DropVolume { volume } => (0, volume),
        Action::PlaceSnapshot { snapshot, .. }
        | Action::SetSnapshotStatus { snapshot, .. }
        | Action::DropSnapshot { snapshot } => (1, snapshot),
        Action::SetOperationStatus { operation, .. } => (3, operation),
        Action::MakeLeg { leg, .. } | Action::ChangeLeg { leg, .. } | Action::DropLeg { leg } => {
            (2, leg)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_oversold_or_left_undone(events in prop::collection::vec(event(), 1..60), stingy in any::<bool>()) {
        let mut run = Run::new(stingy);
        for event in &events {
            run.happen(event)?;
            run.look()?;
        }
        run.rest()?;
    }

    #[test]
    fn the_order_of_objects_does_not_matter(events in prop::collection::vec(event(), 1..40), rotate in 0..7usize) {
        let mut run = Run::new(false);
        for event in &events {
            run.happen(event)?;
        }
        let rendered = |world: &World| -> BTreeSet<String> { world.plan().iter().map(|a| format!("{a:?}")).collect() };
        let expected = rendered(&run.world);
        let mut turned = run.world.clone();
        turned.volumes.reverse();
        turned.snapshots.reverse();
        turned.drives.reverse();
        turned.operations.reverse();
        let by = rotate.min(turned.legs.len());
        turned.legs.rotate_left(by);
        prop_assert_eq!(expected, rendered(&turned));
    }
}

/// Found by the property above, once in ten thousand runs.
#[test]
fn a_restored_volume_keeps_its_bytes_when_its_leg_says_nothing() {
    let create = Event::Create {
        volume: 2,
        gib: 1,
        thin: false,
        from: None,
        node: None,
    };
    let all = Event::Plan { seed: u64::MAX };
    let made = [create, all.clone(), all.clone(), Event::Agents, all.clone()];
    let lost = [
        Event::RestoreVolume { volume: 2 },
        all,
        Event::LoseLegStatus { leg: 0 },
        Event::Agents,
    ];
    let mut run = Run::new(false);
    for event in made.iter().chain(&lost) {
        run.happen(event).unwrap();
        run.look().unwrap();
    }
    assert_eq!(run.promised.len(), 1);
    run.rest().unwrap();
}
