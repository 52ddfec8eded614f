//! Which open unit a record goes to, how many units are ready, how many segments have to be free. No I/O.

use super::{Core, Placing, Stream};
use crate::evict::Marks;
use crate::space::{Cursor, State, span_for};
use crate::{MAX_VALUE, PAGE};

/// Evictions that the survivors' unit stays open for.
const LONGEST_OPEN: u32 = 32;

impl Core {
    fn stream(&mut self, stream: Stream) -> &mut Option<u32> {
        match stream {
            Stream::Fresh => &mut self.fresh,
            Stream::Survivors | Stream::Facts => &mut self.survivors,
        }
    }

    /// A place for `records` records of `bytes` together in a stream's open unit, or in one that is ready. Where one has
    /// to be opened first it says how many segments are wanted.
    pub(crate) fn place(&mut self, stream: Stream, bytes: u64, records: usize) -> Placing {
        self.typical = bytes.max(self.typical - self.typical / 64);
        let open = *self.stream(stream);
        if let Some(open) = open
            && let Some(place) = self.space.place(open, bytes, records)
        {
            return Placing::At(place);
        }
        let scarce = match stream {
            Stream::Survivors => self.free() < self.reserve(),
            // The last unit is eviction's: without it no other could be freed.
            Stream::Fresh => self.ready.len() < 2 && self.free() < self.usual_span(),
            Stream::Facts => false,
        };
        let fits = (!scarce)
            .then(|| {
                self.ready
                    .iter()
                    .position(|unit| self.space.has_room(*unit, bytes, records, true))
            })
            .flatten();
        let Some(fits) = fits else {
            if scarce && stream == Stream::Survivors {
                return Placing::Scarce;
            }
            let span = self.span(bytes);
            self.wanted = Some(self.wanted.unwrap_or(0).max(span));
            return Placing::Wait;
        };
        let next = self.ready.swap_remove(fits);
        let Some(place) = self.space.place(next, bytes, records) else {
            return Placing::Wait;
        };
        // Of two open units the one with more room goes on.
        let close = match open {
            Some(open) if self.room(open) > self.room(next) => next,
            Some(open) => {
                *self.stream(stream) = Some(next);
                open
            }
            None => {
                *self.stream(stream) = Some(next);
                return Placing::At(place);
            }
        };
        self.close(close);
        Placing::At(place)
    }

    fn room(&self, segment: u32) -> u64 {
        match &self.space.get(segment).state {
            State::Open(cursor) => self.space.unit_len(segment).saturating_sub(cursor.at),
            _ => 0,
        }
    }

    /// No record goes into a unit any more.
    pub(crate) fn close(&mut self, segment: u32) {
        let unit = self.space.get_mut(segment);
        if let State::Open(cursor) = &mut unit.state {
            let cursor = std::mem::take(cursor);
            unit.state = State::Closing(cursor);
        }
    }

    /// A unit was evicted. An open unit cannot be: the survivors' is closed after a while even if it is not full, or its
    /// blocks would never grow cold.
    pub(crate) fn evicted(&mut self) {
        self.survivors_age += 1;
        if self.survivors_age > LONGEST_OPEN
            && let Some(unit) = self.survivors.take()
        {
            self.close(unit);
        }
        if self.survivors.is_none() {
            self.survivors_age = 0;
        }
    }

    /// Closes every stream's unit and those that are ready.
    pub(crate) fn close_all(&mut self) {
        let mut units = std::mem::take(&mut self.ready);
        units.extend(self.fresh.take());
        units.extend(self.survivors.take());
        for unit in units {
            self.close(unit);
        }
    }

    /// Segments for a unit that holds records of `bytes`.
    pub(crate) fn span(&self, bytes: u64) -> u32 {
        let most = (self.space.layout.segments / 64).max(1);
        span_for(bytes, self.space.layout.segment_len, most)
    }

    /// Segments of the units that are opened ahead.
    pub(crate) fn usual_span(&self) -> u32 {
        self.span(
            self.typical
                .clamp(PAGE as u64, (MAX_VALUE + 2 * PAGE) as u64),
        )
    }

    /// Units that are kept ready.
    pub(crate) fn ready_target(&self) -> usize {
        let span = self.usual_span();
        let unit = u64::from(span) * self.space.layout.segment_len;
        let affordable = u64::from(self.space.layout.segments / (96 * span));
        ((64 << 20) / unit).min(affordable).clamp(1, 16) as usize
    }

