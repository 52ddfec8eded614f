//! Makes room: carries out what `evict` decides, several victims at a time, while free segments are scarce.
//!
//! The order makes each step safe to stop at. Survivors (`relocate`) and facts that must outlive a unit are written
//! elsewhere and flushed; then the unit's header says that it is retired; then the index forgets what is left in it
//! (`retire`). Once its readers are gone and the retired header is flushed, it is free. So nothing that was
//! deleted can come back: a fact is let go only when no older unit is left, on stable media too. One flush serves all
//! victims of a round.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::evict::{AHEAD, Effort, Occupant, choose_victims, effort, floor, is_crowded};
use crate::relocate::Moved;
use crate::segment::Item;
use crate::space::State;
use crate::store::Shared;
use crate::victim::{Victim, suppressing};

/// How long the task sleeps at most, and how many milliseconds a unit that could not be evicted rests.
const PACE: Duration = Duration::from_millis(250);
const REST: u64 = 200;

/// Share of the partition that carried facts may take before the oldest unit goes first.
const CARRIED: u64 = 64;

/// Units that hold nothing any more, of which so many go in one round while blocks are put.
const TOGETHER: usize = 8;

/// Runs until the store is closed.
pub(crate) fn spawn(shared: &Arc<Shared>) {
    let shared = Arc::clone(shared);
    shared.tasks.send_modify(|left| *left += 1);
    tokio::spawn(async move {
        let mut tempo = Tempo::new();
        while !shared.core().closed {
            shared.purge_flushed();
            shared.make_room(&mut tempo).await;
            // Whether woken or not, the next round looks at everything.
            let _woken = tokio::time::timeout(PACE, shared.room.notified()).await;
        }
        shared.tasks.send_modify(|left| *left -= 1);
    });
}

/// What a round is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aim {
    /// Move what is worth it, and leave the rest where it is read.
    Thin,
    /// Make segments free.
    Free,
    /// Make those free that hold nothing any more.
    Clear,
}

/// What a round goes by.
struct Round {
    aim: Aim,
    effort: Effort,
    /// Segments that shall come free in a row: as few as help anybody, and as many as are wanted.
    run: (u32, u32),
    /// Owners whose blocks do not make room.
    sheltered: Vec<u16>,
    /// Bytes that each of the others can lose until it is sheltered; empty where nobody ever is.
    above: HashMap<u16, u64>,
}

/// What one round leaves for the next.
struct Tempo {
    thinning: bool,
    freeing: bool,
    /// Segments that puts take in [`AHEAD`], and what that was reckoned from.
    demand: u32,
    since: Instant,
    taken: u64,
}

impl Tempo {
    fn new() -> Tempo {
        Tempo {
            thinning: false,
            freeing: false,
            demand: 0,
            since: Instant::now(),
            taken: 0,
        }
    }

    /// Takes note of how many segments were taken so far. Demand grows at once and falls by half at a time.
    fn note(&mut self, taken: u64) {
        let new = u32::try_from(taken - self.taken).unwrap_or(u32::MAX);
        self.demand = self.demand.max(new);
        if self.since.elapsed() >= AHEAD {
            let passed = self.since.elapsed().as_secs_f64() / AHEAD.as_secs_f64();
            let now = (f64::from(new) / passed) as u32;
            self.demand = now.max(self.demand / 2);
            (self.since, self.taken) = (Instant::now(), taken);
        }
    }
}

impl Shared {
    /// Drops what the index still says about flushed namespaces.
    fn purge_flushed(&self) {
        let slots = self.core().namespaces.flushed_slots();
        if slots.is_empty() {
            return;
        }
        let shards = self.core().index.shards();
        for shard in 0..shards {
            let mut core = self.core();
            let gone: Vec<_> = core
                .index
                .shard(shard)
                .filter(|(_, entry)| slots.contains(&entry.owner))
                .map(|(fingerprint, _)| fingerprint)
                .collect();
            for fingerprint in gone {
                core.remove(fingerprint);
            }
        }
        self.core().namespaces.free_slots(&slots);
    }

