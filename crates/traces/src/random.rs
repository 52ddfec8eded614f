//! Numbers that look random and are the same for the same seed.

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// At least 0, below 1.
    pub fn part(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True with that probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.part() < probability
    }

    /// Exponentially distributed with that mean.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -(1.0 - self.part()).ln() * mean
    }

    /// Log-normally distributed: half of the values lie below `median`, and two thirds within a factor of
    /// `spread.exp()` of it.
    pub fn log_normal(&mut self, median: f64, spread: f64) -> f64 {
        // Box and Muller: two uniform numbers make a normal one.
        let radius = (-2.0 * (1.0 - self.part()).ln()).sqrt();
        let normal = radius * (std::f64::consts::TAU * self.part()).cos();
        median * (spread * normal).exp()
    }
}

/// Ranks whose popularity falls with their number: rank k (from 0) weighs 1 / (k + 1)^exponent.
#[derive(Clone, Debug)]
pub struct Zipf {
    sums: Vec<f64>,
}

impl Zipf {
    /// Over `ranks` ranks, one at least.
    pub fn new(ranks: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let weighed = (1..=ranks.max(1)).map(|rank| {
            sum += (rank as f64).powf(-exponent);
            sum
        });
        Self {
            sums: weighed.collect(),
        }
    }

    /// A rank, from 0 on.
    pub fn rank(&self, random: &mut Random) -> usize {
        let all = self.sums.last().copied().unwrap_or_default();
        let point = random.part() * all;
        let rank = self.sums.partition_point(|sum| *sum <= point);
        rank.min(self.sums.len() - 1)
    }
}
