//! `strandctl up`: a rack on this machine, of the very processes that a cluster runs.
//!
//! The API server runs in this process; the operator and one agent a node are children of it,
//! over files (or loop devices) that stand for drives. Everything that is started here is gone
//! when this process is; objects and drives stay in the directory.

mod child;
mod keep;
mod layout;
mod loops;
mod machines;
mod manifest;
mod mounts;
mod objects;
mod pods;
mod ports;
mod progress;
pub mod rack;
mod ready;
mod stop;
mod teller;
mod watch;

use self::{
    child::{Kept, Recipe},
    keep::{CSI, Goal, OPERATOR, POD},
    layout::{Layout, NodeLayout},
    loops::Loops,
    pods::Pod,
    ports::Ports,
    rack::{Rack, RackNode, RackOperator},
    stop::Stop,
    teller::Teller,
};
use crate::{
    cluster::{client_of, in_words},
    text::count,
};
use anyhow::{Context, Result, bail};
use clap::Args;
use kube::{
    Api, Client,
    api::{DynamicObject, ListParams},
};
use std::{
    ffi::OsString,
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Mutex,
};
use strand_api::{ByteQuantity, MemoryPool};
use strand_embedded_api::{Config, Server};

/// Brings up a rack on this machine and keeps it up until Ctrl-C.
#[derive(Args, Debug)]
pub struct UpArgs {
    /// Number of nodes [default: those that the rack in DIR had, or 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=200))]
    nodes: Option<u32>,
    /// Drives of each node [default: those that it had, or 4]
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u32).range(0..=64))]
    drives: Option<u32>,
    /// Pods with a KV endpoint, one after the other on the nodes [default: as many as the rack had, or none]
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(u32).range(0..=200))]
    pods: Option<u32>,
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
    /// Bring up emulated machines with NVMe drives and a network between them instead of processes on this one, and take hands to
    /// them: power cords, cables, drives; from a source tree (docs/rack-bed.md)
    #[arg(long, conflicts_with_all = ["loop_devices", "pods", "manifest"])]
    vms: bool,
    /// How long the rack may take until its pools are ready, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 180)]
    timeout: u64,
}

/// Runs `strandctl up`.
pub async fn run(args: UpArgs) -> Result<()> {
    if args.vms {
        return machines::run(&args);
    }
    let mut stop = Stop::new()?;
    let programs = Programs {
        operator: child::beside_this("operator")?,
        agent: child::beside_this("node-agent")?,
        endpoint: child::beside_this("kv-endpoint")?,
        csi: child::beside_this("csi-driver")?,
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
        csi: Vec::new(),
        endpoints: Vec::new(),
    };
    let outcome = tokio::select! {
        signal = stop.asked() => {
            up.teller.say(&format!("{signal}: taking the rack down"));
            Ok(())
        }
        outcome = up.live() => outcome,
    };
    tokio::select! {
        down = up.down() => outcome.and(down),
        // Whoever asks twice does not want to wait: dropping the rack kills its processes.
        signal = stop.asked() => bail!("{signal} again: the rack was killed; the next `up` puts it in order"),
    }
}

/// The programs that a rack runs.
struct Programs {
    operator: PathBuf,
    agent: PathBuf,
    endpoint: PathBuf,
    csi: PathBuf,
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
    server: Option<Server>,
    operator: Vec<Kept>,
    agents: Vec<Kept>,
    csi: Vec<Kept>,
    endpoints: Vec<Kept>,
}

impl Up {
    /// Brings the rack up and keeps it up; returns only with an error.
    async fn live(&mut self) -> Result<()> {
        // What a rack that was killed has left over.
        mounts::clear(self.layout.dir(), &[])?;
        let client = self.serve().await?;
        objects::define(&client).await?;
        objects::namespaces(&client).await?;
        let nodes = self.nodes(&client).await?;
        let pools = self.apply(&client).await?;
        let (rack, goal) = self.start(nodes, pools)?;
        self.keep(client, rack, goal).await
    }

