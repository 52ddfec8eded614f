//! Who may use a pool, how much of its context memory, and by which door.

use serde_json::{Value, json};
use strand_e2e::process::run;
use strand_e2e::wait::{self, PATIENCE};

use crate::rack::{BACK, Pod, Rack, claim, strandctl};

/// Bytes of a block of these tests.
const BLOCK: u64 = 256 << 10;
/// What team-b is held to: many times a block on each of eight drives.
const QUOTA: u64 = 64 << 20;

/// A pod with an endpoint, and nothing else, one for each team.
pub fn pod(rack: &Rack, team: &str) {
    rack.team(team);
    rack.apply(Pod::new(team, "kv").on("node-1").object());
    rack.ready(team, "kv");
}

fn grant(rack: &Rack, pool: &str, team: &str, share: Value) {
    rack.apply(json!({
        "apiVersion": "strand.dev/v1alpha1", "kind": "PoolGrant", "metadata": {"name": format!("{pool}.{team}")},
        "spec": {"pool": pool, "namespace": team, "contextMemory": share},
    }));
}

fn access(rack: &Rack, access: &str) {
    let patch = json!({"spec": {"access": access}}).to_string();
    rack.kubectl(&["patch", "mpool", "rack", "--type=merge", "-p", &patch]);
}

/// How many of a team's blocks are read, all of which are as they were written.
fn found(rack: &Rack, team: &str, count: u64) -> u64 {
    let line = format!(
        "found = [(n, r.get('q-%d' % n)) for n in range({count})]\n\
         assert all(b is None or b == bytes([n % 256]) * {BLOCK} for n, b in found)\n\
         print(sum(b is not None for n, b in found))"
    );
    rack.redis(team, "kv", &line).parse().unwrap()
}

fn write(rack: &Rack, team: &str, count: u64) {
    let line = format!("for n in range({count}):\n  r.set('q-%d' % n, bytes([n % 256]) * {BLOCK})");
    rack.redis(team, "kv", &line);
}

/// What `kubectl strand kv top` tells of a namespace in a pool.
fn told(rack: &Rack, pool: &str, team: &str, field: &str) -> Option<u64> {
    let args = ["kv", "top", "--interval", "1", "-o", "json"];
    let top: Value = serde_json::from_str(&run(&mut strandctl(rack, &args)).unwrap()).unwrap();
    let mut rows = top["namespaces"].as_array().unwrap().iter();
    rows.find(|row| row["pool"] == pool && row["namespace"] == team)?[field].as_u64()
}

/// A namespace that writes more than its quota loses its own oldest blocks, and no other's; its weight gives it its share of room.
pub fn a_quota_holds_its_namespace_and_spares_the_others(rack: &Rack) {
    pod(rack, "team-a");
    pod(rack, "team-b");
    wait::until("all blocks of team-a are kept", PATIENCE, || {
        write(rack, "team-a", 40);
        rack.redis("team-a", "kv", BACK);
        match found(rack, "team-a", 40) {
            40 => Ok(()),
            less => Err(less.to_string()),
        }
    })
    .unwrap();
    grant(
        rack,
        "rack",
        "team-b",
        json!({"weight": 3, "quota": QUOTA.to_string()}),
    );
    let count = 3 * QUOTA / BLOCK;
    write(rack, "team-b", count);
    let held = wait::until("team-b is held to its quota", PATIENCE, || {
        match told(rack, "rack", "team-b", "heldBytes") {
            Some(held) if held > 0 && held <= QUOTA + QUOTA / 16 => Ok(held),
            other => Err(format!("{other:?}")),
        }
    })
    .unwrap();
    let kept = found(rack, "team-b", count);
    println!(
        "    team-b wrote {} MiB with a quota of {} MiB: holds {} MiB, {kept} of {count} blocks",
        (count * BLOCK) >> 20,
        QUOTA >> 20,
        held >> 20
    );
    // Its newest are there: what is held is used.
    assert!(
        kept >= QUOTA / BLOCK / 2 && kept <= count / 2,
        "{kept} of {count}"
    );
    wait::until("the other's are untouched", PATIENCE, || {
        match found(rack, "team-a", 40) {
            40 => Ok(()),
            less => Err(less.to_string()),
        }
    })
    .unwrap();

    grant(rack, "rack", "team-b", json!({"weight": 3, "quota": null}));
    wait::until("team-b's share is thrice team-a's", PATIENCE, || {
        let shares =
            ["team-a", "team-b"].map(|team| told(rack, "rack", team, "shareBytes").unwrap_or(0));
        let ratio = shares[1] as f64 / shares[0].max(1) as f64;
        if (2.9..3.1).contains(&ratio) {
            Ok(())
        } else {
            Err(format!("{shares:?}"))
        }
    })
    .unwrap();
    rack.kubectl(&["delete", "poolgrant", "rack.team-b", "--timeout=30s"]);
}

