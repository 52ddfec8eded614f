//! What is told of an array's legs. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use strand_api::{ArrayLeg, ArrayRefusal, LegHolding, names};
use strand_arrays::{
    ArrayError, Holding, Level, Present, Refusal, Running, Seen, Standing, Wanted, report,
};
use uuid::Uuid;

/// Reason of an array that waits for legs that are not reached.
const LEGS_AWAY: &str = "LegsAway";
/// Longest message that an object takes, in characters.
const MESSAGE: usize = 1024;

/// Why an array does not run, and which of its legs are behind, by their places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    pub refusal: ArrayRefusal,
    pub behind: Vec<usize>,
    /// Asking again alone does not help.
    pub lasts: bool,
}

impl Trouble {
    pub fn of(error: &ArrayError) -> Self {
        let (reason, behind, lasts) = match error {
            ArrayError::Refused(Refusal::Behind(places)) => ("LegsBehind", places.clone(), false),
            ArrayError::Refused(Refusal::Away(_)) => (LEGS_AWAY, Vec::new(), false),
            ArrayError::Refused(Refusal::Needed(_)) => (names::LEGS_NEEDED, Vec::new(), false),
            ArrayError::Refused(refusal) => (refusal.reason(), Vec::new(), true),
            ArrayError::NoModule { .. } => ("NoModule", Vec::new(), true),
            ArrayError::NoTool(_) => ("NoTool", Vec::new(), true),
            ArrayError::Tool { .. }
            | ArrayError::Busy { .. }
            | ArrayError::Io { .. }
            | ArrayError::Restless { .. } => ("NotAssembled", Vec::new(), false),
        };
        Self {
            refusal: refusal(reason, &error.to_string()),
            behind,
            lasts,
        }
    }

    /// Legs that it needs are not reached. Of a raid6 it is not known yet whether it could do without them.
    pub fn away(wanted: &Wanted, waits_for: &str) -> Option<Self> {
        if wanted.level == Level::Raid6 {
            return None;
        }
        let mut legs = wanted.legs.iter().enumerate();
        let away = |(_, leg): &(usize, &strand_arrays::Leg)| {
            leg.standing == Standing::In && leg.device.is_none()
        };
        legs.any(|leg| away(&leg)).then(|| Self {
            refusal: refusal(LEGS_AWAY, waits_for),
            behind: Vec::new(),
            lasts: false,
        })
    }
}

fn refusal(reason: &str, message: &str) -> ArrayRefusal {
    ArrayRefusal {
        reason: reason.to_owned(),
        message: message.chars().take(MESSAGE).collect(),
    }
}

/// Whether every leg that is recorded in is a part of the array that is seen, or is seen not to be.
pub fn saw_all(wanted: &Wanted, running: Option<&Running>) -> bool {
    let seen = Seen {
        array: running.cloned(),
        legs: vec![None; wanted.legs.len()],
    };
    let held = report(wanted, &seen);
    held.is_some_and(|held| {
        let legs = wanted.legs.iter().zip(held);
        legs.filter(|(leg, _)| leg.standing == Standing::In)
            .all(|(_, held)| held != Holding::Away)
    })
}

