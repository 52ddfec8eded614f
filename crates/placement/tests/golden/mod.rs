//! Golden scenarios: text files that describe objects a line each, and below `then` what is planned for them. Write the lines
//! above `then` and run with `STRAND_UPDATE_SCENARIOS=1` to have the rest written; read it before you commit it.

use std::{env, fmt::Display, fs, path::Path};

/// Holds every scenario of a folder of this crate against what is planned for its lines.
pub fn hold<A: Display>(folder: &str, plan: impl Fn(&mut dyn Iterator<Item = &str>) -> Vec<A>) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = fs::read_dir(dir).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() > 10);
    let mut wrong = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        let (given, expected) = text.split_once("\nthen\n").unwrap_or((text.trim_end(), ""));
        let lines = given.lines().map(str::trim);
        let actions = plan(&mut lines.filter(|l| !l.is_empty() && !l.starts_with('#')));
        let planned: String = actions.iter().map(|action| format!("{action}\n")).collect();
        let planned = if planned.is_empty() {
            "nothing\n".into()
        } else {
            planned
        };
        if planned == expected {
            continue;
        }
        if env::var_os("STRAND_UPDATE_SCENARIOS").is_some() {
            fs::write(&path, format!("{given}\nthen\n{planned}")).unwrap();
        } else {
            wrong.push(format!(
                "{}\nexpected:\n{expected}\nplanned:\n{planned}",
                path.display()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