/// Bytes that each team writes in a round: more than half of what the small drive holds.
const ROUND: u64 = 600 << 20;

/// Of two namespaces that both write more than there is room for, each keeps what its weight gives it, and when the weights change, that
/// changes: in a pool of one small drive, which both fill.
pub fn room_is_shared_by_weight(rack: &Rack) {
    let node = rack.cluster.node("node-1").unwrap();
    node.sh("truncate -s 1G /var/lib/drives/small.img").unwrap();
    rack.apply(json!({
        "apiVersion": "strand.dev/v1alpha1", "kind": "MemoryPool", "metadata": {"name": "small"},
        "spec": {"drives": {"maxSize": "2Gi"}, "carve": {"contextMemory": "90%"}, "deletionPolicy": "Release",
            "contextMemory": {"driveWritesPerDay": 100}},
    }));
    let ready = "{.status.conditions[?(@.type=='Ready')].status}";
    rack.until(&["mpool", "small"], ready, |status| status == "True");
    let teams = ["team-a", "team-b"];
    for team in teams {
        rack.team(team);
        // The node has room for four pods' arenas.
        rack.delete(team, "pod/kv");
        let mut pod = Pod::new(team, "small").on("node-1").object();
        pod["metadata"]["labels"] = json!({"strand.dev/pool": "small"});
        rack.apply(pod);
        rack.ready(team, "small");
    }
    let mut round = 0;
    // Both write new blocks, by turns; of what is held, the part that the one with the weight of three holds.
    let mut writes = |weights: [u64; 2]| {
        round += 1;
        for team in teams {
            let line = format!(
                "for n in range({}):\n  r.set('r-{round}-%d' % n, b'w' * {BLOCK})",
                ROUND / BLOCK
            );
            rack.redis(team, "small", &line);
        }
        let held = teams.map(|team| told(rack, "small", team, "heldBytes").unwrap_or(0));
        let larger = held[usize::from(weights[1] > weights[0])];
        let part = larger as f64 / (held[0] + held[1]).max(1) as f64;
        println!(
            "    weights {weights:?}, MiB held {:?}",
            held.map(|bytes| bytes >> 20)
        );
        // Three quarters are its share, and nine tenths of that are sheltered.
        match (0.6..0.85).contains(&part) {
            true => Ok(()),
            false => Err(format!("{part}")),
        }
    };
    for weights in [[1, 3], [3, 1]] {
        for (team, weight) in teams.into_iter().zip(weights) {
            grant(rack, "small", team, json!({"weight": weight}));
        }
        // It stays so with what comes next.
        wait::until("who weighs more has the more room", 2 * PATIENCE, || {
            writes(weights)?;
            writes(weights)
        })
        .unwrap();
    }
    for team in teams {
        rack.delete(team, "pod/small");
        let name = format!("small.{team}");
        rack.kubectl(&["delete", "poolgrant", &name, "--timeout=30s"]);
    }
    rack.kubectl(&["delete", "mpool", "small", "--timeout=90s"]);
    node.sh("rm /var/lib/drives/small.img").unwrap();
}

/// Waits until an event of an object says that the namespace may not use the pool.
fn refused(rack: &Rack, team: &str, object: &str) {
    let field = format!("involvedObject.name={object}");
    let events = ["events", "-n", team, "--field-selector", &field];
    let words = format!("namespace {team} may not use MemoryPool rack");
    rack.until(&events, "{.items[*].message}", |said| said.contains(&words));
}

