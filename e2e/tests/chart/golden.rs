//! What is rendered is what was reviewed: `golden/*.yaml`. After a change that is meant: `UPDATE_GOLDEN=1 cargo test -p strand-e2e`.

use crate::helm::{cases, chart, helm, render, root};
use std::fs;

#[test]
fn every_case_renders_as_reviewed() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut different = Vec::new();
    for (name, values) in cases() {
        let rendered = render(&["--values", &values]).unwrap();
        let path = root().join(format!("e2e/tests/chart/golden/{name}.yaml"));
        if update {
            fs::write(&path, &rendered).unwrap();
        }
        let reviewed = fs::read_to_string(&path).unwrap_or_default();
        if let Some(line) = first_difference(&reviewed, &rendered) {
            different.push(format!("{name}: {line}"));
        }
    }
    assert!(
        different.is_empty(),
        "rendered differently; if that is meant, UPDATE_GOLDEN=1: {different:#?}"
    );
}

fn first_difference(before: &str, after: &str) -> Option<String> {
    if before == after {
        return None;
    }
    let at = before
        .lines()
        .zip(after.lines())
        .take_while(|(a, b)| a == b)
        .count();
    let line = |text: &str| text.lines().nth(at).unwrap_or("(end)").to_owned();
    Some(format!(
        "line {}: {:?} became {:?}",
        at + 1,
        line(before),
        line(after)
    ))
}

#[test]
fn lint_has_nothing_to_say() {
    let chart = chart();
    for (_, values) in cases() {
        let said = helm(&[
            "lint",
            "--strict",
            chart.to_str().unwrap(),
            "--values",
            &values,
        ]);
        said.unwrap();
    }
}
