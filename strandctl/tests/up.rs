//! `strandctl up` as a person runs it: real processes, real files, real signals.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets what it did not expect shall stop there"
)]

use serde_json::Value;
use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Once,
    thread::sleep,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Longest that anything is waited for; most take a second.
const PATIENCE: Duration = Duration::from_secs(120);

/// A rack in a directory of its own, which is gone when this is.
struct Bed {
    dir: TempDir,
    up: Option<Child>,
}

impl Bed {
    fn new() -> Bed {
        build_the_others();
        Bed {
            dir: tempfile::Builder::new()
                .prefix("strand-up.")
                .tempdir_in("/tmp")
                .unwrap(),
            up: None,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("rack").join(name)
    }

    fn output(&self) -> String {
        fs::read_to_string(self.dir.path().join("output")).unwrap_or_default()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_strandctl"));
        command.args(arguments).arg("--dir").arg(self.path(""));
        command
    }

    /// Starts `up` and waits until the rack is ready.
    fn up(&mut self, arguments: &[&str]) -> Value {
        let output = File::create(self.dir.path().join("output")).unwrap();
        let mut command = self.command(&["up"]);
        command.args(arguments).stdin(Stdio::null());
        command.stdout(output.try_clone().unwrap()).stderr(output);
        self.up = Some(command.spawn().unwrap());
        let pid = self.up.as_ref().map(Child::id);
        self.wait("the rack is ready", |bed| {
            bed.rack()["pid"] == serde_json::json!(pid)
        });
        self.rack()
    }

    /// What `rack.json` says; null while there is none.
    fn rack(&self) -> Value {
        let text = fs::read(self.path("rack.json")).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    fn drives(&self) -> Vec<Value> {
        let output = self.command(&["drives", "-o", "json"]).output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let list: Value = serde_json::from_slice(&output.stdout).unwrap();
        list["items"].as_array().unwrap().clone()
    }

    fn wait(&mut self, what: &str, done: impl Fn(&Bed) -> bool) {
        let start = Instant::now();
        while !done(self) {
            let ended = self.up.as_mut().and_then(|up| up.try_wait().unwrap());
            if ended.is_some() {
                self.up = None;
            }
            assert!(
                ended.is_none(),
                "up {ended:?} before {what}:\n{}",
                self.output()
            );
            assert!(
                start.elapsed() < PATIENCE,
                "not seen that {what}:\n{}",
                self.output()
            );
            sleep(Duration::from_millis(50));
        }
    }

    /// Sends a signal to `up` and waits for its end; whether it ended well.
    fn end(&mut self, signal: &str) -> bool {
        let mut up = self.up.take().unwrap();
        send(signal, up.id());
        up.wait().unwrap().success()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if let Some(mut up) = self.up.take() {
            // It may have ended by itself, or been killed: then there is nothing to ask.
            let pid = up.id().to_string();
            Command::new("kill").args(["-TERM", &pid]).status().ok();
            up.wait().ok();
        }
        for device in loops_over(self.dir.path()) {
            Command::new("losetup").arg("-d").arg(device).status().ok();
        }
    }
}

/// `cargo test -p strandctl` alone builds only strandctl.
fn build_the_others() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet"]);
        build.args([
            "-p",
            "operator",
            "-p",
            "node-agent",
            "-p",
            "kv-endpoint",
            "-p",
            "csi-driver",
        ]);
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        assert!(
            build.status().unwrap().success(),
            "the rack's programs must build"
        );
    });
}

fn send(signal: &str, pid: u32) {
    let status = Command::new("kill")
        .args([&format!("-{signal}"), &pid.to_string()])
        .status();
    assert!(status.unwrap().success(), "kill -{signal} {pid}");
}