/// Of a pool that is granted, a namespace without a grant gets nothing, not even by hand, and hears what to ask for; doors that are open
/// stay open.
pub fn a_pool_that_is_granted_is_for_nobody_else(rack: &Rack) {
    pod(rack, "team-a");
    rack.team("team-b");
    access(rack, "Granted");
    let asks = Pod::new("team-a", "asks").object().to_string();
    let path = "jsonpath={.metadata.annotations.strand\\.dev/skipped}";
    let args = ["create", "--dry-run=server", "-o", path, "-f", "-"];
    wait::until("a pod is told whom to ask", PATIENCE, || {
        let said = rack.cluster.feed(&args, asks.as_bytes());
        let said = said.map_err(|error| format!("{error:#}"))?;
        if said.contains("PoolGrant named rack.team-a") {
            Ok(())
        } else {
            Err(said)
        }
    })
    .unwrap();

    let source = json!({"csi": {
        "driver": "csi.strand.dev", "readOnly": true, "volumeAttributes": {"kind": "kv", "pool": "rack"},
    }});
    let mut by_hand = Pod::new("team-a", "by-hand")
        .on("node-1")
        .volume("door", source, "/door")
        .object();
    by_hand["metadata"]["annotations"] = json!({"strand.dev/inject": "false"});
    rack.apply(by_hand);
    refused(rack, "team-a", "by-hand");
    let open = rack.redis("team-a", "kv", "print(r.set('open', b'x'))");
    assert_eq!(open, "True", "what is open stays open");

    grant(rack, "rack", "team-a", json!({}));
    rack.ready("team-a", "by-hand");
    volumes_and_scratch_space_wait_for_a_grant(rack);
    access(rack, "Open");
    rack.kubectl(&["delete", "poolgrant", "rack.team-a", "--timeout=30s"]);
    rack.delete("team-a", "pod/by-hand");
}

/// While the pool is granted, to team-b it is not: its claim and its scratch space come with its grant.
fn volumes_and_scratch_space_wait_for_a_grant(rack: &Rack) {
    let scratch = json!({"csi": {
        "driver": "csi.strand.dev", "volumeAttributes": {"kind": "scratch", "pool": "rack", "size": "300Mi"},
    }});
    let pods = [
        Pod::new("team-b", "claims").claim("wanted", "/data"),
        Pod::new("team-b", "scratch").volume("scratch", scratch, "/scratch"),
    ];
    rack.apply(claim("team-b", "wanted", "400Mi", json!({})));
    for pod in pods {
        let mut pod = pod.on("node-1").object();
        // Of the pool they want nothing else.
        pod["metadata"]["annotations"] = json!({"strand.dev/inject": "false"});
        rack.apply(pod);
    }
    refused(rack, "team-b", "wanted");
    refused(rack, "team-b", "scratch");
    grant(rack, "rack", "team-b", json!({}));
    for pod in ["claims", "scratch"] {
        rack.ready("team-b", pod);
    }
    // What is there stays.
    rack.kubectl(&["delete", "poolgrant", "rack.team-b", "--timeout=30s"]);
    for (pod, directory) in [("claims", "/data"), ("scratch", "/scratch")] {
        rack.exec(
            "team-b",
            pod,
            &format!("echo here >{directory}/bytes; sync"),
        );
        rack.delete("team-b", &format!("pod/{pod}"));
    }
    rack.delete("team-b", "pvc/wanted");
}

/// Tries every door of the node that a pod can get at: those who let it in wait for its hello, and hang up without a word when none comes;
/// the others say why not.
const TRY: &str = "
import glob, os, socket
for where in WHERE:
    for path in sorted(glob.glob(where)):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(10)
        os.chdir(os.path.dirname(path))
        s.connect('door.sock')
        try:
            print(path, s.recv(4096) or 'ADMITTED')
        except TimeoutError:
            print(path, 'ADMITTED')
";

