//! The endurance governor: keeps what is written inside the drive's daily budget. Pure; the caller passes the clock.
//!
//! A day's budget flows in evenly and is held up to one day's worth. While a quarter of it is left everything is admitted.
//! Below that the budget is tight, and a block is admitted when it is put a second time, which is when keeping it would
//! have been of use. At nothing left, nothing is admitted: the hard ceiling.
//!
//! A restart goes on where the store was: what is left stands in the headers of units, which are written anyway
//! ([`Ledger`]), and what was put since the last of them is found with the blocks. Not found are blocks that eviction
//! moved since then, less than a unit, and what is neither there any more nor was before that header. A partition that an earlier
//! release wrote has no such note and begins with a quarter, where the budget begins to be tight.

use crate::segment::Ledger;

/// Milliseconds of a day.
const DAY: u64 = 86_400_000;

/// Tags of refused blocks that are remembered.
const TAGS: usize = 1 << 16;

/// What the governor says to a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Take it.
    Admit,
    /// The budget is tight and the block was not put before.
    FirstTouch,
    /// The day's budget is used up.
    Ceiling,
}

/// How a budget stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endurance {
    /// No budget was set.
    Unlimited,
    /// More than a quarter of a day's budget is left.
    Ample,
    /// Less: blocks are admitted on their second put.
    Tight,
    /// Nothing is left.
    Spent,
}

/// The governor of one partition.
#[derive(Debug)]
pub(crate) struct Governor {
    /// Bytes a day; none: unlimited.
    budget: Option<u64>,
    /// Bytes left, times the milliseconds of a day, so that refills round nowhere.
    left: u128,
    at: u64,
    /// Bytes that were counted so far.
    counted: u64,
    tags: Vec<u16>,
}

impl Governor {
    /// A governor of a new partition: with one day's budget in hand.
    pub(crate) fn new(budget: Option<u64>, millis: u64) -> Governor {
        Governor {
            budget,
            left: u128::from(budget.unwrap_or(0)) * u128::from(DAY),
            at: millis,
            counted: 0,
            tags: if budget.is_some() {
                vec![0; TAGS]
            } else {
                Vec::new()
            },
        }
    }

    /// A governor after a restart: with what was left by a note of before, if there is one, less what was `written` after
    /// it. A clock that went back refills nothing.
    pub(crate) fn resume(
        budget: Option<u64>,
        note: Option<Ledger>,
        written: u64,
        millis: u64,
    ) -> Governor {
        let mut governor = Governor::new(budget, millis);
        match note {
            Some(note) => {
                governor.left = governor.left.min(u128::from(note.left) * u128::from(DAY));
                governor.at = note.millis.min(millis);
                governor.refill(millis);
                let written = u128::from(written) * u128::from(DAY);
                governor.left = governor.left.saturating_sub(written);
            }
            None => governor.left /= 4,
        }
        governor
    }

    /// Bytes that may be written; none where there is no limit.
    pub(crate) fn left(&mut self, millis: u64) -> Option<u64> {
        self.refill(millis);
        let left = u64::try_from(self.left / u128::from(DAY)).unwrap_or(u64::MAX);
        self.budget.map(|_| left)
    }

    fn refill(&mut self, millis: u64) {
        let Some(budget) = self.budget else { return };
        let passed = millis.saturating_sub(self.at).min(DAY);
        self.at = self.at.max(millis);
        let full = u128::from(budget) * u128::from(DAY);
        self.left = full.min(self.left + u128::from(budget) * u128::from(passed));
    }

    /// How the budget stands.
    pub(crate) fn state(&mut self, millis: u64) -> Endurance {
        self.refill(millis);
        let Some(budget) = self.budget else {
            return Endurance::Unlimited;
        };
        let full = u128::from(budget) * u128::from(DAY);
        if self.left < u128::from(DAY) {
            Endurance::Spent
        } else if self.left < full / 4 {
            Endurance::Tight
        } else {
            Endurance::Ample
        }
    }

    /// Whether a put of `bytes` is admitted. `tag` stands for the block. Spends nothing.
    pub(crate) fn admit(&mut self, tag: u64, bytes: u64, millis: u64) -> Admission {
        let state = self.state(millis);
        if state == Endurance::Unlimited {
            return Admission::Admit;
        }
        if self.left < u128::from(bytes) * u128::from(DAY) {
            return Admission::Ceiling;
        }
        if state == Endurance::Ample {
            return Admission::Admit;
        }
        let slot = (tag as usize) % TAGS;
        let mark = (tag >> 48) as u16 | 1;
        if self.tags[slot] == mark {
            self.tags[slot] = 0;
            return Admission::Admit;
        }
        self.tags[slot] = mark;
        Admission::FirstTouch
    }

