//! How fast writing wears a drive out.

/// What a drive's maker promises.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Endurance {
    /// So many times its capacity a day, for so many years of 365 days (DWPD; JEDEC JESD218 relates it to TBW).
    DriveWritesPerDay {
        /// Times its capacity, a day.
        writes: f64,
        /// Years of warranty.
        years: f64,
    },
    /// So many bytes in all (TBW).
    Bytes(f64),
}

impl Endurance {
    /// Bytes that may be written in all to a drive of `capacity` bytes.
    pub fn bytes(self, capacity: u64) -> f64 {
        match self {
            Self::DriveWritesPerDay { writes, years } => writes * 365.0 * years * capacity as f64,
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// What a rate of writing does to a drive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wear {
    /// Times its capacity that is written a day.
    pub drive_writes_per_day: f64,
    /// Days until a new drive has taken what its maker promises; infinite where nothing is written.
    pub days_to_wear_out: f64,
}

impl Wear {
    /// Of `written` bytes in `seconds`, for ever, on drives of `capacity` bytes in all. `None`: no time passed, or there
    /// is no capacity, so that there is no rate.
    pub fn of(written: u64, seconds: f64, capacity: u64, endurance: Endurance) -> Option<Self> {
        if seconds <= 0.0 || capacity == 0 {
            return None;
        }
        let bytes_per_day = written as f64 * 86_400.0 / seconds;
        Some(Self {
            drive_writes_per_day: bytes_per_day / capacity as f64,
            days_to_wear_out: endurance.bytes(capacity) / bytes_per_day,
        })
    }
}
