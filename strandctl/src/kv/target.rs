//! Which way in to context memory a command takes.

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Deserialize;
use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

/// A way in to context memory.
#[derive(Args, Debug, Clone)]
pub struct Target {
    /// Address of a pod's endpoint, as Redis clients use it
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["socket", "rack"])]
    endpoint: Option<String>,
    /// Socket of a pod's native door
    #[arg(long, value_name = "PATH", conflicts_with = "rack")]
    socket: Option<PathBuf>,
    /// The rack that `strandctl up --dir DIR` runs
    #[arg(long, value_name = "DIR")]
    rack: Option<PathBuf>,
    /// One pod of the rack
    #[arg(long, value_name = "NAME", requires = "rack")]
    pod: Option<String>,
    /// File with the password of the endpoint, where it has one
    #[arg(long, value_name = "FILE", conflicts_with = "socket")]
    password_file: Option<PathBuf>,
}

/// One pod's way in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Door {
    /// Redis' protocol over TCP.
    Resp {
        /// Where.
        address: String,
        /// What it asks for.
        password: Option<String>,
    },
    /// The native door.
    Native(PathBuf),
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resp { address, .. } => f.write_str(address),
            Self::Native(path) => write!(f, "{}", path.display()),
        }
    }
}

/// What is read of `rack.json`.
#[derive(Deserialize)]
struct Rack {
    #[serde(default)]
    endpoints: Vec<Endpoint>,
}

#[derive(Deserialize)]
struct Endpoint {
    pod: String,
    resp: String,
}

impl Target {
    /// The one door that is meant.
    pub fn door(&self) -> Result<Door> {
        let mut doors = self.doors()?;
        match (doors.pop(), doors.is_empty()) {
            (Some((_, door)), true) => Ok(door),
            (last, _) => {
                doors.extend(last);
                let pods: Vec<_> = doors.into_iter().map(|(pod, _)| pod).collect();
                bail!(
                    "the rack has several pods; name one with --pod: {}",
                    pods.join(", ")
                )
            }
        }
    }

    /// All doors that are meant, one at least, each with its pod's name.
    pub fn doors(&self) -> Result<Vec<(String, Door)>> {
        let password = self.password()?;
        let resp = |address: &str| Door::Resp {
            address: address.into(),
            password: password.clone(),
        };
        match (&self.endpoint, &self.socket, &self.rack) {
            (Some(address), _, _) => Ok(vec![(String::new(), resp(address))]),
            (_, Some(path), _) => Ok(vec![(String::new(), Door::Native(path.clone()))]),
            (_, _, Some(dir)) => {
                let all = endpoints(dir)?;
                let names: Vec<_> = all.iter().map(|end| end.pod.clone()).collect();
                let meant = |end: &&Endpoint| self.pod.as_ref().is_none_or(|pod| *pod == end.pod);
                let found: Vec<_> = all
                    .iter()
                    .filter(meant)
                    .map(|end| (end.pod.clone(), resp(&end.resp)))
                    .collect();
                if let (Some(pod), true) = (&self.pod, found.is_empty()) {
                    bail!("the rack has no pod {pod}; it has {}", names.join(", "));
                }
                Ok(found)
            }
            _ => bail!(
                "say which pod's way in to take: --endpoint HOST:PORT, --socket PATH, or --rack DIR with --pod NAME"
            ),
        }
    }

    fn password(&self) -> Result<Option<String>> {
        let Some(file) = &self.password_file else {
            return Ok(None);
        };
        let text = fs::read_to_string(file)
            .with_context(|| format!("--password-file {} cannot be read", file.display()))?;
        Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
    }
}

fn endpoints(dir: &Path) -> Result<Vec<Endpoint>> {
    let file = dir.join("rack.json");
    let text = fs::read(&file).with_context(|| {
        format!(
            "{} holds no running rack; start one with `strandctl up --pods 2 --dir {}`",
            dir.display(),
            dir.display()
        )
    })?;
    let rack: Rack = serde_json::from_slice(&text)
        .with_context(|| format!("{} is not what `strandctl up` writes", file.display()))?;
    if rack.endpoints.is_empty() {
        bail!(
            "the rack in {} has no pods; start it with `strandctl up --pods 2 --dir {}`",
            dir.display(),
            dir.display()
        );
    }
    Ok(rack.endpoints)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(dir: &Path, pod: Option<&str>) -> Target {
        Target {
            endpoint: None,
            socket: None,
            rack: Some(dir.into()),
            pod: pod.map(Into::into),
            password_file: None,
        }
    }

    fn refusal(result: Result<impl fmt::Debug>) -> String {
        format!("{:#}", result.expect_err("must be refused"))
    }

    #[test]
    fn a_pod_of_a_rack_is_found_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let none = refusal(target(dir.path(), None).door());
        assert!(
            none.contains("holds no running rack; start one with"),
            "{none}"
        );
        let write = |text: &str| fs::write(dir.path().join("rack.json"), text).unwrap();
        write(r#"{"pid":1,"nodes":[]}"#);
        let podless = refusal(target(dir.path(), None).door());
        assert!(podless.contains("has no pods; start it with"), "{podless}");
        write(
            r#"{"endpoints":[{"pod":"pod-1","node":"node-1","resp":"127.0.0.1:1","native":"/x","pid":1},
                {"pod":"pod-2","node":"node-2","resp":"127.0.0.1:2","native":"/y","pid":2}]}"#,
        );
        assert_eq!(
            target(dir.path(), Some("pod-2"))
                .door()
                .unwrap()
                .to_string(),
            "127.0.0.1:2"
        );
        assert_eq!(target(dir.path(), None).doors().unwrap().len(), 2);
        assert_eq!(
            refusal(target(dir.path(), None).door()),
            "the rack has several pods; name one with --pod: pod-1, pod-2"
        );
        assert_eq!(
            refusal(target(dir.path(), Some("pod-3")).door()),
            "the rack has no pod pod-3; it has pod-1, pod-2"
        );
    }
}
