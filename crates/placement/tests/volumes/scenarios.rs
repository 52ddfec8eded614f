//! Golden scenarios: `tests/volumes/scenarios/*.txt` describe objects a line each, and below `then` what is
//! planned. Write the lines above `then` and run with `STRAND_UPDATE_SCENARIOS=1` to have the rest written;
//! read it before you commit it.

use crate::world::World;
use std::{env, fs, path::Path};

#[test]
fn the_operator_plans_for_volumes_what_the_scenarios_say() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/volumes/scenarios");
    let entries = fs::read_dir(dir).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() > 10);
    let mut wrong = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        let (given, expected) = text.split_once("\nthen\n").unwrap_or((text.trim_end(), ""));
        let mut world = World::default();
        let lines = given.lines().map(str::trim);
        for line in lines.filter(|l| !l.is_empty() && !l.starts_with('#')) {
            world.add(line);
        }
        let plan = world.plan();
        let plan: String = plan.iter().map(|action| format!("{action}\n")).collect();
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
