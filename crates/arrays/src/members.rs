//! Which of an array's legs hold all of it, by what their superblocks say. Pure.

use crate::plan::Found;
use crate::refusal::Refusal;
use crate::superblock::Superblock;
use crate::wanted::{Content, Wanted};

/// The legs that were reached, told apart.
pub(crate) struct Members<'a> {
    /// Those that hold all of it, with their superblocks.
    pub(crate) fresh: Vec<(&'a Found<'a>, &'a Superblock)>,
    /// The superblock of the one that was written last.
    pub(crate) freshest: &'a Superblock,
    /// Places of those that have missed writes, and of blank ones, in order.
    pub(crate) behind: Vec<usize>,
}

impl<'a> Members<'a> {
    /// # Errors
    /// [`Refusal::Foreign`]; [`Refusal::Behind`] where none of them is the array's.
    pub(crate) fn of(wanted: &Wanted, found: &'a [Found<'a>]) -> Result<Self, Refusal> {
        let mut members = Vec::new();
        let mut behind = Vec::new();
        for leg in found {
            match leg.content {
                Content::Member(of) if of.array == wanted.array => members.push((leg, of)),
                Content::Blank => behind.push(leg.place),
                Content::Member(_) | Content::Other => {
                    return Err(Refusal::Foreign { leg: leg.place });
                }
            }
        }
        let freshest = members.iter().map(|(_, of)| *of).max_by_key(|of| of.events);
        let Some(freshest) = freshest else {
            return Err(Refusal::Behind(behind));
        };
        let (stale, fresh): (Vec<_>, Vec<_>) = members
            .into_iter()
            .partition(|(_, of)| missed(of, freshest));
        behind.extend(stale.iter().map(|(leg, _)| leg.place));
        behind.sort_unstable();
        Ok(Self {
            fresh,
            freshest,
            behind,
        })
    }
}

/// Whether a leg has missed writes that the freshest one has. One event less is what a crash in the middle of writing superblocks leaves;
/// mdadm goes by the same.
pub(crate) fn missed(of: &Superblock, freshest: &Superblock) -> bool {
    let counts = freshest.slot(of.number).is_some();
    of.events.saturating_add(1) < freshest.events || of.recovering || !counts
}
