//! The segments of one partition: what each holds, who reads or writes it, which are free. No I/O.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::PAGE;
use crate::evict::{Candidate, Occupant};
use crate::layout::Layout;
use crate::record::UNIT;
use crate::segment::{Item, footer_len};

/// What a segment is.
#[derive(Clone, Debug)]
pub(crate) enum State {
    /// Its header on the medium is retired or was never written, and that is flushed.
    Free,
    /// It is free as soon as the drive has been told so.
    Trimming,
    /// Its header is being written.
    Opening,
    /// Records go into it.
    Open(Cursor),
    /// No record goes into it any more; its footer is on its way.
    Closing(Cursor),
    /// Its footer is on the medium.
    Sealed,
    /// It is being evicted.
    Leaving,
    /// Its header says retired; it is free once that is flushed and its readers are gone.
    Retired {
        /// The retired header is on stable media.
        flushed: bool,
    },
    /// Part of the unit that starts before it.
    Member,
}

/// How far an open unit is filled.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cursor {
    /// Next free byte of the unit.
    pub(crate) at: u64,
    /// Records that were given a place.
    pub(crate) placed: usize,
    /// Records that are whole, in the order in which they came to be so.
    pub(crate) items: Vec<Item>,
}

/// One segment; for the first of a unit, the unit.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) state: State,
    /// Sequence at which it was opened.
    pub(crate) generation: u64,
    pub(crate) nonce: u64,
    pub(crate) span: u32,
    /// Reads under way.
    pub(crate) readers: u32,
    /// Writes under way.
    pub(crate) writers: u32,
    /// Live blocks, their bytes, the sum of their last accesses.
    pub(crate) blocks: u32,
    pub(crate) live: u64,
    pub(crate) access: u64,
    /// Live bytes of each owner.
    pub(crate) owners: BTreeMap<u16, u64>,
    /// The tick at which what was worth it was moved elsewhere. What is left is read until the segment is needed.
    pub(crate) thinned: Option<u32>,
    /// The drive still keeps what was in it, and nobody needs it.
    pub(crate) stale: bool,
    /// Eviction was tried in vain; not again before this millisecond.
    pub(crate) not_before: u64,
}

/// What tells one use of a segment from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Use {
    /// Sequence at which the unit was opened.
    pub(crate) generation: u64,
    /// Random: a sequence that a power cut took back is given again, a nonce is not.
    pub(crate) nonce: u64,
}

/// A place for records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) segment: u32,
    pub(crate) nonce: u64,
    /// Bytes from the unit's start.
    pub(crate) offset: u64,
}

/// All segments.
pub(crate) struct Space {
    pub(crate) layout: Layout,
    segments: Vec<Segment>,
    free: u32,
    /// Where the search for free segments goes on: wear is spread, and a segment rests as long as possible.
    hand: u32,
}

impl Space {
    pub(crate) fn new(layout: Layout) -> Space {
        let empty = Segment {
            state: State::Free,
            generation: 0,
            nonce: 0,
            span: 1,
            readers: 0,
            writers: 0,
            blocks: 0,
            live: 0,
            access: 0,
            owners: BTreeMap::new(),
            thinned: None,
            stale: false,
            not_before: 0,
        };
        Space {
            layout,
            segments: vec![empty; layout.segments as usize],
            free: layout.segments,
            hand: 0,
        }
    }

    pub(crate) fn get(&self, segment: u32) -> &Segment {
        &self.segments[segment as usize]
    }

    pub(crate) fn get_mut(&mut self, segment: u32) -> &mut Segment {
        &mut self.segments[segment as usize]
    }

    /// Free segments.
    pub(crate) fn free(&self) -> u32 {
        self.free
    }

    /// Segments of all units.
    pub(crate) fn units(&self) -> impl Iterator<Item = (u32, &Segment)> {
        self.segments
            .iter()
            .enumerate()
            .filter(|(_, segment)| !matches!(segment.state, State::Member))
            .map(|(number, segment)| (number as u32, segment))
    }

