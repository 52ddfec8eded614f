//! Of any pod: what the user wrote stays, a second decision adds nothing, and there is one endpoint, before all others.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that meets what it did not expect stops there"
)]

mod bed;

use bed::{Known, apply, config};
use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use serde_json::{Value, json};
use strand_injection::{Answer, decide};

/// Names that matter, and some that do not.
fn variable() -> impl Strategy<Value = Value> {
    let names = prop::sample::select(vec![
        "STRAND_KV_URL",
        "STRAND_KV_SOCKET",
        "LMCACHE_REMOTE_URL",
        "LMCACHE_CONFIG_FILE",
        "LMCACHE_EXTRA_CONFIG",
        "LMCACHE_RESP_PORT",
        "PYTHONHASHSEED",
        "PATH",
        "X",
    ]);
    (names, "[a-z]{0,3}").prop_map(|(name, value)| json!({"name": name, "value": value}))
}

fn container(name: String) -> impl Strategy<Value = Value> {
    let env = prop::option::of(prop::collection::vec(variable(), 0..5));
    let mounts = prop::option::of(prop::collection::vec(
        prop::sample::select(vec!["/data", "/run/strand/kv", "/run"]),
        0..3,
    ));
    let ports = prop::option::of(prop::collection::vec(
        prop::sample::select(vec![6379, 7379, 8379, 80]),
        0..3,
    ));
    (env, mounts, ports, any::<bool>()).prop_map(move |(env, mounts, ports, from)| {
        let mut made = json!({"name": name, "image": "i"});
        if let Some(env) = env {
            made["env"] = json!(env);
        }
        if let Some(mounts) = mounts {
            let mounts = mounts
                .into_iter()
                .map(|path| json!({"name": "data", "mountPath": path}));
            made["volumeMounts"] = mounts.collect();
        }
        if let Some(ports) = ports {
            made["ports"] = ports
                .into_iter()
                .map(|port| json!({"containerPort": port}))
                .collect();
        }
        if from {
            made["envFrom"] = json!([{"configMapRef": {"name": "c"}}]);
        }
        made
    })
}

fn containers(prefix: &'static str, least: usize) -> impl Strategy<Value = Vec<Value>> {
    (least..4usize).prop_flat_map(move |n| {
        (0..n)
            .map(|i| container(format!("{prefix}{i}")))
            .collect::<Vec<_>>()
    })
}

fn pod() -> impl Strategy<Value = Value> {
    let volumes = prop::option::of(prop::collection::vec(
        prop::sample::select(vec![
            json!({"name": "data", "emptyDir": {}}),
            json!({"name": "own", "csi": {"driver": "csi.strand.dev", "volumeAttributes": {"kind": "kv", "pool": "rack"}}}),
            json!({"name": "other", "csi": {"driver": "csi.strand.dev", "volumeAttributes": {"kind": "kv", "pool": "else"}}}),
            json!({"name": "strand-kv", "emptyDir": {}}),
        ]),
        0..3,
    ));
    let annotations = prop::option::of(prop::sample::subsequence(
        vec![
            ("strand.dev/port", "7000"),
            ("strand.dev/password-secret", "p"),
            ("strand.dev/containers", "c0,i0"),
            ("strand.dev/inject", "true"),
            ("mine", "x"),
        ],
        0..5,
    ));
    let labels = prop::option::of(prop::sample::select(vec!["rack", "granted", "none"]));
    let parts = (
        containers("c", 1),
        prop::option::of(containers("i", 0)),
        volumes,
        annotations,
        labels,
        any::<bool>(),
    );
    parts.prop_map(|(containers, init, volumes, annotations, label, host)| {
        let mut made = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": {"containers": containers}});
        if let Some(init) = init {
            made["spec"]["initContainers"] = json!(init);
        }
        if let Some(volumes) = volumes {
            made["spec"]["volumes"] = json!(volumes);
        }
        if let Some(annotations) = annotations {
            made["metadata"]["annotations"] =
                annotations.into_iter().map(|(k, v)| (k.to_owned(), json!(v))).collect();
        }
        if let Some(label) = label {
            made["metadata"]["labels"] = json!({"strand.dev/pool": label});
        }
        if host {
            made["spec"]["hostNetwork"] = json!(true);
        }
        made
    })
}

/// Whether all of `before` is in `after`: fields as they were, list items in their order, others between them.
fn keeps(before: &Value, after: &Value) -> bool {
    match (before, after) {
        (Value::Object(b), Value::Object(a)) => b
            .iter()
            .all(|(key, value)| a.get(key).is_some_and(|other| keeps(value, other))),
        (Value::Array(b), Value::Array(a)) => {
            let mut rest = a.iter();
            b.iter().all(|item| rest.any(|other| keeps(item, other)))
        }
        (b, a) => b == a,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn what_the_user_wrote_stays_and_once_is_enough(object in pod(), namespace in any::<bool>()) {
        let pool = namespace.then_some("rack");
        let pod: Pod = serde_json::from_value(object).unwrap();
        let answer = decide(&pod, "team-a", pool, &Known, &config());
        let after = apply(&pod, &answer);
        let (b, a) = (serde_json::to_value(&pod).unwrap(), serde_json::to_value(&after).unwrap());
        prop_assert!(keeps(&b, &a), "{b} became {a}");
        match decide(&after, "team-a", pool, &Known, &config()) {
            Answer::Leave | Answer::Skip { patch: None, .. } => {}
            more => prop_assert!(false, "changed again: {more:?}"),
        }
        let spec = after.spec.unwrap();
        match answer {
            Answer::Leave => prop_assert_eq!(a, b),
            Answer::Skip { .. } => prop_assert_eq!(&a["spec"], &b["spec"]),
            Answer::Inject { .. } => {
                let init = spec.init_containers.unwrap();
                prop_assert_eq!(init[0].name.as_str(), "strand-kv-endpoint");
                prop_assert_eq!(init.iter().filter(|c| c.name == "strand-kv-endpoint").count(), 1);
                let mut names: Vec<_> = spec.volumes.iter().flatten().map(|v| v.name.clone()).collect();
                let all = names.len();
                names.sort();
                names.dedup();
                // Unless the user has the same one twice.
                let given = pod.spec.unwrap().volumes.unwrap_or_default();
                let mut own: Vec<_> = given.iter().map(|v| v.name.clone()).collect();
                own.sort();
                own.dedup();
                prop_assert_eq!(all - names.len(), given.len() - own.len());
                for container in init.iter().skip(1).chain(&spec.containers) {
                    let env: Vec<_> = container.env.iter().flatten().map(|v| &v.name).collect();
                    for name in ["STRAND_KV_URL", "LMCACHE_REMOTE_URL", "PYTHONHASHSEED"] {
                        let given = |c: &&k8s_openapi::api::core::v1::Container| c.name == container.name;
                        let before: Pod = serde_json::from_value(b.clone()).unwrap();
                        let before = before.spec.unwrap();
                        let before = before.init_containers.iter().flatten().chain(&before.containers).find(given).cloned();
                        let before = before.unwrap().env.unwrap_or_default().iter().filter(|v| v.name == name).count();
                        let now = env.iter().filter(|n| n.as_str() == name).count();
                        prop_assert!(now <= before.max(1), "{name} {before} {now}");
                    }
                }
            }
        }
    }
}