/// A pod that gets at another's door, through the host's directory of doors or the other pod's own directory there, is refused.
pub fn a_door_is_for_its_own_pod(rack: &Rack) {
    pod(rack, "team-a");
    rack.namespace("quiet", false);
    let host = |path: &str| json!({"hostPath": {"path": path, "type": "Directory"}});
    let thief = Pod::new("quiet", "thief")
        .on("node-1")
        .volume("doors", host("/run/strand/doors"), "/doors")
        .volume("pods", host("/var/lib/kubelet/pods"), "/pods");
    rack.apply(thief.object());
    rack.ready("quiet", "thief");
    let tried = |team: &str, pod: &str, places: &[&str]| {
        let program = format!("WHERE = {places:?}\n{TRY}");
        let command = ["python3", "-c", &program];
        rack.cluster.exec(team, pod, &command).unwrap()
    };
    let own = tried("team-a", "kv", &["/run/strand/kv/door.sock"]);
    assert!(own.contains("ADMITTED"), "{own}");
    for place in [
        "/doors/*/door.sock",
        "/pods/*/volumes/kubernetes.io~csi/*/mount/door.sock",
    ] {
        let said = tried("quiet", "thief", &[place]);
        let lines: Vec<&str> = said.lines().collect();
        assert!(!lines.is_empty(), "{place} leads to no door");
        for line in lines {
            assert!(line.contains("this door is another pod's"), "{line}");
        }
    }
    rack.delete("quiet", "pod/thief");
}

/// A pod on the node's network has an endpoint on a port of its own, for those who know its password.
pub fn on_the_nodes_network_a_password_is_needed(rack: &Rack) {
    rack.team("team-a");
    rack.apply(json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": "team-a", "name": "kv-password"},
        "stringData": {"password": "open-sesame"},
    }));
    let on_the_node = |name: &str, annotations: Value| {
        let mut pod = Pod::new("team-a", name).on("node-1").object();
        pod["spec"]["hostNetwork"] = json!(true);
        pod["metadata"]["annotations"] = annotations;
        rack.apply(pod);
    };
    on_the_node(
        "host",
        json!({"strand.dev/port": "17000", "strand.dev/password-secret": "kv-password"}),
    );
    // It shares the network, and has nothing of the other's but that.
    on_the_node("neighbour", json!({"strand.dev/inject": "false"}));
    rack.ready("team-a", "host");
    rack.ready("team-a", "neighbour");
    rack.says(
        "team-a",
        "host",
        "print(r.set('k', b'v' * 1000), r.get('k') == b'v' * 1000)",
        "True True",
    );
    for port in [17000, 17001] {
        for (password, words) in [
            ("None", "AuthenticationError"),
            ("'guess'", "Error"),
            ("'open-sesame'", "served"),
        ] {
            let program = format!(
                "import redis\n\
                 try:\n  redis.Redis(port={port}, password={password}).get('k')\n  print('served')\n\
                 except redis.exceptions.RedisError as error:\n  print(type(error).__name__, error)"
            );
            let command = ["python3", "-c", &program];
            let said = rack.cluster.exec("team-a", "neighbour", &command).unwrap();
            assert!(said.contains(words), "{port}, {password}: {said}");
        }
    }
    // Nobody else gets there at all: it listens on the node's loopback alone.
    let listens = "python3 -c \"import socket; socket.create_connection(('10.255.0.11', 17000), 3)\" 2>&1 || true";
    let said = rack.exec("team-a", "neighbour", listens);
    assert!(said.contains("refused"), "{said}");
    // Of two that want the same port, one waits, and hears why, until the other is gone.
    on_the_node(
        "second",
        json!({"strand.dev/port": "17002", "strand.dev/password-secret": "kv-password"}),
    );
    rack.until(
        &["pod", "-n", "team-a", "second"],
        "{.status.conditions[*].message}",
        |said| said.contains("free ports"),
    );
    rack.delete("team-a", "pod/host");
    rack.ready("team-a", "second");
    for object in ["pod/second", "pod/neighbour", "secret/kv-password"] {
        rack.delete("team-a", object);
    }
}
