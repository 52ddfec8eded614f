//! What comes next for an array. Pure.
//!
//! Three rules keep bytes that were acknowledged from being lost:
//! - An array is put together from all legs that are in, or not at all. One that cannot be reached has to be recorded out first, so that
//!   what is written without it is never forgotten in its favour.
//! - A leg that is out is never put in from what it holds, but copied to from end to end, unless it returns to the very array that it
//!   left, whose bitmap knows what it has missed.
//! - An array is made once, over blank legs, before anybody has had its device.

use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::running::{MemberState, Running};
use crate::superblock::Superblock;
use crate::wanted::{Content, Leg, Level, Present, Seen, Standing, Wanted, kernel_name};

/// One step. Each can be done again, and be broken off anywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make the array over all legs, in their order.
    Create(Vec<PathBuf>),
    /// Put it together from these legs.
    Assemble(Vec<PathBuf>),
    /// Give up a member, by the kernel's name.
    Fail(String),
    /// Take a member that was given up out of the array.
    Remove(String),
    /// Take back a leg whose missed writes the bitmap has.
    ReAdd(PathBuf),
    /// Take our superblock off a leg whose bytes count for nothing.
    Wipe(PathBuf),
    /// Copy everything to a blank leg.
    Add(PathBuf),
    /// Use legs that have grown, up to so many bytes each.
    Grow(u64),
    /// Copy at most so many bytes a second.
    Limit(u64),
    /// Take down what was put together by half; nobody has had it.
    Stop,
}

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
            Self::Taken(_) => "Taken",
        }
    }
}

fn list(places: &[usize]) -> String {
    let words: Vec<String> = places.iter().map(ToString::to_string).collect();
    words.join(", ")
}

/// The next steps, in order; none where everything is as it shall be. Look again after them: there may be more.
///
/// # Errors
/// [`Refusal`], where nothing may be done.
pub fn plan(wanted: &Wanted, seen: &Seen) -> Result<Vec<Step>, Refusal> {
    match &seen.array {
        None => bring_up(wanted, seen),
        Some(array) if array.started() => match array.array {
            Some(found) if found == wanted.array => tend(wanted, seen, array),
            _ => Err(Refusal::Taken(array.name.clone())),
        },
        Some(array) if array.array.is_some_and(|found| found != wanted.array) => {
            Err(Refusal::Taken(array.name.clone()))
        }
        Some(_) => Ok(vec![Step::Stop]),
    }
}

/// A leg that is in, and what is on its device.
struct Found<'a> {
    place: usize,
    device: PathBuf,
    content: &'a Content,
}

fn bring_up(wanted: &Wanted, seen: &Seen) -> Result<Vec<Step>, Refusal> {
    let width = wanted.legs.len();
    let is_in = |place: &usize| wanted.legs[*place].standing == Standing::In;
    let needed = match wanted.formed {
        true => wanted.level.needed(width),
        // It was never written to without one of them.
        false => width,
    };
    let left = (0..width).filter(is_in).count();
    if left < needed {
        return Err(Refusal::TooMuchLost { left, needed });
    }
    let mut found = Vec::new();
    let mut away = Vec::new();
    for place in (0..width).filter(is_in) {
        let present = seen.legs.get(place).and_then(Option::as_ref);
        let content = present.and_then(|present| present.content.as_ref());
        match (&wanted.legs[place].device, content) {
            (Some(device), Some(content)) => found.push(Found {
                place,
                device: device.clone(),
                content,
            }),
            _ => away.push(place),
        }
    }
    if !away.is_empty() {
        let is_dirty = |leg: &Found| matches!(leg.content, Content::Member(of) if !of.clean);
        let needed = wanted.level == Level::Raid6 && wanted.formed && found.iter().any(is_dirty);
        return Err(match needed {
            true => Refusal::Needed(away),
            false => Refusal::Away(away),
        });
    }
    match wanted.formed {
        true => assemble(wanted, found),
        false => create(wanted.array, found),
    }
}

fn create(array: Uuid, found: Vec<Found>) -> Result<Vec<Step>, Refusal> {
    let mut steps = Vec::new();
    for leg in &found {
        match leg.content {
            Content::Blank => {}
            // What a creation that was broken off has left.
            Content::Member(of) if of.array == array => steps.push(Step::Wipe(leg.device.clone())),
            Content::Member(_) | Content::Other => {
                return Err(Refusal::Foreign { leg: leg.place });
            }
        }
    }
    steps.push(Step::Create(
        found.into_iter().map(|leg| leg.device).collect(),
    ));
    Ok(steps)
}

