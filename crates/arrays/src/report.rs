//! What a consumer tells of the legs of an array that runs.

use serde::{Deserialize, Serialize};

use crate::running::MemberState;
use crate::wanted::{Content, Seen, Wanted, kernel_name};

/// What a leg is to the running array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Holding {
    /// It has every byte.
    Whole,
    /// It is copied to; thousandths done.
    Behind(u32),
    /// md has given it up, or it has failed a write.
    Lost,
    /// It is reached, with this array's superblock, and not in the array.
    Apart,
    /// It is reached, and holds nothing.
    Empty,
    /// It is not reached.
    Away,
}

/// Of every leg, in their order; none while the array does not run.
pub fn report(wanted: &Wanted, seen: &Seen) -> Option<Vec<Holding>> {
    let array = seen.array.as_ref().filter(|array| array.started())?;
    let done = array.sync.as_ref().and_then(|sync| sync.thousandths);
    let legs = wanted.legs.iter().enumerate().map(|(place, leg)| {
        let Some(device) = &leg.device else {
            return Holding::Away;
        };
        if let Some(member) = array.member(&kernel_name(device)) {
            return match member.state {
                MemberState::InSync => Holding::Whole,
                MemberState::Behind => Holding::Behind(done.unwrap_or(0)),
                MemberState::Faulty | MemberState::Failing => Holding::Lost,
            };
        }
        let present = seen.legs.get(place).and_then(Option::as_ref);
        match present.and_then(|present| present.content.as_ref()) {
            Some(Content::Member(of)) if of.array == wanted.array => Holding::Apart,
            Some(_) => Holding::Empty,
            None => Holding::Away,
        }
    });
    Some(legs.collect())
}
