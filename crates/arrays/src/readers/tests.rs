//! What is decided on arrays that are only read.

use std::collections::BTreeSet;

use proptest::prelude::*;
use uuid::Uuid;

use crate::plan::{Step, plan};
use crate::readers::{Part, Reading};
use crate::refusal::Refusal;
use crate::running::{Member, MemberState, Running, State, mark};
use crate::superblock::{Format, Superblock};
use crate::wanted::{Content, Geometry, Leg, Level, Present, Seen, Standing, Wanted};

const ARRAY: Uuid = Uuid::from_u128(7);
const MIB: u64 = 1 << 20;
/// Not in whole chunks.
const DATA: u64 = 512 * MIB + 4096;

fn wanted(level: Level, devices: &[Option<&str>]) -> Wanted {
    let legs = devices.iter().enumerate().map(|(place, device)| Leg {
        uuid: Uuid::from_u128(place as u128 + 1),
        standing: Standing::In,
        device: device.map(Into::into),
    });
    Wanted {
        array: ARRAY,
        name: "v".into(),
        level,
        geometry: Geometry {
            data_offset: MIB,
            data: DATA,
            chunk: 128 << 10,
            bitmap_chunk: 16 * MIB,
        },
        legs: legs.collect(),
        formed: true,
        read_only: true,
        rate: MIB,
    }
}

fn superblock(level: Level, number: u32, legs: u32) -> Superblock {
    let format = Format {
        level: level.number(),
        layout: if level == Level::Raid6 { 2 } else { 0 },
        chunk: if level == Level::Mirror { 0 } else { 128 << 10 },
        legs,
        data_offset: MIB,
        data: DATA,
        plain: true,
    };
    Superblock {
        array: ARRAY,
        events: 9,
        clean: true,
        recovering: false,
        number,
        slots: (0..legs).map(Some).collect(),
        format,
    }
}

fn present(of: Superblock) -> Option<Present> {
    Some(Present {
        size: MIB + DATA,
        read_only: false,
        content: Some(Content::Member(of)),
    })
}

fn members(named: &[(&str, MemberState)]) -> Vec<Member> {
    let member = |(name, state): &(&str, MemberState)| Member {
        name: (*name).into(),
        state: *state,
        gone: false,
    };
    named.iter().map(member).collect()
}

fn running(members: Vec<Member>) -> Running {
    Running {
        name: "md1000".into(),
        array: None,
        mark: Some(mark(ARRAY)),
        state: State::ReadOnly,
        size: DATA,
        component: DATA,
        rate: None,
        members,
        sync: None,
        resyncing: false,
    }
}

fn part(device: &str, slot: u32, data: u64) -> Part {
    Part {
        device: device.into(),
        slot,
        offset: MIB,
        data,
    }
}

/// A mirror is read as a raid5 of two, in whole chunks, and shows what its legs have; legs have the places that superblocks say.
#[test]
fn what_md_is_told_is_what_the_superblocks_say() {
    let mut legs = [
        superblock(Level::Mirror, 0, 2),
        superblock(Level::Mirror, 2, 2),
    ];
    for leg in &mut legs {
        // The second leg was made anew, and has a number of its own.
        leg.slots = vec![Some(1), None, Some(0)];
    }
    let seen = Seen {
        array: None,
        legs: legs.map(present).into(),
    };
    let chunks = DATA.next_multiple_of(128 << 10);
    let reading = Reading {
        level: "raid5",
        layout: 2,
        chunk: 128 << 10,
        places: 2,
        component: Some(chunks),
        size: Some(DATA),
        parts: vec![part("/dev/a", 1, chunks), part("/dev/b", 0, chunks)],
    };
    let wanted = wanted(Level::Mirror, &[Some("/dev/a"), Some("/dev/b")]);
    assert_eq!(plan(&wanted, &seen), Ok(vec![Step::Read(reading)]));
}

/// What is done to a superblock.
type Change = fn(&mut Superblock);

