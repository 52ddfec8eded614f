//! md as the model has it: steps, superblocks, writes and copying.

use std::collections::BTreeSet;
use std::path::Path;

use strand_arrays::{Format, Level, MemberState, Step, Superblock};

use crate::world::{ARRAY, Md, World};

/// The leg of a device's name.
pub fn leg_of(device: &Path) -> usize {
    let name = device.to_str().unwrap();
    name.trim_start_matches("/dev/leg").parse().unwrap()
}

impl World {
    pub fn step(&mut self, consumer: usize, step: Step) {
        let named = |name: &str| -> usize { name.trim_start_matches("leg").parse().unwrap() };
        let generation = self.record.generation;
        let width = self.disks.len();
        match step {
            Step::Create(legs) | Step::Assemble(legs) => {
                let legs: Vec<usize> = legs.iter().map(|leg| leg_of(leg)).collect();
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
            Step::Grow(_) | Step::Limit(_) | Step::Stop | Step::Read(_) | Step::TakeIn(_) => {
                panic!("not in this model: {step:?}")
            }
        }
        self.write_superblocks(consumer);
    }

    pub fn write_superblocks(&mut self, consumer: usize) {
        let Some(md) = self.arrays[consumer].as_mut() else {
            return;
        };
        md.events += 1;
        let md = md.clone();
        let width = self.disks.len();
        let slots = (0..width).map(|leg| {
            let state = md.members.get(&leg)?;
            (*state != MemberState::Faulty).then_some(leg as u32)
        });
        let slots: Vec<Option<u32>> = slots.collect();
        let format = self.format();
        for (leg, state) in &md.members {
            if *state != MemberState::Faulty && self.reaches(consumer, *leg, md.generation) {
                self.disks[*leg].superblock = Some(Superblock {
                    array: ARRAY,
                    events: md.events,
                    clean: true,
                    recovering: *state == MemberState::Behind,
                    number: *leg as u32,
                    slots: slots.clone(),
                    format,
                });
            }
        }
    }

    /// Where bytes lie on every leg.
    pub fn format(&self) -> Format {
        let (level, layout, chunk) = match self.level {
            Level::Stripe => (0, 0, 128 << 10),
            Level::Mirror => (1, 0, 0),
            Level::Raid6 => (6, 2, 128 << 10),
        };
        Format {
            level,
            layout,
            chunk,
            legs: self.disks.len() as u32,
            data_offset: 1 << 20,
            data: 1 << 30,
            plain: true,
        }
    }

    /// A write arrives at the legs that are reached, and is acknowledged once every member that md has not given up has it.
    pub fn write(&mut self, consumer: usize) {
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
    pub fn copy(&mut self, consumer: usize) {
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
}
