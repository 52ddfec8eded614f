//! What comes next for an array that is only read, by as many nodes as like. Pure.
//!
//! md writes superblocks and bitmaps also of an array that is read-only, and gives up a leg that refuses that. So it is told of none: the array
//! is put together through sysfs with external metadata, from what the legs' superblocks say, which are read and checked here. The rules for
//! arrays that write hold here, too: from all legs that are in, or not at all. Later, legs may go and come back as they are: nobody writes.
//!
//! A mirror is put together as a raid5 of two, whose parity is the data. A raid1 that lost a leg and took it back without having written answers
//! with an error when the other one goes: for it, a leg that was not copied to does not count. A raid5 or raid6 asks each leg that has
//! the bytes (drivers/md/raid1.c, `raid1_end_read_request`; raid5.c, `analyse_stripe`).

use std::path::PathBuf;

use crate::members::{Members, missed};
use crate::plan::{Step, out, reached};
use crate::refusal::Refusal;
use crate::running::{MemberState, Running};
use crate::superblock::{Format, Superblock};
use crate::wanted::{Content, Level, Present, Seen, Standing, Wanted, kernel_name};

/// The kernel's number of raid5's usual order, `ALGORITHM_LEFT_SYMMETRIC`; with two legs all are the same.
const LEFT_SYMMETRIC: u32 = 2;

/// An array for reading, as md is told of it. Sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The kernel's name of the level.
    pub level: &'static str,
    /// Its number of the order within stripes.
    pub layout: u32,
    /// Of the array that lie together on one leg.
    pub chunk: u64,
    /// Places of legs.
    pub places: u32,
    /// Data on each leg; none for a stripe, where the legs say it.
    pub component: Option<u64>,
    /// Of the array, where that is less than what its legs have places for.
    pub size: Option<u64>,
    /// The legs.
    pub parts: Vec<Part>,
}

/// A leg in an array for reading. Sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its device.
    pub device: PathBuf,
    /// Its place in the array, which is not always that in the volume.
    pub slot: u32,
    /// Where its data begin.
    pub offset: u64,
    /// How many that are.
    pub data: u64,
}

/// Puts it together.
pub(crate) fn bring_up(wanted: &Wanted, seen: &Seen) -> Result<Vec<Step>, Refusal> {
    if !wanted.formed {
        return Err(Refusal::NotFormed);
    }
    let found = reached(wanted, seen)?;
    // What has missed writes is left out where the others are enough: all were seen, so it is known which ones are fresh.
    let Members {
        fresh,
        freshest,
        behind,
    } = Members::of(wanted, &found)?;
    if fresh.len() < wanted.level.needed(wanted.legs.len()) {
        return Err(Refusal::Behind(behind));
    }
    // Its legs may differ in what was being written, and whoever reads would have one or the other.
    if !fresh.iter().all(|(_, of)| of.clean) {
        return Err(Refusal::NotClean);
    }
    let mut parts: Vec<Part> = Vec::new();
    for (leg, of) in fresh {
        let present = seen.legs.get(leg.place).and_then(Option::as_ref);
        let part = present.and_then(|present| part(wanted, &leg.device, present, of, freshest));
        match part.filter(|part| parts.iter().all(|other| other.slot != part.slot)) {
            Some(part) => parts.push(part),
            None => return Err(Refusal::Misshapen { leg: leg.place }),
        }
    }
    Ok(vec![Step::Read(reading(wanted, freshest.format, parts))])
}

