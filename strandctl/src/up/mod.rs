//! `strandctl up`: a rack on this machine, of the very processes that a cluster runs.
//!
//! The API server runs in this process; the operator and one agent a node are children of it,
//! over files (or loop devices) that stand for drives. Everything that is started here is gone
//! when this process is; objects and drives stay in the directory.

mod api;
mod child;
mod layout;
mod loops;
mod manifest;
mod objects;
mod ports;
mod progress;
mod rack;
mod ready;
mod stop;
mod teller;
mod watch;

use self::{
    api::ApiServer,
    child::{Kept, News, Recipe},
    layout::{Layout, NodeLayout},
    loops::Loops,
    ports::Ports,
    progress::Progress,
    rack::{Rack, RackNode, RackOperator},
    stop::Stop,
    teller::Teller,
};
use crate::{
    cluster::{client_of, in_words},
    text::{Tone, count},
};
use anyhow::{Context, Result, bail};
use clap::Args;
use futures::{StreamExt, future::join_all};
use kube::{
    Api, Client,
    api::{DynamicObject, ListParams},
};
use std::{
    ffi::OsString,
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::pin,
    sync::Mutex,
    time::Duration,
};
use strand_api::{ByteQuantity, MemoryPool};
use tokio::{
    sync::mpsc::unbounded_channel,
    time::{Instant, interval, sleep_until},
};

/// Brings up a rack on this machine and keeps it up until Ctrl-C.
#[derive(Args, Debug)]
pub struct UpArgs {
    /// Number of nodes [default: those that the rack in DIR had, or 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=200))]
    nodes: Option<u32>,
    /// Drives of each node [default: those that it had, or 4]
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u32).range(0..=64))]
    drives: Option<u32>,
    /// Size of each drive that is made; the files are sparse and take no space until they are
    /// written
    #[arg(long, value_name = "SIZE", default_value = "10Gi")]
    drive_size: ByteQuantity,
    /// Directory of the rack; a rack that was in it comes up as it was
    #[arg(long, value_name = "DIR", default_value = "strand-rack")]
    dir: PathBuf,
    /// Objects to apply (YAML, several documents) [default: what the rack had, or a MemoryPool
    /// that takes all its drives]
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Stand for drives with loop devices instead of plain files, so that partition devices
    /// appear; needs root
    #[arg(long = "loop")]
    loop_devices: bool,
    /// How long the rack may take until its pools are ready, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 180)]
    timeout: u64,
}

/// A process that has ended this often as soon as it was started will not come up at all.
const HOPELESS: u32 = 5;
/// How often readiness is looked at.
const GLANCE: Duration = Duration::from_millis(200);

/// Runs `strandctl up`.
pub async fn run(args: UpArgs) -> Result<()> {
    let mut stop = Stop::new()?;
    let programs = Programs {
        operator: child::beside_this("operator")?,
        agent: child::beside_this("node-agent")?,
    };
    let manifest = args.manifest.as_deref().map(read_manifest).transpose()?;
    let layout = Layout::open(&args.dir)?;
    log_to(&layout.log("api-server"))?;
    let mut up = Up {
        teller: Teller::new(),
        args,
        programs,
        manifest,
        ports: Ports::open(layout.ports()),
        layout,
        loops: Loops::default(),
        server: None,
        operator: Vec::new(),
        agents: Vec::new(),
    };
    let outcome = tokio::select! {
        signal = stop.asked() => {
            up.teller.say(&format!("{signal}: taking the rack down"));
            Ok(())
        }
        outcome = up.live() => outcome,
    };
    let down = up.down().await;
    outcome.and(down)
}

/// The programs that a rack runs.
struct Programs {
    operator: PathBuf,
    agent: PathBuf,
}

/// A rack, from its first process to its last.
struct Up {
    teller: Teller,
    args: UpArgs,
    programs: Programs,
    manifest: Option<Vec<DynamicObject>>,
    layout: Layout,
    ports: Ports,
    loops: Loops,
    server: Option<ApiServer>,
    operator: Vec<Kept>,
    agents: Vec<Kept>,
}

/// What the rack is waited for, once all its processes run.
struct Goal {
    pools: Vec<String>,
    nodes: Vec<(String, usize)>,
    /// Names and addresses of the processes that must say that they are ready.
    processes: Vec<(String, SocketAddr)>,
}

