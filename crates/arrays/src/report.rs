//! What a consumer tells of the legs of an array that runs.

use serde::{Deserialize, Serialize};

use crate::running::{MemberState, Running};
use crate::wanted::{Content, Leg, Seen, Standing, Wanted, kernel_name};

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

/// Whether the array goes on without a leg that the volume's record counts, and may still be recorded to have lost: nobody would know once it
/// is taken down. Of one whose making was not recorded yet nobody has the device.
pub fn unrecorded(wanted: &Wanted, array: &Running) -> bool {
    let counts = |leg: &&Leg| leg.standing == Standing::In;
    let counted = wanted.legs.iter().filter(counts).count();
    let others = wanted.legs.iter().filter(|leg| !counts(leg));
    let others: Vec<String> = others
        .filter_map(|leg| leg.device.as_deref().map(kernel_name))
        .collect();
    let members = array.members.iter();
    let whole = members
        .filter(|member| member.state == MemberState::InSync && !others.contains(&member.name));
    wanted.formed && whole.count() < counted && counted > wanted.level.needed(wanted.legs.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::running::{Member, State};
    use crate::wanted::{Geometry, Level};
    use uuid::Uuid;

    fn of(level: Level, legs: &[(Standing, MemberState)]) -> bool {
        let name = |place| format!("loop{place}");
        let legs = legs.iter().enumerate();
        let wanted = Wanted {
            array: Uuid::from_u128(7),
            name: "v".into(),
            level,
            geometry: Geometry {
                data_offset: 1 << 20,
                data: 1 << 30,
                chunk: 128 << 10,
                bitmap_chunk: 16 << 20,
            },
            legs: legs
                .clone()
                .map(|(place, (standing, _))| Leg {
                    uuid: Uuid::from_u128(place as u128 + 1),
                    standing: *standing,
                    device: Some(format!("/dev/{}", name(place)).into()),
                })
                .collect(),
            formed: true,
            read_only: false,
            rate: 1 << 20,
        };
        let members = legs.map(|(place, (_, state))| Member {
            name: name(place),
            state: *state,
            gone: false,
        });
        let array = Running {
            name: "md1000".into(),
            array: Some(wanted.array),
            mark: None,
            state: State::ReadWrite,
            size: 1 << 30,
            component: 1 << 30,
            rate: None,
            members: members.collect(),
            sync: None,
            resyncing: false,
        };
        unrecorded(&wanted, &array)
    }

    #[test]
    fn what_md_gave_up_is_known_until_it_is_recorded_or_cannot_be() {
        use Level::{Mirror, Raid6, Stripe};
        use MemberState::{Behind, Failing, Faulty, InSync};
        use Standing::{In, Out, Rebuilding};
        assert!(!of(Mirror, &[(In, InSync), (In, InSync)]));
        assert!(of(Mirror, &[(In, InSync), (In, Faulty)]));
        assert!(of(Mirror, &[(In, Failing), (In, InSync)]));
        assert!(!of(Mirror, &[(In, InSync), (Out, Faulty)]));
        // The last one that counts stays.
        assert!(!of(Mirror, &[(In, Faulty), (Out, Faulty)]));
        assert!(!of(Stripe, &[(In, InSync), (In, Faulty)]));
        // One that has just been copied to stands for no other.
        let copied = (Rebuilding, InSync);
        assert!(of(
            Raid6,
            &[(In, InSync), (In, InSync), (In, Faulty), copied]
        ));
        let copied = (Rebuilding, Behind);
        assert!(!of(
            Raid6,
            &[(In, InSync), (In, InSync), (In, InSync), copied]
        ));
    }
}