    /// Bytes of a unit.
    pub(crate) fn unit_len(&self, segment: u32) -> u64 {
        u64::from(self.get(segment).span) * self.layout.segment_len
    }

    /// Takes `span` adjacent free segments for a new unit.
    pub(crate) fn take(&mut self, span: u32, once: Use) -> Option<u32> {
        let count = self.segments.len() as u32;
        let fits = |first: u32| {
            first + span <= count
                && (first..first + span)
                    .all(|one| matches!(self.segments[one as usize].state, State::Free))
        };
        let first = (0..count)
            .map(|step| (self.hand + step) % count)
            .find(|first| fits(*first))?;
        self.claim(first, span, once, State::Opening);
        self.hand = (first + span) % count;
        Some(first)
    }

    /// Makes free segments a unit.
    pub(crate) fn claim(&mut self, first: u32, span: u32, once: Use, state: State) {
        for member in first + 1..first + span {
            self.segments[member as usize].state = State::Member;
        }
        let unit = &mut self.segments[first as usize];
        unit.state = state;
        (unit.generation, unit.nonce) = (once.generation, once.nonce);
        unit.span = span;
        (unit.blocks, unit.live, unit.access, unit.not_before) = (0, 0, 0, 0);
        unit.owners.clear();
        unit.thinned = None;
        self.free -= span;
    }

    /// Gives a unit's segments back.
    pub(crate) fn release(&mut self, first: u32) {
        let span = self.get(first).span;
        for member in first..first + span {
            let segment = &mut self.segments[member as usize];
            segment.state = State::Free;
            segment.span = 1;
            segment.stale = true;
        }
        self.free += span;
    }

    /// The drive may still keep what was in a retired unit.
    pub(crate) fn mark_stale(&mut self, first: u32, span: u32) {
        for segment in first..first + span {
            self.segments[segment as usize].stale = true;
        }
    }

    /// Up to `most` free neighbours that can be TRIMmed, as far from being used again as there are.
    pub(crate) fn stale(&self, most: u32) -> Option<Range<u32>> {
        let count = self.segments.len() as u32;
        let stale = |segment: u32| {
            let segment = &self.segments[segment as usize];
            segment.stale && matches!(segment.state, State::Free)
        };
        // The search for free segments goes upwards from the hand: what lies below it comes last.
        let last = (1..=count)
            .map(|step| (self.hand + count - step) % count)
            .find(|segment| stale(*segment))?;
        let first = (0..most)
            .map_while(|step| last.checked_sub(step).filter(|segment| stale(*segment)))
            .last()?;
        Some(first..last + 1)
    }

    /// Free segments are being TRIMmed.
    pub(crate) fn trimming(&mut self, run: Range<u32>) {
        self.free -= run.end - run.start;
        for segment in run {
            self.segments[segment as usize].state = State::Trimming;
        }
    }

    /// They are free again.
    pub(crate) fn trimmed(&mut self, run: Range<u32>) {
        self.free += run.end - run.start;
        for segment in run {
            let segment = &mut self.segments[segment as usize];
            (segment.state, segment.stale) = (State::Free, false);
        }
    }

    /// Whether an open unit has room for `records` more records of `bytes` together, with the footer that lists them.
    pub(crate) fn has_room(&self, segment: u32, bytes: u64, records: usize, page: bool) -> bool {
        let State::Open(cursor) = &self.get(segment).state else {
            return false;
        };
        let at = if page {
            cursor.at.next_multiple_of(PAGE as u64)
        } else {
            cursor.at
        };
        let footer = footer_len(cursor.placed + records) as u64;
        at + bytes + footer <= self.unit_len(segment)
    }