impl Up {
    /// Brings the rack up and keeps it up; returns only with an error.
    async fn live(&mut self) -> Result<()> {
        for device in loops::detach_left_over(self.layout.dir())? {
            let device = device.display();
            self.teller.say(&format!(
                "{device}, left over from a rack that was killed: detached"
            ));
        }
        let client = self.serve().await?;
        objects::define(&client).await?;
        objects::namespaces(&client).await?;
        let nodes = self.nodes(&client).await?;
        let pools = self.apply(&client).await?;
        let (rack, goal) = self.start(nodes, pools)?;
        self.watch(client, rack, goal).await
    }

    async fn serve(&mut self) -> Result<Client> {
        let listen = self.ports.give("api")?;
        let server = ApiServer::start(self.layout.api(), listen, &self.layout.kubeconfig()).await?;
        self.server = Some(server);
        self.teller.say(&format!("API server: answers on {listen}"));
        client_of(&self.layout.kubeconfig()).await
    }

    /// Makes the nodes' folders, drives and objects.
    async fn nodes(&mut self, client: &Client) -> Result<Vec<RackNodePlan>> {
        let number = self.layout.node_count(self.args.nodes)?;
        let mut plans = Vec::new();
        let mut made = 0;
        for node in (1..=number).map(|number| self.layout.node(number)) {
            made += node.prepare(self.args.drives, self.args.drive_size)?.len();
            let mut drives = node.drive_files()?;
            if self.args.loop_devices {
                let files = drives.into_iter();
                drives = files
                    .map(|file| self.loops.attach(&file))
                    .collect::<Result<_>>()?;
            }
            objects::node(client, &node.name).await?;
            plans.push(RackNodePlan { node, drives });
        }
        let drives = plans.iter().map(|plan| plan.drives.len()).sum();
        let what = if self.args.loop_devices {
            "loop device"
        } else {
            "file"
        };
        let new = match made {
            0 => String::new(),
            made if made == drives => {
                format!(", new and blank, {} each", self.args.drive_size.rounded())
            }
            made => format!(
                ", {made} of them new and blank, {} each",
                self.args.drive_size.rounded()
            ),
        };
        self.teller.say(&format!(
            "{} with {} in all ({}{new})",
            count(plans.len(), "node"),
            count(drives, "drive"),
            count(drives, what),
        ));
        Ok(plans)
    }

    /// Applies the manifest; returns the pools to wait for.
    async fn apply(&self, client: &Client) -> Result<Vec<String>> {
        let present: Api<MemoryPool> = Api::all(client.clone());
        let present = present
            .list(&ListParams::default())
            .await
            .map_err(in_words)?
            .items;
        let objects = match &self.manifest {
            Some(objects) => objects.clone(),
            None if present.is_empty() => {
                manifest::parse(manifest::DEFAULT, "the default manifest")?
            }
            None => {
                let pools = present.into_iter().filter_map(|pool| pool.metadata.name);
                return Ok(pools.collect());
            }
        };
        for object in &objects {
            manifest::apply(client, object).await?;
            let kind = object.types.as_ref().map_or("", |types| &types.kind);
            let name = object.metadata.name.as_deref().unwrap_or_default();
            self.teller.say(&format!("{kind} {name}: applied"));
        }
        Ok(manifest::pools(&objects))
    }

    /// Starts operator and agents.
    fn start(&mut self, plans: Vec<RackNodePlan>, pools: Vec<String>) -> Result<(Rack, Goal)> {
        let mut goal = Goal {
            pools,
            nodes: Vec::new(),
            processes: Vec::new(),
        };
        let kubeconfig = self.layout.kubeconfig();

        let listen = self.ports.give("operator")?;
        let operator = Kept::start(Recipe {
            name: "operator".into(),
            program: self.programs.operator.clone(),
            arguments: arguments(&[
                ("--kubeconfig", kubeconfig.as_os_str().into()),
                ("--namespace", objects::NAMESPACE.into()),
                ("--listen", listen.to_string().into()),
            ]),
            log: self.layout.log("operator"),
        })?;
        goal.processes.push(("the operator".into(), listen));
        let mut rack = Rack {
            operator: RackOperator {
                pid: operator.pid(),
                metrics: metrics(listen),
            },
            nodes: Vec::new(),
            kubeconfig,
        };
        self.operator.push(operator);

        for RackNodePlan { node, drives } in plans {
            let listen = self.ports.give(&node.name)?;
            let peer = self.ports.give(&format!("{} for peers", node.name))?;
            let mut flags = vec![
                ("--node-name", node.name.clone().into()),
                ("--kubeconfig", rack.kubeconfig.as_os_str().into()),
                ("--state-dir", node.state().into()),
                ("--socket", node.socket().into()),
                ("--listen", listen.to_string().into()),
                ("--peer-address", peer.to_string().into()),
            ];
            match self.args.loop_devices {
                true => flags.extend(drives.iter().map(|device| ("--stand-in", device.into()))),
                false => flags.push(("--stand-in-dir", node.drives().into())),
            }
            let agent = Kept::start(Recipe {
                name: node.name.clone(),
                program: self.programs.agent.clone(),
                arguments: arguments(&flags),
                log: self.layout.log(&node.name),
            })?;
            goal.processes
                .push((format!("the agent of {}", node.name), listen));
            goal.nodes.push((node.name.clone(), drives.len()));
            rack.nodes.push(RackNode {
                pid: agent.pid(),
                agent: node.socket(),
                metrics: metrics(listen),
                name: node.name,
                drives,
            });
            self.agents.push(agent);
        }
        self.teller.say(&format!(
            "operator and {}: started",
            count(self.agents.len(), "node agent")
        ));
        Ok((rack, goal))
    }