    /// Segments that the next unit may have, the best first; empty where none is needed. `opening` are on their way.
    pub(crate) fn lengths(&self, opening: usize) -> Vec<u32> {
        let (usual, wanted) = (self.usual_span(), self.wanted.unwrap_or(0));
        let large = wanted > usual && self.ready(wanted) == 0 && opening == 0;
        if !large && self.ready(usual) + opening >= self.ready_target().max(usize::from(wanted > 0))
        {
            return Vec::new();
        }
        let mut lengths = vec![if large { wanted } else { usual }];
        // What makes room for a large one moves small ones, which must not wait for it.
        if large && self.ready(usual) == 0 {
            lengths.push(usual);
        }
        // Eviction's own must not wait for a row that only eviction makes free: facts fit any unit.
        if self.ready.is_empty() && opening == 0 {
            lengths.extend((1..usual).rev());
        }
        lengths
    }

    /// Ready units of at least `span` segments.
    pub(crate) fn ready(&self, span: u32) -> usize {
        self.ready
            .iter()
            .filter(|unit| self.space.get(**unit).span >= span)
            .count()
    }

    /// A unit's header is on the medium.
    pub(crate) fn opened(&mut self, segment: u32) {
        self.space.get_mut(segment).state = State::Open(Cursor {
            at: PAGE as u64,
            ..Cursor::default()
        });
        self.ready.push(segment);
    }

    /// Free segments that survivors do not take.
    pub(crate) fn reserve(&self) -> u32 {
        2 * self.usual_span()
    }

    /// Free segments that the usual units can be made of.
    pub(crate) fn free(&self) -> u32 {
        self.space.free_in_runs(self.usual_span())
    }

    /// Between how many free segments eviction works: the watermarks, but never so few that a handful of large blocks
    /// takes them all, nor so many that a small partition holds nothing.
    pub(crate) fn watermarks(&self) -> Marks {
        let (all, span) = (self.space.layout.segments, self.usual_span());
        let free = |used: u8| u32::from(100 - used.min(100)) * all / 100;
        let start = free(self.watermarks.high).max(4 * span).min(all / 4).max(3);
        let stop = free(self.watermarks.low)
            .max(start + 2 * span)
            .min(all / 3)
            .max(start + 1);
        Marks { start, stop }
    }

    /// Bytes that survivors may take now.
    pub(crate) fn room_for_survivors(&self) -> u64 {
        let open = self.survivors.map_or(0, |open| self.room(open));
        let free = self.free().saturating_sub(self.reserve());
        // Units are not filled to the last byte.
        open + u64::from(free) * self.space.layout.segment_len / 8 * 7
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admit::Governor;
    use crate::core::Watermarks;
    use crate::hash::Secret;
    use crate::layout::Layout;
    use crate::space::{Space, Use};

    const ONCE: Use = Use {
        generation: 1,
        nonce: 1,
    };

    /// A core of 128 segments of 1 MiB that has seen a record of 2 MiB, so that usual units have three segments.
    fn core() -> Core {
        let layout = Layout::new(0, (129 << 20) + 4096).unwrap();
        let marks = Watermarks { high: 95, low: 90 };
        let mut core = Core::new(
            Secret::fingerprint,
            Space::new(layout),
            Governor::new(None, 0),
            marks,
        );
        assert_eq!(
            core.place(Stream::Fresh, (2 << 20) + 4096, 1),
            Placing::Wait
        );
        assert_eq!(core.usual_span(), 3);
        core
    }

    #[test]
    fn where_no_row_is_free_a_shorter_unit_takes_what_eviction_carries() {
        let mut core = core();
        assert_eq!(core.lengths(0), [3, 2, 1]);
        // Every other segment is taken.
        for segment in (0..core.space.layout.segments).step_by(2) {
            core.space.claim(segment, 1, ONCE, State::Sealed);
        }
        assert_eq!(core.free(), 0);
        let taken = core
            .lengths(0)
            .into_iter()
            .find_map(|span| core.space.take(span, ONCE));
        core.opened(taken.unwrap());
        // One is enough, and puts leave it to eviction.
        assert_eq!(core.lengths(0), [3]);
        assert_eq!(core.place(Stream::Fresh, 4096, 1), Placing::Wait);
        assert_eq!(core.place(Stream::Survivors, 4096, 1), Placing::Scarce);
        assert!(matches!(
            core.place(Stream::Facts, 128 << 10, 1024),
            Placing::At(_)
        ));
    }
}
