//! The conformance tests of CSI, and one volume's life by strandctl.

use crate::rack::{Rack, until};
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

/// Runs csi-sanity; the line with its tally, and all that it said.
fn sanity(rack: &Rack, access: &str) -> (String, String) {
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/tools/csi-sanity");
    assert!(
        tool.exists(),
        "csi-sanity is missing: run `e2e/tools/build csi-sanity` first (`make test` does)"
    );
    let file = |name: &str, text: &str| {
        let path = rack.beside(name);
        fs::write(&path, text).unwrap();
        path
    };
    let endpoint = rack.node().csi;
    let output = Command::new(tool)
        .arg("-ginkgo.no-color")
        .args(["-csi.endpoint", endpoint.strip_prefix("unix://").unwrap()])
        .args(["-csi.testvolumeaccesstype", access])
        .arg("-csi.testnodevolumeattachlimit")
        .arg("-csi.mountdir")
        .arg(rack.beside("target"))
        .arg("-csi.stagingdir")
        .arg(rack.beside("stage"))
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

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_rack_is_as_the_specification_of_csi_says_and_leaves_nothing() {
    let mut rack = Rack::new();
    // csi-sanity attaches as many as that at once, and one more.
    rack.up_with(
        &["--drives", "2", "--drive-size", "200Gi"],
        &[("STRAND_MAX_VOLUMES", "8")],
    );
    for access in ["mount", "block"] {
        let (tally, text) = sanity(&rack, access);
        println!("csi-sanity, {access}: {tally}");
        assert!(tally.contains("91 Passed | 0 Failed"), "{text}");
        assert!(tally.contains("0 Skipped"), "{text}");
    }
    let (done, said) = rack.strandctl(&["volumes", "check", "--kill-agent"]);
    assert!(done, "{said}");
    until("there is no volume", async || {
        let (_, said) = rack.strandctl(&["volumes", "list"]);
        said.starts_with("There is no volume.")
    })
    .await;
    rack.ends_with_nothing_left();
}
