//! Values that cannot work are refused before anything is installed.

use crate::helm::{chart, render};
use std::collections::BTreeSet;

#[test]
fn wrong_values_are_refused() {
    for wrong in [
        "nodes.arenaMiB=1",
        "node.arenaMib=512",
        "node.ports.peer=70000",
        "node.ports.peer=none",
        "operator.replicas=0",
        "image.pullPolicy=Sometimes",
        "image.digest=sha256:12",
        "csi.snapshots=yes",
        "csi.storageClasses[0].parameters.redundancy=two",
        "webhook.certificates=mine",
        "injection.port=80",
        "monitoring.monitors.interval=often",
    ] {
        let refused = render(&["--set", wrong]);
        let why = refused.err().unwrap_or_else(|| panic!("{wrong} was taken"));
        assert!(why.contains("schema"), "{wrong}: {why}");
    }
}

/// Every value is in the schema, and explained where it is set.
#[test]
fn the_schema_has_every_value_and_no_other() {
    let values: serde_json::Value =
        serde_yaml::from_str(&std::fs::read_to_string(chart().join("values.yaml")).unwrap())
            .unwrap();
    let schema: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(chart().join("values.schema.json")).unwrap())
            .unwrap();
    let mut differences = BTreeSet::new();
    compare(&values, &schema, "", &mut differences);
    // What the schema takes for any chart.
    differences.remove(".global: only in the schema");
    assert!(differences.is_empty(), "{differences:#?}");
}

fn compare(
    values: &serde_json::Value,
    schema: &serde_json::Value,
    at: &str,
    found: &mut BTreeSet<String>,
) {
    let (Some(values), Some(properties)) = (values.as_object(), schema["properties"].as_object())
    else {
        return;
    };
    for (key, value) in values {
        match properties.get(key) {
            Some(schema) => compare(value, schema, &format!("{at}.{key}"), found),
            None => {
                found.insert(format!("{at}.{key}: only in the values"));
            }
        }
    }
    for key in properties.keys().filter(|key| !values.contains_key(*key)) {
        found.insert(format!("{at}.{key}: only in the schema"));
    }
}