    /// Keeps the processes running, tells what changes, and writes `rack.json` once the goal is
    /// reached.
    async fn watch(&mut self, client: Client, mut rack: Rack, goal: Goal) -> Result<()> {
        let (sender, mut news) = unbounded_channel();
        let mut operator = pin!(child::keep_all(&mut self.operator, sender.clone()));
        let mut agents = pin!(child::keep_all(&mut self.agents, sender));
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
                Some(change) = seen.next() => {
                    if let Some(line) = change.told_by(&mut progress, teller.style) {
                        teller.say(&line);
                    }
                }
                Some(happened) = news.recv() => match happened {
                    News::Ended { name, how, times } if times >= HOPELESS && !is_up => {
                        bail!("{name} does not come up: it {how}");
                    }
                    News::Ended { name, how, .. } => {
                        teller.say(&teller.style.paint(Tone::Bad, &format!("{name} {how}; it is started again")));
                    }
                    News::Restarted { name, pid } => {
                        teller.say(&format!("{name} runs again (pid {pid})"));
                        rack.restarted(&name, pid);
                        if is_up {
                            rack.write(&layout.rack())?;
                        }
                    }
                },
                _ = glance.tick(), if !is_up => {
                    if progress.missing(&goal.pools, &goal.nodes).is_empty()
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

    /// Takes down all that was started, the operator first, so that it does not see nodes leave.
    async fn down(mut self) -> Result<()> {
        child::stop_all(&mut self.operator).await;
        child::stop_all(&mut self.agents).await;
        if let Some(server) = self.server.take() {
            server.stop().await;
        }
        drop(self.loops);
        self.layout.forget_rack()?;
        let dir = self.layout.dir().display();
        self.teller.say(&format!(
            "the rack is down; its drives and objects stay in {dir}"
        ));
        Ok(())
    }
}

/// A node and the files or devices that stand for its drives.
struct RackNodePlan {
    node: NodeLayout,
    drives: Vec<PathBuf>,
}

impl Goal {
    /// Which processes are not ready, and what they wait for.
    async fn waits_for(&self) -> Vec<String> {
        let asked = self.processes.iter().map(async |(name, address)| {
            let waits = ready::waits_for(*address).await?;
            Some(format!("{name}: {waits}"))
        });
        join_all(asked).await.into_iter().flatten().collect()
    }
}

fn read_manifest(file: &Path) -> Result<Vec<DynamicObject>> {
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    manifest::parse(&text, &file.display().to_string())
}

/// The API server logs like the other processes, though it runs in this one.
fn log_to(file: &Path) -> Result<()> {
    let log = File::options().create(true).append(true).open(file);
    let log = log.with_context(|| format!("cannot write {}", file.display()))?;
    let filter = tracing_subscriber::EnvFilter::new("info");
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(Mutex::new(log))
        .try_init();
    started.map_err(|error| anyhow::anyhow!("logging cannot be started: {error}"))
}

fn arguments(flags: &[(&str, OsString)]) -> Vec<OsString> {
    let pairs = flags
        .iter()
        .map(|(flag, value)| [OsString::from(flag), value.clone()]);
    pairs.flatten().collect()
}

fn metrics(address: SocketAddr) -> String {
    format!("http://{address}/metrics")
}
