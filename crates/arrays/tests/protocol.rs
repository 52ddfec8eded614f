//! The protocol as a whole, against a model of md and of the fabric: the operator's decisions on legs (`strand_placement`), and what
//! consumers do about them ([`strand_arrays::plan`]), in any order, with crashes, partitions and legs that come back. Whatever happens,
//! an array that runs has every acknowledged write in every leg that md takes for whole.

#![allow(
    clippy::unwrap_used,
    reason = "a test that meets an error it did not expect stops there"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use strand_api::{ArrayLeg, LackPhase, LegHolding, LegLack, Redundancy};
use strand_arrays::{
    Content, Geometry, Holding, Leg, Level, Member, MemberState, Present, Refusal, Running, Seen,
    Standing, State, Step, Superblock, Wanted, plan, report,
};
use strand_placement::volumes::loss::{self, Demand, Next, Reach};
use uuid::Uuid;

const CONSUMERS: usize = 3;
const ARRAY: Uuid = Uuid::from_u128(7);

#[derive(Clone, Debug)]
enum Event {
    /// The operator decides, and what it decides is recorded.
    Decide,
    /// The consumer with the attachment looks at the record, and acts.
    Act,
    /// Any consumer that has an array writes.
    Write { consumer: usize },
    /// md gets on with copying.
    Copy { consumer: usize },
    /// A leg's node goes away, or comes back.
    Leg { leg: usize, up: bool },
    /// A consumer and the API do not reach each other, nor the legs of other nodes; or they do again.
    Cut { consumer: usize, cut: bool },
    /// A consumer's machine starts anew.
    Crash { consumer: usize },
    /// The volume is attached to another consumer, once the one before is fenced.
    Move { consumer: usize },
    /// Time passes.
    Wait { seconds: i64 },
    /// Everybody gets on, for a while.
    Settle,
}

fn event(legs: usize) -> impl Strategy<Value = Event> {
    let consumer = 0..CONSUMERS;
    prop_oneof![
        8 => Just(Event::Decide),
        10 => Just(Event::Act),
        12 => consumer.clone().prop_map(|consumer| Event::Write { consumer }),
        4 => consumer.clone().prop_map(|consumer| Event::Copy { consumer }),
        6 => (0..legs, prop::bool::weighted(0.6)).prop_map(|(leg, up)| Event::Leg { leg, up }),
        3 => (consumer.clone(), any::<bool>()).prop_map(|(consumer, cut)| Event::Cut { consumer, cut }),
        2 => consumer.clone().prop_map(|consumer| Event::Crash { consumer }),
        4 => consumer.prop_map(|consumer| Event::Move { consumer }),
        5 => Just(Event::Settle),
        5 => (1..90i64).prop_map(|seconds| Event::Wait { seconds }),
    ]
}

/// What lies on one leg. Leg `n` lies on the node of consumer `n`, if there is one.
#[derive(Clone, Debug, Default)]
struct Disk {
    superblock: Option<Superblock>,
    writes: BTreeSet<u32>,
    up: bool,
    /// Which attachments reach it over the fabric; its own node does always.
    fenced_below: i64,
}

/// An array as one consumer's kernel runs it.
#[derive(Clone, Debug)]
struct Md {
    generation: i64,
    members: BTreeMap<usize, MemberState>,
    /// Of legs that are copied to: only what is marked.
    partly: BTreeSet<usize>,
    events: u64,
}

/// The volume's record.
#[derive(Clone, Debug)]
struct Record {
    lacks: Vec<Option<LegLack>>,
    formed: bool,
    generation: i64,
    holder: Option<usize>,
    told: Vec<Option<ArrayLeg>>,
    waiting_since: Option<Timestamp>,
}

struct World {
    redundancy: Redundancy,
    level: Level,
    disks: Vec<Disk>,
    arrays: Vec<Option<Md>>,
    cut: [bool; CONSUMERS],
    record: Record,
    /// Writes that some leg may have missed, as the bitmap knows them, which lies on the legs that are whole; and in which attachment.
    /// What it knows of earlier ones is not relied on.
    marked: (i64, BTreeSet<u32>),
    acknowledged: BTreeSet<u32>,
    written: u32,
    seconds: i64,
}

