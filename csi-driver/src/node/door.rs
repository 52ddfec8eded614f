//! A pod's door to context memory.
//!
//! A door is a directory on tmpfs in which the agent binds a socket; the pod sees it through a read-only bind, in which a restarted
//! agent's new socket appears by itself. Ending it needs nobody: it is marked, and closed when the agent answers.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::inline::{Whose, id};
use super::publish::{bind, place};
use super::{Parts, make_directory, mounts};
use crate::agent::{Agent, DoorRequest};
use crate::error::Error;
use crate::locks::Locks;

/// Ends the name of the file that says that a door shall be closed.
const ENDED: &str = "ended";
/// Between two attempts to close what the agent did not close.
const AGAIN: Duration = Duration::from_secs(5);

/// What opening and closing a door take beside its volume's own lock.
fn lock(id: &str) -> String {
    format!("door {id}")
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
    pub(super) async fn publish_door(
        &self,
        id: &str,
        target: &Path,
        pool: String,
        pod: Whose,
    ) -> Result<(), Error> {
        let _held = self.locks.take(&lock(id))?;
        let directory = self.doors.enter(id)?;
        let door = DoorRequest {
            pool,
            namespace: pod.namespace,
            directory: directory.clone(),
            pod_uid: pod.uid,
        };
        let opened = async {
            self.agent.open_door(id, &door).await?;
            bind(&directory, &place(target, false)?, Some(&self.aside(id)?))
        };
        let opened = opened.await;
        if opened.is_err() && mounts::at(target)?.is_none() {
            // The kubelet may never ask again: the pod can be deleted before.
            self.doors.leave(id)?;
        }
        opened
    }
}
