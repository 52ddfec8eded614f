//! The endurance governor: keeps what is written inside the drive's daily budget. Pure; the caller passes the clock.
//!
//! A day's budget flows in evenly and is held up to one day's worth. While a quarter of it is left everything is admitted.
//! Below that the budget is tight, and a block is admitted when it is put a second time, which is when keeping it would
//! have been of use. At nothing left, nothing is admitted: the hard ceiling. What was spent before a restart is not known
//! after it, so that a store that is opened again begins with a quarter, where the budget begins to be tight: each
//! restart within a day can add a quarter of the budget to it, and no more.

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
    /// A governor with one day's budget in hand, or what a restart leaves of it.
    pub(crate) fn new(budget: Option<u64>, restarted: bool, millis: u64) -> Governor {
        let full = u128::from(budget.unwrap_or(0)) * u128::from(DAY);
        Governor {
            budget,
            left: if restarted { full / 4 } else { full },
            at: millis,
            counted: 0,
            tags: if budget.is_some() {
                vec![0; TAGS]
            } else {
                Vec::new()
            },
        }
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
        let mut governor = Governor::new(Some(1000), false, 0);
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
        let mut governor = Governor::new(Some(1000), false, 0);
        governor.spend(100);
        governor.settle(150);
        governor.settle(150);
        assert_eq!(governor.admit(1, 850, 0), Admission::Admit);
        assert_eq!(governor.admit(1, 851, 0), Admission::Ceiling);
    }

    #[test]
    fn restarts_do_not_give_the_budget_anew() {
        let mut governor = Governor::new(Some(1000), true, 0);
        assert_eq!(governor.state(0), Endurance::Ample);
        assert_eq!(governor.admit(1, 251, 0), Admission::Ceiling);
        assert_eq!(governor.admit(1, 250, 0), Admission::Admit);
        governor.spend(1);
        assert_eq!(governor.state(0), Endurance::Tight);
    }

    proptest! {
        #[test]
        fn a_day_never_sees_more_than_two_budgets(
            puts in prop::collection::vec((0u64..600_000, 1u64..5000), 0..2000),
        ) {
            let budget = 100_000;
            let mut governor = Governor::new(Some(budget), false, 0);
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