impl World {
    fn new(redundancy: Redundancy, legs: usize) -> Self {
        let level = match redundancy {
            Redundancy::Raid6 => Level::Raid6,
            Redundancy::Mirror => Level::Mirror,
            _ => Level::Stripe,
        };
        let disk = Disk {
            up: true,
            ..Disk::default()
        };
        Self {
            redundancy,
            level,
            disks: vec![disk; legs],
            arrays: vec![None; CONSUMERS],
            cut: [false; CONSUMERS],
            record: Record {
                lacks: vec![None; legs],
                formed: false,
                generation: 1,
                holder: Some(0),
                told: vec![None; legs],
                waiting_since: None,
            },
            marked: (0, BTreeSet::new()),
            acknowledged: BTreeSet::new(),
            written: 0,
            seconds: 0,
        }
    }

    fn now(&self) -> Timestamp {
        let start: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        start + SignedDuration::from_secs(self.seconds)
    }

    /// Whether a consumer reaches a leg in an attachment.
    fn reaches(&self, consumer: usize, leg: usize, generation: i64) -> bool {
        let disk = &self.disks[leg];
        let over_the_fabric = !self.cut[consumer] && generation >= disk.fenced_below;
        disk.up && (consumer == leg || over_the_fabric)
    }

    fn wanted(&self, consumer: usize) -> Wanted {
        let legs = self.record.lacks.iter().enumerate().map(|(leg, lack)| {
            let reached = self.reaches(consumer, leg, self.record.generation);
            Leg {
                uuid: Uuid::from_u128(leg as u128 + 1),
                standing: match lack.as_ref().map(|lack| lack.phase) {
                    None => Standing::In,
                    Some(LackPhase::Out) => Standing::Out,
                    Some(LackPhase::Returning) => Standing::Returning,
                    Some(LackPhase::Rebuilding) => Standing::Rebuilding,
                },
                device: reached.then(|| PathBuf::from(format!("/dev/leg{leg}"))),
            }
        });
        Wanted {
            array: ARRAY,
            name: "v".into(),
            level: self.level,
            geometry: Geometry {
                data_offset: 1 << 20,
                data: 1 << 30,
                chunk: 128 << 10,
                bitmap_chunk: 16 << 20,
            },
            legs: legs.collect(),
            formed: self.record.formed,
            read_only: false,
            rate: 1 << 20,
        }
    }

