//! Programs that are clients. `scripts/install-test-tools` brings them.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// Runs a program to its end; it is killed if this test ends before.
pub async fn run(command: &mut Command) -> String {
    let program = format!("{command:?}");
    let output = timeout(
        Duration::from_secs(240),
        command.kill_on_drop(true).output(),
    )
    .await;
    let Output {
        status,
        stdout,
        stderr,
    } = output
        .unwrap_or_else(|_| panic!("{program} hangs"))
        .unwrap_or_else(|e| {
            panic!("{program}: {e}; run scripts/install-test-tools (`make test` does)")
        });
    let stdout = String::from_utf8_lossy(&stdout).into_owned();
    assert!(
        status.success(),
        "{program}: {status}\n{stdout}{}",
        String::from_utf8_lossy(&stderr)
    );
    stdout
}

pub async fn python(script: &str, arguments: &[&str]) {
    let crate_root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python: PathBuf = crate_root.join("../.cache/kv-clients/bin/python");
    let script = crate_root.join("tests/clients").join(script);
    // Its files stand in the source tree: no bytecode beside them.
    run(Command::new(python).arg("-B").arg(script).args(arguments)).await;
}
