//! Volumes of a whole rack: the conformance tests of CSI against agent, operator and driver as they run in a cluster. Needs root.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets what it did not expect shall stop there"
)]

use serde_json::Value;
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

/// Longest that anything is waited for; most take a second.
const PATIENCE: Duration = Duration::from_secs(120);

/// A rack of one node, with drives that hold what the conformance tests ask for; gone when this is.
struct Rack {
    dir: tempfile::TempDir,
    up: Child,
}

impl Rack {
    fn up(size: &str) -> Rack {
        assert!(
            rustix::process::geteuid().is_root() && Path::new("/dev/loop-control").exists(),
            "this test needs root and loop devices"
        );
        let mut build = Command::new(env!("CARGO"));
        build.args([
            "build",
            "--quiet",
            "-p",
            "operator",
            "-p",
            "node-agent",
            "-p",
            "kv-endpoint",
            "-p",
            "csi-driver",
        ]);
        assert!(
            build.status().unwrap().success(),
            "the rack's programs must build"
        );
        let dir = tempfile::Builder::new()
            .prefix("strand-volumes.")
            .tempdir_in("/tmp")
            .unwrap();
        let output = File::create(dir.path().join("output")).unwrap();
        let up = Command::new(env!("CARGO_BIN_EXE_strandctl"))
            .args([
                "up",
                "--nodes",
                "1",
                "--drives",
                "2",
                "--drive-size",
                size,
                "--dir",
            ])
            .arg(dir.path().join("rack"))
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        let rack = Rack { dir, up };
        let start = Instant::now();
        while !rack.path("rack.json").exists() {
            assert!(
                start.elapsed() < PATIENCE,
                "the rack does not come up:\n{}",
                rack.output()
            );
            sleep(Duration::from_millis(50));
        }
        rack
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("rack").join(name)
    }

    fn output(&self) -> String {
        fs::read_to_string(self.dir.path().join("output")).unwrap_or_default()
    }

    fn strandctl(&self, arguments: &[&str]) -> (bool, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_strandctl"));
        let output = command
            .args(arguments)
            .arg("--dir")
            .arg(self.path(""))
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    }

    fn down(&mut self) -> bool {
        let pid = self.up.id().to_string();
        let asked = Command::new("kill").args(["-TERM", &pid]).status();
        asked.unwrap().success() && self.up.wait().unwrap().success()
    }

    /// Mounts below the directory, and loop devices over files in it.
    fn left(&self) -> Vec<String> {
        let dir = self.dir.path().to_str().unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mut left: Vec<String> = mounts
            .lines()
            .filter(|line| line.contains(dir))
            .map(str::to_owned)
            .collect();
        for entry in fs::read_dir("/sys/block").unwrap().flatten() {
            let file =
                fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
            if file.starts_with(dir) {
                left.push(file);
            }
        }
        left
    }
}

impl Drop for Rack {
    fn drop(&mut self) {
        if matches!(self.up.try_wait(), Ok(None)) {
            self.down();
        }
    }
}

/// Runs csi-sanity; the line with its tally, and all that it said.
fn sanity(rack: &Rack, access: &str) -> (String, String) {
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/tools/csi-sanity");
    assert!(
        tool.exists(),
        "csi-sanity is missing: run `e2e/tools/build csi-sanity` first (`make test` does)"
    );
    let file = |name: &str, text: &str| {
        let path = rack.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let up: Value = serde_json::from_slice(&fs::read(rack.path("rack.json")).unwrap()).unwrap();
    let endpoint = up["nodes"][0]["csi"].as_str().unwrap();
    let output = Command::new(tool)
        .arg("-ginkgo.no-color")
        .args(["-csi.endpoint", endpoint.strip_prefix("unix://").unwrap()])
        .args(["-csi.testvolumeaccesstype", access])
        .arg("-csi.mountdir")
        .arg(rack.dir.path().join("target"))
        .arg("-csi.stagingdir")
        .arg(rack.dir.path().join("stage"))
        .arg("-csi.testvolumeparameters")
        .arg(file("parameters.yaml", "pool: default\n"))
        .arg("-csi.testvolumemutableparameters")
        .arg(file("mutable.yaml", "iops: \"5000\"\n"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let tally = text
        .lines()
        .rfind(|line| line.contains("Passed"))
        .unwrap_or_default();
    (tally.to_owned(), text)
}

#[test]
fn the_whole_rack_is_as_the_specification_of_csi_says_and_leaves_nothing() {
    let mut rack = Rack::up("200Gi");
    for access in ["mount", "block"] {
        let (tally, text) = sanity(&rack, access);
        println!("csi-sanity, {access}: {tally}");
        assert!(tally.contains("84 Passed | 0 Failed"), "{text}");
    }
    let (done, said) = rack.strandctl(&["volumes", "check", "--kill-agent"]);
    assert!(done, "{said}");
    let start = Instant::now();
    while !rack
        .strandctl(&["volumes", "list"])
        .1
        .starts_with("There is no volume.")
    {
        assert!(
            start.elapsed() < PATIENCE,
            "{}",
            rack.strandctl(&["volumes", "list"]).1
        );
        sleep(Duration::from_millis(100));
    }
    assert!(rack.down(), "{}", rack.output());
    assert_eq!(rack.left(), Vec::<String>::new());
}