    fn seen(&self, consumer: usize, wanted: &Wanted) -> Seen {
        let array = self.arrays[consumer].as_ref();
        let member = |leg: usize| array.and_then(|md| md.members.get(&leg));
        let legs = wanted.legs.iter().enumerate().map(|(leg, of)| {
            of.device.as_ref()?;
            let content = match (&self.disks[leg].superblock, member(leg)) {
                (_, Some(_)) => None,
                (Some(superblock), None) => Some(Content::Member(superblock.clone())),
                (None, None) => Some(Content::Blank),
            };
            Some(Present {
                size: 2 << 30,
                content,
            })
        });
        Seen {
            array: array.map(|md| Running {
                name: "md1000".into(),
                array: Some(ARRAY),
                state: State::ReadWrite,
                size: 1 << 30,
                component: 1 << 30,
                rate: Some(1 << 20),
                members: md
                    .members
                    .iter()
                    .map(|(leg, state)| Member {
                        name: format!("leg{leg}"),
                        state: *state,
                    })
                    .collect(),
                sync: None,
            }),
            legs: legs.collect(),
        }
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Decide => self.decide(),
            Event::Act => self.act(),
            Event::Write { consumer } => self.write(*consumer),
            Event::Copy { consumer } => self.copy(*consumer),
            Event::Leg { leg, up } => self.disks[*leg].up = *up,
            Event::Cut { consumer, cut } => self.cut[*consumer] = *cut,
            Event::Crash { consumer } => self.arrays[*consumer] = None,
            Event::Move { consumer } => self.attach(*consumer),
            Event::Wait { seconds } => self.seconds += seconds,
            Event::Settle => {
                for _ in 0..4 {
                    self.decide();
                    self.act();
                    if let Some(holder) = self.record.holder {
                        self.copy(holder);
                        self.write(holder);
                    }
                    self.seconds += 6;
                }
            }
        }
    }

    fn demand(&self) -> Demand {
        match self.record.holder {
            Some(_) => Demand::Writer(self.record.generation),
            None => Demand::Wanted(self.record.waiting_since),
        }
    }

    fn decide(&mut self) {
        let now = self.now();
        let told = self.record.told.clone();
        let legs: Vec<loss::Leg> = (0..self.disks.len())
            .map(|leg| loss::Leg {
                lack: self.record.lacks[leg].as_ref(),
                reach: if self.disks[leg].up {
                    Reach::Well
                } else {
                    Reach::Away
                },
                told: told[leg].as_ref(),
            })
            .collect();
        let next = loss::next(self.redundancy, &legs, self.demand(), now);
        for (leg, next) in next.into_iter().enumerate() {
            let lack = |phase, reason: &str| LegLack {
                phase,
                reason: reason.into(),
                since: Time(now),
                generation: self.record.generation,
            };
            let earlier = self.record.lacks[leg].clone();
            let on = |phase| earlier.clone().map(|lack| LegLack { phase, ..lack });
            self.record.lacks[leg] = match next {
                Next::Stay => earlier,
                Next::In => None,
                Next::Out(reason) => Some(lack(LackPhase::Out, reason)),
                Next::Returning => on(LackPhase::Returning),
                Next::Rebuilding => on(LackPhase::Rebuilding),
                Next::Replace => {
                    // A new leg, in the place of the old.
                    self.disks[leg] = Disk {
                        up: true,
                        fenced_below: self.record.generation,
                        ..Disk::default()
                    };
                    for md in self.arrays.iter_mut().flatten() {
                        md.members.remove(&leg);
                    }
                    self.record.told[leg] = None;
                    on(LackPhase::Rebuilding)
                }
            };
        }
    }

    /// The consumer with the attachment does what its agent does; one that is cut off knows nothing new, and does nothing.
    fn act(&mut self) {
        let Some(consumer) = self.record.holder.filter(|consumer| !self.cut[*consumer]) else {
            return;
        };
        // An array of an earlier attachment is taken down first: its exports are gone.
        if self.arrays[consumer]
            .as_ref()
            .is_some_and(|md| md.generation != self.record.generation)
        {
            self.arrays[consumer] = None;
        }
        for _ in 0..6 {
            let wanted = self.wanted(consumer);
            let seen = self.seen(consumer, &wanted);
            let steps = match plan(&wanted, &seen) {
                Ok(steps) => steps,
                Err(refusal) => {
                    self.tell_refusal(&wanted, &refusal);
                    return;
                }
            };
            if steps.is_empty() {
                break;
            }
            for step in steps {
                self.step(consumer, step);
            }
        }
        let wanted = self.wanted(consumer);
        let seen = self.seen(consumer, &wanted);
        let told = report(&wanted, &seen).unwrap();
        for (leg, holding) in told.into_iter().enumerate() {
            let holding = match holding {
                Holding::Whole if !self.reaches(consumer, leg, self.record.generation) => {
                    LegHolding::Away
                }
                Holding::Whole => LegHolding::Whole,
                Holding::Behind(_) => LegHolding::Behind,
                Holding::Lost => LegHolding::Lost,
                Holding::Apart => LegHolding::Apart,
                Holding::Empty => LegHolding::Empty,
                Holding::Away => LegHolding::Away,
            };
            self.tell(leg, holding);
        }
        self.record.formed = true;
    }

    fn tell_refusal(&mut self, wanted: &Wanted, refusal: &Refusal) {
        let (legs, holding) = match refusal {
            Refusal::Away(legs) => (legs.clone(), LegHolding::Away),
            Refusal::Behind(legs) => (legs.clone(), LegHolding::Stale),
            _ => return,
        };
        for leg in 0..wanted.legs.len() {
            match legs.contains(&leg) {
                true => self.tell(leg, holding),
                false => self.record.told[leg] = None,
            }
        }
    }

    fn tell(&mut self, leg: usize, holding: LegHolding) {
        if self.record.told[leg].as_ref().map(|told| told.holding) != Some(holding) {
            self.record.told[leg] = Some(ArrayLeg {
                uuid: String::new(),
                holding,
                since: Time(self.now()),
                percent: None,
            });
        }
    }

    fn step(&mut self, consumer: usize, step: Step) {
        let leg_of = |device: &PathBuf| -> usize {
            device
                .to_str()
                .unwrap()
                .trim_start_matches("/dev/leg")
                .parse()
                .unwrap()
        };
        let named = |name: &str| -> usize { name.trim_start_matches("leg").parse().unwrap() };
        let generation = self.record.generation;
        let width = self.disks.len();
        match step {
            Step::Create(legs) | Step::Assemble(legs) => {
                let legs: Vec<usize> = legs.iter().map(leg_of).collect();
                let superblocks = legs
                    .iter()
                    .filter_map(|leg| self.disks[*leg].superblock.as_ref());
                let events = superblocks.map(|of| of.events).max().unwrap_or(0);
                self.arrays[consumer] = Some(Md {
                    generation,
                    members: legs.iter().map(|leg| (*leg, MemberState::InSync)).collect(),
                    partly: BTreeSet::new(),
                    events,
                });
                if self.marked.0 != generation {
                    self.marked = (generation, BTreeSet::new());
                }
                assert!(
                    self.acknowledged.is_empty() || self.record.formed,
                    "made anew over bytes"
                );
                assert!(legs.len() >= self.level.needed(width));
            }
            Step::Fail(name) => {
                let md = self.arrays[consumer].as_mut().unwrap();
                md.members.insert(named(&name), MemberState::Faulty);
            }
            Step::Remove(name) => {
                let md = self.arrays[consumer].as_mut().unwrap();
                md.members.remove(&named(&name));
            }
            Step::ReAdd(device) | Step::Add(device)
                if !self.reaches(consumer, leg_of(&device), generation) => {}
            Step::ReAdd(device) => {
                let md = self.arrays[consumer].as_mut().unwrap();
                md.members.insert(leg_of(&device), MemberState::Behind);
                md.partly.insert(leg_of(&device));
            }
            Step::Add(device) => {
                let md = self.arrays[consumer].as_mut().unwrap();
                md.members.insert(leg_of(&device), MemberState::Behind);
                md.partly.remove(&leg_of(&device));
            }
            Step::Wipe(device) => self.disks[leg_of(&device)].superblock = None,
            Step::Grow(_) | Step::Limit(_) | Step::Stop => panic!("not in this model: {step:?}"),
        }
        self.write_superblocks(consumer);
    }

    fn write_superblocks(&mut self, consumer: usize) {
        let Some(md) = self.arrays[consumer].as_mut() else {
            return;
        };
        md.events += 1;
        let md = md.clone();
        let width = self.disks.len();
        let active = (0..width).map(|leg| {
            let state = md.members.get(&leg);
            state.is_some_and(|state| *state != MemberState::Faulty)
        });
        let active: Vec<bool> = active.collect();
        for (leg, state) in &md.members {
            if *state != MemberState::Faulty && self.reaches(consumer, *leg, md.generation) {
                self.disks[*leg].superblock = Some(Superblock {
                    array: ARRAY,
                    events: md.events,
                    clean: true,
                    recovering: *state == MemberState::Behind,
                    number: *leg as u32,
                    active: active.clone(),
                });
            }
        }
    }

    /// A write arrives at the legs that are reached, and is acknowledged once every member that md has not given up has it.
    fn write(&mut self, consumer: usize) {
        let Some(md) = self.arrays[consumer].clone() else {
            return;
        };
        self.written += 1;
        let live = md
            .members
            .iter()
            .filter(|(_, state)| **state != MemberState::Faulty);
        let live: Vec<usize> = live.map(|(leg, _)| *leg).collect();
        let reached = |leg: &usize| self.reaches(consumer, *leg, md.generation);
        let all = live.iter().all(reached);
        let whole = md
            .members
            .values()
            .filter(|state| **state == MemberState::InSync)
            .count();
        let hit: Vec<usize> = live.into_iter().filter(reached).collect();
        for leg in hit {
            self.disks[leg].writes.insert(self.written);
        }
        let degraded = md.members.len() < self.disks.len() || whole < self.disks.len();
        if degraded && self.marked.0 == md.generation {
            self.marked.1.insert(self.written);
        }
        if all && whole >= self.level.needed(self.disks.len()) {
            self.acknowledged.insert(self.written);
        }
    }

    /// Legs that are behind get what they lack, if everything is reached.
    fn copy(&mut self, consumer: usize) {
        let Some(md) = self.arrays[consumer].clone() else {
            return;
        };
        let from = md.members.iter().find(|(leg, state)| {
            **state == MemberState::InSync && self.reaches(consumer, **leg, md.generation)
        });
        let Some((from, _)) = from else {
            return;
        };
        let source = self.disks[*from].writes.clone();
        for (leg, state) in &md.members {
            if *state != MemberState::Behind || !self.reaches(consumer, *leg, md.generation) {
                continue;
            }
            let disk = &mut self.disks[*leg].writes;
            match md.partly.contains(leg) {
                true => disk.extend(source.intersection(&self.marked.1)),
                false => disk.clone_from(&source),
            }
            let md = self.arrays[consumer].as_mut().unwrap();
            md.members.insert(*leg, MemberState::InSync);
        }
        self.write_superblocks(consumer);
    }

    /// The attachment is given up, fenced, and granted to another: only once every leg that is in is reached by it, and cannot be reached by
    /// the one before any more.
    fn attach(&mut self, consumer: usize) {
        if let Some(before) = self.record.holder.take() {
            // Where it can be asked, it takes its array down.
            if !self.cut[before] {
                self.arrays[before] = None;
            }
            self.record.waiting_since = Some(self.now());
            self.record.told.fill(None);
        }
        if self.cut[consumer] {
            return;
        }
        let generation = self.record.generation + 1;
        for leg in 0..self.disks.len() {
            let reached = self.disks[leg].up;
            let local_writer = leg < CONSUMERS
                && leg != consumer
                && self.arrays[leg]
                    .as_ref()
                    .is_some_and(|md| md.members.contains_key(&leg));
            // A leg whose node does not answer, or whose own node may still write to it, cannot be fenced: it has to be out.
            let fenced = reached && !local_writer && !(leg < CONSUMERS && self.cut[leg]);
            if self.record.lacks[leg].is_none() && !fenced {
                return;
            }
        }
        for disk in self.disks.iter_mut().filter(|disk| disk.up) {
            disk.fenced_below = generation;
        }
        self.record.generation = generation;
        self.record.holder = Some(consumer);
        self.record.waiting_since = None;
    }

    fn look(&self) -> Result<(), TestCaseError> {
        let holder = self.record.holder;
        let Some(md) = holder.and_then(|holder| self.arrays[holder].as_ref()) else {
            return Ok(());
        };
        if md.generation != self.record.generation {
            return Ok(());
        }
        for (leg, state) in &md.members {
            if *state == MemberState::InSync {
                let missing: Vec<_> = self
                    .acknowledged
                    .difference(&self.disks[*leg].writes)
                    .collect();
                prop_assert!(
                    missing.is_empty(),
                    "leg {leg} is taken for whole and lacks {missing:?}"
                );
            }
        }
        Ok(())
    }
}

fn hold(redundancy: Redundancy, legs: usize, events: &[Event]) -> Result<(), TestCaseError> {
    let mut world = World::new(redundancy, legs);
    for event in events {
        world.happen(event);
        world.look()?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_mirror_never_forgets_a_write(events in prop::collection::vec(event(2), 1..80)) {
        hold(Redundancy::Mirror, 2, &events)?;
    }

    #[test]
    fn raid6_never_forgets_a_write(events in prop::collection::vec(event(5), 1..80)) {
        hold(Redundancy::Raid6, 5, &events)?;
    }
}
