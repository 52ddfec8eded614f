//! The rack as the model has it: legs, the volume's record, what the operator decides and what consumers do about it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use strand_api::{ArrayLeg, LackPhase, LegHolding, LegLack, Redundancy};
use strand_arrays::{
    Content, Geometry, Holding, Leg, Level, Member, MemberState, Present, Refusal, Running, Seen,
    Standing, State, Superblock, Wanted, plan, report,
};
use strand_placement::volumes::loss::{self, Demand, Next, Reach};
use uuid::Uuid;

use crate::{CONSUMERS, Event};

pub const ARRAY: Uuid = Uuid::from_u128(7);

/// What lies on one leg. Leg `n` lies on the node of consumer `n`, if there is one.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    pub superblock: Option<Superblock>,
    pub writes: BTreeSet<u32>,
    pub up: bool,
    /// Which attachments reach it over the fabric; its own node does always.
    pub fenced_below: i64,
}

/// An array as one consumer's kernel runs it.
#[derive(Clone, Debug)]
pub struct Md {
    pub generation: i64,
    pub members: BTreeMap<usize, MemberState>,
    /// Of legs that are copied to: only what is marked.
    pub partly: BTreeSet<usize>,
    pub events: u64,
}

/// The volume's record.
#[derive(Clone, Debug)]
pub struct Record {
    pub lacks: Vec<Option<LegLack>>,
    pub formed: bool,
    pub generation: i64,
    pub holder: Option<usize>,
    pub told: Vec<Option<ArrayLeg>>,
    pub waiting_since: Option<Timestamp>,
}

pub struct World {
    pub redundancy: Redundancy,
    pub level: Level,
    pub disks: Vec<Disk>,
    pub arrays: Vec<Option<Md>>,
    pub cut: [bool; CONSUMERS],
    pub record: Record,
    /// Writes that some leg may have missed, as the bitmap knows them, which lies on the legs that are whole; and in which attachment.
    /// What it knows of earlier ones is not relied on.
    pub marked: (i64, BTreeSet<u32>),
    pub acknowledged: BTreeSet<u32>,
    pub written: u32,
    pub seconds: i64,
    /// Legs that the last event has somebody read from.
    pub read: Vec<usize>,
}

impl World {
    pub fn new(redundancy: Redundancy, legs: usize) -> Self {
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
            read: Vec::new(),
        }
    }

    pub fn now(&self) -> Timestamp {
        let start: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        start + SignedDuration::from_secs(self.seconds)
    }

    /// Whether a consumer reaches a leg in an attachment.
    pub fn reaches(&self, consumer: usize, leg: usize, generation: i64) -> bool {
        let disk = &self.disks[leg];
        let over_the_fabric = !self.cut[consumer] && generation >= disk.fenced_below;
        disk.up && (consumer == leg || over_the_fabric)
    }

    pub fn wanted(&self, consumer: usize) -> Wanted {
        let legs = self.record.lacks.iter().enumerate().map(|(leg, lack)| {
            let reached = self.reaches(consumer, leg, self.record.generation);
            Leg {
                uuid: Uuid::from_u128(leg as u128 + 1),
                // What the agent makes of it, too: what it has missed is known only in the attachment in which it was lost.
                standing: match lack.as_ref().map(|lack| (lack.phase, lack.generation)) {
                    None => Standing::In,
                    Some((LackPhase::Returning, lost)) if lost == self.record.generation => {
                        Standing::Returning
                    }
                    Some((LackPhase::Out | LackPhase::Returning, _)) => Standing::Out,
                    Some((LackPhase::Rebuilding, _)) => Standing::Rebuilding,
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

    pub fn seen(&self, consumer: usize, wanted: &Wanted) -> Seen {
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
                read_only: false,
                content,
            })
        });
        Seen {
            array: array.map(|md| Running {
                name: "md1000".into(),
                array: Some(ARRAY),
                mark: None,
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
                        gone: false,
                    })
                    .collect(),
                sync: None,
                resyncing: false,
            }),
            legs: legs.collect(),
        }
    }

    pub fn happen(&mut self, event: &Event) {
        self.read.clear();
        match event {
            Event::Decide => self.decide(),
            Event::Act => self.act(),
            Event::Write { consumer } => self.write(*consumer),
            Event::Copy { consumer } => self.copy(*consumer),
            Event::Leg { leg, up } => self.disks[*leg].up = *up,
            Event::Cut { consumer, cut } => self.cut[*consumer] = *cut,
            Event::Crash { consumer } => self.arrays[*consumer] = None,
            Event::Move { consumer } => self.attach(*consumer),
            Event::Read { consumer } => self.read(*consumer),
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

    pub fn demand(&self) -> Demand {
        match self.record.holder {
            Some(_) => Demand::Writer {
                generation: self.record.generation,
                patience: loss::STALL,
            },
            None => Demand::Wanted(self.record.waiting_since),
        }
    }

    pub fn decide(&mut self) {
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
    pub fn act(&mut self) {
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

    pub fn tell_refusal(&mut self, wanted: &Wanted, refusal: &Refusal) {
        let (legs, holding) = match refusal {
            Refusal::Away(legs) | Refusal::Needed(legs) => (legs.clone(), LegHolding::Away),
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

    pub fn tell(&mut self, leg: usize, holding: LegHolding) {
        if self.record.told[leg].as_ref().map(|told| told.holding) != Some(holding) {
            self.record.told[leg] = Some(ArrayLeg {
                uuid: String::new(),
                holding,
                since: Time(self.now()),
                percent: None,
            });
        }
    }
}
