//! What the operator plans for racks.

use crate::{golden, world::World};

#[test]
fn the_operator_plans_what_the_scenarios_say() {
    golden::hold("tests/rack/scenarios", |lines| {
        let mut world = World::default();
        lines.for_each(|line| world.add(line));
        world.plan()
    });
}
