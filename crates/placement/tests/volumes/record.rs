//! What a leg's record knows of those who were let in: the models' copy of the agents' rule.

/// By their attachment generations.
#[derive(Clone, Copy, Debug, Default)]
pub struct Record {
    /// The highest that was let in.
    pub highest: i64,
    /// The highest that could write.
    pub writer: i64,
}

impl Record {
    /// The lowest generation that may have the leg now.
    pub fn oldest(self, read_only: bool) -> i64 {
        match read_only {
            true => self.highest.min(self.writer + 1),
            false => self.highest,
        }
    }

    /// Somebody was let in.
    pub fn take(&mut self, generation: i64, read_only: bool) {
        self.highest = self.highest.max(generation);
        if !read_only {
            self.writer = self.highest;
        }
    }
}
