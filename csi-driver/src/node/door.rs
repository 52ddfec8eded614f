//! Inline volumes: a pod's door to context memory.
//!
//! A door is a directory on tmpfs in which the agent binds a socket; the pod sees it through a read-only bind, in which a restarted
//! agent's new socket appears by itself. Ending it needs nobody: it is marked, and closed when the agent answers.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::publish::{bind, place};
use super::{Parts, make_directory, mounts};
use crate::agent::{Agent, DoorRequest};
use crate::error::Error;
use crate::locks::Locks;
use crate::request::capability::{Access, Capability};
use crate::request::parameters;

/// Volume attributes that the kubelet adds (podInfoOnMount in the CSIDriver).
const INLINE: &str = "csi.storage.k8s.io/ephemeral";
const POD_NAMESPACE: &str = "csi.storage.k8s.io/pod.namespace";
const POD_UID: &str = "csi.storage.k8s.io/pod.uid";
/// Ends the name of the file that says that a door shall be closed.
const ENDED: &str = "ended";
/// Between two attempts to close what the agent did not close.
const AGAIN: Duration = Duration::from_secs(5);

/// Whether a volume is part of its pod.
pub fn is_inline(context: &HashMap<String, String>) -> bool {
    context.get(INLINE).is_some_and(|v| v == "true")
}

/// An id of a volume, as a door can have it: what the agent takes for one.
///
/// # Errors
/// Where it is none.
pub fn id(id: &str) -> Result<&str, Error> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    match id {
        "" => Err(Error::Missing("volume_id")),
        id if id.len() <= 128 && id.bytes().all(fits) => Ok(id),
        _ => Err(Error::invalid(
            "volume_id",
            "no volume or inline volume of this driver has it",
        )),
    }
}

/// What opening and closing a door take beside its volume's own lock.
fn lock(id: &str) -> String {
    format!("door {id}")
}

/// What a pod asks for inline.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    pool: String,
    namespace: String,
}

/// Reads a volume's attributes; pure.
fn read(context: &HashMap<String, String>) -> Result<Asked, Error> {
    let refuse = |why: &str| Error::invalid("volumeAttributes", why);
    match context.get("kind").map(String::as_str) {
        Some("kv") => {}
        Some("scratch") => {
            return Err(Error::Unsupported(
                "kind: scratch is not there yet; use a generic ephemeral volume".into(),
            ));
        }
        _ => return Err(refuse("kind: write kv")),
    }
    let known = |key: &String| {
        ["kind", "pool"].contains(&key.as_str()) || key.starts_with("csi.storage.k8s.io/")
    };
    if let Some(key) = context.keys().find(|key| !known(key)) {
        let key: String = key.chars().take(64).collect();
        return Err(refuse(&format!(
            "{key:?} is unknown; there are: kind, pool"
        )));
    }
    let pool = context.get("pool").map_or("", String::as_str);
    let missing = |key| {
        refuse(&format!(
            "{key} is missing: the CSIDriver needs podInfoOnMount: true"
        ))
    };
    let namespace = context.get(POD_NAMESPACE).filter(|n| !n.is_empty());
    let namespace = namespace.ok_or_else(|| missing(POD_NAMESPACE))?;
    let uid = context.get(POD_UID).filter(|n| !n.is_empty());
    uid.ok_or_else(|| missing(POD_UID))?;
    Ok(Asked {
        pool: parameters::pool(pool)?,
        namespace: namespace.clone(),
    })
}

/// The doors of this node's pods. Clones are the same.
#[derive(Clone)]
pub struct Doors {
    dir: PathBuf,
    ended: Arc<Notify>,
}

impl Doors {
    /// Starts closing what has ended, now and before.
    pub fn start(dir: PathBuf, agent: Agent, locks: Locks) -> Self {
        let doors = Self {
            dir,
            ended: Arc::default(),
        };
        // Ends with the process: what it leaves is on disk.
        tokio::spawn(doors.clone().close_ended(agent, locks));
        doors
    }

    fn directory(&self, id: &str) -> PathBuf {
        self.dir.join(id)
    }

    fn ended_mark(&self, id: &str) -> PathBuf {
        self.dir.join(format!("{id}.{ENDED}"))
    }

