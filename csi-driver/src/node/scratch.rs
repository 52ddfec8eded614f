//! Scratch space: an inline volume of a given size on a drive of this node, for as long as its pod.
//!
//! The directory in which the pod sees it is the only record of it: it is made before the agent is asked, and removed by unpublishing,
//! which needs nobody. Space whose directory is gone is given back by a sweep, whatever was killed in between
//! (docs/decisions/0015).

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::publish::{place, remove};
use super::stage::Plan;
use super::{Parts, mounts};
use crate::agent::{Agent, ScratchRequest};
use crate::error::Error;
use crate::locks::Locks;
use crate::request::capability::FsType;

/// Between two sweeps when nothing was unpublished: pods' directories can go without a call.
const REGULAR: Duration = Duration::from_secs(60);
/// Between two attempts to sweep what could not be swept.
const AGAIN: Duration = Duration::from_secs(5);

/// What making and taking away take beside their volume's own lock.
fn lock(id: &str) -> String {
    format!("scratch {id}")
}

/// The sweep over this node's scratch space. Clones are the same.
#[derive(Clone, Default)]
pub struct Sweep {
    ended: Arc<Notify>,
}

impl Sweep {
    /// Begins sweeping: what ends, and what ended before.
    pub fn start(agent: Agent, locks: Locks) -> Self {
        let sweep = Self::default();
        // Ends with the process: the directories stay as they are.
        tokio::spawn(sweep.clone().run(agent, locks));
        sweep
    }

    /// Has it sweep soon.
    pub fn soon(&self) {
        self.ended.notify_one();
    }

    async fn run(self, agent: Agent, locks: Locks) {
        loop {
            match sweep(&agent, &locks).await {
                // Whichever comes first.
                Ok(()) => drop(tokio::time::timeout(REGULAR, self.ended.notified()).await),
                Err(error) => {
                    // That it is being restarted is no news.
                    if !matches!(error, Error::NoAgent { .. }) {
                        tracing::warn!(%error, "scratch space is not given back yet; it is tried again");
                    }
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }
}

/// Gives back what no directory stands for.
async fn sweep(agent: &Agent, locks: &Locks) -> Result<(), Error> {
    let mut result = Ok(());
    for space in agent.all_scratch().await? {
        if is_there(&space.target)? {
            continue;
        }
        // One that is being published now is looked at again.
        let Ok(_held) = locks.take(&lock(&space.id)) else {
            continue;
        };
        if is_there(&space.target)? {
            continue;
        }
        result = match agent.end_scratch(&space.id).await {
            Ok(()) => {
                tracing::info!(volume = space.id, "scratch space was given back");
                result
            }
            ended => result.and(ended),
        };
    }
    result
}

fn is_there(target: &Path) -> Result<bool, Error> {
    match fs::symlink_metadata(target) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(false)
        }
        Err(error) => Err(Error::host("cannot look at", target)(error)),
    }
}

impl Parts {
    pub(super) async fn publish_scratch(
        &self,
        id: &str,
        target: &Path,
        (fs, options): (FsType, &[String]),
        (pool, namespace): (String, String),
        size: u64,
    ) -> Result<(), Error> {
        let _held = self.locks.take(&lock(id))?;
        let target = place(target, false)?;
        let request = ScratchRequest {
            pool,
            namespace,
            size,
            target: target.clone(),
        };
        let made = async {
            let device = self.agent.scratch(id, &request).await?;
            let plan = Plan {
                volume: id,
                fs,
                options,
                read_only: false,
                sourced: false,
            };
            plan.mount(&device, &target).await
        };
        let made = made.await;
        if made.is_err() && mounts::at(&target)?.is_none() {
            // The kubelet may never ask again: the pod can be deleted before.
            remove(&target)?;
            self.sweep.soon();
        }
        made
    }
}
