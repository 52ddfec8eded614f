//! The embedded API server's request corpus, against the real one.

use std::fs;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use strand_e2e::repository;

use crate::rack::Rack;

#[path = "../../../crates/embedded-api/tests/support/corpus.rs"]
mod requests;

/// Streaming lists: the etcd that Debian has lacks them.
const MISSING: &str = "watch-list";

/// What clients rely on, the embedded API server and the real one answer alike.
pub fn the_embedded_api_server_answers_like_the_real_one(rack: &Rack) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut files: Vec<_> = fs::read_dir(repository().join("e2e/corpus"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|file| file.extension().is_some_and(|is| is == "yaml"))
        .collect();
    files.sort();
    let mut differences = Vec::new();
    let mut left_out = Vec::new();
    runtime.block_on(async {
        let config = Kubeconfig::read_from(rack.cluster.kubeconfig()).unwrap();
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(config, &options)
            .await
            .unwrap();
        let client = Client::try_from(config).unwrap();
        for file in &files {
            let text = fs::read_to_string(file).unwrap();
            let needs = serde_yaml::from_str::<requests::File>(&text).unwrap().needs;
            if needs.iter().any(|need| need == MISSING) {
                left_out.push(file.file_name().unwrap());
            } else if let Err(difference) = requests::replay(&client, file).await {
                differences.push(difference);
            }
        }
    });
    println!(
        "    of {} files of requests {} are answered differently; left out: {left_out:?}",
        files.len(),
        differences.len()
    );
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}