    /// Makes the directory of a door.
    fn enter(&self, id: &str) -> Result<PathBuf, Error> {
        make_directory(&self.dir)?;
        let (directory, mark) = (self.directory(id), self.ended_mark(id));
        gone(fs::remove_file(&mark)).map_err(Error::host("cannot remove", &mark))?;
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&directory);
        made.map_err(Error::host("cannot make", &directory))?;
        Ok(directory)
    }

    /// Marks a door as ended; a volume that has none is fine.
    ///
    /// # Errors
    /// The kernel's.
    pub fn leave(&self, id: &str) -> Result<(), Error> {
        if !self.directory(id).is_dir() {
            return Ok(());
        }
        let mark = self.ended_mark(id);
        File::create(&mark).map_err(Error::host("cannot make", &mark))?;
        self.ended.notify_one();
        Ok(())
    }

    async fn close_ended(self, agent: Agent, locks: Locks) {
        loop {
            let mut left = false;
            for id in self.all_ended() {
                // One that is being published now is looked at again. Unpublishing does not wait for this.
                let Ok(_held) = locks.take(&lock(&id)) else {
                    left = true;
                    continue;
                };
                if let Err(error) = self.close(&agent, &id).await {
                    tracing::warn!(door = id, %error, "a door is not closed yet; it is tried again");
                    left = true;
                }
            }
            if left {
                tokio::time::sleep(AGAIN).await;
            } else {
                self.ended.notified().await;
            }
        }
    }

    fn all_ended(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.dir) else {
            return Vec::new();
        };
        let paths = entries.filter_map(|entry| entry.ok().map(|e| e.path()));
        let ended = paths.filter(|path| path.extension().is_some_and(|e| e == ENDED));
        ended
            .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
            .filter(|stem| id(stem).is_ok())
            .collect()
    }

    async fn close(&self, agent: &Agent, id: &str) -> Result<(), Error> {
        let (directory, mark) = (self.directory(id), self.ended_mark(id));
        // Published again meanwhile.
        if !mark.exists() {
            return Ok(());
        }
        agent.close_door(id).await?;
        gone(fs::remove_dir_all(&directory)).map_err(Error::host("cannot remove", &directory))?;
        gone(fs::remove_file(&mark)).map_err(Error::host("cannot remove", &mark))
    }
}

/// What is not there is removed already.
fn gone(removed: std::io::Result<()>) -> std::io::Result<()> {
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

impl Parts {
    pub(super) async fn publish_inline(
        &self,
        id: &str,
        target: &Path,
        capability: &Capability,
        context: &HashMap<String, String>,
    ) -> Result<(), Error> {
        if capability.access == Access::Block {
            let why = "an inline volume is a directory, not a device";
            return Err(Error::invalid("volume_capability", why));
        }
        let asked = read(context)?;
        let _held = self.locks.take(&lock(id))?;
        let directory = self.doors.enter(id)?;
        let door = DoorRequest {
            pool: asked.pool,
            namespace: asked.namespace,
            directory: directory.clone(),
        };
        let opened = self.agent.open_door(id, &door).await;
        if opened.is_err() && mounts::at(target)?.is_none() {
            // The kubelet may never ask again: the pod can be deleted before.
            self.doors.leave(id)?;
        }
        opened?;
        let target = place(target, false)?;
        bind(&directory, &target, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        let owned = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn attributes_are_read_or_refused() {
        let pod = [(POD_NAMESPACE, "team-a"), (POD_UID, "u"), (INLINE, "true")];
        let with = |more: &[(&str, &str)]| read(&map(&[&pod[..], more].concat()));
        let asked = with(&[("kind", "kv"), ("pool", "rack")]).unwrap();
        assert_eq!(
            (asked.pool.as_str(), asked.namespace.as_str()),
            ("rack", "team-a")
        );
        assert!(matches!(
            with(&[("kind", "scratch")]),
            Err(Error::Unsupported(_))
        ));
        assert!(with(&[("kind", "kv")]).is_err());
        assert!(with(&[("kind", "kv"), ("pool", "../x")]).is_err());
        assert!(with(&[("kind", "kv"), ("pool", "rack"), ("namespace", "other")]).is_err());
        assert!(read(&map(&[("kind", "kv"), ("pool", "rack")])).is_err());
    }

    #[test]
    fn an_id_never_leads_out_of_the_directory() {
        let kubernetes = format!("csi-{}", "0a".repeat(32));
        assert_eq!(id(&kubernetes).unwrap(), kubernetes);
        for bad in ["", "..", "a/b", "a.ended", "A", &"x".repeat(129)] {
            assert!(id(bad).is_err(), "{bad}");
        }
    }
}