    /// Evicts until enough segments are free, or nothing more can go.
    async fn make_room(self: &Arc<Self>, tempo: &mut Tempo) {
        loop {
            let round = self.next_round(tempo);
            // What is on its way out needs a flush; the next round's serves as well, unless somebody waits.
            let hurry = round.as_ref().is_none_or(|round| round.effort.urgent);
            self.free_retired(hurry).await;
            let Some(round) = round else { return };
            if self.core().closed || !self.evict(round).await {
                self.free_retired(true).await;
                return;
            }
        }
    }

    /// What the next round has to do, if anything.
    fn next_round(&self, tempo: &mut Tempo) -> Option<Round> {
        let core = self.core();
        let (free, usual) = (core.free(), core.usual_span());
        let wanted = core.wanted.filter(|run| core.ready(*run) == 0);
        tempo.note(core.taken);
        let marks = core.watermarks();
        let coming = core.space.retired();
        let floor = floor(tempo.demand, usual, marks);
        // A put that waits is no demand that was seen yet, and what is free may not lie in a row.
        let in_a_row = wanted.is_none_or(|run| core.space.free_in_runs(run) > 0);
        let need = effort(free, coming, floor, &mut tempo.freeing)
            .or_else(|| (!in_a_row).then_some(Effort::LEAST));
        let ahead = effort(
            free + core.space.thinned(),
            coming,
            marks,
            &mut tempo.thinning,
        );
        let (aim, effort) = match (need, ahead) {
            (Some(need), _) => (Aim::Free, need),
            (None, Some(ahead)) => (Aim::Thin, ahead),
            // Each round costs two flushes: where units die one after the other, they go together.
            (None, None) => {
                let empty = core.space.empty(self.now().millis);
                if empty == 0 || (empty < TOGETHER && tempo.demand > 0) {
                    return None;
                }
                (Aim::Clear, Effort::clear(empty))
            }
        };
        Some(Round {
            aim,
            effort,
            run: match (aim, wanted) {
                (Aim::Clear, _) => (1, 1),
                // Somebody waits for a row of just that length.
                (_, Some(wanted)) if wanted > usual => (wanted, wanted),
                _ => (1, usual),
            },
            sheltered: core.namespaces.below_share(core.live_bytes),
            above: core.namespaces.above_shelter(core.live_bytes),
        })
    }

    /// One round: whether anything came of it.
    async fn evict(self: &Arc<Self>, round: Round) -> bool {
        let now = self.now();
        let (candidates, segment_len, oldest) = {
            let core = self.core();
            let oldest = core.carried > core.space.layout.capacity() / CARRIED;
            let mut candidates = core.space.candidates(now.millis, &round.sheltered);
            for one in &mut candidates {
                let Occupant::Sealed {
                    thinned,
                    blocks,
                    protected,
                    ..
                } = one.what
                else {
                    continue;
                };
                let stays = match round.aim {
                    // What is sheltered goes only where nothing else can, which is not so while this is done ahead.
                    Aim::Thin => {
                        let len = u64::from(one.span) * core.space.layout.segment_len;
                        thinned || is_crowded(protected, len)
                    }
                    Aim::Clear => blocks > 0,
                    Aim::Free => false,
                };
                if stays {
                    one.what = Occupant::Fixed;
                }
            }
            (candidates, core.space.layout.segment_len, oldest)
        };
        let mut chosen = choose_victims(
            &candidates,
            round.run,
            segment_len,
            oldest,
            round.effort.victims,
        );
        self.leave_shares(&mut chosen, round.above);
        {
            let mut core = self.core();
            for segment in &chosen {
                core.space.get_mut(*segment).state = State::Leaving;
            }
        }
        let tick = self.core().tick();
        let mut victims = self.plan_all(chosen, &round.sheltered).await;
        self.spare_what_has_no_room(&mut victims);
        if round.aim == Aim::Thin {
            return self.thin(victims, round.effort, tick).await;
        }
        self.move_all(&mut victims, round.effort).await;
        let carried = self.carry_facts(&victims).await;
        // The flush also covers the retired headers of earlier victims.
        let flushed = self.flush_retired().await;
        let (gone, stay): (Vec<_>, Vec<_>) = (victims.into_iter())
            .partition(|one| flushed && !one.stuck && (carried || one.facts.is_empty()));
        for victim in stay {
            self.spare(victim.segment, now.millis + REST);
        }
        let mut retiring = JoinSet::new();
        for victim in gone {
            let shared = Arc::clone(self);
            retiring.spawn(async move {
                let gone = shared.retire(&victim).await;
                if !gone {
                    shared.spare(victim.segment, now.millis + REST);
                }
                gone
            });
        }
        let mut progress = false;
        while let Some(gone) = retiring.join_next().await {
            progress |= gone.unwrap_or(false);
        }
        progress
    }