/// What is known of the legs: of all while the array runs, else of those that keep it from running. `contents` is what was on legs that are
/// in no array when that was looked at last, `earlier` what was told before, `sought` legs of which is not known yet whether they are reached.
pub fn legs(
    wanted: &Wanted,
    running: Option<&Running>,
    contents: &BTreeMap<Uuid, Present>,
    behind: &[usize],
    sought: &BTreeSet<Uuid>,
    earlier: &[ArrayLeg],
    now: &Time,
) -> Vec<ArrayLeg> {
    let seen = Seen {
        array: running.cloned(),
        legs: wanted
            .legs
            .iter()
            .map(|leg| contents.get(&leg.uuid).cloned())
            .collect(),
    };
    let held = report(wanted, &seen);
    let told = wanted.legs.iter().enumerate().filter_map(|(place, leg)| {
        if leg.uuid.is_nil() {
            // Its bytes are not there yet.
            return None;
        }
        let uuid = leg.uuid.to_string();
        let before = earlier.iter().find(|before| before.uuid == uuid);
        let is_in = leg.standing == Standing::In;
        let (holding, percent) = match held.as_ref().map(|held| held[place]) {
            Some(Holding::Whole) => (LegHolding::Whole, None),
            Some(Holding::Behind(done)) => (LegHolding::Behind, Some(i64::from(done / 100 * 10))),
            Some(Holding::Lost) => (LegHolding::Lost, None),
            Some(Holding::Apart) => (LegHolding::Apart, None),
            Some(Holding::Empty) => (LegHolding::Empty, None),
            // It is reached, and was not looked at yet.
            Some(Holding::Away) if leg.device.is_some() || sought.contains(&leg.uuid) => {
                (before?.holding, before?.percent)
            }
            Some(Holding::Away) => (LegHolding::Away, None),
            None if is_in && leg.device.is_none() && !sought.contains(&leg.uuid) => {
                (LegHolding::Away, None)
            }
            None if is_in && behind.contains(&place) => (LegHolding::Stale, None),
            None => return None,
        };
        let since = before.filter(|before| before.holding == holding);
        Some(ArrayLeg {
            uuid,
            holding,
            since: since.map_or_else(|| now.clone(), |before| before.since.clone()),
            percent,
        })
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::jiff::Timestamp;
    use strand_arrays::{
        Content, Format, Geometry, Leg, Member, MemberState, State, Superblock, Sync,
    };

    const ARRAY: Uuid = Uuid::from_u128(7);

    fn wanted(legs: [(Standing, Option<&str>); 3]) -> Wanted {
        let legs = legs
            .into_iter()
            .enumerate()
            .map(|(place, (standing, device))| Leg {
                uuid: Uuid::from_u128(place as u128 + 1),
                standing,
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

    fn running(members: &[(&str, MemberState)]) -> Running {
        let member = |(name, state): &(&str, MemberState)| Member {
            name: (*name).into(),
            state: *state,
            gone: false,
        };
        Running {
            name: "md1000".into(),
            array: Some(ARRAY),
            mark: None,
            state: State::ReadWrite,
            size: 1 << 30,
            component: 1 << 30,
            rate: None,
            members: members.iter().map(member).collect(),
            sync: Some(Sync {
                action: "recover".into(),
                thousandths: Some(678),
            }),
            resyncing: false,
        }
    }

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    fn held(told: &[ArrayLeg]) -> Vec<LegHolding> {
        told.iter().map(|leg| leg.holding).collect()
    }

    #[test]
    fn a_change_is_dated_and_what_was_not_looked_at_stays_as_it_was_told() {
        use Standing::{In, Out, Rebuilding};
        let array = running(&[("a", MemberState::InSync), ("b", MemberState::Behind)]);
        let legs_now = [
            (In, Some("/dev/a")),
            (Rebuilding, Some("/dev/b")),
            (Out, None),
        ];
        let none = BTreeMap::new();
        let first = legs(
            &wanted(legs_now),
            Some(&array),
            &none,
            &[],
            &BTreeSet::new(),
            &[],
            &at(1),
        );
        assert_eq!(
            held(&first),
            [LegHolding::Whole, LegHolding::Behind, LegHolding::Away]
        );
        assert_eq!(first[1].percent, Some(60));
        let again = legs(
            &wanted(legs_now),
            Some(&array),
            &none,
            &[],
            &BTreeSet::new(),
            &first,
            &at(2),
        );
        assert_eq!(again, first);
        // The first is not reached any more. The third is, and was not looked at yet; then it was.
        let legs_now = [
            (In, None),
            (Rebuilding, Some("/dev/b")),
            (Out, Some("/dev/c")),
        ];
        let third = legs(
            &wanted(legs_now),
            Some(&array),
            &none,
            &[],
            &BTreeSet::new(),
            &again,
            &at(3),
        );
        assert_eq!(
            held(&third),
            [LegHolding::Away, LegHolding::Behind, LegHolding::Away]
        );
        assert_eq!(
            (third[0].since.clone(), third[2].since.clone()),
            (at(3), at(1))
        );
        let superblock = Superblock {
            array: ARRAY,
            events: 1,
            clean: true,
            recovering: false,
            number: 2,
            slots: vec![Some(0), Some(1), Some(2)],
            format: Format::default(),
        };
        let content = Some(Content::Member(superblock));
        let looked = BTreeMap::from([(
            Uuid::from_u128(3),
            Present {
                size: 1,
                read_only: false,
                content,
            },
        )]);
        let fourth = legs(
            &wanted(legs_now),
            Some(&array),
            &looked,
            &[],
            &BTreeSet::new(),
            &third,
            &at(4),
        );
        assert_eq!(held(&fourth)[2], LegHolding::Apart);
    }

    #[test]
    fn of_an_array_that_does_not_run_only_what_keeps_it_from_that_is_told() {
        use Standing::{In, Out};
        let legs_now = [(In, None), (In, Some("/dev/b")), (Out, None)];
        let none = BTreeMap::new();
        let told = legs(
            &wanted(legs_now),
            None,
            &none,
            &[],
            &BTreeSet::new(),
            &[],
            &at(1),
        );
        assert_eq!(held(&told), [LegHolding::Away]);
        let legs_now = [(In, Some("/dev/a")), (In, Some("/dev/b")), (Out, None)];
        let told = legs(
            &wanted(legs_now),
            None,
            &none,
            &[1],
            &BTreeSet::new(),
            &[],
            &at(1),
        );
        assert_eq!(held(&told), [LegHolding::Stale]);
        assert_eq!(told[0].uuid, Uuid::from_u128(2).to_string());
    }
}
