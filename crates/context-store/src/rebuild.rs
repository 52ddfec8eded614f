//! The index, from all records that were read back. No I/O.

use crate::core::{Core, entry_of};
use crate::expiry::Now;
use crate::recency::Recency;
use crate::record::Kind;
use crate::segment::Item;
use crate::units::Unit;

/// A record, and the unit that it was found in.
#[derive(Clone, Copy)]
struct Sighting {
    item: Item,
    segment: u32,
    generation: u64,
}

/// What all records of one key come to.
struct Resolved {
    /// The value that the key has, with the expiry that it has by now.
    value: Option<Sighting>,
    /// The newest value that another one supersedes without knowing of it: it needs a tombstone of this sequence.
    forgotten: Option<Item>,
}

/// Resolves the records of one key: the newest sequence counts, and of two copies of one record the younger unit's, which
/// is the survivor. Pure.
fn resolve(records: &[Sighting]) -> Resolved {
    let values = || records.iter().filter(|one| one.item.kind == Kind::Value);
    let newest = values().max_by_key(|one| (one.item.sequence, one.generation));
    let Some(mut value) = newest.copied() else {
        return Resolved {
            value: None,
            forgotten: None,
        };
    };
    let sequence = value.item.sequence;
    let forgotten = values()
        .filter(|one| one.item.sequence < sequence && !value.item.replaces)
        .max_by_key(|one| one.item.sequence)
        .map(|one| one.item);
    let facts = |kind| {
        records
            .iter()
            .filter(move |one| one.item.kind == kind && one.item.sequence >= sequence)
            .max_by_key(|one| one.item.sequence)
    };
    if let Some(last) = facts(Kind::Expire) {
        value.item.expiry = last.item.expiry;
    }
    let deleted = facts(Kind::Tombstone).is_some();
    Resolved {
        value: (!deleted).then_some(value),
        forgotten,
    }
}

/// Fills the index from all units' records. What it gives back are tombstones for older records whose newer ones do not
/// know of them.
pub(crate) fn rebuild(
    core: &mut Core,
    units: Vec<Unit>,
    recency: Option<&Recency>,
    now: Now,
) -> Vec<Item> {
    let many = units.iter().map(|unit| unit.items.len()).sum();
    let mut all: Vec<Sighting> = Vec::with_capacity(many);
    for unit in units {
        let (segment, generation) = (unit.header.segment, unit.header.generation);
        all.extend(unit.items.into_iter().map(|item| Sighting {
            item,
            segment,
            generation,
        }));
    }
    let mut highest = core.sequence();
    for one in &all {
        highest = highest.max(one.item.sequence);
        if one.item.kind == Kind::Flush {
            core.namespaces.flush(one.item.namespace, one.item.sequence);
        }
    }
    // Accesses are not in the log: without a picture of them blocks are as old as their records.
    let access =
        |print, sequence| recency.map_or(sequence, |recency| recency.access(print, sequence));
    let latest = recency.map_or(highest, |recency| {
        u64::from(recency.tick) + highest.saturating_sub(recency.sequence)
    });
    let shift = (64 - latest.leading_zeros()).saturating_sub(31);
    // In the order of the index, so that every insertion is at a shard's end.
    all.sort_unstable_by_key(|one| one.item.fingerprint);
    let mut forgotten = Vec::new();
    for records in all.chunk_by(|one, other| one.item.fingerprint == other.item.fingerprint) {
        let resolved = resolve(records);
        forgotten.extend(resolved.forgotten);
        let Some(Sighting { item, segment, .. }) = resolved.value else {
            continue;
        };
        let flushed = core.namespaces.was_flushed(item.namespace, item.sequence);
        if flushed || now.is_past(item.expiry) || item.len == 0 {
            continue;
        }
        let Some(owner) = core.namespaces.slot(item.namespace) else {
            continue;
        };
        let access = (access(item.fingerprint, item.sequence) >> shift) as u32;
        core.insert(item.fingerprint, &entry_of(&item, segment, owner, access));
    }
    core.resume(highest + 1, (latest >> shift) as u32 + 1);
    forgotten
}
