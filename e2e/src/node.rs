//! A node: containerd and a kubelet, in a network, mounts and processes of their own.

use std::cell::RefCell;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::control_plane::{GATEWAY, kubeconfig};
use crate::guard::{self, CONTROL_GROUP};
use crate::process::{Process, attempt, run};
use crate::tool;
use crate::wait::{self, PATIENCE};

/// Below `/var/lib` of a node: the files that stand for its drives.
pub const DRIVES: &str = "drives";
/// How the names of files end over which there are loop devices.
const BACKING: &str = "disk";
/// What runs first in a node.
const INIT: &str = include_str!("node.sh");

/// What stands for a drive of a node, and of how many bytes.
#[derive(Clone, Copy, Debug)]
pub enum Drive {
    /// A sparse file.
    File(u64),
    /// A loop device over one, made when the node is powered on.
    Loop(u64),
}

/// A node; everything that runs on it ends with it.
pub struct Node {
    name: String,
    dir: PathBuf,
    images: PathBuf,
    number: u8,
    /// While it is powered on.
    init: RefCell<Option<Process>>,
}

impl Node {
    /// Makes the node of this number, with these images and drives. It is off.
    ///
    /// # Errors
    /// When it cannot be wired.
    pub fn make(bed: &Path, number: u8, images: &Path, drives: &[Drive]) -> Result<Self> {
        let name = format!("node-{number}");
        let dir = bed.join(&name);
        fs::create_dir_all(dir.join("lib").join(DRIVES))?;
        for (index, drive) in drives.iter().enumerate() {
            let (size, ending) = match drive {
                Drive::File(size) => (size, "img"),
                Drive::Loop(size) => (size, BACKING),
            };
            let file = format!("{name}-d{index}.{ending}");
            File::create(dir.join("lib").join(DRIVES).join(file))?.set_len(*size)?;
        }
        fs::create_dir_all(dir.join("cni"))?;
        fs::write(dir.join("cni/10-bed.conflist"), network(number))?;
        fs::write(dir.join("containerd.toml"), containerd(&dir))?;
        fs::write(dir.join("kubelet.yaml"), kubelet(&name))?;
        fs::write(dir.join("kubeconfig"), kubeconfig(&name))?;
        fs::write(dir.join("init"), INIT)?;
        wire(&name, number)?;
        Ok(Self {
            name,
            dir,
            images: images.to_owned(),
            number,
            init: RefCell::new(None),
        })
    }

    /// Powers it on. What it had in memory when it was powered off is gone, its files are as they were.
    ///
    /// # Errors
    /// When it is on, or its first process cannot be started.
    pub fn power_on(&self) -> Result<()> {
        let name = &self.name;
        ensure!(!self.is_on(), "{name} is on");
        // Devices that a kernel of its own would have lost; and the network that containers had.
        let _ = attempt(Command::new("ip").args(["-n", name, "link", "delete", "cni0"]));
        self.attach_drives()?;
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{name}"))
            .args([
                "unshare",
                "--mount",
                "--pid",
                "--uts",
                "--fork",
                "--kill-child",
                "--mount-proc",
            ])
            .args(["bash".as_ref(), self.dir.join("init").as_os_str()])
            .args([&self.dir, &self.images])
            .args([name, &format!("10.255.0.1{}", self.number), CONTROL_GROUP])
            .arg(tool("kubelet"));
        let init = Process::start(&mut command, &self.dir.join("init.log"))?;
        *self.init.borrow_mut() = Some(init);
        Ok(())
    }

    /// Makes loop devices of those drives that are, under the names by which the agent looks for stand-ins.
    fn attach_drives(&self) -> Result<()> {
        for file in fs::read_dir(self.lib().join(DRIVES))? {
            let file = file?.path();
            if file.extension().is_none_or(|ending| ending != BACKING) {
                continue;
            }
            let mut command = Command::new("losetup");
            // With partition scan, or partition devices would outlive the detaching.
            command.args([
                "--find",
                "--show",
                "--nooverlap",
                "--partscan",
                "--direct-io=on",
            ]);
            let device = run(command.arg(&file))?;
            let stand_in = file.with_extension("img");
            if stand_in.is_symlink() {
                fs::remove_file(&stand_in)?;
            }
            symlink(device.trim(), stand_in)?;
        }
        Ok(())
    }

