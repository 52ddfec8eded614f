//! Golden scenarios: `tests/scenarios/*.txt` describe a rack a line an object, and below `then` what the
//! operator plans. Write the lines above `then` and run with `STRAND_UPDATE_SCENARIOS=1` to have the rest
//! written; read it before you commit it.

use crate::world::World;
use std::{env, fs, path::Path};

#[test]
fn the_operator_plans_what_the_scenarios_say() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut paths: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(paths.len() > 10);
    let mut wrong = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        let (given, expected) = text.split_once("\nthen\n").unwrap_or((text.trim_end(), ""));
        let mut world = World::default();
        for line in given
            .lines()
            .map(str::trim)
            .filter(|l| !l.is_empty() && !l.starts_with('#'))
        {
            world.add(line);
        }
        let plan: String = world
            .plan()
            .iter()
            .map(|action| format!("{action}\n"))
            .collect();
        let plan = if plan.is_empty() {
            "nothing\n".into()
        } else {
            plan
        };
        if plan == expected {
            continue;
        }
        if env::var_os("STRAND_UPDATE_SCENARIOS").is_some() {
            fs::write(&path, format!("{given}\nthen\n{plan}")).unwrap();
        } else {
            wrong.push(format!(
                "{}\nexpected:\n{expected}\nplanned:\n{plan}",
                path.display()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
