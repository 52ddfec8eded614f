//! The `Dockerfile`'s first stage, which needs a base from a registry: as much of it as can be tried without.

use std::fs;
use std::process::Command;

use strand_e2e::repository;

/// What Docker sends to the build is all of the workspace: with a member's manifest missing, cargo builds none.
#[test]
fn what_is_built_from_is_a_workspace() {
    let repository = repository();
    let ignored = fs::read_to_string(repository.join(".dockerignore")).unwrap();
    let ignored: Vec<&str> = ignored.lines().collect();
    let mut git = Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard"]);
    let files = git.current_dir(&repository).output().unwrap().stdout;
    let context = tempfile::tempdir().unwrap();
    for file in String::from_utf8(files).unwrap().lines() {
        let from = repository.join(file);
        let sent = !ignored.iter().any(|path| {
            let rest = file.strip_prefix(path);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        if sent && from.is_file() {
            let to = context.path().join(file);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(from, to).unwrap();
        }
    }
    let mut cargo = Command::new(env!("CARGO"));
    // Without dependencies: those of other platforms are nowhere on a machine that has only built.
    cargo.args(["metadata", "--no-deps", "--offline", "--format-version=1"]);
    let read = cargo.current_dir(context.path()).output().unwrap();
    let said = String::from_utf8_lossy(&read.stderr);
    assert!(read.status.success(), "{said}");
    for path in ["scripts/sbom", "LICENSE"] {
        assert!(context.path().join(path).is_file(), "{path}");
    }
}