fn pids(rack: &Value) -> Vec<u32> {
    let nodes = rack["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|node| [&node["pid"], &node["csi_pid"]]);
    let endpoints = rack["endpoints"].as_array().unwrap();
    let all = nodes
        .chain([&rack["operator"]["pid"]])
        .chain(endpoints.iter().map(|endpoint| &endpoint["pid"]));
    all.map(|pid| pid.as_u64().unwrap().try_into().unwrap())
        .collect()
}

/// A process that has ended but was not waited for does not run any more either.
fn runs(pid: &u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

fn loops_over(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let over = entries.filter(|entry| {
        fs::read_to_string(entry.path().join("loop/backing_file"))
            .is_ok_and(|file| file.starts_with(&*dir.to_string_lossy()))
    });
    over.map(|entry| Path::new("/dev").join(entry.file_name()))
        .collect()
}

fn may_make_loop_devices() -> bool {
    let output = Command::new("losetup").arg("--find").output();
    output.is_ok_and(|output| output.status.success())
        && File::options()
            .write(true)
            .open("/dev/loop-control")
            .is_ok()
}

#[test]
fn a_rack_comes_up_is_kept_up_and_leaves_nothing_running() {
    let mut bed = Bed::new();
    let rack = bed.up(&["--nodes", "2", "--drives", "2", "--drive-size", "256Mi"]);

    assert_eq!(
        rack["kubeconfig"].as_str().unwrap(),
        bed.path("kubeconfig").to_str().unwrap()
    );
    assert!(
        rack["operator"]["metrics"]
            .as_str()
            .unwrap()
            .starts_with("http://127.0.0.1:")
    );
    let node = &rack["nodes"][1];
    assert_eq!(node["name"], "node-2");
    assert_eq!(
        node["drives"][0].as_str().unwrap(),
        bed.path("nodes/node-2/drives/node-2-drive-0.img")
            .to_str()
            .unwrap()
    );
    assert!(Path::new(node["agent"].as_str().unwrap()).exists());
    assert_eq!(pids(&rack).iter().filter(|pid| runs(pid)).count(), 5);

    let drives = bed.drives();
    assert_eq!(drives.len(), 4);
    assert!(
        drives
            .iter()
            .all(|drive| drive["status"]["phase"] == "Ready"),
        "{drives:#?}"
    );
    let why = bed.command(&["drives", "--why"]).output().unwrap();
    assert!(
        String::from_utf8_lossy(&why.stdout)
            .contains("4 drives: 4 in, 0 free, 0 out, 0 on the way.")
    );
    let status = bed.command(&["status"]).output().unwrap();
    assert!(String::from_utf8_lossy(&status.stdout).contains("Pool default: ready"));

    a_node_is_drained_and_taken_back(&bed);

    let second = bed.command(&["up"]).output().unwrap();
    assert!(!second.status.success());
    assert!(String::from_utf8_lossy(&second.stderr).contains("another `strandctl up` runs in"));

    let agent = pids(&rack)[0];
    send("KILL", agent);
    bed.wait("a killed agent is started again", |bed| {
        let pid = pids(&bed.rack())[0];
        pid != agent && runs(&pid)
    });

    let rack = bed.rack();
    assert!(bed.end("TERM"), "{}", bed.output());
    assert!(!pids(&rack).iter().any(runs));
    assert!(!bed.path("rack.json").exists());
    assert!(bed.output().contains("the rack is down"));
}

fn a_node_is_drained_and_taken_back(bed: &Bed) {
    let said = |arguments: &[&str]| {
        let output = bed.command(arguments).output().unwrap();
        let text = [&output.stdout[..], &output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(output.status.success(), "{text}");
        text
    };
    let cordoned = || {
        let drives = bed.drives();
        let cordoned = drives.iter().filter(|d| d["spec"]["cordon"] == true);
        let nodes = cordoned.map(|d| d["spec"]["nodeName"].as_str().unwrap().to_owned());
        nodes.collect::<Vec<_>>()
    };
    let text = said(&["node", "drain", "node-2", "--wait"]);
    assert!(text.contains("cordoned, with 2 drives"), "{text}");
    assert!(text.contains("node-2: safe to reboot"), "{text}");
    assert_eq!(cordoned(), ["node-2", "node-2"]);
    let text = said(&["status"]);
    assert!(text.contains("node-2  cordoned"), "{text}");
    said(&["node", "uncordon", "node-2"]);
    assert!(cordoned().is_empty());
}

#[test]
fn a_rack_that_is_killed_leaves_nothing_running_and_comes_up_as_it_was() {
    let mut bed = Bed::new();
    let mut arguments = vec!["--nodes", "1", "--drives", "2", "--drive-size", "256Mi"];
    let loops = may_make_loop_devices();
    if loops {
        arguments.push("--loop");
    } else {
        eprintln!("no leave to make loop devices: this test uses plain files");
    }
    let rack = bed.up(&arguments);
    let labels = |bed: &Bed| -> Vec<Value> {
        bed.drives()
            .iter()
            .map(|drive| drive["status"]["label"].clone())
            .collect()
    };
    let before = labels(&bed);
    assert!(
        before.iter().all(|label| label["pool"] == "default"),
        "{before:?}"
    );
    assert_eq!(loops_over(bed.dir.path()).len(), if loops { 2 } else { 0 });

    bed.end("KILL");
    let start = Instant::now();
    while pids(&rack).iter().any(runs) {
        assert!(start.elapsed() < PATIENCE, "children outlive strandctl");
        sleep(Duration::from_millis(20));
    }

    bed.up(if loops { &["--loop"] } else { &[] });
    assert_eq!(labels(&bed), before);
    assert_eq!(loops_over(bed.dir.path()).len(), if loops { 2 } else { 0 });
    let looks = loops_over(bed.dir.path()).into_iter().next();
    let looks = looks.map(|device| {
        let open = File::open(&device).unwrap();
        std::thread::spawn(move || look_until_it_goes(&device, open))
    });
    assert!(bed.end("TERM"), "{}", bed.output());
    assert_eq!(loops_over(bed.dir.path()), Vec::<PathBuf>::new());
    if let Some(thread) = looks {
        thread.join().unwrap();
    }
}

/// Has a device open until it has been asked to go, as udev may: the kernel then detaches it when it is closed
/// (`/sys/block/loopN/loop/autoclear`).
fn look_until_it_goes(device: &Path, _open: File) {
    let name = device.file_name().unwrap();
    let asked = Path::new("/sys/block").join(name).join("loop/autoclear");
    let start = Instant::now();
    while fs::read_to_string(&asked).unwrap_or_default().trim() != "1" {
        assert!(start.elapsed() < PATIENCE, "{device:?} was not asked to go");
        sleep(Duration::from_millis(5));
    }
    // Long enough for whoever does not wait to have ended.
    sleep(Duration::from_secs(1));
}

#[test]
fn a_manifest_that_cannot_be_read_starts_nothing() {
    let bed = Bed::new();
    let manifest = bed.dir.path().join("pool.yaml");
    fs::write(&manifest, "kind: MemoryPool\n").unwrap();
    let output = bed
        .command(&["up"])
        .arg("--manifest")
        .arg(&manifest)
        .output()
        .unwrap();
    assert!(!output.status.success());
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.contains("pool.yaml"), "{words}");
    assert!(!bed.path("").exists());
}

/// A client of a pod's endpoint, on one connection that is never opened again (RESP2).
struct Redis(BufReader<TcpStream>);

impl Redis {
    fn of(rack: &Value, pod: &str) -> Redis {
        let endpoints = rack["endpoints"].as_array().unwrap();
        let endpoint = endpoints.iter().find(|end| end["pod"] == pod).unwrap();
        let stream = TcpStream::connect(endpoint["resp"].as_str().unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Redis(BufReader::new(stream))
    }

    fn ask(&mut self, parts: &[&[u8]]) -> String {
        let mut bytes = format!("*{}\r\n", parts.len()).into_bytes();
        for part in parts {
            bytes.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
            bytes.extend_from_slice(part);
            bytes.extend_from_slice(b"\r\n");
        }
        self.0.get_mut().write_all(&bytes).unwrap();
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn set(&mut self, key: &str, value: &[u8]) {
        assert_eq!(self.ask(&[b"set", key.as_bytes(), value]), "+OK");
    }

    fn get(&mut self, key: &str) -> Option<Vec<u8>> {
        // In small letters: no padding of misses for LMCache's native client.
        let header = self.ask(&[b"get", key.as_bytes()]);
        if header == "$-1" {
            return None;
        }
        let length: usize = header.strip_prefix('$').unwrap().parse().unwrap();
        let mut value = vec![0; length + 2];
        self.0.read_exact(&mut value).unwrap();
        value.truncate(length);
        Some(value)
    }
}

const BLOCKS: u8 = 32;

fn block(number: u8) -> Vec<u8> {
    vec![number; 256 << 10]
}

/// How many blocks are hits; a wrong byte or an error ends the test.
fn hits(redis: &mut Redis) -> u8 {
    let mut hits = 0;
    for number in 0..BLOCKS {
        if let Some(value) = redis.get(&format!("block-{number}")) {
            assert!(value == block(number), "block {number} has other bytes");
            hits += 1;
        }
    }
    hits
}

fn until_all_are_hits(redis: &mut Redis) {
    let start = Instant::now();
    while hits(redis) < BLOCKS {
        assert!(start.elapsed() < PATIENCE, "the blocks do not come back");
        sleep(Duration::from_millis(50));
    }
}

#[test]
fn pods_share_their_blocks_over_nodes_and_restarts() {
    let mut bed = Bed::new();
    let size = ["--nodes", "2", "--drives", "2", "--drive-size", "512Mi"];
    let rack = bed.up(&[&size[..], &["--pods", "2"]].concat());
    let endpoint = &rack["endpoints"][1];
    assert_eq!(
        (&endpoint["pod"], &endpoint["node"]),
        (&"pod-2".into(), &"node-2".into())
    );
    assert!(Path::new(endpoint["native"].as_str().unwrap()).exists());

    let mut writer = Redis::of(&rack, "pod-1");
    for number in 0..BLOCKS {
        writer.set(&format!("block-{number}"), &block(number));
    }
    let mut reader = Redis::of(&rack, "pod-2");
    // On a busy machine a peer may seem away for a moment, and what is put meanwhile is a miss: put it again.
    let start = Instant::now();
    while hits(&mut reader) < BLOCKS {
        assert!(
            start.elapsed() < PATIENCE,
            "written on node-1, not read on node-2"
        );
        for number in 0..BLOCKS {
            writer.set(&format!("block-{number}"), &block(number));
        }
    }

    send("KILL", pids(&rack)[0]);
    until_all_are_hits(&mut reader);
    until_all_are_hits(&mut writer);

    let endpoint =
        |rack: &Value| u32::try_from(rack["endpoints"][0]["pid"].as_u64().unwrap()).unwrap();
    let killed = endpoint(&rack);
    send("KILL", killed);
    bed.wait("a killed endpoint is started again", |bed| {
        let pid = endpoint(&bed.rack());
        pid != killed && runs(&pid)
    });
    let address = rack["endpoints"][0]["resp"].as_str().unwrap().to_owned();
    bed.wait("it listens again", |_| TcpStream::connect(&address).is_ok());
    until_all_are_hits(&mut Redis::of(&bed.rack(), "pod-1"));

    let rack = bed.rack();
    assert!(bed.end("TERM"), "{}", bed.output());
    assert!(!pids(&rack).iter().any(runs));
    let again = bed.up(&[]);
    assert_eq!(again["endpoints"].as_array().unwrap().len(), 2);
    until_all_are_hits(&mut Redis::of(&again, "pod-2"));
    assert!(bed.end("TERM"), "{}", bed.output());
}
