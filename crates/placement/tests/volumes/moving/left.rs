//! What a volume leaves behind on its way.

use super::*;

/// The agent of the node that a volume has left hears nothing of that, reboots, and gives out what it finds.
#[test]
fn what_is_left_behind_is_not_attached() {
    let mut run = goes_home_to_what_was_left(|_| {});
    assert!(run.acknowledged.is_empty(), "it waits");
    run.rest().unwrap();
}

/// The same, and the object of what was left is lost as well, so that nobody knows of it; or it is made again, by who owns nothing.
#[test]
fn what_is_left_behind_is_not_attached_without_its_object() {
    let lose = |run: &mut Run| run.world.legs.retain(|leg| !leg.spec.deletion_mark);
    goes_home_to_what_was_left(lose).rest().unwrap();
    let mut run = goes_home_to_what_was_left(|run| {
        lose(run);
        run.happen(&Event::Agent { node: 0 });
        let again = run.world.legs.last().unwrap();
        assert!(again.spec.orphaned, "{again:?}");
        run.happen(&Event::Operator);
        let again = run.world.legs.last().unwrap();
        assert!(again.spec.orphaned && again.spec.deletion_mark, "{again:?}");
        run.happen(&Event::Kill { node: 0 });
    });
    assert!(run.acknowledged.is_empty(), "it waits");
    run.rest().unwrap();
}

fn goes_home_to_what_was_left(happens: impl FnOnce(&mut Run)) -> Run {
    let mut run = Run::new();
    run.happen(&Event::Settle);
    run.happen(&Event::Empty { node: 0, on: true });
    let left = |run: &mut Run| {
        let moved = run.world.volume_mut("v").unwrap().spec.legs[0].node_name != NODES[0];
        moved && run.world.legs.iter().any(|leg| leg.spec.deletion_mark)
    };
    for _ in 0..20 {
        run.happen(&Event::Operator);
        if left(&mut run) {
            break;
        }
        (0..2).for_each(|node| run.happen(&Event::Agent { node }));
    }
    assert!(left(&mut run), "it has moved, and its old leg is marked");
    run.happen(&Event::Reboot { node: 0 });
    happens(&mut run);
    run.happen(&Event::Wish {
        node: 0,
        read_only: false,
    });
    for _ in 0..6 {
        run.happen(&Event::Operator);
        run.happen(&Event::Agent { node: 1 });
        run.happen(&Event::User { node: 0 });
        run.look().unwrap();
    }
    run
}
