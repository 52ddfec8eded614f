//! Interleaved measurements: what is compared, and what may be said of it. Pure, but for [`interleave`].

use serde::Serialize;

/// How far the baseline may be from itself before a comparison with it says nothing.
pub const DRIFT: f64 = 0.05;

/// One round: the baseline, what is measured, the baseline again.
#[derive(Clone, Debug, Serialize)]
pub struct Round<T> {
    /// The baseline before.
    pub before: T,
    /// What is measured.
    pub ours: T,
    /// The baseline after.
    pub after: T,
}

/// Measures `rounds` times: baseline, ours, baseline.
pub async fn interleave<T>(
    rounds: usize,
    mut baseline: impl AsyncFnMut() -> anyhow::Result<T>,
    mut ours: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<Vec<Round<T>>> {
    let mut measured = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        measured.push(Round {
            before: baseline().await?,
            ours: ours().await?,
            after: baseline().await?,
        });
    }
    Ok(measured)
}

/// One quantity of all rounds.
#[derive(Clone, Debug, Serialize)]
pub struct Pairs {
    rounds: Vec<Round<f64>>,
}

impl Pairs {
    /// That quantity of each measurement.
    pub fn of<T>(rounds: &[Round<T>], quantity: impl Fn(&T) -> f64) -> Self {
        let rounds = rounds.iter().map(|round| Round {
            before: quantity(&round.before),
            ours: quantity(&round.ours),
            after: quantity(&round.after),
        });
        Self {
            rounds: rounds.collect(),
        }
    }

    /// Median over the rounds of ours to the mean of the baselines around it: a drift that is even cancels out.
    pub fn ratio(&self) -> f64 {
        median(self.rounds.iter().map(|r| r.ours / r.baseline()))
    }

    /// Median over the rounds of ours less the mean of the baselines around it.
    pub fn difference(&self) -> f64 {
        median(self.rounds.iter().map(|r| r.ours - r.baseline()))
    }

    /// Median over the rounds of the baseline to itself.
    pub fn control(&self) -> f64 {
        median(self.rounds.iter().map(|r| r.after / r.before))
    }

    /// Median of ours.
    pub fn ours(&self) -> f64 {
        median(self.rounds.iter().map(|r| r.ours))
    }

    /// Median of the baseline.
    pub fn baseline(&self) -> f64 {
        median(self.rounds.iter().map(Round::baseline))
    }

    /// What may be said where `figure` has that goal.
    pub fn verdict(&self, goal: Goal, figure: f64) -> Verdict {
        let steady = (self.control() - 1.0).abs() <= DRIFT;
        if steady {
            goal.verdict(figure)
        } else {
            Verdict::Inconclusive
        }
    }
}

impl Round<f64> {
    fn baseline(&self) -> f64 {
        f64::midpoint(self.before, self.after)
    }
}

/// What a figure should be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub enum Goal {
    /// At least this.
    AtLeast(f64),
    /// At most this.
    AtMost(f64),
}

impl Goal {
    /// Whether the figure reaches it; one that is no number does not.
    pub fn verdict(self, figure: f64) -> Verdict {
        let reached = match self {
            Self::AtLeast(bound) => figure >= bound,
            Self::AtMost(bound) => figure <= bound,
        };
        if reached {
            Verdict::Reached
        } else {
            Verdict::Missed
        }
    }
}

/// What may be said of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Verdict {
    /// It reaches its goal.
    Reached,
    /// It does not.
    Missed,
    /// The baseline differed from itself by more than [`DRIFT`].
    Inconclusive,
}

/// The middle one, or the mean of the middle two; not a number where there is none.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match (values.len(), values.len() / 2) {
        (0, _) => f64::NAN,
        (len, middle) if len % 2 == 1 => values[middle],
        (_, middle) => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// The smallest of the sorted values that is no smaller than `share` of them (nearest rank); not a number where there is none.
pub fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    let at = rank.max(1) - 1;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(rounds: &[[f64; 3]]) -> Pairs {
        let rounds: Vec<_> = rounds
            .iter()
            .map(|[before, ours, after]| Round {
                before: *before,
                ours: *ours,
                after: *after,
            })
            .collect();
        Pairs::of(&rounds, |x| *x)
    }

    #[test]
    fn an_even_drift_cancels_out() {
        let drifting = pairs(&[[100.0, 99.0, 98.0], [98.0, 97.0, 96.0], [96.0, 95.0, 94.0]]);
        assert_eq!(drifting.ratio(), 1.0);
        assert_eq!(drifting.difference(), 0.0);
    }

    #[test]
    fn one_disturbed_round_changes_nothing() {
        let disturbed = pairs(&[[10.0, 9.0, 10.0], [10.0, 1.0, 90.0], [10.0, 9.0, 10.0]]);
        assert_eq!(disturbed.ratio(), 0.9);
        assert_eq!(disturbed.control(), 1.0);
        assert_eq!((disturbed.ours(), disturbed.baseline()), (9.0, 10.0));
    }

    #[test]
    fn a_baseline_that_differs_from_itself_decides_nothing() {
        let off = pairs(&[[10.0, 20.0, 10.6]; 3]);
        assert_eq!(
            off.verdict(Goal::AtLeast(0.9), off.ratio()),
            Verdict::Inconclusive
        );
        let steady = pairs(&[[10.0, 20.0, 10.4]; 3]);
        assert_eq!(
            steady.verdict(Goal::AtLeast(0.9), steady.ratio()),
            Verdict::Reached
        );
        assert_eq!(
            steady.verdict(Goal::AtMost(0.9), steady.ratio()),
            Verdict::Missed
        );
    }

    #[test]
    fn nothing_measured_reaches_nothing() {
        assert!(median(std::iter::empty()).is_nan());
        assert_eq!(Goal::AtMost(1.0).verdict(f64::NAN), Verdict::Missed);
        assert_eq!(
            pairs(&[]).verdict(Goal::AtLeast(0.0), 1.0),
            Verdict::Inconclusive
        );
        assert!(percentile(&[], 0.5).is_nan());
    }

    #[test]
    fn medians_and_percentiles() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&hundred, 0.99), 99.0);
        assert_eq!(percentile(&hundred, 0.50), 50.0);
        assert_eq!(percentile(&hundred, 1.0), 100.0);
        assert_eq!(percentile(&[7.0], 0.99), 7.0);
    }
}