#[test]
fn what_does_not_fit_the_record_is_not_read_from() {
    let devices = [
        Some("/dev/a"),
        Some("/dev/b"),
        Some("/dev/c"),
        Some("/dev/d"),
    ];
    let level = Level::Raid6;
    let whole = |change: Change| {
        let mut legs: Vec<Superblock> = (0..4).map(|leg| superblock(level, leg, 4)).collect();
        change(&mut legs[1]);
        let legs = legs.into_iter().map(present).collect();
        plan(&wanted(level, &devices), &Seen { array: None, legs })
    };
    assert!(matches!(whole(|_| {}).unwrap()[..], [Step::Read(_)]));
    let changes: [(Change, Refusal); 9] = [
        (
            |of| of.format.data_offset = 2 * MIB,
            Refusal::Misshapen { leg: 1 },
        ),
        (|of| of.format.data += 4096, Refusal::Misshapen { leg: 1 }),
        (|of| of.format.layout = 3, Refusal::Misshapen { leg: 1 }),
        (
            |of| of.format.chunk = 64 << 10,
            Refusal::Misshapen { leg: 1 },
        ),
        (|of| of.format.plain = false, Refusal::Misshapen { leg: 1 }),
        // Two in one place.
        (|of| of.number = 0, Refusal::Misshapen { leg: 1 }),
        (
            |of| of.slots = vec![Some(1), Some(0)],
            Refusal::Misshapen { leg: 1 },
        ),
        (|of| of.clean = false, Refusal::NotClean),
        (
            |of| of.array = Uuid::from_u128(8),
            Refusal::Foreign { leg: 1 },
        ),
    ];
    for (place, (change, refusal)) in changes.into_iter().enumerate() {
        assert_eq!(whole(change), Err(refusal), "change {place}");
    }
    // All at once fit each other, and still not the record.
    let mut other = wanted(level, &devices);
    other.geometry.chunk = 64 << 10;
    let legs = (0..4).map(|leg| present(superblock(level, leg, 4)));
    let seen = Seen {
        array: None,
        legs: legs.collect(),
    };
    assert_eq!(plan(&other, &seen), Err(Refusal::Misshapen { leg: 0 }));
    other = wanted(level, &devices);
    other.formed = false;
    assert_eq!(plan(&other, &seen), Err(Refusal::NotFormed));
    other = wanted(
        level,
        &[Some("/dev/a"), None, Some("/dev/c"), Some("/dev/d")],
    );
    assert_eq!(plan(&other, &seen), Err(Refusal::Away(vec![1])));
}

/// A reader's array loses a leg, and takes it back under the name that it has then.
#[test]
fn what_was_lost_is_taken_in_again() {
    use MemberState::{Behind, Faulty, InSync};
    let of = |leg| present(superblock(Level::Mirror, leg, 2));
    let both = || vec![of(0), of(1)];
    let stale = || {
        let mut old = superblock(Level::Mirror, 1, 2);
        old.events = 7;
        vec![of(0), present(old)]
    };
    let refusing = || {
        let mut legs = both();
        legs[1].as_mut().unwrap().read_only = true;
        legs
    };
    let (first, lost) = (("a", InSync), ("b", InSync));
    let away = [Some("/dev/a"), None];
    let back = [Some("/dev/a"), Some("/dev/c")];
    let alone = [None, Some("/dev/c")];
    let chunks = DATA.next_multiple_of(128 << 10);
    let taken_in = Step::TakeIn(part("/dev/c", 1, chunks));
    let (fail, remove) = (Step::Fail("b".into()), Step::Remove("b".into()));
    for (devices, named, legs, steps) in [
        // It may only be silent.
        (away, vec![first, lost], vec![of(0), None], vec![]),
        (back, vec![first, lost], both(), vec![fail.clone()]),
        (
            back,
            vec![first, ("b", Faulty)],
            both(),
            vec![remove.clone()],
        ),
        (
            away,
            vec![first, ("b", Faulty)],
            vec![of(0), None],
            vec![remove],
        ),
        (back, vec![first], both(), vec![taken_in]),
        (back, vec![first], stale(), vec![]),
        (back, vec![first], refusing(), vec![]),
        // Nobody is there to compare it with.
        (alone, vec![first], vec![None, of(1)], vec![]),
        (
            back,
            vec![first, ("c", Behind)],
            both(),
            vec![Step::Remove("c".into())],
        ),
        (back, vec![first, ("c", InSync)], both(), vec![]),
        (back, vec![first, ("c", Faulty)], both(), vec![]),
    ] {
        let array = Some(running(members(&named)));
        let seen = Seen { array, legs };
        let planned = plan(&wanted(Level::Mirror, &devices), &seen);
        assert_eq!(planned.unwrap(), steps, "{named:?} {devices:?}");
    }
    // Its device is gone, and nobody has to wait until md has found out.
    let mut lost = members(&[first, lost]);
    lost[1].gone = true;
    let array = Some(running(lost));
    let legs = vec![of(0), None];
    let planned = plan(&wanted(Level::Mirror, &away), &Seen { array, legs });
    assert_eq!(planned.unwrap(), [fail]);
}

