//! What the operator plans for volumes.

use crate::{golden, world::World};

#[test]
fn the_operator_plans_for_volumes_what_the_scenarios_say() {
    golden::hold("tests/volumes/scenarios", |lines| {
        let mut world = World::default();
        lines.for_each(|line| world.add(line));
        world.plan()
    });
}
