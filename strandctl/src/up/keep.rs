//! Keeps a rack running, and says when it has come up.

use super::{
    Up,
    child::{self, News},
    pods::{self, Pod},
    progress::Progress,
    rack::Rack,
    ready, watch,
};
use crate::text::Tone;
use anyhow::{Result, bail};
use futures::{StreamExt, future::join_all};
use kube::Client;
use std::{net::SocketAddr, pin::pin, time::Duration};
use tokio::{
    sync::mpsc::unbounded_channel,
    time::{Instant, interval, sleep_until},
};

/// Name of the operator's process; the others have those of their nodes and pods.
pub const OPERATOR: &str = "operator";
/// What the names of pods, and so of their endpoints, begin with.
pub const POD: &str = "pod-";
/// What the names of CSI drivers begin with; the node's follows.
pub const CSI: &str = "csi-";
/// A process that has ended this often as soon as it was started will not come up at all.
const HOPELESS: u32 = 5;
/// How often readiness is looked at.
const GLANCE: Duration = Duration::from_millis(200);

/// What the rack is waited for, once all its processes run.
pub struct Goal {
    /// Pools that must be ready.
    pub pools: Vec<String>,
    /// Nodes, and how many drives each must have judged.
    pub nodes: Vec<(String, usize)>,
    /// Names and addresses of the processes that must say that they are ready.
    pub processes: Vec<(String, SocketAddr)>,
    /// Pods whose doors must be open.
    pub pods: Vec<Pod>,
}

impl Goal {
    /// Which processes are not ready, and what they wait for.
    async fn waits_for(&self) -> Vec<String> {
        let asked = self.processes.iter().map(async |(name, address)| {
            let waits = ready::waits_for(*address).await?;
            Some(format!("{}: {waits}", title(name)))
        });
        join_all(asked).await.into_iter().flatten().collect()
    }
}

impl Up {
    /// Keeps the processes running, tells what changes, and writes `rack.json` once the goal is
    /// reached.
    pub(super) async fn keep(&mut self, client: Client, mut rack: Rack, goal: Goal) -> Result<()> {
        let (sender, mut news) = unbounded_channel();
        let mut operator = pin!(child::keep_all(&mut self.operator, sender.clone()));
        let mut agents = pin!(child::keep_all(&mut self.agents, sender.clone()));
        let mut csi = pin!(child::keep_all(&mut self.csi, sender.clone()));
        let mut endpoints = pin!(child::keep_all(&mut self.endpoints, sender));
        let pool = goal.pools.first().map_or("", String::as_str);
        let mut doors = pin!(pods::open_doors(&goal.pods, pool));
        let mut closed = goal.pods.len();
        let mut seen = pin!(watch::changes(&client));
        let mut progress = Progress::default();
        let mut glance = interval(GLANCE);
        let deadline = Instant::now() + Duration::from_secs(self.args.timeout);
        let (teller, layout) = (&self.teller, &self.layout);
        let mut is_up = false;
        loop {
            tokio::select! {
                () = &mut operator => {}
                () = &mut agents => {}
                () = &mut csi => {}
                () = &mut endpoints, if !goal.pods.is_empty() => {}
                () = &mut doors, if closed > 0 => closed = 0,
                Some(change) = seen.next() => {
                    if let Some(line) = change.told_by(&mut progress, teller.style) {
                        teller.say(&line);
                    }
                }
                Some(happened) = news.recv() => match happened {
                    News::Ended { name, how, times } if times >= HOPELESS && !is_up => {
                        bail!("{} does not come up: it {how}", title(&name));
                    }
                    News::Ended { name, how, .. } => {
                        teller.say(&teller.style.paint(Tone::Bad, &format!("{} {how}; it is started again", title(&name))));
                    }
                    News::Restarted { name, pid } => {
                        teller.say(&format!("{} runs again (pid {pid})", title(&name)));
                        rack.restarted(&name, pid);
                        if is_up {
                            rack.write(&layout.rack())?;
                        }
                    }
                },
                _ = glance.tick(), if !is_up => {
                    if closed == 0
                        && progress.missing(&goal.pools, &goal.nodes).is_empty()
                        && goal.waits_for().await.is_empty()
                    {
                        is_up = true;
                        rack.write(&layout.rack())?;
                        teller.show_up(&progress, layout);
                    }
                }
                () = sleep_until(deadline), if !is_up => {
                    let mut missing = progress.missing(&goal.pools, &goal.nodes);
                    missing.extend(goal.waits_for().await);
                    if closed > 0 {
                        missing.push("the agents have not opened the pods' doors".into());
                    }
                    bail!(
                        "the rack was not ready within {} s:\n  {}\nIts logs are in {}",
                        self.args.timeout,
                        missing.join("\n  "),
                        layout.dir().join("logs").display()
                    );
                }
            }
        }
    }
}

/// What a person calls a process.
pub fn title(process: &str) -> String {
    match process {
        OPERATOR => "the operator".into(),
        pod if pod.starts_with(POD) => format!("the endpoint of {pod}"),
        other => match other.strip_prefix(CSI) {
            Some(node) => format!("the CSI driver of {node}"),
            None => format!("the agent of {other}"),
        },
    }
}
