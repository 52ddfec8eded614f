//! What the agents of a cluster, or of a rack on this machine, say of themselves at `/metrics`.

use crate::cluster::in_words;
use anyhow::{Context, Result, ensure};
use futures::{StreamExt, stream};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, Uri, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt, api::ListParams};
use std::{collections::BTreeMap, path::Path, time::Duration};
use tokio::{net::TcpStream, time::timeout};

use crate::up::rack::Rack;

/// Longest page that is read, in bytes.
const LONGEST: usize = 64 << 20;
/// How long an agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Agents asked at once.
const AT_ONCE: usize = 32;
/// Which pods are agents, as the chart labels them.
pub const AGENTS: &str = "app.kubernetes.io/name=strand,app.kubernetes.io/component=node";
/// The name of a pod's port that has the metrics of its agent.
const PORT: &str = "agent";

/// Where agents are found.
pub enum Agents {
    /// As pods of a cluster, through its API server.
    Cluster(Client),
    /// By the file of a rack on this machine.
    Rack(Rack),
}

/// One value with its labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Its metric.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

impl Sample {
    /// A label's value; empty where there is none.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// What a node's agent said, or why it did not.
pub type Said = (String, Result<String>);

impl Agents {
    /// Those of the rack that runs in a directory.
    pub fn of_rack(dir: &Path) -> Result<Self> {
        Rack::read(dir).map(Self::Rack)
    }

    /// The page of every agent, by node. An agent that does not answer is told of, and does not stop the others.
    pub async fn pages(&self) -> Result<Vec<Said>> {
        let mut pages = match self {
            Self::Rack(rack) => {
                let nodes = rack.nodes.iter().map(|node| async {
                    let page = timeout(PATIENCE, over_http(&node.metrics)).await;
                    (node.name.clone(), page.unwrap_or_else(late))
                });
                stream::iter(nodes)
                    .buffer_unordered(AT_ONCE)
                    .collect()
                    .await
            }
            Self::Cluster(client) => through(client).await?,
        };
        pages.sort_by(|(one, _): &Said, (other, _)| one.cmp(other));
        Ok(pages)
    }
}

fn late<T>(_: tokio::time::error::Elapsed) -> Result<T> {
    anyhow::bail!("no answer in {} s", PATIENCE.as_secs())
}

/// Asks through the API server, so that whoever runs this needs no way to the nodes but `pods/proxy`.
async fn through(client: &Client) -> Result<Vec<Said>> {
    let pods = Api::<Pod>::all(client.clone());
    let found = pods.list(&ListParams::default().labels(AGENTS)).await;
    let pods = found.map_err(in_words)?.items;
    ensure!(
        !pods.is_empty(),
        "there is no pod labelled {AGENTS}: is the chart installed here? For a rack of this machine say --dir DIR"
    );
    let pages = pods.into_iter().map(|pod| async move {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let asked = async {
            let port = metrics_port(&pod).context("its pod has no port for metrics")?;
            let path = format!("/api/v1/namespaces/{namespace}/pods/{name}:{port}/proxy/metrics");
            let request = Request::get(path).body(Vec::new())?;
            client.request_text(request).await.map_err(in_words)
        };
        let page = timeout(PATIENCE, asked).await.unwrap_or_else(late);
        (node.unwrap_or(name), page)
    });
    Ok(stream::iter(pages)
        .buffer_unordered(AT_ONCE)
        .collect()
        .await)
}

/// The number of the port: the API server's proxy to pods knows no names of ports.
fn metrics_port(pod: &Pod) -> Option<i32> {
    let containers = &pod.spec.as_ref()?.containers;
    let mut ports = containers.iter().flat_map(|one| one.ports.iter().flatten());
    let named = ports.find(|port| port.name.as_deref() == Some(PORT))?;
    Some(named.container_port)
}

async fn over_http(url: &str) -> Result<String> {
    let uri: Uri = url.parse()?;
    let address = uri
        .authority()
        .context("a URL without an address")?
        .as_str();
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get(uri.path())
        .header("host", address)
        .body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    ensure!(
        answer.status().is_success(),
        "it answered {}",
        answer.status()
    );
    let body = Limited::new(answer.into_body(), LONGEST).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
    Ok(String::from_utf8(body.to_vec())?)
}

/// The samples of a page in Prometheus' text format, version 0.0.4. Lines that are none are passed over.
///
/// Source: <https://prometheus.io/docs/instrumenting/exposition_formats/>.
pub fn samples(page: &str) -> Vec<Sample> {
    page.lines().filter_map(sample).collect()
}

fn sample(line: &str) -> Option<Sample> {
    let line = line.trim();
    if line.starts_with('#') {
        return None;
    }
    let end = line.find(|c: char| c == '{' || c.is_whitespace())?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(mut inside) = rest.strip_prefix('{') {
        loop {
            inside = inside.trim_start_matches([',', ' ']);
            if let Some(after) = inside.strip_prefix('}') {
                rest = after;
                break;
            }
            let (label, after) = inside.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.insert(label.trim().to_owned(), value);
            inside = after;
        }
    }
    Some(Sample {
        name: name.to_owned(),
        labels,
        value: rest.split_whitespace().next()?.parse().ok()?,
    })
}

/// A label's value up to its quote, and what comes behind.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match letters.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_to_the_letter() {
        let page = "# HELP a_total What \"a\" is.\n# TYPE a_total counter\na_total 3\n\
                    b{x=\"1\",y=\"say \\\"hi\\\", {you}\\\\\\n\"} 2.5e3 1700000000\n\
                    c_bucket{le=\"+Inf\",} +Inf\nbroken{x=\"1\nnothing\n\n";
        let found = samples(page);
        let names: Vec<_> = found.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["a_total", "b", "c_bucket"]);
        assert_eq!(found[0].value, 3.0);
        assert_eq!(found[1].label("y"), "say \"hi\", {you}\\\n");
        assert_eq!((found[1].value, found[1].label("z")), (2500.0, ""));
        assert_eq!(found[2].value, f64::INFINITY);
    }
}
