//! Where a drive stands, for people.

use crate::text::Tone;
use strand_api::{
    ByteQuantity, Drive, DrivePhase, DriveStatus, DriveVerdict, PartitionRole, condition, names,
};

/// Where a drive stands, for people.
#[derive(Debug, PartialEq, Eq)]
pub struct Standing {
    /// One word.
    pub word: Word,
    /// One sentence.
    pub sentence: String,
}

/// Where a drive stands, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Serves a pool.
    In,
    /// Could be taken, but is not.
    Free,
    /// Must not be taken, or cannot serve.
    Out,
    /// On its way.
    Waits,
}

impl Word {
    /// The word itself.
    pub fn text(self) -> &'static str {
        match self {
            Word::In => "IN",
            Word::Free => "FREE",
            Word::Out => "OUT",
            Word::Waits => "WAITS",
        }
    }

    /// How it is meant.
    pub fn tone(self) -> Tone {
        match self {
            Word::In => Tone::Good,
            Word::Out => Tone::Bad,
            Word::Free | Word::Waits => Tone::Note,
        }
    }
}

/// Tells where a drive stands.
pub fn standing(drive: &Drive) -> Standing {
    let says = |word, sentence: String| Standing { word, sentence };
    let pool = drive.spec.pool.as_deref();
    let judged = drive.status.as_ref().and_then(|s| Some((s, s.verdict?)));
    let Some((status, verdict)) = judged else {
        return says(
            Word::Waits,
            "not judged yet: its agent watches it for a minute for any change (a development \
             stand-in for a second)"
                .into(),
        );
    };
    let phase = status.phase.unwrap_or(DrivePhase::Available);
    let in_pool = pool.map_or_else(|| "no pool".into(), |pool| format!("pool {pool}"));
    match (phase, verdict) {
        (DrivePhase::Missing, _) => says(
            Word::Out,
            format!(
                "its node no longer sees it, though it belongs to {in_pool}; put it back, or, if it \
                 is gone for good, create a DriveOperation of type Forget"
            ),
        ),
        (DrivePhase::Releasing, _) => says(
            Word::Waits,
            format!("{in_pool} is giving it back: label and partition table are being taken away"),
        ),
        (DrivePhase::Released, _) => says(
            Word::Free,
            "released: its label is gone, and no pool takes it while it is cordoned".into(),
        ),
        (DrivePhase::Carving, _) => says(
            Word::Waits,
            format!("it is being carved for {in_pool}, and that has not worked at once"),
        ),
        (DrivePhase::Ready, _) => {
            says(Word::In, format!("serves {in_pool} with {}", sides(status)))
        }
        (_, DriveVerdict::Pooled) => match (pool, &status.label) {
            (None, Some(label)) => says(
                Word::Waits,
                format!(
                    "labelled for pool {}; the operator takes it back without touching its data",
                    label.pool
                ),
            ),
            _ => says(Word::Waits, format!("it is being set up for {in_pool}")),
        },
        (_, DriveVerdict::Stranded) => free(drive, status),
        (_, DriveVerdict::InUse) => says(
            Word::Out,
            "something uses it, or it cannot be ruled out; Strand does not write to it".into(),
        ),
        (_, DriveVerdict::Foreign) => says(
            Word::Out,
            "it is not provably blank and unused; Strand does not write to it".into(),
        ),
        (_, DriveVerdict::Failed) => says(Word::Out, "it is not fit for use".into()),
    }
}

fn free(drive: &Drive, status: &DriveStatus) -> Standing {
    if let Some(pool) = &drive.spec.pool {
        return Standing {
            word: Word::Waits,
            sentence: format!("blank and unused; pool {pool} is taking it"),
        };
    }
    let refused = condition::find(&status.conditions, names::ADOPTED)
        .filter(|adopted| adopted.status == "False");
    Standing {
        word: Word::Free,
        sentence: match refused {
            Some(adopted) => format!("blank and unused, but not taken: {}", adopted.message),
            None => "blank and unused; no MemoryPool has taken it yet".into(),
        },
    }
}

/// Bytes of one side of a drive; 0 before it is carved.
pub fn side(status: &DriveStatus, role: PartitionRole) -> u64 {
    let partitions = status.partitions.iter().filter(|p| p.role == role);
    partitions.map(|partition| partition.size.0).sum()
}

/// Bytes of one side that are in use, in sixteenths of it; 0 before it is carved.
pub fn used(status: &DriveStatus, role: PartitionRole) -> u64 {
    let partitions = status.partitions.iter().filter(|p| p.role == role);
    partitions.map(|partition| partition.used.0).sum()
}

fn sides(status: &DriveStatus) -> String {
    let size = |role| ByteQuantity(side(status, role)).rounded();
    format!(
        "{} of context memory and {} of storage",
        size(PartitionRole::ContextMemory),
        size(PartitionRole::Storage)
    )
}