fn assemble(wanted: &Wanted, found: Vec<Found>) -> Result<Vec<Step>, Refusal> {
    let mut members: Vec<(usize, &Superblock)> = Vec::new();
    let mut behind = Vec::new();
    for leg in &found {
        match leg.content {
            Content::Member(of) if of.array == wanted.array => members.push((leg.place, of)),
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
    // One event less is what a crash in the middle of writing superblocks leaves; mdadm goes by the same.
    let missed = |of: &Superblock| {
        of.events + 1 < freshest.events || of.recovering || !freshest.counts(of.number)
    };
    behind.extend(
        members
            .iter()
            .filter(|(_, of)| missed(of))
            .map(|(place, _)| place),
    );
    if !behind.is_empty() {
        behind.sort_unstable();
        return Err(Refusal::Behind(behind));
    }
    let degraded = members.len() < wanted.legs.len();
    if wanted.level == Level::Raid6 && degraded && !members.iter().all(|(_, of)| of.clean) {
        return Err(Refusal::NeedsDecision);
    }
    let devices = found.into_iter().map(|leg| leg.device).collect();
    Ok(vec![Step::Assemble(devices)])
}

/// Sees to an array that runs.
fn tend(wanted: &Wanted, seen: &Seen, array: &Running) -> Result<Vec<Step>, Refusal> {
    let mut steps = Vec::new();
    if wanted.level.bitmap() && array.rate != Some(wanted.rate) {
        steps.push(Step::Limit(wanted.rate));
    }
    let names: Vec<Option<String>> = wanted
        .legs
        .iter()
        .map(|leg| leg.device.as_deref().map(kernel_name))
        .collect();
    if wanted.read_only {
        steps.extend(read_on(wanted, seen, array, &names));
        return Ok(steps);
    }
    for (place, leg) in wanted.legs.iter().enumerate() {
        let member = names[place].as_deref().and_then(|name| array.member(name));
        match (leg.standing, member, &leg.device) {
            (Standing::Out, Some(member), _) => steps.push(out(&member.name, member.state)),
            (Standing::Returning | Standing::Rebuilding, None, Some(device)) => {
                let present = seen.legs.get(place).and_then(Option::as_ref);
                if let Some(content) = present.and_then(|present| present.content.as_ref()) {
                    steps.extend(back(wanted, place, device, content)?);
                }
            }
            // One that is in and was given up by md is told of, and waits for what is decided.
            _ => {}
        }
    }
    steps.extend(left_over(wanted, array, &names));
    if steps.is_empty() && can_grow(wanted, seen, array) {
        steps.push(Step::Grow(wanted.geometry.data));
    }
    Ok(steps)
}

/// Gives up what is left of connections that are gone.
fn left_over<'a>(
    wanted: &Wanted,
    array: &'a Running,
    names: &'a [Option<String>],
) -> impl Iterator<Item = Step> + use<'a> {
    let none = |leg: &Leg| match wanted.read_only {
        true => leg.standing != Standing::In,
        false => leg.standing == Standing::Out,
    };
    let mut legs = wanted.legs.iter();
    let all_known = legs.all(|leg| none(leg) || leg.device.is_some());
    let members = array.members.iter();
    let left = members.filter(move |member| {
        let known = names.iter().flatten().any(|name| *name == member.name);
        !known && (member.state == MemberState::Faulty || all_known)
    });
    left.map(|member| out(&member.name, member.state))
}

/// Sees to an array that is only read, by as many as like. Nobody writes to its legs: one that was let go of on the way is what it was when it is
/// back, and the kernel takes it in without writing to any.
fn read_on(wanted: &Wanted, seen: &Seen, array: &Running, names: &[Option<String>]) -> Vec<Step> {
    if !wanted.level.bitmap() {
        return Vec::new();
    }
    let steps: Vec<Step> = left_over(wanted, array, names).collect();
    if !steps.is_empty() {
        return steps;
    }
    let legs = wanted.legs.iter().zip(names).zip(&seen.legs);
    let back = legs.filter_map(|((leg, name), present)| {
        let apart = leg.standing == Standing::In && array.member(name.as_deref()?).is_none();
        match present.as_ref()?.content.as_ref()? {
            Content::Member(of) if apart && of.array == wanted.array => leg.device.clone(),
            _ => None,
        }
    });
    back.map(Step::ReAdd).collect()
}

fn out(name: &str, state: MemberState) -> Step {
    match state {
        MemberState::Faulty => Step::Remove(name.to_owned()),
        MemberState::InSync | MemberState::Behind | MemberState::Failing => {
            Step::Fail(name.to_owned())
        }
    }
}

/// How a leg comes back into an array that runs.
fn back(
    wanted: &Wanted,
    leg: usize,
    device: &Path,
    content: &Content,
) -> Result<Vec<Step>, Refusal> {
    let ours = match content {
        Content::Blank => false,
        Content::Member(of) if of.array == wanted.array => true,
        Content::Member(_) | Content::Other => return Err(Refusal::Foreign { leg }),
    };
    Ok(match (wanted.legs[leg].standing, ours) {
        (Standing::Returning, true) => vec![Step::ReAdd(device.to_path_buf())],
        (Standing::Returning, false) => return Err(Refusal::NotReturning { leg }),
        (_, true) => vec![
            Step::Wipe(device.to_path_buf()),
            Step::Add(device.to_path_buf()),
        ],
        (_, false) => vec![Step::Add(device.to_path_buf())],
    })
}

