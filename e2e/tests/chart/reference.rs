//! `docs/reference/`: what can be looked up, made of the definitions, the chart's values and the programs' source, so that it says what
//! they say. After a change that is meant: `UPDATE_GOLDEN=1 cargo test -p strand-e2e --test chart`.

use crate::helm::{chart, root};
use regex::Regex;
use serde_json::Value;
use std::{collections::BTreeMap, fmt::Write, fs, path::Path};

/// Programs, and where their metrics are made.
const PROGRAMS: [&str; 4] = ["operator", "node-agent", "csi-driver", "kv-endpoint"];
const MADE: &str =
    "Made by `UPDATE_GOLDEN=1 cargo test -p strand-e2e --test chart`; change what it is made of.\n";

#[test]
fn the_reference_says_what_the_code_says() {
    let pages = [
        ("objects.md", objects()),
        ("values.md", values()),
        ("settings.md", settings()),
        ("metrics.md", metrics()),
        ("pods.md", pods()),
    ];
    let dir = root().join("docs/reference");
    let mut different = Vec::new();
    for (name, page) in pages {
        let path = dir.join(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::create_dir_all(&dir).unwrap();
            fs::write(&path, &page).unwrap();
        }
        if fs::read_to_string(&path).unwrap_or_default() != page {
            different.push(name);
        }
    }
    assert!(
        different.is_empty(),
        "docs/reference/{different:?}: UPDATE_GOLDEN=1, and read the difference"
    );
}

#[test]
fn every_value_is_explained() {
    let page = values();
    let bare: Vec<_> = page.lines().filter(|row| row.ends_with("|  |")).collect();
    assert!(bare.is_empty(), "charts/strand/values.yaml: {bare:#?}");
}

fn cell(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").replace('|', "\\|")
}

fn row(page: &mut String, cells: &[&str]) {
    writeln!(page, "| {} |", cells.join(" | ")).unwrap();
}

/// Every field of every kind, from `crds/`.
fn objects() -> String {
    let mut page = format!(
        "# Objects: every field\n\n{MADE}\nAll are cluster-scoped, of `strand.dev/v1alpha1`. `[]` is an entry of a list.\n"
    );
    let mut files: Vec<_> = fs::read_dir(root().join("crds"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    for file in files {
        let definition: Value = serde_yaml::from_str(&fs::read_to_string(file).unwrap()).unwrap();
        let names = &definition["spec"]["names"];
        let short = names["shortNames"][0].as_str().unwrap();
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let about = schema["description"].as_str().unwrap();
        let kind = names["kind"].as_str().unwrap();
        writeln!(page, "\n## {kind} (`{short}`)\n{about}\n").unwrap();
        row(&mut page, &["field", "type", "meaning"]);
        row(&mut page, &["---", "---", "---"]);
        for part in ["spec", "status"] {
            fields(&mut page, part, &schema["properties"][part]);
        }
    }
    page
}

fn fields(page: &mut String, path: &str, schema: &Value) {
    let required: Vec<&str> = schema["required"].as_array().map_or_else(Vec::new, |all| {
        all.iter().filter_map(Value::as_str).collect()
    });
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        let mut about = cell(field["description"].as_str().unwrap_or_default());
        if let Some(one_of) = field["enum"].as_array() {
            let one_of: Vec<String> = one_of
                .iter()
                .filter_map(|value| value.as_str().map(|value| format!("`{value}`")))
                .collect();
            write!(about, " One of {}.", one_of.join(", ")).unwrap();
        }
        match &field["default"] {
            Value::Null => {}
            default => write!(about, " Default: `{default}`.").unwrap(),
        }
        if required.contains(&name.as_str()) {
            about += " Required.";
        }
        let is = if field["x-kubernetes-int-or-string"] == true {
            "quantity or number"
        } else {
            field["type"].as_str().unwrap_or("any")
        };
        row(page, &[&format!("`{path}`"), is, about.trim()]);
        fields(page, &path, field);
        fields(page, &format!("{path}[]"), &field["items"]);
        fields(page, &format!("{path}.*"), &field["additionalProperties"]);
    }
}

/// Every value of the chart with its default, from `values.yaml`: a comment that begins with `--` is about the value below it.
fn values() -> String {
    let text = fs::read_to_string(chart().join("values.yaml")).unwrap();
    let all: Value = serde_yaml::from_str(&text).unwrap();
    let mut about: BTreeMap<String, String> = BTreeMap::new();
    let mut path: Vec<(usize, &str)> = Vec::new();
    let mut comment = String::new();
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        let line = line.trim();
        if line.is_empty() {
            comment.clear();
        } else if let Some(begins) = line.strip_prefix("# -- ") {
            comment = begins.to_owned();
        } else if let Some(goes_on) = line.strip_prefix("# ") {
            write!(comment, " {goes_on}").unwrap();
        } else if let Some((key, _)) = line.split_once(':').filter(|_| !line.starts_with('-')) {
            path.retain(|(outer, _)| *outer < indent);
            path.push((indent, key));
            let keys: Vec<&str> = path.iter().map(|(_, key)| *key).collect();
            about.insert(keys.join("."), std::mem::take(&mut comment));
        }
    }
    let mut page = format!("# Values of the chart\n\n{MADE}\n");
    row(&mut page, &["value", "default", "meaning"]);
    row(&mut page, &["---", "---", "---"]);
    leaves(&mut page, "", &all, &about);
    page
}

