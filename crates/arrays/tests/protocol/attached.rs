//! Who has the volume, for writing or for reading, and what has to hold of what is read.

use proptest::prelude::*;
use strand_arrays::{MemberState, Step, Wanted, plan};

use crate::CONSUMERS;
use crate::md::leg_of;
use crate::world::World;

impl World {
    /// The attachment is given up, fenced, and granted to another: only once every leg that is in is reached by it, and cannot be reached by
    /// the one before any more.
    pub fn attach(&mut self, consumer: usize) {
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

    /// The volume is attached to another consumer, which reads.
    pub fn read(&mut self, consumer: usize) {
        self.attach(consumer);
        if self.record.holder != Some(consumer) {
            return;
        }
        self.arrays[consumer] = None;
        let wanted = Wanted {
            read_only: true,
            ..self.wanted(consumer)
        };
        let seen = self.seen(consumer, &wanted);
        for step in plan(&wanted, &seen).unwrap_or_default() {
            let Step::Read(reading) = step else {
                panic!("{step:?} is not for readers");
            };
            let parts = reading.parts.iter();
            self.read = parts.map(|part| leg_of(&part.device)).collect();
        }
    }

    pub fn look(&self) -> Result<(), TestCaseError> {
        for leg in &self.read {
            let mut missing = self.acknowledged.difference(&self.disks[*leg].writes);
            prop_assert!(
                missing.next().is_none(),
                "leg {leg} is read from and lacks writes"
            );
        }
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
