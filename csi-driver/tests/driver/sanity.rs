//! csi-sanity, the conformance tests of the specification.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::bed::{Bed, POOL};

/// How csi-sanity ended: passed, failed, pending (switched off by its authors), skipped.
#[derive(Debug, PartialEq, Eq)]
struct Tally {
    passed: u32,
    failed: u32,
    pending: u32,
    skipped: u32,
}

/// Runs it, and again where it did not see that it is connected: it asks a connection for its state twice, and if that becomes ready in
/// between, waits a minute for the next change (`utils.Connect` of csi-test 5.4).
async fn run(access: &'static str) -> (Tally, String, Vec<String>) {
    for _ in 0..4 {
        let ran = once(access).await;
        if !ran.1.contains("s: \"Connection timed out\"") {
            return ran;
        }
    }
    once(access).await
}

async fn once(access: &'static str) -> (Tally, String, Vec<String>) {
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/tools/csi-sanity");
    assert!(
        tool.exists(),
        "{} is missing: run `e2e/tools/build csi-sanity` first (`make test` does)",
        tool.display()
    );
    let bed = Bed::new().await;
    let file = |name: &str, text: &str| {
        let path = bed.path().join(name);
        fs::write(&path, text).expect("written");
        path.into_os_string()
    };
    let parameters = file("parameters.yaml", &format!("pool: {POOL}\n"));
    let mutable = file("mutable.yaml", "iops: \"5000\"\n");
    let secret = "CreateVolumeSecret: {password: hunter2-never-logged}\nNodeStageVolumeSecret: {password: hunter2-never-logged}\n";
    let secrets = file("secrets.yaml", secret);
    let mut command = Command::new(tool);
    command
        .arg("-ginkgo.no-color")
        .args(["-csi.endpoint", bed.socket().to_str().expect("a path")])
        .args(["-csi.testvolumeaccesstype", access])
        .arg("-csi.testnodevolumeattachlimit")
        .args([
            "-csi.mountdir".into(),
            bed.path().join("target").into_os_string(),
        ])
        .args([
            "-csi.stagingdir".into(),
            bed.path().join("stage").into_os_string(),
        ])
        .args(["-csi.testvolumeparameters".into(), parameters])
        .args(["-csi.testvolumemutableparameters".into(), mutable])
        .args(["-csi.secrets".into(), secrets])
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .expect("joined")
        .expect("csi-sanity runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!bed.log().contains("hunter2"), "a secret is in the log");
    let tally = tally(&text);
    assert_eq!(tally.skipped, 0, "{text}");
    (tally, text, bed.left())
}

fn tally(text: &str) -> Tally {
    let line = text
        .lines()
        .rfind(|line| line.contains("Passed") && line.contains("Skipped"));
    let line = line.unwrap_or_default();
    let number = |word: &str| {
        let part = line.split('|').find(|part| part.contains(word));
        let digits = part.into_iter().flat_map(str::split_whitespace);
        digits
            .into_iter()
            .find_map(|text| text.parse().ok())
            .unwrap_or(u32::MAX)
    };
    Tally {
        passed: number("Passed"),
        failed: number("Failed"),
        pending: number("Pending"),
        skipped: number("Skipped"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn file_systems_are_as_the_specification_says() {
    let (tally, text, left) = run("mount").await;
    println!("csi-sanity, mount: {tally:?}");
    assert!(tally.failed == 0 && tally.passed > 0, "{text}");
    assert_eq!(left, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_volumes_are_as_the_specification_says() {
    let (tally, text, left) = run("block").await;
    println!("csi-sanity, block: {tally:?}");
    assert!(tally.failed == 0 && tally.passed > 0, "{text}");
    assert_eq!(left, Vec::<String>::new());
}
