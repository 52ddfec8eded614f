//! Control plane and nodes together, and how tests talk to them.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::control_plane::ControlPlane;
use crate::node::{Drive, Node};
use crate::process::{attempt, run};
use crate::wait;
use crate::{enter, tool};

/// A running cluster; it ends with its owner.
pub struct Cluster {
    nodes: Vec<Node>,
    control_plane: ControlPlane,
    dir: PathBuf,
}

impl Cluster {
    /// Starts a cluster of nodes with these drives, in `dir`, inside of the bed's namespaces. The last `spare` of them stay off.
    ///
    /// # Errors
    /// When something does not start, or the nodes are not ready in time.
    pub fn start(dir: &Path, images: &Path, drives: &[&[Drive]], spare: usize) -> Result<Self> {
        enter::let_go()?;
        enter::network()?;
        let mut nodes = Vec::new();
        for (number, of_node) in (1..).zip(drives) {
            let node = Node::make(dir, number, images, of_node)?;
            if usize::from(number) + spare <= drives.len() {
                node.power_on()?;
            }
            nodes.push(node);
        }
        let names: Vec<&str> = nodes.iter().map(Node::name).collect();
        let control_plane = ControlPlane::start(&dir.join("control-plane"), &names)?;
        let cluster = Self {
            control_plane,
            dir: dir.to_owned(),
            nodes,
        };
        for node in cluster.nodes() {
            cluster.joined(node)?;
        }
        Ok(cluster)
    }

    /// Waits until a node that is on is Ready.
    ///
    /// # Errors
    /// When it is not in time.
    pub fn joined(&self, node: &Node) -> Result<()> {
        let name = format!("node/{}", node.name());
        self.kubectl(&["wait", "--for=create", &name, "--timeout=120s"])?;
        self.kubectl(&["wait", "--for=condition=Ready", &name, "--timeout=120s"])?;
        Ok(())
    }

    /// The nodes that are on, `node-1` first.
    pub fn nodes(&self) -> Vec<&Node> {
        self.nodes.iter().filter(|node| node.is_on()).collect()
    }

    /// A node by its name.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn node(&self, name: &str) -> Result<&Node> {
        let found = self.nodes.iter().find(|node| node.name() == name);
        found.with_context(|| format!("there is no node {name}"))
    }

    /// The bed's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How to reach the cluster, as a user who may do everything.
    pub fn kubeconfig(&self) -> PathBuf {
        self.control_plane.kubeconfig()
    }

    /// Runs `kubectl` and returns its output.
    ///
    /// # Errors
    /// When it fails: with what it said.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        run(self.control_plane.kubectl().args(args))
    }

    /// Runs `kubectl`; its output, or what it said when it failed.
    ///
    /// # Errors
    /// Its words.
    pub fn ask(&self, args: &[&str]) -> Result<String, String> {
        let output =
            attempt(self.control_plane.kubectl().args(args)).map_err(|error| error.to_string())?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
        }
    }

    /// An object, or a list of them, as JSON: `get(&["pod", "p"])`.
    ///
    /// # Errors
    /// When there is none.
    pub fn get(&self, args: &[&str]) -> Result<Value> {
        let mut all = vec!["get", "-o", "json"];
        all.extend(args);
        Ok(serde_json::from_str(&self.kubectl(&all)?)?)
    }

    /// Applies objects, as YAML or JSON.
    ///
    /// # Errors
    /// When the API refuses them.
    pub fn apply(&self, objects: &str) -> Result<String> {
        self.feed(&["apply", "-f", "-"], objects.as_bytes())
    }

    /// Runs `kubectl` with this input.
    ///
    /// # Errors
    /// When it fails: with what it said.
    pub fn feed(&self, args: &[&str], input: &[u8]) -> Result<String> {
        let mut child = self
            .control_plane
            .kubectl()
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut to = child.stdin.take().context("kubectl has no input")?;
        to.write_all(input)?;
        drop(to);
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!(
                "kubectl {args:?}: {}\n{}",
                String::from_utf8_lossy(&output.stderr),
                String::from_utf8_lossy(input)
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a command in the pod's container `app` and returns its output.
    ///
    /// # Errors
    /// When it fails: with what it said.
    pub fn exec(&self, namespace: &str, pod: &str, command: &[&str]) -> Result<String> {
        let mut args = vec!["exec", "-n", namespace, pod, "-c", "app", "--"];
        args.extend(command);
        Ok(self.kubectl(&args)?.trim().to_owned())
    }

    /// Waits until `jsonpath` of an object is as `look` wants it.
    ///
    /// # Errors
    /// What it is, once `bound` has passed.
    pub fn until(
        &self,
        object: &[&str],
        jsonpath: &str,
        bound: Duration,
        look: impl Fn(&str) -> bool,
    ) -> Result<String> {
        let output = format!("jsonpath={jsonpath}");
        let mut args = vec!["get", "-o", &output];
        args.extend(object);
        wait::until(
            &format!("{} {jsonpath}", object.join(" ")),
            bound,
            || match self.ask(&args) {
                Ok(found) if look(&found) => Ok(found),
                Ok(other) => Err(other),
                Err(words) => Err(words),
            },
        )
    }

    /// Runs Helm.
    ///
    /// # Errors
    /// When it fails: with what it said.
    pub fn helm(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(tool("helm"));
        command
            .args(args)
            .env("KUBECONFIG", self.control_plane.kubeconfig())
            .env("HOME", &self.dir);
        run(&mut command)
    }

    /// Everything that tells why something did not go as it should, into `to`.
    pub fn explain(&self, to: &Path) {
        let _ = fs::create_dir_all(to);
        let write = |name: &str, text: String| {
            let _ = fs::write(to.join(name), text);
        };
        let said = |args: &[&str]| self.ask(args).unwrap_or_else(|words| words);
        write("pods", said(&["get", "pods", "-A", "-o", "wide"]));
        write(
            "events",
            said(&["get", "events", "-A", "--sort-by=.lastTimestamp"]),
        );
        write("describe", said(&["describe", "pods", "-A"]));
        let kinds = "mpool,drv,pvol,pleg,psnap,pmap,pvc,pv,volumeattachment,csinode,volumesnapshot,volumesnapshotcontent";
        write("objects", said(&["get", kinds, "-A", "-o", "yaml"]));
        let pods = said(&["get", "pods", "-n", "strand-system", "-o", "name"]);
        for pod in pods.lines() {
            let name = pod.trim_start_matches("pod/");
            let logs = [
                "logs",
                "-n",
                "strand-system",
                pod,
                "--all-containers",
                "--prefix",
            ];
            let with = |flag| [&logs[..], &[flag]].concat();
            write(&format!("{name}.log"), said(&with("--tail=3000")));
            if let Ok(text) = self.ask(&with("--previous")) {
                write(&format!("{name}.before.log"), text);
            }
        }
        for node in &self.nodes {
            for log in node.logs() {
                let name = log
                    .file_name()
                    .map(|name| name.to_string_lossy().into_owned());
                let _ = fs::copy(
                    &log,
                    to.join(format!("{}-{}", node.name(), name.unwrap_or_default())),
                );
            }
        }
        let logs = fs::read_dir(self.dir.join("control-plane"))
            .into_iter()
            .flatten()
            .flatten();
        for log in logs.filter(|log| log.path().extension().is_some_and(|is| is == "log")) {
            let _ = fs::copy(log.path(), to.join(log.file_name()));
        }
    }
}
