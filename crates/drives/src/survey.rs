//! Whether a drive reads as blank, and a digest of what was read, by which a change shows.

use std::hash::{DefaultHasher, Hasher};
use std::io;

use strand_placement::carve::MIB;
use strand_placement::verdict::Content;

use crate::medium::Medium;

/// Bytes that are read at each end of a drive.
const END: u64 = 16 * MIB;
/// Samples between, one at a random place in each of as many equal stretches.
const SAMPLES: u64 = 1000;
/// Bytes of a sample.
const SAMPLE: u64 = 4096;
/// Bytes read at once.
const STEP: u64 = MIB;

/// What deallocated blocks read as (NVM command set specification, DLFEAT bits 2:0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deallocated {
    /// All zeroes, or not told: then only zeroes are blank.
    Zeroes,
    /// All ones.
    Ones,
}

/// What a survey found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Survey {
    pub(crate) content: Content,
    pub(crate) digest: u64,
}

/// Reads the first and last 16 MiB and 1,000 samples between. `salt` chooses where the samples lie: surveys that are to be compared
/// have the same.
pub(crate) fn survey(
    medium: &impl Medium,
    deallocated: Deallocated,
    salt: u64,
) -> io::Result<Survey> {
    let mut hasher = DefaultHasher::new();
    let mut first = None;
    let mut buffer = vec![0; STEP as usize];
    for (at, len) in places(medium.size(), salt) {
        let piece = &mut buffer[..len as usize];
        medium.read_at(piece, at)?;
        if let Some(inside) = data_in(piece, deallocated) {
            hasher.write_u64(at);
            hasher.write(piece);
            first.get_or_insert(at + inside as u64);
        }
    }
    let content = first.map_or(Content::Blank, |at| Content::NotBlank { at });
    Ok(Survey {
        content,
        digest: hasher.finish(),
    })
}

/// Where a drive of this size is read, in ascending order: offset and length.
fn places(size: u64, salt: u64) -> impl Iterator<Item = (u64, u64)> {
    let head = END.min(size);
    let tail = size.saturating_sub(END).max(head);
    let stretch = (tail - head) / SAMPLES;
    let samples = (0..if stretch >= SAMPLE { SAMPLES } else { 0 }).map(move |index| {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(salt);
        hasher.write_u64(index);
        let within = hasher.finish() % (stretch - SAMPLE + 1);
        (head + index * stretch + within / 512 * 512, SAMPLE)
    });
    // Too small for samples that do not overlap: what lies between is read whole.
    let between = if stretch >= SAMPLE {
        steps(head, head)
    } else {
        steps(head, tail)
    };
    steps(0, head)
        .chain(between)
        .chain(samples)
        .chain(steps(tail, size))
}

fn steps(from: u64, until: u64) -> impl Iterator<Item = (u64, u64)> {
    (from..until)
        .step_by(STEP as usize)
        .map(move |at| (at, STEP.min(until - at)))
}

/// The first byte that is not blank. A logical block is blank when all of it reads alike, as a deallocated one does.
fn data_in(piece: &[u8], deallocated: Deallocated) -> Option<usize> {
    if is_zero(piece) {
        return None;
    }
    piece.chunks(512).enumerate().find_map(|(index, block)| {
        let blank = is_zero(block)
            || (deallocated == Deallocated::Ones && block.iter().all(|byte| *byte == 0xFF));
        let inside = block.iter().position(|byte| *byte != 0).unwrap_or(0);
        (!blank).then_some(index * 512 + inside)
    })
}

/// Whether all bytes are zero, as one comparison of memory: drives are mostly that.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    static ZEROES: [u8; 64 << 10] = [0; 64 << 10];
    bytes
        .chunks(ZEROES.len())
        .all(|chunk| *chunk == ZEROES[..chunk.len()])
}