    /// A place for `records` records of `bytes` together, starting on a page; the unit has one more writer.
    pub(crate) fn place(&mut self, segment: u32, bytes: u64, records: usize) -> Option<Place> {
        if !self.has_room(segment, bytes, records, true) {
            return None;
        }
        let unit = self.get_mut(segment);
        let nonce = unit.nonce;
        let State::Open(cursor) = &mut unit.state else {
            return None;
        };
        let offset = cursor.at.next_multiple_of(PAGE as u64);
        cursor.at = offset + bytes;
        cursor.placed += records;
        unit.writers += 1;
        Some(Place {
            segment,
            nonce,
            offset,
        })
    }

    /// Segments that are free as soon as a flush says so.
    pub(crate) fn retired(&self) -> u32 {
        self.units()
            .filter(|(_, unit)| matches!(unit.state, State::Retired { .. }) && unit.readers == 0)
            .map(|(_, unit)| unit.span)
            .sum()
    }

    /// Segments of units that are thinned out.
    pub(crate) fn thinned(&self) -> u32 {
        self.units()
            .filter(|(_, unit)| unit.thinned.is_some() && matches!(unit.state, State::Sealed))
            .map(|(_, unit)| unit.span)
            .sum()
    }

    /// Free segments in runs that units of `span` segments can be made of.
    pub(crate) fn free_in_runs(&self, span: u32) -> u32 {
        let (mut run, mut sum) = (0, 0);
        for segment in &self.segments {
            run = match segment.state {
                State::Free => run + 1,
                _ => 0,
            };
            if run == span {
                (run, sum) = (0, sum + span);
            }
        }
        sum
    }

    /// Full units that hold no block any more and may go.
    pub(crate) fn empty(&self, now: u64) -> usize {
        let empty = |unit: &Segment| {
            matches!(unit.state, State::Sealed) && unit.blocks == 0 && unit.not_before <= now
        };
        self.units().filter(|(_, unit)| empty(unit)).count()
    }

    /// The segments as eviction sees them, with blocks of the `sheltered` owners protected.
    pub(crate) fn candidates(&self, now: u64, sheltered: &[u16]) -> Vec<Candidate> {
        let protected = |unit: &Segment| {
            let owned = unit.owners.iter();
            let sheltered = owned.filter(|(owner, _)| sheltered.binary_search(owner).is_ok());
            sheltered.map(|(_, bytes)| bytes).sum()
        };
        self.units()
            .map(|(segment, unit)| Candidate {
                segment,
                span: unit.span,
                what: match unit.state {
                    State::Free => Occupant::Free,
                    State::Sealed if unit.not_before <= now => Occupant::Sealed {
                        access: unit.access,
                        blocks: unit.blocks,
                        live: unit.live,
                        protected: protected(unit),
                        generation: unit.generation,
                        thinned: unit.thinned.is_some(),
                    },
                    _ => Occupant::Fixed,
                },
            })
            .collect()
    }

    /// Whether any unit but `except` may hold records older than `sequence`, also after a power cut.
    pub(crate) fn has_older(&self, sequence: u64, except: u32) -> bool {
        self.units().any(|(segment, unit)| {
            segment != except
                && unit.generation < sequence
                && !matches!(
                    unit.state,
                    State::Free
                        | State::Trimming
                        | State::Opening
                        | State::Retired { flushed: true }
                )
        })
    }
}

/// Segments for a unit in which records of `footprint` bytes waste no more than an eighth, or as few as hold one.
pub(crate) fn span_for(footprint: u64, segment_len: u64, most: u32) -> u32 {
    let fixed = (PAGE + footer_len(1)) as u64;
    let fewest = (footprint + fixed).div_ceil(segment_len) as u32;
    (fewest..=most.max(fewest))
        .find(|span| {
            let unit = u64::from(*span) * segment_len;
            let records = (unit - fixed) / footprint.max(UNIT as u64);
            records * footprint * 8 >= unit * 7
        })
        .unwrap_or(fewest)
}