#[test]
fn an_array_for_reading_is_nobody_elses() {
    let wanted = wanted(Level::Mirror, &[Some("/dev/a"), Some("/dev/b")]);
    let of = |leg| present(superblock(Level::Mirror, leg, 2));
    let seen = |array: Running| Seen {
        array: Some(array),
        legs: vec![of(0), of(1)],
    };
    let both = || members(&[("a", MemberState::InSync), ("b", MemberState::InSync)]);
    let half = Running {
        state: State::NotStarted,
        ..running(both())
    };
    assert_eq!(plan(&wanted, &seen(half.clone())), Ok(vec![Step::Stop]));
    for mark in [mark(Uuid::from_u128(8)), "imsm".into()] {
        for state in [State::NotStarted, State::ReadOnly] {
            let another = Running {
                state,
                mark: Some(mark.clone()),
                ..running(both())
            };
            let taken = Refusal::Taken("md1000".into());
            assert_eq!(
                plan(&wanted, &seen(another)),
                Err(taken),
                "{mark} {state:?}"
            );
        }
    }
    // What is left of reading when somebody wants to write is taken down first; the other way round nothing is.
    let writer = Wanted {
        read_only: false,
        ..wanted.clone()
    };
    assert_eq!(plan(&writer, &seen(running(both()))), Ok(vec![Step::Stop]));
    let written = Running {
        array: Some(ARRAY),
        mark: None,
        state: State::ReadWrite,
        ..running(both())
    };
    assert_eq!(
        plan(&wanted, &seen(written)),
        Err(Refusal::Taken("md1000".into()))
    );
}

#[derive(Clone, Debug)]
struct Found {
    standing: Standing,
    reached: bool,
    blank: bool,
    events: u64,
    clean: bool,
    recovering: bool,
    member: bool,
}

fn found() -> impl Strategy<Value = Found> {
    let standing = prop_oneof![6 => Just(Standing::In), 1 => Just(Standing::Out), 1 => Just(Standing::Rebuilding)];
    (
        standing,
        prop::bool::weighted(0.9),
        prop::bool::weighted(0.1),
        prop_oneof![1 => 5..9u64, 4 => Just(9)],
        prop::bool::weighted(0.95),
        prop::bool::weighted(0.05),
        any::<bool>(),
    )
        .prop_map(
            |(standing, reached, blank, events, clean, recovering, member)| Found {
                standing,
                reached,
                blank,
                events,
                clean,
                recovering,
                member,
            },
        )
}

proptest! {
    /// Whatever is found: only legs that are in, and not behind any other that was seen, are read from, and no leg is ever written to.
    #[test]
    fn only_what_is_whole_is_read_from(
        level in prop_oneof![Just(Level::Mirror), Just(Level::Raid6), Just(Level::Stripe)],
        legs in prop::collection::vec(found(), 5),
        runs: bool,
    ) {
        let legs = &legs[..if level == Level::Mirror { 2 } else { 5 }];
        let names: Vec<String> = (0..legs.len()).map(|leg| format!("/dev/leg{leg}")).collect();
        let devices: Vec<_> = legs.iter().zip(&names).map(|(leg, name)| leg.reached.then_some(name.as_str())).collect();
        let mut wanted = wanted(level, &devices);
        let mut seen = Seen::default();
        let mut inside = Vec::new();
        for (place, leg) in legs.iter().enumerate() {
            wanted.legs[place].standing = leg.standing;
            let of = superblock(level, place as u32, legs.len() as u32);
            let of = Superblock { events: leg.events, clean: leg.clean, recovering: leg.recovering, ..of };
            let content = if leg.blank { Content::Blank } else { Content::Member(of) };
            let there = Present { size: MIB + DATA, read_only: false, content: Some(content) };
            seen.legs.push(leg.reached.then_some(there));
            if leg.member {
                inside.push((&names[place]["/dev/".len()..], MemberState::InSync));
            }
        }
        seen.array = runs.then(|| running(members(&inside)));
        let Ok(steps) = plan(&wanted, &seen) else { return Ok(()) };
        let freshest = |legs: &mut dyn Iterator<Item = &Found>| legs.map(|leg| leg.events).max().unwrap_or(0);
        for step in steps {
            let (parts, newest) = match step {
                Step::Read(reading) => {
                    prop_assert!(reading.parts.len() >= level.needed(legs.len()));
                    let seen = legs.iter().filter(|leg| leg.standing == Standing::In && !leg.blank);
                    (reading.parts, freshest(&mut { seen }))
                }
                Step::TakeIn(part) => {
                    let read = legs.iter().filter(|leg| leg.member && leg.reached && leg.standing == Standing::In && !leg.blank);
                    (vec![part], freshest(&mut { read }))
                }
                Step::Fail(_) | Step::Remove(_) | Step::Stop => continue,
                step => return Err(TestCaseError::fail(format!("{step:?} writes to a leg"))),
            };
            let slots: BTreeSet<u32> = parts.iter().map(|part| part.slot).collect();
            prop_assert_eq!(slots.len(), parts.len());
            for part in parts {
                let leg = &legs[part.slot as usize];
                prop_assert_eq!(part.device.display().to_string(), &names[part.slot as usize][..]);
                prop_assert!(leg.standing == Standing::In && leg.reached && !leg.blank && leg.clean && !leg.recovering);
                prop_assert!(leg.events + 1 >= newest, "{leg:?} is behind {newest}");
            }
        }
    }
}
