//! Legs of a volume that is only read, and which of them is let go of. Nobody decides on them, as nothing can be lost with them. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use uuid::Uuid;

/// How long a leg may be silent before reads go on without it.
const PATIENCE: Duration = Duration::from_secs(3);

/// How a leg is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It is connected, and does not answer.
    Silent,
    /// It answers, and is read from.
    Read,
    /// It is not connected, or md has given it up, or has not taken it in again yet.
    Apart,
}

/// Legs that are silent, since when.
#[derive(Debug, Default)]
pub struct Silent(BTreeMap<Uuid, Instant>);

impl Silent {
    /// Which legs are let go of now, of all that hold every byte; `needed` of them have to be read from.
    pub fn let_go(
        &mut self,
        legs: &BTreeMap<Uuid, Heard>,
        needed: usize,
        now: Instant,
    ) -> BTreeSet<Uuid> {
        self.0
            .retain(|leg, _| legs.get(leg) == Some(&Heard::Silent));
        let read = legs.values().filter(|heard| **heard == Heard::Read).count();
        let mut gone = BTreeSet::new();
        for (leg, heard) in legs {
            if *heard != Heard::Silent {
                continue;
            }
            let since = *self.0.entry(*leg).or_insert(now);
            if read >= needed && now.duration_since(since) >= PATIENCE {
                gone.insert(*leg);
            }
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Heard::{Apart, Read, Silent as Quiet};

    fn legs(heard: &[Heard]) -> BTreeMap<Uuid, Heard> {
        let uuids = (1..).map(Uuid::from_u128);
        uuids.zip(heard.iter().copied()).collect()
    }

    #[test]
    fn a_leg_that_stays_silent_is_let_go_of_while_enough_others_are_read() {
        let begin = Instant::now();
        for (needed, heard, expected) in [
            // A mirror.
            (1, &[Read, Quiet][..], &[2][..]),
            (1, &[Quiet, Quiet], &[]),
            (1, &[Apart, Quiet], &[]),
            (1, &[Read, Apart], &[]),
            // A raid6.
            (2, &[Read, Read, Quiet, Quiet], &[3, 4]),
            (2, &[Read, Apart, Quiet, Quiet], &[]),
            // A stripe can do without none.
            (3, &[Read, Read, Quiet], &[]),
        ] {
            let (mut silent, legs) = (Silent::default(), legs(heard));
            for seconds in 0..3 {
                let now = begin + Duration::from_secs(seconds);
                assert_eq!(silent.let_go(&legs, needed, now), BTreeSet::new());
            }
            let gone = silent.let_go(&legs, needed, begin + PATIENCE);
            let expected = expected.iter().map(|leg| Uuid::from_u128(*leg)).collect();
            assert_eq!(gone, expected, "{heard:?}");
        }
    }

    #[test]
    fn one_that_answers_in_between_is_waited_for_anew() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut silent = Silent::default();
        for (seconds, heard, gone) in [
            (0, Quiet, false),
            (2, Read, false),
            (4, Quiet, false),
            (6, Quiet, false),
            (7, Quiet, true),
            // It is connected again, and silent from the start.
            (8, Apart, false),
            (9, Quiet, false),
        ] {
            let found = silent.let_go(&legs(&[Read, heard]), 1, at(seconds));
            assert_eq!(!found.is_empty(), gone, "after {seconds} s");
        }
    }
}
