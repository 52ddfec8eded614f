//! Carving, moving and releasing as steps that can be killed anywhere.
//!
//! The label goes first and leaves last, so that at every instant the drive is either untouched or provably ours, and the label
//! says what is being done to it. Each step can be repeated; to recover is to do the steps again.
//!
//! ```text
//! carve    label Carving ─► TRIM partitions ─► table ─► label Carved
//! move     label Moving ──► TRIM what changes ─► table ─► label Carved
//! release  label Releasing ─► (erase) ─► no table ─► no label
//! ```

use std::io;

use strand_placement::carve::{Extent, Layout, MIB};
use strand_placement::verdict::LabelState;

use crate::label::DiskLabel;
use crate::medium::Medium;
use crate::reserved::{clear_label, clear_table, write_label, write_table};
use crate::survey::is_zero;
use crate::table::table;

/// Bytes told to the drive in one command when TRIMming or erasing: small enough to stop between two, large enough to be few.
pub(crate) const CHUNK: u64 = 1 << 30;

/// Does what the label says is being done, to the end. The label may be on the drive in both copies, one, or (for a drive that is
/// being taken) none.
///
/// Returns the label of the finished drive, or none when it was given back.
///
/// # Errors
/// Those of the medium; the steps can then be done again.
pub(crate) fn finish(medium: &impl Medium, label: &DiskLabel) -> io::Result<Option<DiskLabel>> {
    write_label(medium, label)?;
    match label.state {
        LabelState::Carved => return Ok(Some(label.clone())),
        LabelState::Carving => {
            for (_, extent) in label.layout.partitions() {
                trim(medium, extent)?;
                blank_start(medium, extent)?;
                blank_end(medium, extent)?;
            }
        }
        LabelState::Moving => {
            let previous = label.previous.unwrap_or(label.layout);
            for extent in changed(&previous, &label.layout) {
                trim(medium, extent)?;
            }
            // Whoever opens the new context partition must not find the old one's superblock.
            if let Some(context) = label.layout.context {
                blank_start(medium, context)?;
                blank_end(medium, context)?;
            }
            if let Some(storage) = label.layout.storage {
                if previous
                    .storage
                    .is_none_or(|before| before.start != storage.start)
                {
                    blank_start(medium, storage)?;
                }
                if previous
                    .storage
                    .is_none_or(|before| before.end() != storage.end())
                {
                    blank_end(medium, storage)?;
                }
            }
        }
        LabelState::Releasing | LabelState::Erasing => {
            if label.state == LabelState::Erasing {
                for (_, extent) in label.layout.partitions() {
                    trim(medium, extent)?;
                    zero(medium, extent)?;
                }
                medium.sync()?;
            }
            clear_table(medium, &table(label, &label.layout)?)?;
            clear_label(medium)?;
            return Ok(None);
        }
    }
    medium.sync()?;
    write_table(medium, &table(label, &label.layout)?)?;
    let carved = label.clone().next(LabelState::Carved);
    write_label(medium, &carved)?;
    Ok(Some(carved))
}

impl DiskLabel {
    /// The label's next generation, in another state and with nothing left to move.
    pub(crate) fn next(self, state: LabelState) -> DiskLabel {
        DiskLabel {
            generation: self.generation + 1,
            state,
            previous: None,
            ..self
        }
    }

    /// The label that begins to move to another layout.
    pub(crate) fn moving_to(self, layout: Layout) -> DiskLabel {
        let previous = Some(self.layout);
        DiskLabel {
            layout,
            previous,
            ..self.next(LabelState::Moving)
        }
    }
}

/// Whether a storage partition holds data: its first or last 64 KiB are not blank. A file system writes its superblock to the
/// first, and copies or allocation headers towards the last, so an empty partition is one that never had a file system.
pub(crate) fn holds_data(medium: &impl Medium, layout: &Layout) -> io::Result<bool> {
    let Some(storage) = layout.storage else {
        return Ok(false);
    };
    let mut buffer = vec![0; 64 << 10];
    for at in [storage.start, storage.end() - buffer.len() as u64] {
        medium.read_at(&mut buffer, at)?;
        if !is_zero(&buffer) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What a move may erase: everything but what is storage before and after.
fn changed(previous: &Layout, wanted: &Layout) -> Vec<Extent> {
    let ends = previous.partitions().chain(wanted.partitions());
    let (start, end) = ends.fold((u64::MAX, 0), |(start, end), (_, extent)| {
        (extent.start.min(start), extent.end().max(end))
    });
    let kept = match (previous.storage, wanted.storage) {
        (Some(before), Some(after)) => {
            (before.start.max(after.start), before.end().min(after.end()))
        }
        _ => (start, start),
    };
    let kept = if kept.0 < kept.1 {
        kept
    } else {
        (start, start)
    };
    [(start, kept.0), (kept.1, end)]
        .into_iter()
        .filter(|(from, until)| from < until)
        .map(|(from, until)| Extent {
            start: from,
            len: until - from,
        })
        .collect()
}

fn trim(medium: &impl Medium, extent: Extent) -> io::Result<()> {
    chunks(extent).try_for_each(|chunk| medium.discard(chunk.start, chunk.len))
}

fn zero(medium: &impl Medium, extent: Extent) -> io::Result<()> {
    chunks(extent).try_for_each(|chunk| medium.zero(chunk.start, chunk.len))
}

/// Zeroes the first MiB of an extent: TRIM leaves old bytes readable on some drives, and what begins or ends a partition says what
/// it holds.
fn blank_start(medium: &impl Medium, extent: Extent) -> io::Result<()> {
    medium.zero(extent.start, extent.len.min(MIB))
}

/// Zeroes the last MiB of an extent.
fn blank_end(medium: &impl Medium, extent: Extent) -> io::Result<()> {
    let len = extent.len.min(MIB);
    medium.zero(extent.end() - len, len)
}

/// An extent in pieces of at most [`CHUNK`] bytes.
pub(crate) fn chunks(extent: Extent) -> impl Iterator<Item = Extent> {
    (0..extent.len.div_ceil(CHUNK)).map(move |index| {
        let start = extent.start + index * CHUNK;
        Extent {
            start,
            len: CHUNK.min(extent.end() - start),
        }
    })
}