    /// The loop devices that are its drives while it is on.
    pub fn loop_drives(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(self.lib().join(DRIVES));
        files
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|file| fs::read_link(file.path()).ok())
            .collect()
    }

    /// Pulls its plug: every process is killed at once, and its mounts, loop devices and control groups go. Pages that were written
    /// and not flushed stay, since the kernel does.
    ///
    /// # Errors
    /// When it is off, or something of it does not go.
    pub fn power_off(&self) -> Result<()> {
        let first = self.first()?;
        drop(self.init.borrow_mut().take());
        let name = &self.name;
        // The first process of a space ends when all others in it have.
        wait::until(&format!("{name} has no process"), PATIENCE, || {
            let Ok(stat) = fs::read_to_string(format!("/proc/{first}/stat")) else {
                return Ok(());
            };
            let state = stat.rsplit(") ").next().unwrap_or_default().to_owned();
            if state.starts_with('Z') {
                Ok(())
            } else {
                Err(state)
            }
        })?;
        wait::until(&format!("{name} has lost its devices"), PATIENCE, || {
            let drives = [self.lib().join(DRIVES)];
            let mut left = guard::loops_over(&drives).map_err(|error| format!("{error:#}"))?;
            for device in &left {
                let _ = run(Command::new("losetup").arg("-d").arg(device));
            }
            left.extend(guard::remove_control_groups(name));
            if left.is_empty() {
                Ok(())
            } else {
                Err(left.join(", "))
            }
        })
    }

    /// Whether it is powered on.
    pub fn is_on(&self) -> bool {
        self.init.borrow().is_some()
    }

    /// Its name, as its Node object has it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its number; its address is `10.255.0.1<number>`.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// The directory that it sees as `/var/lib`.
    pub fn lib(&self) -> PathBuf {
        self.dir.join("lib")
    }

    /// What its processes and theirs said.
    pub fn logs(&self) -> [PathBuf; 3] {
        ["init.log", "containerd.log", "kubelet.log"].map(|log| self.dir.join(log))
    }

    /// Runs a shell's line on the node, as root.
    ///
    /// # Errors
    /// When it fails.
    pub fn sh(&self, line: &str) -> Result<String> {
        let pid = self.first()?.to_string();
        let mut command = Command::new("nsenter");
        command.args([
            "--target", &pid, "--mount", "--net", "--pid", "--uts", "bash", "-euc", line,
        ]);
        run(&mut command)
    }

    /// The node's first process, as it is numbered here: the child of the program that made its namespaces.
    fn first(&self) -> Result<u32> {
        let init = self.init.borrow();
        let id = init
            .as_ref()
            .with_context(|| format!("{} is off", self.name))?
            .id();
        let path = format!("/proc/{id}/task/{id}/children");
        let children = fs::read_to_string(&path).with_context(|| path.clone())?;
        let child = children.split_whitespace().next();
        child.and_then(|child| child.parse().ok()).with_context(|| {
            format!(
                "{} has no first process; see {}/init.log",
                self.name,
                self.dir.display()
            )
        })
    }
}

/// Wires the node to the rack: a network of its own, whose way out is the control plane's.
fn wire(name: &str, number: u8) -> Result<()> {
    let port = format!("port-{number}");
    let address = format!("10.255.0.1{number}");
    let pods = format!("10.244.{number}.0/24");
    for line in [
        format!("netns add {name}"),
        format!("link add {port} type veth peer name eth0 netns {name}"),
        format!("link set {port} master rack up"),
        format!("-n {name} link set lo up"),
        format!("-n {name} address add {address}/24 dev eth0"),
        format!("-n {name} link set eth0 up"),
        format!("-n {name} route add default via {GATEWAY}"),
        format!("route add {pods} via {address}"),
    ] {
        run(Command::new("ip").args(line.split(' ')))?;
    }
    Ok(())
}

fn network(number: u8) -> String {
    serde_json::json!({"cniVersion": "1.0.0", "name": "bed", "plugins": [{
        "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": format!("10.244.{number}.0/24")}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }]})
    .to_string()
}

fn containerd(dir: &Path) -> String {
    let dir = dir.display();
    // Root lacks CAP_SYS_RESOURCE on some machines: sandboxes then cannot have the score that the kubelet wants.
    format!(
        r#"version = 2
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "localhost/pause:e2e"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{dir}/cni"
"#
    )
}

fn kubelet(name: &str) -> String {
    serde_json::json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "failCgroupV1": false, "cgroupDriver": "cgroupfs", "cgroupRoot": format!("/{CONTROL_GROUP}/{name}"),
        "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
        "authorization": {"mode": "AlwaysAllow"},
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        // A volume is mounted once the node's status has it: by default up to 10 s later. It is grown when its pod is looked at again:
        // by default up to a minute later.
        "nodeStatusUpdateFrequency": "1s", "syncFrequency": "10s",
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        "enforceNodeAllocatable": [], "makeIPTablesUtilChains": false, "failSwapOn": false, "resolvConf": "",
        "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%", "memory.available": "100Mi"},
        "imageGCHighThresholdPercent": 100, "imageGCLowThresholdPercent": 99,
    })
    .to_string()
}
