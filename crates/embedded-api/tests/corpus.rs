//! The request corpus in `e2e/corpus` against the embedded server, or, with `STRAND_CORPUS_KUBECONFIG`, against another.

use std::path::Path;

use strand_embedded_api::{Config as ServerConfig, Server};

#[path = "support/access.rs"]
mod access;
#[path = "support/corpus.rs"]
mod corpus;

#[tokio::test(flavor = "multi_thread")]
async fn every_file_holds() {
    let dir = tempfile::tempdir().expect("dir");
    let other = std::env::var("STRAND_CORPUS_KUBECONFIG").ok();
    // What the other server lacks, e.g. `collector` for an API server without a controller manager.
    let without = std::env::var("STRAND_CORPUS_WITHOUT").unwrap_or_default();
    let only = std::env::var("STRAND_CORPUS_ONLY").unwrap_or_default();
    let mut server = None;
    let client = match &other {
        Some(path) => access::client(&std::fs::read_to_string(path).expect("kubeconfig")).await,
        None => {
            let started = Server::start(ServerConfig::new(dir.path()))
                .await
                .expect("starts");
            let client = access::client(&started.kubeconfig()).await;
            server = Some(started);
            client
        }
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../e2e/corpus");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .expect("corpus")
        .map(|f| f.expect("entry").path())
        .collect();
    files.retain(|f| {
        f.extension().is_some_and(|e| e == "yaml") && f.to_string_lossy().contains(&only)
    });
    files.sort();
    assert!(!files.is_empty(), "no corpus in {}", folder.display());
    let mut failures = Vec::new();
    for file in &files {
        let needs: corpus::File =
            serde_yaml::from_str(&std::fs::read_to_string(file).expect("file")).expect("yaml");
        if needs
            .needs
            .iter()
            .any(|n| without.split(',').any(|w| w == n))
        {
            println!("{}: left out, needs {:?}", file.display(), needs.needs);
            continue;
        }
        match corpus::replay(&client, file).await {
            Ok(()) => println!("{}: ok", file.display()),
            Err(why) => failures.push(why),
        }
    }
    if let Some(server) = server {
        server.shutdown().await;
    }
    assert!(
        failures.is_empty(),
        "{} of {} files:\n{}",
        failures.len(),
        files.len(),
        failures.join("\n\n")
    );
}
