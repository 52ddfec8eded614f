//! What a person sees, against the texts in `golden/`. After a change that is meant, write them
//! anew with `UPDATE_GOLDEN=1 cargo test -p strandctl golden` and read the difference.

use crate::{cluster, drives, status, text::Style};
use k8s_openapi::{
    api::{coordination::v1::Lease, core::v1::Node},
    jiff::Timestamp,
};
use serde::Deserialize;
use std::{fs, path::PathBuf};
use strand_api::{Drive, MemoryPool};

#[derive(Deserialize)]
struct Fixture {
    nodes: Vec<Node>,
    operator: Lease,
    pools: Vec<MemoryPool>,
    drives: Vec<Drive>,
}

fn fixture() -> Fixture {
    let text = include_str!("../golden/rack.yaml");
    let mut fixture: Fixture = serde_yaml::from_str(text).expect("golden/rack.yaml");
    cluster::sort(&mut fixture.drives);
    fixture
}

/// The fixture's drives.
pub fn drives() -> Vec<Drive> {
    fixture().drives
}

/// The fixture's pools.
pub fn pools() -> Vec<MemoryPool> {
    fixture().pools
}

/// Fails where `text` differs from the golden file of that name.
pub fn compare(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, text).expect("golden file written");
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(text == expected, "{name} differs; now it is:\n{text}");
}

#[test]
fn drives_in_a_table() {
    compare(
        "drives.txt",
        &drives::listing(Style::PLAIN, &drives(), &Default::default(), false),
    );
    compare(
        "drives-wide.txt",
        &drives::listing(Style::PLAIN, &drives(), &Default::default(), true),
    );
    let none = drives::listing(Style::PLAIN, &[], &Default::default(), false);
    assert!(none.starts_with("No drive is known."), "{none}");
}

#[test]
fn why_each_drive_is_in_or_out() {
    compare(
        "drives-why.txt",
        &drives::why(Style::PLAIN, &drives(), &Default::default()),
    );
}

#[test]
fn drives_as_objects_are_a_list_without_bookkeeping() {
    let list = drives::objects(&drives()).unwrap();
    assert_eq!(list["kind"], "List");
    assert_eq!(list["items"][0]["spec"]["nodeName"], "node-1");
    assert!(!list.to_string().contains("managedFields"));
}

fn screen(seconds_later: i64, change: impl FnOnce(&mut cluster::Cluster)) -> String {
    let fixture = fixture();
    let mut cluster = cluster::Cluster {
        pools: fixture.pools,
        drives: fixture.drives,
        nodes: fixture.nodes,
        operator: Some(fixture.operator),
    };
    change(&mut cluster);
    let lease: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let now = Timestamp::from_second(lease.as_second() + seconds_later).unwrap();
    status::screen(Style::PLAIN, &cluster, now, 40)
}

#[test]
fn the_rack_on_one_screen() {
    compare("status.txt", &screen(3, |_| {}));
}

#[test]
fn on_a_narrow_terminal_tables_are_cut() {
    let listed = drives::listing(Style::of_width(104), &drives(), &Default::default(), false);
    compare("narrow.txt", &listed);
}

#[test]
fn the_rack_as_objects_has_pools_and_drives() {
    let fixture = fixture();
    let (pools, drives) = (fixture.pools.len(), fixture.drives.len());
    let cluster = cluster::Cluster {
        pools: fixture.pools,
        drives: fixture.drives,
        nodes: fixture.nodes,
        operator: None,
    };
    let list = status::objects(&cluster).unwrap();
    assert_eq!(list["kind"], "List");
    assert_eq!(list["items"].as_array().unwrap().len(), pools + drives);
    assert!(!list.to_string().contains("managedFields"));
}

#[test]
fn an_operator_that_is_away_is_told() {
    let late = screen(60, |_| {});
    assert!(
        late.contains("none leads; operator-0 was last seen 60 s ago"),
        "{late}"
    );
    let never = screen(0, |cluster| cluster.operator = None);
    assert!(never.contains("Operator: none leads"), "{never}");
}

#[test]
fn of_a_large_rack_those_with_something_to_tell_come_first() {
    let large = screen(0, |cluster| {
        let node = cluster.nodes[0].clone();
        let drive = cluster.drives[0].clone();
        cluster
            .drives
            .retain(|drive| drive.spec.node_name == "node-10");
        cluster
            .nodes
            .retain(|node| node.metadata.name.as_deref() == Some("node-10"));
        for number in 100..400 {
            let name = format!("node-{number}");
            let (mut node, mut drive) = (node.clone(), drive.clone());
            node.metadata.name = Some(name.clone());
            drive.spec.node_name = name;
            cluster.nodes.push(node);
            cluster.drives.push(drive);
        }
        cluster.drives[290].status = None;
        cluster.drives[290].spec.node_name = "node-399".into();
    });
    assert!(large.lines().count() < 60, "{large}");
    let row = |name| large.lines().position(|line| line.starts_with(name));
    assert!(
        row("node-10 ") < row("node-100 ") && row("node-399 ") < row("node-100 "),
        "{large}"
    );
    assert!(large.contains("and 261 more nodes"), "{large}");
}