/// A value that is explained, or has nothing below it; of a map of such, each one.
fn leaves(page: &mut String, path: &str, value: &Value, about: &BTreeMap<String, String>) {
    let words = about.get(path).map_or("", String::as_str);
    let deeper = value.as_object().filter(|map| {
        let explained = |key: &String| {
            about
                .get(&format!("{path}.{key}"))
                .is_some_and(|a| !a.is_empty())
        };
        path.is_empty() || words.is_empty() && !map.is_empty() || map.keys().any(explained)
    });
    let Some(map) = deeper else {
        row(
            page,
            &[&format!("`{path}`"), &format!("`{value}`"), &cell(words)],
        );
        return;
    };
    if !words.is_empty() {
        row(page, &[&format!("`{path}`"), "", &cell(words)]);
    }
    for (key, value) in map {
        let path = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        leaves(page, &path, value, about);
    }
}

/// Every flag and variable of the processes, from where their arguments are declared.
fn settings() -> String {
    let mut page = format!(
        "# Settings of the processes\n\n{MADE}\nEach is a flag, and a variable. The chart sets what it needs.\n"
    );
    for program in PROGRAMS {
        writeln!(page, "\n## {program}\n").unwrap();
        row(&mut page, &["flag", "variable", "default", "meaning"]);
        row(&mut page, &["---", "---", "---", "---"]);
        for file in [
            format!("{program}/src/main.rs"),
            "crates/process/src/logs.rs".into(),
        ] {
            arguments(&mut page, &fs::read_to_string(root().join(file)).unwrap());
        }
    }
    page
}

