//! What users and administrators are told by a cluster that runs, and what they get while nobody decides.

use std::process::Command;

use serde_json::{Value, json};
use strand_e2e::process::run;
use strand_e2e::wait::{self, PATIENCE};
use strand_e2e::{images, repository, tool};

use crate::access;
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
    access::pod(rack, "team-a");
    rack.keep("team-a", "kv");
    assert!(ask(&["kv", "top"]).contains("team-a"));
    ask(&["volumes", "list"]);

    let file = rack.cluster.dir().join("bundle.tar.gz");
    ask(&["support-bundle", "--file", &file.to_string_lossy()]);
    let read = |flags: &str| {
        let mut tar = std::process::Command::new("tar");
        run(tar.arg(flags).arg(&file)).unwrap()
    };
    let files = read("-tzf");
    for file in [
        "objects/memorypools/rack.yaml",
        "objects/drives/node-1-",
        "logs/strand-operator-",
        "/agent",
        "logs/endpoints/team-a_kv",
        "metrics/node-2.txt",
    ] {
        assert!(files.contains(file), "{file}: {files}");
    }
    let bundle = read("-xzOf");
    let mut keys = 0;
    for namespace in [NAMESPACE, "team-a"] {
        let secrets = rack.cluster.get(&["secrets", "-n", namespace]).unwrap();
        for secret in secrets["items"].as_array().unwrap() {
            for (name, value) in secret["data"].as_object().into_iter().flatten() {
                let value = value.as_str().unwrap();
                // Certificates, whose they are and until when, are what everybody is shown.
                let shown = name.ends_with(".crt") || ["name", "until"].contains(&name.as_str());
                if shown || value.is_empty() {
                    continue;
                }
                let template = format!("go-template={{{{index .data {name:?} | base64decode}}}}");
                let secret = secret["metadata"]["name"].as_str().unwrap();
                let plain = ["get", "secret", secret, "-n", namespace, "-o", &template];
                let plain = rack.kubectl(&plain);
                let told = bundle.contains(value) || bundle.contains(plain.trim());
                assert!(!told, "{name} of {secret}");
                keys += 1;
            }
        }
    }
    assert!(keys >= 3, "the peers' key, the authority's, the webhook's");
}

/// `strandctl` as kubectl's plugin, and what it tells shells: a real bash completes its words.
pub fn kubectl_finds_its_plugin(rack: &Rack) {
    let dir = rack.cluster.dir().join("plugin");
    std::fs::create_dir_all(&dir).unwrap();
    let built = repository().canonicalize().unwrap();
    let strandctl = built.join("target/debug/strandctl");
    for (name, program) in [
        ("kubectl-strand", strandctl.clone()),
        ("kubectl_complete-strand", strandctl),
        ("kubectl", tool("kubectl").canonicalize().unwrap()),
    ] {
        std::os::unix::fs::symlink(program, dir.join(name)).unwrap();
    }
    let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap());
    let bash = |line: &str| {
        let mut bash = Command::new("bash");
        bash.args(["-euc", line]).env("PATH", &path);
        run(bash.env("KUBECONFIG", rack.cluster.kubeconfig())).unwrap()
    };
    let status = bash("kubectl strand status");
    assert!(status.contains("node-1"), "{status}");
    let words = "kubectl strand completions bash >completions; source completions; \
                 COMP_WORDS=(strandctl dri) COMP_CWORD=1; _strandctl strandctl dri strandctl; echo ${COMPREPLY[*]}";
    let words = bash(&format!("cd {}; {words}", dir.display()));
    assert_eq!(words.trim(), "drives drive");
    let words = bash("kubectl __complete strand dri 2>/dev/null");
    assert!(
        words.starts_with("drives\t") && words.contains("\ndrive\t"),
        "{words}"
    );
    for shell in ["zsh", "fish"] {
        let said = bash(&format!("kubectl strand completions {shell}"));
        assert!(said.contains("support-bundle"), "{said}");
    }
}

