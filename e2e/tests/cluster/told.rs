//! What users and administrators are told by a cluster that runs, and what they get while nobody decides.

use serde_json::{Value, json};
use strand_e2e::process::run;

use crate::rack::{NAMESPACE, Pod, Rack, strandctl};

/// `kubectl strand` on the cluster: every table, and one file for whoever helps, without a secret in it.
pub fn kubectl_strand_tells_of_the_rack(rack: &Rack) {
    let ask = |args: &[&str]| run(&mut strandctl(rack, args)).unwrap();
    let status = ask(&["status"]);
    for word in ["rack", "node-1", "node-2"] {
        assert!(status.contains(word), "{status}");
    }
    let objects: Value = serde_json::from_str(&ask(&["status", "-o", "json"])).unwrap();
    assert_eq!(objects["kind"], "List", "{objects}");
    let why = ask(&["drives", "--why"]);
    assert!(why.contains("node-1-") && why.contains("node-2-"), "{why}");
    assert!(ask(&["kv", "top"]).contains("team-a"));
    ask(&["volumes", "list"]);

    let file = rack.cluster.dir().join("bundle.tar.gz");
    ask(&["support-bundle", "--file", &file.to_string_lossy()]);
    let read = |flags: &str| {
        let mut tar = std::process::Command::new("tar");
        run(tar.arg(flags).arg(&file)).unwrap()
    };
    assert!(read("-tzf").lines().count() > 10);
    let path = "jsonpath={.data.ca\\.key}{.data.tls\\.key}";
    let secrets = ["get", "secrets", "-n", NAMESPACE, "-o", "name"];
    for secret in rack.kubectl(&secrets).lines() {
        let key = rack.kubectl(&["get", "-n", NAMESPACE, secret, "-o", path]);
        assert!(key.is_empty() || !read("-xzOf").contains(key.trim()));
    }
}

/// A pod that is not given an endpoint says why, and what to write instead, before it is made; what its author set is left as it is.
pub fn pods_are_told_what_they_get(rack: &Rack) {
    rack.team("team-a");
    let would_be = |change: &dyn Fn(&mut Value)| -> Value {
        let mut pod = Pod::new("team-a", "asks").object();
        change(&mut pod);
        let args = ["create", "--dry-run=server", "-o", "json", "-f", "-"];
        let said = rack.cluster.feed(&args, pod.to_string().as_bytes());
        serde_json::from_str(&said.unwrap()).unwrap()
    };
    let skipped = |change: &dyn Fn(&mut Value), words: &str| {
        let pod = would_be(change);
        let said = &pod["metadata"]["annotations"]["strand.dev/skipped"];
        assert!(
            said.as_str().is_some_and(|said| said.contains(words)),
            "{pod}"
        );
        assert!(pod["spec"]["initContainers"].is_null(), "{pod}");
    };
    let annotate = |name: &'static str, value: &'static str| {
        move |pod: &mut Value| pod["metadata"]["annotations"] = json!({name: value})
    };
    skipped(
        &|pod| pod["spec"]["hostNetwork"] = json!(true),
        "strand.dev/port",
    );
    skipped(&annotate("strand.dev/inject", "false"), "strand.dev/inject");
    skipped(&annotate("strand.dev/containers", "none"), "no container");
    let label = json!({"strand.dev/pool": "nowhere"});
    skipped(
        &|pod| pod["metadata"]["labels"] = label.clone(),
        "no MemoryPool",
    );

    let own = json!([{"name": "LMCACHE_REMOTE_URL", "value": "mine"}]);
    let pod = would_be(&|pod| pod["spec"]["containers"][0]["env"] = own.clone());
    let env = pod["spec"]["containers"][0]["env"].as_array().unwrap();
    let of = |name: &str| -> Vec<&Value> {
        let all = env.iter().filter(|entry| entry["name"] == name);
        all.map(|entry| &entry["value"]).collect()
    };
    assert_eq!(of("LMCACHE_REMOTE_URL"), [&json!("mine")]);
    assert_eq!(of("STRAND_KV_URL").len(), 1);
    assert_eq!(pod["spec"]["initContainers"][0]["restartPolicy"], "Always");
}

/// Without an operator pods are made as they are written.
pub fn without_an_operator_pods_are_made(rack: &Rack) {
    rack.team("team-a");
    let scale = |replicas: &str| {
        let count = format!("--replicas={replicas}");
        rack.kubectl(&[
            "scale",
            "deployment/strand-operator",
            "-n",
            NAMESPACE,
            &count,
        ]);
    };
    scale("0");
    let label = "app.kubernetes.io/component=operator";
    rack.until(
        &["pods", "-n", NAMESPACE, "-l", label],
        "{.items[*].metadata.name}",
        str::is_empty,
    );
    rack.apply(Pod::new("team-a", "alone").object());
    rack.ready("team-a", "alone");
    let pod = rack.cluster.get(&["pod", "alone", "-n", "team-a"]).unwrap();
    assert!(pod["spec"]["initContainers"].is_null(), "{pod}");
    scale("2");
    rack.team("team-a");
    rack.delete("team-a", "pod/alone");
}
