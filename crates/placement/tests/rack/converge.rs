//! Whatever the rack, plans that are carried out come to rest, and never ask for what must not be.

use crate::world::World;
use proptest::prelude::*;
use std::{collections::BTreeSet, time::Duration};
use strand_api::DriveVerdict;
use strand_placement::rack::Action;

const ROUNDS: usize = 12;

fn verdict() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => Just("Stranded"),
        1 => Just("InUse why=Mounted"),
        1 => Just("Foreign why=OtherPool label=elsewhere:ee"),
        1 => Just("Foreign why=OtherPool label=p0:a0"),
        1 => Just("Failed why=FailingHealth"),
        2 => Just("Pooled phase=Available label=p0:a0"),
        2 => Just("Pooled label=p1:a1 taken"),
        1 => Just("Pooled label=p0:a0 taken phase=Missing"),
        1 => Just("Stranded phase=Released cordoned"),
        1 => Just("unjudged"),
    ]
    .prop_map(Into::into)
}

prop_compose! {
    fn rack()(
        pools in prop::collection::vec((0..3usize, any::<bool>(), any::<bool>(), 0..=100u8, any::<bool>()), 0..3),
        drives in prop::collection::vec((0..4usize, 0..20usize, verdict(), any::<bool>(), 30..40u32), 0..16),
        nodes in prop::collection::vec(prop_oneof![Just(""), Just("notready=10m"), Just("role=gpu")], 3),
    ) -> Vec<String> {
        let mut lines: Vec<String> = nodes.iter().enumerate().map(|(i, words)| format!("node n{i} {words}")).collect();
        for (i, (age, id, manual, context, release)) in pools.iter().enumerate() {
            let id = if *id { format!("id=a{i}") } else { String::new() };
            let manual = if *manual { "manual" } else { "" };
            let release = if *release { "release" } else { "" };
            lines.push(format!("pool p{i} age={}d {id} {manual} {release} context={context}%", age + 1));
        }
        let mut seen = BTreeSet::new();
        for (node, serial, verdict, cordoned, size) in drives {
            if seen.insert((node, serial)) {
                let cordoned = if cordoned && !verdict.contains("cordoned") { "cordoned" } else { "" };
                lines.push(format!("drive n{node}/S{serial} size={} {verdict} {cordoned}", 1u64 << size));
            }
        }
        lines
    }
}

fn world(lines: &[String]) -> World {
    let mut world = World::default();
    for line in lines {
        world.add(line);
    }
    world
}

/// What no plan may ever ask for, whatever the rack.
fn check(world: &World, plan: &[Action]) -> Result<(), TestCaseError> {
    let mut wanted = BTreeSet::new();
    for action in plan {
        match action {
            Action::Want {
                drive,
                claim: Some(claim),
            } => {
                prop_assert!(wanted.insert(drive.clone()), "{drive} wanted twice");
                let drive = world
                    .drives
                    .iter()
                    .find(|d| d.metadata.name.as_ref() == Some(drive))
                    .unwrap();
                let status = drive.status.as_ref().unwrap();
                let labelled = status
                    .label
                    .as_ref()
                    .is_some_and(|l| l.pool_id == claim.pool_id);
                prop_assert!(
                    labelled || status.verdict == Some(DriveVerdict::Stranded),
                    "{action}"
                );
                prop_assert!(claim.carve.context_memory.0 < status.size.0, "{action}");
                let pool = world
                    .pools
                    .iter()
                    .find(|p| p.metadata.name.as_ref() == Some(&claim.pool))
                    .unwrap();
                prop_assert_eq!(
                    pool.spec.pool_id.as_ref(),
                    Some(&claim.pool_id),
                    "an identity is recorded before it is used"
                );
            }
            Action::PublishMap { pool, map } => {
                let present = world
                    .maps
                    .iter()
                    .find(|m| m.metadata.name.as_ref() == Some(pool));
                prop_assert!(map.epoch > present.map_or(0, |m| m.spec.epoch));
                for node in &map.nodes {
                    prop_assert!(!node.drives.is_empty());
                }
            }
            _ => {}
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn plans_come_to_rest(lines in rack()) {
        let mut world = world(&lines);
        let mut rounds = 0;
        loop {
            let plan = world.plan();
            check(&world, &plan)?;
            if plan.is_empty() {
                break;
            }
            rounds += 1;
            prop_assert!(rounds < ROUNDS, "not at rest after {ROUNDS} rounds; next: {plan:#?}");
            for action in &plan {
                world.apply(action);
            }
            world.agents_act();
        }
        prop_assert_eq!(world.plan(), vec![]);
        prop_assert_eq!(world.plan_at(crate::world::later(Duration::from_secs(20))), vec![], "time alone changes nothing");
    }

    #[test]
    fn the_order_of_objects_does_not_matter(lines in rack(), seed in any::<u64>()) {
        let mut shuffled = lines.clone();
        let mut state = seed | 1;
        for i in (1..shuffled.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            shuffled.swap(i, (state >> 33) as usize % (i + 1));
        }
        let rendered = |lines: &[String]| -> BTreeSet<String> {
            world(lines).plan().iter().map(ToString::to_string).collect()
        };
        prop_assert_eq!(rendered(&lines), rendered(&shuffled));
    }
}