/// Whether every leg is there, in sync, and large enough for more.
fn can_grow(wanted: &Wanted, seen: &Seen, array: &Running) -> bool {
    let geometry = &wanted.geometry;
    let large = |present: &Option<Present>| {
        let size = present.as_ref().map_or(0, |present| present.size);
        size >= geometry.data_offset + geometry.data
    };
    wanted.level.bitmap()
        && geometry.data > array.component
        && array.sync.is_none()
        && array.members.len() == wanted.legs.len()
        && array.members.iter().all(|m| m.state == MemberState::InSync)
        && seen.legs.iter().all(large)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::running::{Member, State};
    use crate::wanted::Geometry;

    const ARRAY: Uuid = Uuid::from_u128(7);

    fn mirror(devices: [Option<&str>; 2]) -> Wanted {
        let legs = devices.into_iter().enumerate().map(|(place, device)| Leg {
            uuid: Uuid::from_u128(place as u128 + 1),
            standing: Standing::In,
            device: device.map(Into::into),
        });
        Wanted {
            array: ARRAY,
            name: "v".into(),
            level: Level::Mirror,
            geometry: Geometry {
                data_offset: 1 << 20,
                data: 1 << 30,
                chunk: 128 << 10,
                bitmap_chunk: 16 << 20,
            },
            legs: legs.collect(),
            formed: true,
            read_only: true,
            rate: 1 << 20,
        }
    }

    fn seen(members: &[(&str, MemberState)], apart: Option<Uuid>) -> Seen {
        let member = |(name, state): &(&str, MemberState)| Member {
            name: (*name).into(),
            state: *state,
        };
        let superblock = apart.map(|array| Superblock {
            array,
            events: 1,
            clean: true,
            recovering: false,
            number: 1,
            active: vec![true; 2],
        });
        let of_second = superblock.map(|of| Present {
            size: 1 << 31,
            content: Some(Content::Member(of)),
        });
        Seen {
            array: Some(Running {
                name: "md1000".into(),
                array: Some(ARRAY),
                state: State::ReadOnly,
                size: 1 << 30,
                component: 1 << 30,
                rate: Some(1 << 20),
                members: members.iter().map(member).collect(),
                sync: None,
            }),
            legs: vec![None, of_second],
        }
    }

    #[test]
    fn a_raid6_that_was_not_shut_down_in_order_needs_all_that_are_in() {
        let content = |clean| {
            let of = Superblock {
                array: ARRAY,
                events: 1,
                clean,
                recovering: false,
                number: 1,
                active: vec![true; 2],
            };
            let content = Some(Content::Member(of));
            Some(Present {
                size: 1 << 31,
                content,
            })
        };
        let of_raid6 = Wanted {
            level: Level::Raid6,
            ..mirror([None, Some("/dev/b")])
        };
        let of_mirror = mirror([None, Some("/dev/b")]);
        for (wanted, clean, refusal) in [
            (&of_raid6, false, Refusal::Needed(vec![0])),
            (&of_raid6, true, Refusal::Away(vec![0])),
            (&of_mirror, false, Refusal::Away(vec![0])),
        ] {
            let seen = Seen {
                array: None,
                legs: vec![None, content(clean)],
            };
            assert_eq!(plan(wanted, &seen), Err(refusal));
        }
    }

    /// A reader's array loses a leg, and takes it back under the name that it has then.
    #[test]
    fn what_is_only_read_takes_back_what_it_lost() {
        use MemberState::{Faulty, InSync};
        let (first, lost) = (("a", InSync), ("b", InSync));
        let away = mirror([Some("/dev/a"), None]);
        let back = mirror([Some("/dev/a"), Some("/dev/c")]);
        for (wanted, seen, steps) in [
            (&away, seen(&[first, lost], None), vec![]),
            (
                &back,
                seen(&[first, lost], Some(ARRAY)),
                vec![Step::Fail("b".into())],
            ),
            (
                &back,
                seen(&[first, ("b", Faulty)], Some(ARRAY)),
                vec![Step::Remove("b".into())],
            ),
            (
                &back,
                seen(&[first], Some(ARRAY)),
                vec![Step::ReAdd("/dev/c".into())],
            ),
            (&back, seen(&[first], Some(Uuid::from_u128(8))), vec![]),
            (&back, seen(&[first, ("c", InSync)], None), vec![]),
        ] {
            assert_eq!(plan(wanted, &seen).unwrap(), steps, "{seen:?}");
        }
    }
}