    async fn serve(&mut self) -> Result<Client> {
        let listen = self.ports.give("api")?;
        let dir = self.layout.api();
        let server = Server::start(Config { dir, listen }).await?;
        let kubeconfig = self.layout.kubeconfig();
        server
            .write_kubeconfig(&kubeconfig)
            .with_context(|| format!("cannot write {}", kubeconfig.display()))?;
        self.teller
            .say(&format!("API server: answers on {}", server.url()));
        self.server = Some(server);
        client_of(&kubeconfig).await
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
                if drives.is_empty() {
                    // An agent that is told of no stand-in looks at the machine's own drives.
                    bail!(
                        "{} has no drive; with --loop each node needs one",
                        node.name
                    );
                }
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

    /// Starts operator, agents and endpoints.
    fn start(&mut self, plans: Vec<RackNodePlan>, pools: Vec<String>) -> Result<(Rack, Goal)> {
        let mut goal = Goal {
            pools,
            nodes: Vec::new(),
            processes: Vec::new(),
            pods: self.pods(&plans)?,
        };
        let peer_key = self.layout.peer_key()?;
        let kubeconfig = self.layout.kubeconfig();

        let listen = self.ports.give(OPERATOR)?;
        let operator = Kept::start(Recipe {
            name: OPERATOR.into(),
            program: self.programs.operator.clone(),
            arguments: arguments(&[
                ("--kubeconfig", kubeconfig.as_os_str().into()),
                ("--namespace", objects::NAMESPACE.into()),
                ("--listen", listen.to_string().into()),
            ]),
            log: self.layout.log(OPERATOR),
        })?;
        goal.processes.push((OPERATOR.into(), listen));
        let mut rack = Rack {
            pid: std::process::id(),
            operator: RackOperator {
                pid: operator.pid(),
                metrics: metrics(listen),
            },
            nodes: Vec::new(),
            endpoints: Vec::new(),
            volumes_need: mounts::missing(),
            kubeconfig,
        };
        if let Some(need) = &rack.volumes_need {
            self.teller.say(&format!(
                "volumes cannot be served here, for want of {need}; all else goes on"
            ));
        }
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
                ("--peer-listen", peer.to_string().into()),
                ("--peer-key-file", peer_key.as_os_str().into()),
            ];
            if rack.volumes_need.is_none() {
                flags.push(("--volumes-dir", node.volumes().into()));
            }
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
            goal.processes.push((node.name.clone(), listen));
            goal.nodes.push((node.name.clone(), drives.len()));
            let csi = self.csi(&node, &rack.kubeconfig, &mut goal)?;
            rack.nodes.push(RackNode {
                pid: agent.pid(),
                agent: node.socket(),
                csi: format!("unix://{}", node.csi().display()),
                csi_pid: csi.pid(),
                metrics: metrics(listen),
                name: node.name,
                drives,
            });
            self.agents.push(agent);
            self.csi.push(csi);
        }
        self.start_endpoints(&mut rack, &mut goal)?;
        let endpoints = match self.endpoints.len() {
            0 => String::new(),
            pods => format!(", {}", count(pods, "KV endpoint")),
        };
        self.teller.say(&format!(
            "operator, {}{endpoints}: started",
            count(self.agents.len(), "node agent")
        ));
        Ok((rack, goal))
    }

    /// Starts a node's CSI driver, which is the cluster's as well.
    fn csi(&mut self, node: &NodeLayout, kubeconfig: &Path, goal: &mut Goal) -> Result<Kept> {
        let name = format!("{CSI}{}", node.name);
        let listen = self.ports.give(&name)?;
        let endpoint = format!("unix://{}", node.csi().display());
        let csi = Kept::start(Recipe {
            name: name.clone(),
            program: self.programs.csi.clone(),
            arguments: arguments(&[
                ("--mode", "all".into()),
                ("--node-name", node.name.clone().into()),
                ("--endpoint", endpoint.into()),
                ("--agent-socket", node.socket().into()),
                ("--doors-dir", node.doors().into()),
                ("--kubeconfig", kubeconfig.into()),
                ("--listen", listen.to_string().into()),
            ]),
            log: self.layout.log(&name),
        })?;
        goal.processes.push((name, listen));
        Ok(csi)
    }

    /// The rack's pods, dealt out over its nodes.
    fn pods(&mut self, plans: &[RackNodePlan]) -> Result<Vec<Pod>> {
        let had: usize = plans.iter().map(|plan| pods::had(&plan.node)).sum();
        let number = self.args.pods.map_or(had, |asked| asked as usize);
        let nodes = plans.iter().cycle();
        let pods = (1..=number).zip(nodes).map(|(number, plan)| {
            let name = format!("{POD}{number}");
            let resp = self.ports.give(&name)?;
            let metrics = self.ports.give(&format!("metrics of {name}"))?;
            Pod::prepare(&name, &plan.node, resp, metrics)
        });
        pods.collect()
    }

    fn start_endpoints(&mut self, rack: &mut Rack, goal: &mut Goal) -> Result<()> {
        for pod in &goal.pods {
            let endpoint = Kept::start(Recipe {
                name: pod.name.clone(),
                program: self.programs.endpoint.clone(),
                arguments: arguments(&pod.flags()),
                log: self.layout.log(&pod.name),
            })?;
            goal.processes.push((pod.name.clone(), pod.metrics));
            rack.endpoints.push(pod.endpoint(endpoint.pid()));
            self.endpoints.push(endpoint);
        }
        Ok(())
    }

    /// Takes down all that was started, the operator first, so that it does not see nodes leave.
    async fn down(mut self) -> Result<()> {
        for children in [
            &mut self.operator,
            &mut self.endpoints,
            &mut self.csi,
            &mut self.agents,
        ] {
            for name in child::stop_all(children).await {
                let name = keep::title(&name);
                self.teller
                    .say(&format!("{name} did not end when asked to; it was killed"));
            }
        }
        if let Some(server) = self.server.take() {
            server.shutdown().await;
        }
        let cleared = mounts::clear(self.layout.dir(), self.loops.devices());
        drop(self.loops);
        self.layout.forget_rack()?;
        let dir = self.layout.dir().display();
        self.teller.say(&format!(
            "the rack is down; its drives and objects stay in {dir}"
        ));
        cleared
    }
}

/// A node and the files or devices that stand for its drives.
struct RackNodePlan {
    node: NodeLayout,
    drives: Vec<PathBuf>,
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