    /// Keeps as many of the victims, in order, as leave every namespace what shelters it, but the first in any case.
    fn leave_shares(&self, victims: &mut Vec<u32>, mut left: HashMap<u16, u64>) {
        let core = self.core();
        let mut can_go = |(owner, bytes): (&u16, &u64)| match left.get_mut(owner) {
            Some(left) if *left < *bytes => false,
            Some(left) => {
                *left -= *bytes;
                true
            }
            // What is sheltered is moved elsewhere.
            None => true,
        };
        let fit = victims
            .iter()
            .take_while(|segment| core.space.get(**segment).owners.iter().all(&mut can_go))
            .count();
        victims.truncate(fit.max(1));
    }

    /// Moves what is worth it; whether there was a unit to do so with.
    async fn thin(self: &Arc<Self>, mut victims: Vec<Victim>, effort: Effort, tick: u32) -> bool {
        self.move_all(&mut victims, effort).await;
        let mut core = self.core();
        for victim in &victims {
            let unit = core.space.get_mut(victim.segment);
            unit.state = State::Sealed;
            unit.thinned = Some(tick);
        }
        !victims.is_empty()
    }

    /// Leaves a unit alone until `not_before`.
    pub(crate) fn spare(&self, segment: u32, not_before: u64) {
        let mut core = self.core();
        let unit = core.space.get_mut(segment);
        unit.state = State::Sealed;
        unit.not_before = not_before;
    }

    /// Moves the blocks that stay, so many bytes at a time.
    async fn move_all(self: &Arc<Self>, victims: &mut [Victim], effort: Effort) {
        let mut moving = JoinSet::new();
        let (mut flying, mut full) = (0, false);
        let mut queue = Vec::new();
        for (number, victim) in victims.iter_mut().enumerate() {
            let keep = std::mem::take(&mut victim.keep);
            queue.extend(keep.into_iter().map(|keep| (number, victim.segment, keep)));
        }
        let mut queue = queue.into_iter().peekable();
        loop {
            while let Some((number, segment, keep)) = queue.next_if(|(_, _, keep)| {
                flying == 0 || flying + keep.bytes <= effort.bytes || (full && !keep.held)
            }) {
                // Where one that may go found no room, others that may go find none either.
                if full && !keep.held {
                    self.leave_behind(&mut victims[number], &keep.item);
                    continue;
                }
                flying += keep.bytes;
                let shared = Arc::clone(self);
                moving.spawn(async move {
                    let moved = shared.relocate(segment, &keep.item, effort.urgent).await;
                    (number, keep, moved)
                });
            }
            let Some(done) = moving.join_next().await else {
                return;
            };
            let Ok((number, keep, moved)) = done else {
                // A task that broke off has moved nothing; the count is right again when all are done.
                continue;
            };
            flying -= keep.bytes;
            if moved == Moved::NoRoom {
                full = true;
                victims[number].stuck |= keep.held;
            }
            if moved != Moved::Here {
                self.leave_behind(&mut victims[number], &keep.item);
            }
        }
    }

    /// A block that was to stay goes with its unit after all: older ones of its key must not come back for it.
    fn leave_behind(&self, victim: &mut Victim, item: &Item) {
        let core = self.core();
        if item.replaces && core.space.has_older(item.sequence, victim.segment) {
            victim.facts.push(suppressing(&core, victim.segment, item));
        }
    }
}