fn arguments(page: &mut String, source: &str) {
    let field =
        Regex::new(r"(?s)((?:[ \t]*///[^\n]*\n)+)[ \t]*#\[arg\((.*?)\)\]\s*(?:pub )?(\w+):")
            .unwrap();
    let variable = Regex::new(r#"env = "(\w+)""#).unwrap();
    let default = Regex::new(r#"default_value(?:_t)? = "?([^",]+)"?"#).unwrap();
    let named = Regex::new(r#"long = "([^"]+)""#).unwrap();
    for found in field.captures_iter(source) {
        let about: Vec<&str> = found[1]
            .lines()
            .map(|line| line.trim().trim_start_matches("///"))
            .collect();
        let take = |pattern: &Regex| {
            let taken = pattern.captures(&found[2]);
            taken
                .map(|taken| format!("`{}`", taken[1].trim()))
                .unwrap_or_default()
        };
        let flag = named
            .captures(&found[2])
            .map_or_else(|| found[3].replace('_', "-"), |name| name[1].to_owned());
        row(
            page,
            &[
                &format!("`--{flag}`"),
                &take(&variable),
                &take(&default),
                &cell(&about.join(" ")),
            ],
        );
    }
}

/// The one metric that ends in `_seconds` and is no histogram.
pub const GAUGE: &str = "strand_context_recovery_seconds";

/// Every metric, with the help that it has on `/metrics`.
pub fn metrics() -> String {
    let mut page = format!(
        "# Metrics\n\n{MADE}\nNames that end in `_seconds` are histograms, all but `{GAUGE}`. What the more important ones mean, and what to do about\nthem: [operations](../operations.md), [context memory](../context-memory.md), [volumes](../storage.md#metrics).\n"
    );
    let whole = Regex::new(r#""(strand_[a-z0-9_]+)",\s*"([^"]+)""#).unwrap();
    let ending = Regex::new(r#"counter\(\s*"([a-z_]+)",\s*"([^"]+)""#).unwrap();
    let named = Regex::new(r#"\(\s*"([a-z_]+)",\s*"([^"]+\.)""#).unwrap();
    for program in PROGRAMS {
        let mut found: BTreeMap<String, String> = BTreeMap::new();
        let mut source = String::new();
        read(&root().join(program).join("src"), &mut source);
        for metric in whole.captures_iter(&source) {
            found.insert(metric[1].to_owned(), metric[2].to_owned());
        }
        if program == "kv-endpoint" {
            for metric in ending.captures_iter(&source) {
                found.insert(
                    format!("strand_kv_endpoint_{}", &metric[1]),
                    metric[2].to_owned(),
                );
            }
        }
        if program == "node-agent" {
            let doors = fs::read_to_string(root().join("crates/kv-door/src/families.rs")).unwrap();
            for metric in named.captures_iter(&doors) {
                found.insert(
                    format!("strand_context_door_{}", &metric[1]),
                    metric[2].to_owned(),
                );
            }
        }
        writeln!(page, "\n## {program}\n").unwrap();
        row(&mut page, &["metric", "meaning"]);
        row(&mut page, &["---", "---"]);
        for (name, help) in found {
            row(&mut page, &[&format!("`{name}`"), &cell(&help)]);
        }
    }
    page
}

/// What pods ask for, get and are told, from the injection's source and what it makes of pods in its scenarios.
fn pods() -> String {
    let source = root().join("crates/injection");
    let read = |file: &str| fs::read_to_string(source.join(file)).unwrap();
    let mut page = format!(
        "# Pods with context memory\n\n{MADE}\n`kubectl apply --dry-run=server -o yaml` shows what a pod gets. How clients use it: [the endpoint](../kv-endpoint.md).\n\n## Labels and annotations\n\n"
    );
    row(&mut page, &["name", "meaning"]);
    row(&mut page, &["---", "---"]);
    let named = Regex::new(r#"((?:///[^\n]*\n)+)pub const \w+: &str = "([^"]+)""#).unwrap();
    for found in named.captures_iter(&read("src/annotations.rs")) {
        row(
            &mut page,
            &[
                &format!("`{}`", &found[2]),
                &cell(&found[1].replace("///", "")),
            ],
        );
    }
    page += "\n## Why a pod was left alone\n\nThe annotation `strand.dev/skipped` says it in words, with what to write instead. Codes are those of the operator's metric.\n\n";
    row(&mut page, &["code", "meaning"]);
    row(&mut page, &["---", "---"]);
    let skips = read("src/skip.rs");
    let skip = Regex::new(r"\n    /// ([^\n]+)\n    (\w+)").unwrap();
    let (kinds, _) = skips.split_once("impl Skip").unwrap();
    for found in skip.captures_iter(kinds) {
        row(&mut page, &[&format!("`{}`", &found[2]), &cell(&found[1])]);
    }
    page += "\n## Variables of its containers\n\nNone that the container sets itself is changed; what is left out for what it sets, `strand.dev/note` says.\n\n";
    row(
        &mut page,
        &[
            "variable",
            "as a rule",
            "with a port and a password of its own",
        ],
    );
    row(&mut page, &["---", "---", "---"]);
    let plain = variables(&read("tests/scenarios/plain.out.yaml"));
    let own = variables(&read("tests/scenarios/host-network-with-port.out.yaml"));
    for (name, value) in &own {
        let value = [plain.get(name), Some(value)].map(|value| match value {
            Some(value) => format!("`{value}`"),
            None => String::new(),
        });
        row(&mut page, &[&format!("`{name}`"), &value[0], &value[1]]);
    }
    page
}

/// Of a pod's first container.
fn variables(pod: &str) -> BTreeMap<String, String> {
    let pod: Value = serde_yaml::from_str(pod).unwrap();
    let all = pod["spec"]["containers"][0]["env"].as_array().unwrap();
    let value = |variable: &Value| match &variable["valueFrom"]["secretKeyRef"] {
        Value::Null => variable["value"].as_str().unwrap().to_owned(),
        key => format!("key {} of the Secret", key["key"].as_str().unwrap()),
    };
    all.iter()
        .map(|variable| {
            (
                variable["name"].as_str().unwrap().to_owned(),
                value(variable),
            )
        })
        .collect()
}

fn read(dir: &Path, text: &mut String) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read(&path, text);
        } else {
            *text += &fs::read_to_string(path).unwrap();
        }
    }
}
