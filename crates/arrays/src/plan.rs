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

use crate::members::Members;
use crate::readers::{self, Part, Reading};
use crate::refusal::Refusal;
use crate::running::{MemberState, Running, State};
use crate::wanted::{Content, Level, Present, Seen, Standing, Wanted, kernel_name};

/// One step. Each can be done again, and be broken off anywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make the array over all legs, in their order.
    Create(Vec<PathBuf>),
    /// Put it together from these legs.
    Assemble(Vec<PathBuf>),
    /// Put it together for reading alone.
    Read(Reading),
    /// Take back into an array for reading a leg that has every byte.
    TakeIn(Part),
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
    /// Take down what was put together by half, and nobody has had, or what was for reading alone.
    Stop,
}

/// The next steps, in order; none where everything is as it shall be. Look again after them: there may be more.
///
/// # Errors
/// [`Refusal`], where nothing may be done.
pub fn plan(wanted: &Wanted, seen: &Seen) -> Result<Vec<Step>, Refusal> {
    let taken = |array: &Running| Err(Refusal::Taken(array.name.clone()));
    match &seen.array {
        None if wanted.read_only => readers::bring_up(wanted, seen),
        None => bring_up(wanted, seen),
        Some(array) if array.is_anothers(wanted.array) => taken(array),
        Some(array) if !array.started() => Ok(vec![Step::Stop]),
        Some(array) if !array.is_of(wanted.array) => taken(array),
        Some(array) => match (wanted.read_only, array.mark.is_some()) {
            (true, true) => Ok(readers::tend(wanted, seen, array)),
            // Put together by an agent that did not know better: it stays as it is.
            (true, false) if array.state == State::ReadOnly => Ok(Vec::new()),
            (true, false) => taken(array),
            // What is left of an earlier attachment.
            (false, true) => Ok(vec![Step::Stop]),
            (false, false) => tend(wanted, seen, array),
        },
    }
}

/// A leg that is in, and what is on its device.
pub(crate) struct Found<'a> {
    pub(crate) place: usize,
    pub(crate) device: PathBuf,
    pub(crate) content: &'a Content,
}

fn bring_up(wanted: &Wanted, seen: &Seen) -> Result<Vec<Step>, Refusal> {
    let found = reached(wanted, seen)?;
    match wanted.formed {
        true => assemble(wanted, found),
        false => create(wanted.array, found),
    }
}

/// The legs that are in, all of them.
pub(crate) fn reached<'a>(wanted: &Wanted, seen: &'a Seen) -> Result<Vec<Found<'a>>, Refusal> {
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
    Ok(found)
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
    let members = Members::of(wanted, &found)?;
    if !members.behind.is_empty() {
        return Err(Refusal::Behind(members.behind));
    }
    let degraded = found.len() < wanted.legs.len();
    let clean = members.fresh.iter().all(|(_, of)| of.clean);
    if wanted.level == Level::Raid6 && degraded && !clean {
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
    let mut legs = wanted.legs.iter();
    let all_known = legs.all(|leg| leg.standing == Standing::Out || leg.device.is_some());
    let members = array.members.iter();
    let left = members.filter(move |member| {
        let known = names.iter().flatten().any(|name| *name == member.name);
        !known && (member.state == MemberState::Faulty || all_known)
    });
    left.map(|member| out(&member.name, member.state))
}

pub(crate) fn out(name: &str, state: MemberState) -> Step {
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
    use crate::superblock::{Format, Superblock};
    use crate::wanted::{Geometry, Leg};

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
            read_only: false,
            rate: 1 << 20,
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
                slots: vec![Some(0), Some(1)],
                format: Format::default(),
            };
            let content = Some(Content::Member(of));
            Some(Present {
                size: 1 << 31,
                read_only: false,
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
}
