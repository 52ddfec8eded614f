//! What was acknowledged survives `kill -9`, and clients go on where they were.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, ResourceExt,
    api::{
        DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, WatchEvent,
        WatchParams,
    },
};
use serde_json::json;
use strand_embedded_api::{Config, LogError, Server, StartError};

#[path = "support/access.rs"]
mod access;
use access::client;

const SERVE: &str = "STRAND_TEST_SERVE";

/// Not a test of its own: the process that `survives` starts and kills.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    let Ok(dir) = std::env::var(SERVE) else {
        return;
    };
    let server = Server::start(Config::new(&dir)).await.expect("starts");
    server
        .write_kubeconfig(&Path::new(&dir).join("kubeconfig"))
        .expect("written");
    println!("\nserving {}", server.url());
    std::future::pending::<()>().await;
}

/// A serving child, killed when dropped.
struct Served(Child);

impl Served {
    fn start(dir: &Path) -> Self {
        let this = std::env::current_exe().expect("this program");
        let mut child = Command::new(this)
            .args(["--exact", "child", "--nocapture"])
            .env(SERVE, dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a child");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let up = lines
            .map_while(Result::ok)
            .any(|l| l.starts_with("serving "));
        assert!(up, "the child ended before it served");
        Self(child)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("waited for");
    }
}

fn map(name: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.into()),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_writes_survive_kill_9() {
    let dir = tempfile::tempdir().expect("a directory");
    let child = Served::start(dir.path());
    let kubeconfig = std::fs::read_to_string(dir.path().join("kubeconfig")).expect("a kubeconfig");
    let api: Api<ConfigMap> = Api::default_namespaced(client(&kubeconfig).await);
    let first = api
        .create(&PostParams::default(), &map("first"))
        .await
        .expect("created");
    let writer = {
        let api = api.clone();
        tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            for i in 0.. {
                let name = format!("m{i}");
                if api
                    .create(&PostParams::default(), &map(&name))
                    .await
                    .is_err()
                {
                    break;
                }
                acknowledged.push(name);
            }
            acknowledged
        })
    };
    while api
        .list(&ListParams::default())
        .await
        .expect("a list")
        .items
        .len()
        < 50
    {}
    api.delete("first", &DeleteParams::default())
        .await
        .expect("deleted");
    drop(child);
    let acknowledged = writer.await.expect("joined");
    // One of the fifty is another's, and the last one's answer may still have been on its way.
    assert!(acknowledged.len() >= 48);

    // A last line that was being written is cut off, not believed.
    let log = dir.path().join("log.jsonl");
    let mut text = std::fs::read(&log).expect("the log");
    text.extend_from_slice(
        b"{\"rev\":999999,\"kind\":\"configmaps\",\"put\":{\"metadata\":{\"name\":\"to",
    );
    std::fs::write(&log, text).expect("written");

    let _child = Served::start(dir.path());
    let list = api
        .list(&ListParams::default())
        .await
        .expect("the old kubeconfig still holds");
    let names: Vec<String> = list.items.iter().map(ResourceExt::name_any).collect();
    assert!(
        acknowledged.iter().all(|n| names.contains(n)),
        "{} of {}",
        names.len(),
        acknowledged.len()
    );
    assert!(!names.contains(&"first".to_owned()) && !names.contains(&"to".to_owned()));

    // A watch from before the kill goes on, and versions go on growing.
    let version = first.resource_version().expect("a version");
    let params = WatchParams::default();
    let mut events = std::pin::pin!(api.watch(&params, &version).await.expect("a watch"));
    let next = futures::StreamExt::next(&mut events)
        .await
        .expect("an event")
        .expect("no failure");
    assert!(matches!(next, WatchEvent::Added(m) if m.name_any() == "m0"));
    let patched = api
        .patch(
            "m0",
            &PatchParams::default(),
            &Patch::Merge(json!({"data": {"a": "b"}})),
        )
        .await
        .expect("patched");
    let number = |v: Option<String>| v.and_then(|v| v.parse::<u64>().ok()).expect("a number");
    assert!(number(patched.resource_version()) > number(list.metadata.resource_version));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_server_a_directory() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = Server::start(Config::new(dir.path()))
        .await
        .expect("starts");
    let url = first.url();
    let second = Server::start(Config::new(dir.path())).await;
    assert!(matches!(
        second,
        Err(StartError::Log(LogError::Locked { .. }))
    ));
    first.shutdown().await;
    let again = Server::start(Config::new(dir.path()))
        .await
        .expect("starts again");
    assert_eq!(again.url(), url);
    again.shutdown().await;
}

#[tokio::test]
async fn a_damaged_log_is_not_overwritten() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("log.jsonl");
    std::fs::write(
        &log,
        "{\"rev\":1,\"start\":true}\nnonsense\n{\"rev\":2,\"start\":true}\n",
    )
    .expect("written");
    let refused = Server::start(Config::new(dir.path()))
        .await
        .expect_err("damaged");
    assert!(refused.to_string().contains("line 2"), "{refused}");
    assert_eq!(
        std::fs::read_to_string(&log).expect("kept").lines().count(),
        3
    );
}
