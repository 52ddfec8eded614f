//! An unmodified kubectl against the embedded server.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use strand_embedded_api::{Config, Server};
use tempfile::TempDir;

/// A running server, and kubectl configured for it with a home of its own.
struct Rig {
    _server: Server,
    dir: TempDir,
    kubectl: PathBuf,
}

impl Rig {
    async fn new() -> Self {
        let kubectl = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/tools/kubectl");
        assert!(
            kubectl.exists(),
            "{} is missing: run `e2e/tools/build kubectl` first (`make test` does)",
            kubectl.display()
        );
        let dir = tempfile::tempdir().expect("a directory");
        let server = Server::start(Config::new(dir.path().join("api")))
            .await
            .expect("starts");
        server
            .write_kubeconfig(&dir.path().join("kubeconfig"))
            .expect("written");
        Self {
            _server: server,
            dir,
            kubectl,
        }
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(&self.kubectl);
        command
            .args(line.split_whitespace())
            .current_dir(self.dir.path())
            .env("HOME", self.dir.path());
        command
            .env("KUBECONFIG", self.dir.path().join("kubeconfig"))
            .stdin(Stdio::null());
        command
    }

    /// Runs a line that must succeed, and returns what it printed.
    async fn run(&self, line: &str) -> String {
        let (good, text) = self.attempt(line).await;
        assert!(good, "kubectl {line}: {text}");
        text
    }

    /// Runs a line: whether it succeeded, and all that it printed.
    async fn attempt(&self, line: &str) -> (bool, String) {
        let output = tokio::process::Command::from(self.command(line))
            .output()
            .await
            .expect("kubectl runs");
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    }

    fn file(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).expect("written");
    }
}

const DEFINITION: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: boxes.test.strand.dev}
spec:
  group: test.strand.dev
  names: {plural: boxes, kind: Box, shortNames: [bx], categories: [strand]}
  scope: Cluster
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    additionalPrinterColumns:
    - {name: Size, type: integer, jsonPath: .spec.size}
    - {name: Note, type: string, jsonPath: .spec.note, priority: 1}
    schema:
      openAPIV3Schema:
        type: object
        description: A box.
        properties:
          spec:
            type: object
            properties:
              size: {type: integer, description: How much it holds., minimum: 1}
              note: {type: string}
              parts: {type: array, items: {type: object, properties: {a: {type: string}}}}
          status:
            type: object
            x-kubernetes-preserve-unknown-fields: true
";