/// The leg as md is told of it; none where its superblock does not fit the volume's record, the freshest of the others, or its device.
fn part(
    wanted: &Wanted,
    device: &std::path::Path,
    present: &Present,
    of: &Superblock,
    freshest: &Superblock,
) -> Option<Part> {
    let (format, geometry) = (of.format, &wanted.geometry);
    let width = wanted.legs.len();
    let mirror = wanted.level == Level::Mirror;
    let slot = of.slot(of.number)?;
    let fits = format == freshest.format
        && format.plain
        && format.level == wanted.level.number()
        && usize::try_from(format.legs) == Ok(width)
        && format.data_offset == geometry.data_offset
        && (mirror || format.chunk == geometry.chunk)
        // With more, raid5 would be something else.
        && (!mirror || width == 2)
        && format.data > 0
        && format.data_offset.checked_add(format.data)? <= present.size
        && freshest.slot(of.number) == Some(slot)
        && slot < format.legs;
    fits.then(|| Part {
        device: device.to_path_buf(),
        slot,
        offset: format.data_offset,
        data: data(wanted, format),
    })
}

/// Data on a leg, as md is told of it: a raid5 has whole chunks, of which nobody reads what the legs do not have.
fn data(wanted: &Wanted, format: Format) -> u64 {
    match wanted.level {
        Level::Mirror => format.data.next_multiple_of(wanted.geometry.chunk.max(1)),
        Level::Stripe | Level::Raid6 => format.data,
    }
}

fn reading(wanted: &Wanted, format: Format, parts: Vec<Part>) -> Reading {
    let data = data(wanted, format);
    let (layout, component, size) = match wanted.level {
        Level::Stripe => (format.layout, None, None),
        Level::Mirror => (LEFT_SYMMETRIC, Some(data), Some(format.data)),
        Level::Raid6 => (format.layout, Some(data), None),
    };
    Reading {
        level: wanted.level.reading(),
        layout,
        chunk: wanted.geometry.chunk,
        places: format.legs,
        component,
        size,
        parts,
    }
}

/// Sees to one that runs: lets go of legs whose devices are gone or that do not count any more, and takes in again those that are back.
pub(crate) fn tend(wanted: &Wanted, seen: &Seen, array: &Running) -> Vec<Step> {
    if wanted.level == Level::Stripe {
        return Vec::new();
    }
    let counting: Vec<(&PathBuf, Option<&Present>)> = wanted
        .legs
        .iter()
        .zip(seen.legs.iter().map(Option::as_ref))
        .filter(|(leg, _)| leg.standing == Standing::In)
        .filter_map(|(leg, present)| Some((leg.device.as_ref()?, present)))
        .collect();
    let mut legs = wanted.legs.iter();
    let all_known = legs.all(|leg| leg.standing != Standing::In || leg.device.is_some());
    let leaves = array.members.iter().filter(|member| {
        let known = counting
            .iter()
            .any(|(device, _)| kernel_name(device) == member.name);
        // Half taken in, by an agent that was killed.
        let half = member.state == MemberState::Behind;
        half || member.gone || !known && (all_known || member.state == MemberState::Faulty)
    });
    let leaves: Vec<Step> = leaves
        .map(|member| match member.state {
            MemberState::Behind => Step::Remove(member.name.clone()),
            state => out(&member.name, state),
        })
        .collect();
    if !leaves.is_empty() {
        return leaves;
    }
    let superblock = |present: Option<&Present>| match present?.content.as_ref()? {
        Content::Member(of) if of.array == wanted.array => Some(of.clone()),
        _ => None,
    };
    let (inside, apart): (Vec<_>, Vec<_>) = counting
        .into_iter()
        .partition(|(device, _)| array.member(&kernel_name(device)).is_some());
    let inside = inside
        .into_iter()
        .filter_map(|(_, present)| superblock(present));
    let Some(freshest) = inside.max_by_key(|of| of.events) else {
        return Vec::new();
    };
    let back = apart.into_iter().filter_map(|(device, present)| {
        let of = superblock(present)?;
        // The kernel takes no device that refuses writes into an array that runs: such a leg waits until it is put together anew.
        let fits = !present?.read_only && of.clean && !missed(&of, &freshest);
        part(wanted, device, present?, &of, &freshest).filter(|_| fits)
    });
    back.map(Step::TakeIn).collect()
}

#[cfg(test)]
mod tests;
