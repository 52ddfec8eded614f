//! The protocol as a whole, against a model of md and of the fabric: the operator's decisions on legs (`strand_placement`), and what
//! consumers do about them ([`strand_arrays::plan`]), in any order, with crashes, partitions and legs that come back. Whatever happens,
//! an array that runs has every acknowledged write in every leg that md takes for whole.

#![allow(
    clippy::unwrap_used,
    reason = "a test that meets an error it did not expect stops there"
)]

mod attached;
mod md;
mod world;

use proptest::prelude::*;
use strand_api::Redundancy;
use world::World;

const CONSUMERS: usize = 3;

#[derive(Clone, Debug)]
enum Event {
    /// The operator decides, and what it decides is recorded.
    Decide,
    /// The consumer with the attachment looks at the record, and acts.
    Act,
    /// Any consumer that has an array writes.
    Write { consumer: usize },
    /// md gets on with copying.
    Copy { consumer: usize },
    /// A leg's node goes away, or comes back.
    Leg { leg: usize, up: bool },
    /// A consumer and the API do not reach each other, nor the legs of other nodes; or they do again.
    Cut { consumer: usize, cut: bool },
    /// A consumer's machine starts anew.
    Crash { consumer: usize },
    /// The volume is attached to another consumer, once the one before is fenced.
    Move { consumer: usize },
    /// The same, for reading alone.
    Read { consumer: usize },
    /// Time passes.
    Wait { seconds: i64 },
    /// Everybody gets on, for a while.
    Settle,
}

fn event(legs: usize) -> impl Strategy<Value = Event> {
    let consumer = 0..CONSUMERS;
    prop_oneof![
        8 => Just(Event::Decide),
        10 => Just(Event::Act),
        12 => consumer.clone().prop_map(|consumer| Event::Write { consumer }),
        4 => consumer.clone().prop_map(|consumer| Event::Copy { consumer }),
        6 => (0..legs, prop::bool::weighted(0.6)).prop_map(|(leg, up)| Event::Leg { leg, up }),
        3 => (consumer.clone(), any::<bool>()).prop_map(|(consumer, cut)| Event::Cut { consumer, cut }),
        2 => consumer.clone().prop_map(|consumer| Event::Crash { consumer }),
        4 => consumer.clone().prop_map(|consumer| Event::Move { consumer }),
        3 => consumer.prop_map(|consumer| Event::Read { consumer }),
        5 => Just(Event::Settle),
        5 => (1..90i64).prop_map(|seconds| Event::Wait { seconds }),
    ]
}

fn hold(redundancy: Redundancy, legs: usize, events: &[Event]) -> Result<(), TestCaseError> {
    let mut world = World::new(redundancy, legs);
    for event in events {
        world.happen(event);
        world.look()?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_mirror_never_forgets_a_write(events in prop::collection::vec(event(2), 1..80)) {
        hold(Redundancy::Mirror, 2, &events)?;
    }

    #[test]
    fn raid6_never_forgets_a_write(events in prop::collection::vec(event(5), 1..80)) {
        hold(Redundancy::Raid6, 5, &events)?;
    }
}