#[tokio::test(flavor = "multi_thread")]
async fn custom_kinds() {
    let rig = Rig::new().await;
    rig.file("definition.yaml", DEFINITION);
    rig.file("box.yaml", "apiVersion: test.strand.dev/v1\nkind: Box\nmetadata: {name: a}\nspec: {size: 1, note: hi}\n");
    assert!(
        rig.run("apply -f definition.yaml")
            .await
            .contains("created")
    );
    rig.run("wait --for=condition=Established crd/boxes.test.strand.dev --timeout=10s")
        .await;
    let text = rig.run("api-resources --api-group=test.strand.dev").await;
    assert!(
        text.contains("boxes") && text.contains("bx") && text.contains("Box"),
        "{text}"
    );
    let text = rig.run("explain box.spec").await;
    assert!(
        text.contains("How much it holds.") && text.contains("<integer>"),
        "{text}"
    );

    assert!(
        rig.run("apply -f box.yaml")
            .await
            .contains("box.test.strand.dev/a created")
    );
    assert!(rig.run("apply -f box.yaml").await.contains("unchanged"));
    rig.file(
        "box.yaml",
        "apiVersion: test.strand.dev/v1\nkind: Box\nmetadata: {name: a}\nspec: {size: 2}\n",
    );
    let (same, text) = rig.attempt("diff -f box.yaml").await;
    assert!(
        !same && text.contains("+  size: 2") && text.contains("-  note: hi"),
        "{text}"
    );
    assert!(rig.run("apply -f box.yaml").await.contains("configured"));
    assert_eq!(
        rig.run("get bx a -o jsonpath={.spec}").await,
        "{\"size\":2}"
    );
    assert!(
        rig.run("apply --server-side --field-manager=me -f box.yaml")
            .await
            .contains("serverside-applied")
    );
    let (good, text) = rig
        .attempt("apply --server-side --field-manager=you -f box.yaml --dry-run=server")
        .await;
    assert!(good, "{text}");
    rig.file(
        "box.yaml",
        "apiVersion: test.strand.dev/v1\nkind: Box\nmetadata: {name: a}\nspec: {size: 3}\n",
    );
    let (good, text) = rig
        .attempt("apply --server-side --field-manager=you -f box.yaml")
        .await;
    assert!(
        !good && text.contains("conflict with") && text.contains(".spec.size"),
        "{text}"
    );

    let text = rig.run("get boxes").await;
    assert_eq!(
        text.split_whitespace().collect::<Vec<_>>(),
        ["NAME", "SIZE", "a", "2"]
    );
    assert!(rig.run("get strand -o wide").await.contains("NOTE"));
    assert!(rig.run("get bx/a -o yaml").await.contains("size: 2"));
    let text = rig.run("describe box a").await;
    assert!(
        text.contains("Size:  2") && text.contains("API Version:  test.strand.dev/v1"),
        "{text}"
    );
    rig.run("label box a x=y").await;
    rig.run("annotate box a x=y").await;
    rig.run("patch box a --type=merge -p {\"spec\":{\"note\":\"n\"}}")
        .await;
    rig.run("patch box a --type=json -p [{\"op\":\"remove\",\"path\":\"/spec/note\"}]")
        .await;
    rig.run("patch box a --subresource=status --type=merge -p {\"status\":{\"conditions\":[{\"type\":\"Ready\",\"status\":\"True\"}]}}").await;
    rig.run("wait --for=condition=Ready box/a --timeout=10s")
        .await;
    assert_eq!(
        rig.run("get box -l x=y -o name").await.trim(),
        "box.test.strand.dev/a"
    );

    rig.file(
        "bad.yaml",
        "apiVersion: test.strand.dev/v1\nkind: Box\nmetadata: {name: b}\nspec: {size: 0}\n",
    );
    let (good, text) = rig.attempt("apply -f bad.yaml").await;
    assert!(
        !good && text.contains("spec.size in body should be greater than or equal to 1"),
        "{text}"
    );
    rig.file(
        "bad.yaml",
        "apiVersion: test.strand.dev/v1\nkind: Box\nmetadata: {name: b}\nspec: {sise: 1}\n",
    );
    let (good, text) = rig.attempt("create -f bad.yaml").await;
    assert!(
        !good && text.contains("unknown field \"spec.sise\""),
        "{text}"
    );

    let mut edit = rig.command("edit box a");
    edit.env("EDITOR", "sed -i s/size:.2/size:\\ 9/");
    let output = tokio::process::Command::from(edit)
        .output()
        .await
        .expect("kubectl runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(rig.run("get box a -o jsonpath={.spec.size}").await, "9");
    rig.run("delete box a").await;
    rig.run("delete crd boxes.test.strand.dev").await;
    let (good, text) = rig.attempt("get boxes").await;
    assert!(!good && text.contains("resource"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn core_kinds() {
    let rig = Rig::new().await;
    rig.run("create namespace nn").await;
    rig.run("-n nn create secret generic s --from-literal=a=b")
        .await;
    rig.run("-n nn create configmap c --from-literal=a=b").await;
    rig.run("-n nn create serviceaccount sa").await;
    assert_eq!(
        rig.run("-n nn get secret s -o jsonpath={.data.a}").await,
        "Yg=="
    );
    assert!(
        rig.run("-n nn describe configmap c")
            .await
            .contains("Data\n====")
    );
    rig.file(
        "all.yaml",
        "apiVersion: v1
kind: Node
metadata: {name: w}
---
apiVersion: v1
kind: Pod
metadata: {name: p, namespace: nn}
spec: {nodeName: w, containers: [{name: c, image: i, env: [{name: A, value: '1'}]}]}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: v, namespace: nn}
spec: {accessModes: [ReadWriteOnce], storageClassName: s, resources: {requests: {storage: 1Gi}}}
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: s}
provisioner: strand.dev
",
    );
    rig.run("apply -f all.yaml").await;
    assert!(
        rig.run("apply -f all.yaml")
            .await
            .contains("pod/p unchanged")
    );
    rig.run("label node w a=b").await;
    rig.run("cordon w").await;
    let text = rig.run("get nodes").await;
    assert!(text.contains("SchedulingDisabled"), "{text}");
    rig.run("uncordon w").await;
    rig.run("patch node w --subresource=status -p {\"status\":{\"conditions\":[{\"type\":\"Ready\",\"status\":\"True\"}]}}").await;
    rig.run("wait --for=condition=Ready node/w --timeout=10s")
        .await;
    for what in [
        "node w",
        "pod p -n nn",
        "pvc v -n nn",
        "sc s",
        "namespace nn",
    ] {
        rig.run(&format!("describe {what}")).await;
    }
    assert!(
        rig.run("explain pod.spec.containers.env")
            .await
            .contains("KIND:       Pod")
    );
    assert!(rig.run("get pods,pvc -A -o wide").await.contains("pod/p"));
    let (good, text) = rig.attempt("-n nn logs p").await;
    assert!(
        !good
            && text.contains("the embedded API server does not serve the log subresource of pods"),
        "{text}"
    );
    rig.run("delete namespace nn --timeout=20s").await;
    let (good, _) = rig.attempt("get namespace nn").await;
    assert!(!good);
}

#[tokio::test(flavor = "multi_thread")]
async fn get_watches() {
    let rig = Rig::new().await;
    rig.run("create configmap a --from-literal=x=1").await;
    let mut watch =
        tokio::process::Command::from(rig.command("get configmaps -w --output-watch-events"));
    let mut child = watch
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("kubectl runs");
    let out = child.stdout.take().expect("its output");
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(out));
    let mut next = async || -> Vec<String> {
        let line =
            tokio::time::timeout(std::time::Duration::from_secs(20), lines.next_line()).await;
        let line = line
            .expect("a line in time")
            .expect("readable")
            .expect("a line");
        line.split_whitespace().take(3).map(str::to_owned).collect()
    };
    assert_eq!(next().await, ["EVENT", "NAME", "DATA"]);
    assert_eq!(next().await, ["ADDED", "a", "1"]);
    rig.run("patch configmap a -p {\"data\":{\"y\":\"2\"}}")
        .await;
    assert_eq!(next().await, ["MODIFIED", "a", "2"]);
    rig.run("delete configmap a").await;
    assert_eq!(next().await, ["DELETED", "a", "2"]);
    child.kill().await.expect("killed");
}
