//! `docs/verdicts.md` lists every code that a person can meet.

use std::collections::BTreeSet;

use strand_placement::verdict::Reason;

const PAGE: &str = include_str!("../../../docs/verdicts.md");
const REFUSALS: &str = include_str!("../../../crates/placement/src/select.rs");

/// The codes in the first column of the tables of one section.
fn listed(section: &str) -> BTreeSet<&'static str> {
    let (_, text) = PAGE.split_once(section).unwrap();
    let text = text.split_once("\n## ").map_or(text, |(text, _)| text);
    text.lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(code, _)| code)
        .collect()
}

#[test]
fn every_reason_of_a_verdict_is_listed() {
    // Serde names all variants when it meets one that is none.
    let error = serde_json::from_str::<Reason>(r#"{"code":"?"}"#)
        .unwrap_err()
        .to_string();
    let (_, names) = error.split_once("expected one of").unwrap();
    let names = names.split(" at line").next().unwrap();
    let all: BTreeSet<&str> = names.split('`').skip(1).step_by(2).collect();
    assert!(all.len() > 30, "{error}");
    assert_eq!(listed("## Reasons of a verdict"), all);
}

#[test]
fn every_refusal_of_the_operator_is_listed() {
    let (_, function) = REFUSALS.split_once("pub fn code(&self)").unwrap();
    let (function, _) = function.split_once("\n    }\n").unwrap();
    let all: BTreeSet<&str> = function.split('"').skip(1).step_by(2).collect();
    assert!(all.len() > 5);
    assert_eq!(listed("## Why no pool takes a drive"), all);
}
