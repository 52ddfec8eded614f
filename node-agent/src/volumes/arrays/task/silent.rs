//! Legs of a volume that is only read, and which of them is let go of. Nobody decides on them, as nothing can be lost with them. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use strand_fabric::{Connection, Nqn};
use uuid::Uuid;

use crate::volumes::connections::Record;

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

/// The connections that are ended first when a volume is given back: what is only read loses nothing by that, and nobody is to wait for an answer
/// that may never come.
pub fn unanswering(record: &Record, connections: &[Connection]) -> Vec<Nqn> {
    let silent = connections
        .iter()
        .filter(|found| record.read_only && record.legs.contains(&found.nqn) && !found.is_live());
    silent.map(|found| found.nqn).collect()
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

    #[test]
    fn who_gives_back_what_he_only_read_waits_for_no_leg_that_is_silent() {
        let nqn = |leg| Nqn::leg(Uuid::from_u128(leg), 4);
        let connection = |leg, state: &str| Connection {
            nqn: nqn(leg),
            device: None,
            states: vec![state.into()],
        };
        let connections = [
            connection(1, "live"),
            connection(2, "connecting"),
            connection(3, "connecting"),
        ];
        let record = |read_only| Record {
            volume: "v".into(),
            generation: 4,
            read_only,
            legs: vec![nqn(1), nqn(2)],
            array: Some(Uuid::from_u128(9)),
            iops: None,
            bandwidth: None,
        };
        assert_eq!(unanswering(&record(true), &connections), [nqn(2)]);
        assert_eq!(unanswering(&record(false), &connections), []);
    }
}
