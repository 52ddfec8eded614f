//! Where the legs of a volume that has several would lie.

use crate::world::World;
use proptest::prelude::*;
use std::collections::BTreeSet;
use strand_api::{Provisioning, Redundancy};
use strand_placement::volumes::{
    ledger::Ledger,
    place::{Apart, Node, Request, spread},
    shape::shapes,
};

const GIB: u64 = 1 << 30;

fn request(size: u64, node: Node) -> Request {
    Request {
        pool: "default",
        size,
        provisioning: Provisioning::Thick,
        node,
        beside: None,
        tried: Default::default(),
    }
}

/// Nodes whose drives have room for so many GiB each.
fn world(nodes: &[Vec<u64>]) -> World {
    let mut world = World::default();
    world.add("pool default");
    for (n, drives) in nodes.iter().enumerate() {
        world.add(&format!("node n{n}"));
        for (d, gib) in drives.iter().enumerate() {
            world.add(&format!("drive n{n}/d{d} storage={gib}Gi"));
        }
    }
    world
}

#[test]
fn too_few_places_are_told_with_the_closest_fit() {
    let world = world(&[vec![100, 200], vec![4], vec![300]]);
    let storage = world.storage();
    let ledger = Ledger::new(&storage);
    let of = |count, apart, others: &[&str]| {
        let request = request(10 * GIB, Node::Any);
        let chosen = spread(&ledger, &request, count, apart, others);
        chosen
            .map(|accounts| {
                accounts
                    .iter()
                    .map(|a| a.drive.to_owned())
                    .collect::<Vec<_>>()
            })
            .map_err(|misfit| misfit.to_string())
    };
    assert_eq!(
        of(2, Apart::Domains, &[]),
        Ok(vec!["n2-d0".into(), "n0-d1".into()])
    );
    assert_eq!(of(3, Apart::Drives, &[]).map(|drives| drives.len()), Ok(3));
    assert_eq!(
        of(3, Apart::Domains, &[]).unwrap_err(),
        "10Gi more (thick) have to fit in 3 different failure domains (nodes, or what the pool's failureDomainLabel names) of pool \
         default and do in 2; closest is n1-d0 on node n1 with room for 4Gi"
    );
    // For a leg that is lost: not where another is.
    assert_eq!(of(1, Apart::Domains, &["n2-d0"]), Ok(vec!["n0-d1".into()]));
    assert_eq!(
        of(1, Apart::Domains, &["n2-d0", "n0-d0"]).map_err(|_| ()),
        Err(())
    );
}

#[test]
fn the_first_consumer_holds_a_leg_of_a_mirror_and_none_of_raid6() {
    let world = world(&[vec![50], vec![100], vec![100], vec![100], vec![100]]);
    let storage = world.storage();
    let ledger = Ledger::new(&storage);
    let nodes = |count, node| -> Vec<String> {
        let request = request(10 * GIB, node);
        let chosen = spread(&ledger, &request, count, Apart::Domains, &[]).unwrap();
        chosen.iter().map(|a| a.node.to_owned()).collect()
    };
    assert_eq!(nodes(2, Node::Preferred("n0"))[0], "n0");
    assert!(!nodes(4, Node::Not("n1")).contains(&"n1".to_owned()));
}

proptest! {
    /// What is chosen is apart and has room; and where nothing is, nothing could be.
    #[test]
    fn legs_are_apart_and_refused_only_where_there_is_no_way(
        nodes in prop::collection::vec(prop::collection::vec(1..300u64, 1..4), 1..8),
        volume in 1..400u64,
        redundancy in prop::sample::select(vec![Redundancy::Stripe, Redundancy::Mirror, Redundancy::Raid6]),
    ) {
        let world = world(&nodes);
        let storage = world.storage();
        let ledger = Ledger::new(&storage);
        let apart = match redundancy {
            Redundancy::Stripe => Apart::Drives,
            _ => Apart::Domains,
        };
        for shape in shapes(redundancy, volume * GIB) {
            let request = request(shape.size, Node::Any);
            let fits = |account: &str| ledger.of(account).is_some_and(|a| a.largest(Provisioning::Thick) >= shape.size);
            let drives = nodes.iter().enumerate().flat_map(|(n, drives)| (0..drives.len()).map(move |d| (n, format!("n{n}-d{d}"))));
            let fitting: Vec<(usize, String)> = drives.filter(|(_, drive)| fits(drive)).collect();
            let places = match apart {
                Apart::Drives => fitting.len(),
                Apart::Domains => fitting.iter().map(|(n, _)| n).collect::<BTreeSet<_>>().len(),
            };
            match spread(&ledger, &request, shape.legs, apart, &[]) {
                Ok(chosen) => {
                    let key = |a: &&strand_placement::volumes::ledger::Account| match apart {
                        Apart::Drives => a.drive.to_owned(),
                        Apart::Domains => a.node.to_owned(),
                    };
                    let keys: BTreeSet<String> = chosen.iter().map(key).collect();
                    prop_assert_eq!(keys.len(), shape.legs);
                    prop_assert!(chosen.iter().all(|a| fits(a.drive)));
                }
                Err(misfit) => prop_assert!(places < shape.legs, "{}", misfit),
            }
        }
    }
}
