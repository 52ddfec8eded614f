//! The endurance governor: keeps what is written inside the drive's daily budget. Pure; the caller passes the clock.
//!
//! A day's budget flows in evenly and is held up to one day's worth. While a quarter of it is left everything is admitted.
//! Below that the budget is tight, and a block is admitted when it is put a second time, which is when keeping it would
//! have been of use. At nothing left, nothing is admitted: the hard ceiling.

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
    /// A governor with one day's budget in hand.
    pub(crate) fn new(budget: Option<u64>, millis: u64) -> Governor {
        let full = u128::from(budget.unwrap_or(0)) * u128::from(DAY);
        Governor {
            budget,
            left: full,
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

/// Days until a drive has taken what its maker promises, if it is written on as it was observed: `percentage_used` is
/// SMART's (NVM Express base specification, "Percentage Used": 100 is worn out, and it may go on to 255), of which
/// `percentage_before` was there when the observation began `days` ago. Negative where it is worn out already; none where
/// nothing was used up meanwhile, so that nothing can be said.
///
/// SMART counts whole per cents. Until it has counted one, what was `written` in bytes since then counts against
/// `endurance`, the bytes that the maker promises in all, where that is known.
#[must_use]
pub fn days_to_wear_out(
    percentage_used: u8,
    percentage_before: u8,
    written: u64,
    endurance: Option<u64>,
    days: f64,
) -> Option<f64> {
    let counted = f64::from(percentage_used.saturating_sub(percentage_before));
    let reckoned = endurance
        .filter(|bytes| *bytes > 0)
        .map_or(0.0, |bytes| written as f64 * 100.0 / bytes as f64);
    let used = if counted >= 1.0 { counted } else { reckoned };
    (days > 0.0 && used > 0.0).then(|| (100.0 - f64::from(percentage_used)) * days / used)
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
    fn a_drive_wears_out_as_fast_as_it_was_observed_to() {
        let days =
            |used, before, written| days_to_wear_out(used, before, written, Some(1000), 10.0);
        assert_eq!(days(60, 50, 0), Some(40.0));
        // Before SMART has counted a whole per cent: 5 of 1,000 bytes in 10 days.
        assert_eq!(days(50, 50, 5), Some(1000.0));
        assert_eq!(days(50, 50, 0), None);
        assert_eq!(days(110, 100, 0), Some(-10.0));
        assert_eq!(days_to_wear_out(50, 50, 5, None, 10.0), None);
        assert_eq!(days_to_wear_out(60, 50, 5, None, 0.0), None);
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