    /// Whether moving a block of `bytes` is worth its wear: only what the budget holds anyway.
    pub(crate) fn may_move(&mut self, bytes: u64, millis: u64) -> bool {
        match self.state(millis) {
            Endurance::Unlimited => true,
            Endurance::Spent => false,
            _ => self.left >= u128::from(bytes) * u128::from(DAY),
        }
    }

    /// Counts bytes that are going to be written to the drive.
    pub(crate) fn spend(&mut self, bytes: u64) {
        self.counted += bytes;
        self.left = self
            .left
            .saturating_sub(u128::from(bytes) * u128::from(DAY));
    }

    /// Counts what was `written` to the drive in all, as far as it was not counted before it was written: headers,
    /// footers, facts, moved blocks.
    pub(crate) fn settle(&mut self, written: u64) {
        self.spend(written.saturating_sub(self.counted));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ample_then_second_touch_then_nothing() {
        let mut governor = Governor::new(Some(1000), 0);
        assert_eq!(governor.admit(7, 100, 0), Admission::Admit);
        governor.spend(800);
        assert_eq!(governor.state(0), Endurance::Tight);
        assert_eq!(governor.admit(7 << 48, 100, 0), Admission::FirstTouch);
        assert_eq!(governor.admit(7 << 48, 100, 0), Admission::Admit);
        assert_eq!(governor.admit(9 << 48, 201, 0), Admission::Ceiling);
        governor.spend(200);
        assert_eq!(governor.state(0), Endurance::Spent);
        assert!(!governor.may_move(1, 0));
        assert_eq!(governor.state(DAY / 2), Endurance::Ample);
    }

    #[test]
    fn what_is_written_besides_puts_counts_once() {
        let mut governor = Governor::new(Some(1000), 0);
        governor.spend(100);
        governor.settle(150);
        governor.settle(150);
        assert_eq!(governor.admit(1, 850, 0), Admission::Admit);
        assert_eq!(governor.admit(1, 851, 0), Admission::Ceiling);
    }

    #[test]
    fn without_a_note_a_restart_gives_a_quarter() {
        let mut governor = Governor::resume(Some(1000), None, 0, 0);
        assert_eq!(governor.state(0), Endurance::Ample);
        assert_eq!(governor.admit(1, 251, 0), Admission::Ceiling);
        assert_eq!(governor.admit(1, 250, 0), Admission::Admit);
        governor.spend(1);
        assert_eq!(governor.state(0), Endurance::Tight);
    }

    #[test]
    fn a_restart_goes_on_where_the_budget_stood() {
        let note = |left, millis| {
            Some(Ledger {
                sequence: 0,
                left,
                millis,
            })
        };
        let left = |note, written, millis| {
            Governor::resume(Some(1000), note, written, millis).left(millis)
        };
        assert_eq!(left(note(600, 0), 100, 0), Some(500));
        assert_eq!(left(note(600, 0), 100, DAY / 10), Some(600));
        assert_eq!(left(note(600, 0), 900, DAY / 10), Some(0));
        assert_eq!(left(note(600, 0), 0, 10 * DAY), Some(1000));
        assert_eq!(
            left(note(5000, 0), 0, 0),
            Some(1000),
            "the budget is less now"
        );
        assert_eq!(left(note(600, DAY), 0, 0), Some(600), "the clock went back");
        assert_eq!(Governor::resume(None, note(1, 0), 0, 0).left(0), None);
    }

    proptest! {
        #[test]
        fn a_day_never_sees_more_than_two_budgets(
            puts in prop::collection::vec((0u64..600_000, 1u64..5000), 0..2000),
        ) {
            let budget = 100_000;
            let mut governor = Governor::new(Some(budget), 0);
            let (mut now, mut written) = (0, 0);
            for (pause, bytes) in puts {
                now += pause;
                if governor.admit(bytes.wrapping_mul(0x9E37_79B9_7F4A_7C15), bytes, now) == Admission::Admit {
                    governor.spend(bytes);
                    written += bytes;
                }
                prop_assert!(written <= budget + budget * now / DAY + 1);
            }
        }
    }
}