/// `strandctl preflight` on a node, as its help says: in a pod of `kubectl debug` that sees the node's root, as root. This node has an
/// agent already, so its ports are taken.
pub fn preflight_looks_at_a_node(rack: &Rack) {
    let as_root = rack.cluster.dir().join("as-root.json");
    std::fs::write(&as_root, r#"{"securityContext": {"runAsUser": 0}}"#).unwrap();
    let (repository, tag) = images::STRAND;
    let image = format!("--image={repository}:{tag}");
    let custom = format!("--custom={}", as_root.display());
    rack.kubectl(&[
        "debug",
        "node/node-1",
        "-n",
        "default",
        "--profile=sysadmin",
        &custom,
        &image,
        "--image-pull-policy=Never",
        "--",
        "strandctl",
        "preflight",
        "--root",
        "/host",
        "-o",
        "json",
    ]);
    let pods = rack.kubectl(&["get", "pods", "-n", "default", "-o", "name"]);
    let pod = pods.lines().find_map(|name| {
        name.strip_prefix("pod/")
            .filter(|n| n.starts_with("node-debugger-"))
    });
    let pod = pod.unwrap();
    let object = ["pod", pod, "-n", "default"];
    let phase = rack.until(&object, "{.status.phase}", |phase| {
        ["Succeeded", "Failed"].contains(&phase)
    });
    let said = rack.kubectl(&["logs", "-n", "default", pod]);
    let checks: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}"));
    let of = |what: &str| {
        let mut all = checks.as_array().unwrap().iter();
        let check = all.find(|check| check["what"] == what);
        check.unwrap_or_else(|| panic!("{what}: {said}")).clone()
    };
    assert_eq!(phase, "Succeeded", "{said}");
    assert_eq!(of("privileges")["found"], "root", "{said}");
    assert_eq!(of("volumes")["mark"], "good", "{said}");
    let taken = of("ports")["found"].to_string();
    assert!(taken.contains("9465") && taken.contains("9466"), "{said}");
    rack.kubectl(&["delete", "pod", "-n", "default", pod, "--timeout=60s"]);
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

    let mut two = Pod::new("team-a", "asks").object()["spec"]["containers"].clone();
    let mut other = two[0].clone();
    other["name"] = json!("other");
    two.as_array_mut().unwrap().push(other);
    let pod = would_be(&|pod| {
        pod["spec"]["containers"] = two.clone();
        annotate("strand.dev/containers", "other")(pod);
    });
    let told = |number: usize| {
        let env = &pod["spec"]["containers"][number]["env"];
        env.to_string().contains("STRAND_KV_URL")
    };
    assert_eq!([told(0), told(1)], [false, true], "{pod}");

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

/// What cannot work is refused with what to write instead, and what may not be meant is warned of.
pub fn wrong_objects_are_refused_with_what_to_write(rack: &Rack) {
    let drives = rack.cluster.get(&["drives"]).unwrap();
    let drive = drives["items"][0]["metadata"]["name"].as_str().unwrap();
    let serial = drives["items"][0]["status"]["identity"]["serial"].as_str();
    let object = |kind: &str, name: &str, spec: Value| json!({"apiVersion": "strand.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    let pool = |spec: Value| object("MemoryPool", "other", spec);
    let expression = |expression: Value| {
        pool(
            json!({"drives": {"models": ["*"]}, "nodeSelector": {"matchExpressions": [expression]}}),
        )
    };
    let operation = |type_: &str, serial: Option<&str>| {
        let spec = json!({"type": type_, "drive": drive, "serial": serial});
        object("DriveOperation", "wrong", spec)
    };
    // A webhook that does not answer in time lets an object in.
    let refused = |object: &Value, words: &str| {
        let args = [
            "create",
            "--dry-run=server",
            "--warnings-as-errors",
            "-f",
            "-",
        ];
        let text = object.to_string();
        wait::until(&format!("{text} is refused"), PATIENCE, || {
            let said = rack.cluster.feed(&args, text.as_bytes());
            let said = said.map_or_else(|error| format!("{error:#}"), |_| "it is taken".into());
            if said.contains(words) {
                Ok(())
            } else {
                Err(said)
            }
        })
        .unwrap();
    };
    let sides = json!({"contextMemory": "100%", "minStorage": "1Gi"});
    for (object, words) in [
        // By the definition.
        (
            pool(json!({"drives": {"models": ["*"]}, "access": "Nobody"})),
            "\"Open\", \"Granted\"",
        ),
        // By the operator.
        (
            expression(json!({"key": "gpu", "operator": "In", "values": []})),
            "or Exists",
        ),
        (
            pool(json!({"drives": {"models": ["*"]}, "carve": sides})),
            "a smaller percentage",
        ),
        (operation("Wipe", serial), "type Release instead"),
        (operation("Release", Some("S0")), "not S0"),
        (
            object(
                "PoolGrant",
                "other.team-a",
                json!({"pool": "other", "namespace": "team-a"}),
            ),
            "no MemoryPool other",
        ),
    ] {
        refused(&object, words);
    }
}
