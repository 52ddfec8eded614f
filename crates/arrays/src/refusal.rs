//! Why nothing is done about an array.

/// Why an array is not put together. Legs are named by their places in the volume.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Legs that are in cannot be reached.
    #[error(
        "legs {} cannot be reached; the volume waits for them, or until they are recorded out", list(.0)
    )]
    Away(Vec<usize>),
    /// The same, and without them nobody knows what is right in what was being written.
    #[error(
        "legs {} cannot be reached, and it was not shut down in order, so that it needs them all; it waits for them", list(.0)
    )]
    Needed(Vec<usize>),
    /// Legs that are in have missed writes.
    #[error(
        "legs {} have missed writes that others have; the volume waits until they are recorded out", list(.0)
    )]
    Behind(Vec<usize>),
    /// A leg has bytes of something else.
    #[error(
        "leg {leg} holds something that is not of this volume; see what it is before anything is written to it"
    )]
    Foreign {
        /// Its place.
        leg: usize,
    },
    /// A leg that returns is not what it was.
    #[error("leg {leg} returned without its superblock; it has to be rebuilt")]
    NotReturning {
        /// Its place.
        leg: usize,
    },
    /// Too few legs are in.
    #[error(
        "only {left} legs hold the volume's bytes, and {needed} are needed: it has lost too much. Restore it from a backup; its legs are left as they are"
    )]
    TooMuchLost {
        /// Legs that are in.
        left: usize,
        /// Legs that are needed.
        needed: usize,
    },
    /// A raid6 that lost legs and whose parity may be wrong at once.
    #[error(
        "it has lost legs and was not shut down in order, so what was being written then may read wrong anywhere in its stripes. Nothing is done by itself: bring the lost legs back, or restore it from a backup"
    )]
    NeedsDecision,
    /// It was never attached for writing, so that there is nothing to read.
    #[error("nobody has attached it for writing yet, so that there is nothing to read")]
    NotFormed,
    /// It is only to be read, and its legs may differ.
    #[error(
        "it was not shut down in order, and its legs may differ in what was being written: attach it for writing once, which makes them equal"
    )]
    NotClean,
    /// A leg's superblock says something else of the array than the volume's record or the other legs.
    #[error(
        "what leg {leg} says of its array's shape is not what the volume's record or its other legs say; it is not read from"
    )]
    Misshapen {
        /// Its place.
        leg: usize,
    },
    /// A device is in an array that is not this volume's.
    #[error("a leg's device is in array {0}, which is not this volume's; it is left alone")]
    Taken(String),
}

impl Refusal {
    /// A code in CamelCase.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Away(_) => "LegsAway",
            Self::Needed(_) => "LegsNeeded",
            Self::Behind(_) => "LegsBehind",
            Self::Foreign { .. } => "Foreign",
            Self::NotReturning { .. } => "NotReturning",
            Self::TooMuchLost { .. } => "TooMuchLost",
            Self::NeedsDecision => "NeedsDecision",
            Self::NotFormed => "NotFormed",
            Self::NotClean => "NotClean",
            Self::Misshapen { .. } => "Misshapen",
            Self::Taken(_) => "Taken",
        }
    }
}

fn list(places: &[usize]) -> String {
    let words: Vec<String> = places.iter().map(ToString::to_string).collect();
    words.join(", ")
}
