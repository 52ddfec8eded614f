//! What a machine shows of itself.

use super::network::{self, Link, Rdma};
use anyhow::{Context, Result};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, Ipv4Addr, TcpListener},
    path::Path,
};
use strand_drives::{DriveHost, HostConfig, KernelHost, Roots};
use strand_placement::verdict::{Finding, KnownPools, judge};

/// How the kernel has what may be a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Module {
    /// Built in, or loaded.
    There,
    /// It can be loaded.
    Loadable,
    /// Not to be had.
    None,
}

/// A drive and the first finding on it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Device node.
    pub path: String,
    /// Model and serial.
    pub who: String,
    /// Bytes.
    pub size: u64,
    /// What speaks against it; that it was not watched yet always does.
    pub finding: Result<Finding, String>,
}

/// A machine as far as Strand is concerned.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Release of the kernel, such as `6.12.9-amd64`.
    pub release: String,
    /// Whether this process is root with all capabilities that the agent needs.
    pub root: bool,
    /// `kernel.io_uring_disabled`; none: the kernel has no such switch.
    pub uring_disabled: Option<u8>,
    /// The modules that are asked for.
    pub modules: BTreeMap<&'static str, Module>,
    /// Whether the kernel loads no further module until it starts anew: `kernel.modules_disabled`.
    pub modules_locked: bool,
    /// Seconds of waiting for I/O after which the kernel panics; none: it does not.
    pub panics_after: Option<u64>,
    /// Whether the kernel has the unified control groups with the controller of I/O, or the older `blkio`.
    pub io_limits: bool,
    /// Bytes of memory.
    pub memory: u64,
    /// Ports that somebody listens on.
    pub taken: BTreeSet<u16>,
    /// Of the ports, those that the kernel gives to outgoing connections.
    pub lent: BTreeSet<u16>,
    /// The interface by which other nodes reach this one.
    pub link: Option<Link>,
    /// Devices for RDMA.
    pub rdma: Vec<Rdma>,
    /// NVMe drives.
    pub drives: Vec<Candidate>,
}

/// What may be a module, and Strand may need.
pub const MODULES: [&str; 11] = [
    "loop",
    "xfs",
    "nvmet",
    "nvmet_tcp",
    "nvme_tcp",
    "md_mod",
    "raid0",
    "raid1",
    "raid456",
    "nvme_rdma",
    "nvmet_rdma",
];

impl Facts {
    /// Looks.
    ///
    /// # Errors
    /// The machine does not show itself at all.
    pub async fn gather(
        root: &Path,
        roots: Roots,
        ports: &[u16],
        address: Option<IpAddr>,
    ) -> Result<Self> {
        let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned());
        let release = read("/proc/sys/kernel/osrelease")
            .context("/proc/sys/kernel/osrelease cannot be read: is this Linux, with /proc?")?;
        let loadable = loadable(&root.join("lib/modules").join(&release));
        let file_systems = read("/proc/filesystems").unwrap_or_default();
        let module = |name: &'static str| {
            let loaded = Path::new("/sys/module").join(name).exists()
                || file_systems.split_whitespace().any(|known| known == name);
            let found = match (loaded, loadable.get(name)) {
                (true, _) | (_, Some(Module::There)) => Module::There,
                (false, Some(_)) => Module::Loadable,
                (false, None) => Module::None,
            };
            (name, found)
        };
        let memory = read("/proc/meminfo").unwrap_or_default();
        let setting = |name: &str| read(&format!("/proc/sys/{name}")).unwrap_or_default();
        let number = |name: &str| setting(name).parse::<u64>().ok();
        let panics = number("kernel/hung_task_panic").is_some_and(|tasks| tasks > 0);
        Ok(Self {
            uring_disabled: setting("kernel/io_uring_disabled").parse().ok(),
            modules_locked: number("kernel/modules_disabled") == Some(1),
            // 0: it does not look.
            panics_after: number("kernel/hung_task_timeout_secs")
                .filter(|seconds| panics && *seconds > 0),
            root: rustix::process::geteuid().is_root(),
            modules: MODULES.map(module).into(),
            io_limits: io_limits(&read("/proc/cgroups").unwrap_or_default()),
            memory: total(&memory).unwrap_or(0),
            taken: ports
                .iter()
                .copied()
                .filter(|port| is_taken(*port))
                .collect(),
            lent: network::lent(
                &setting("net/ipv4/ip_local_port_range"),
                &setting("net/ipv4/ip_local_reserved_ports"),
                ports,
            ),
            link: Link::of(address),
            rdma: network::rdma(Path::new("/sys/class/infiniband")),
            drives: drives(roots).await?,
            release,
        })
    }
}

/// The modules below a directory of `/lib/modules`; a `-` in a file's name is a `_` in the kernel's.
fn loadable(directory: &Path) -> BTreeMap<String, Module> {
    let list = |file: &str, how| {
        let text = fs::read_to_string(directory.join(file)).unwrap_or_default();
        let name = |line: &str| {
            let path = line.split(':').next()?;
            let file = path.rsplit('/').next()?;
            Some((file.split(".ko").next()?.replace('-', "_"), how))
        };
        text.lines().filter_map(name).collect::<Vec<_>>()
    };
    let mut all: BTreeMap<_, _> = list("modules.dep", Module::Loadable).into_iter().collect();
    all.extend(list("modules.builtin", Module::There));
    all
}

/// Whether a table like `/proc/cgroups` has a controller of I/O that is on.
fn io_limits(controllers: &str) -> bool {
    controllers.lines().any(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        fields.first() == Some(&"blkio") && fields.last() == Some(&"1")
    })
}

/// `MemTotal` of `/proc/meminfo`, which is in KiB.
fn total(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}

fn is_taken(port: u16) -> bool {
    let bound = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port));
    bound.is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse)
}

async fn drives(roots: Roots) -> Result<Vec<Candidate>> {
    let host = KernelHost::start(HostConfig {
        roots,
        ..HostConfig::nvme()
    });
    let look = move || -> Result<Vec<Candidate>> {
        let seen = host.scan()?;
        let candidates = seen.into_iter().map(|drive| Candidate {
            path: drive.path.display().to_string(),
            who: format!("{} {}", drive.key.model, drive.key.serial),
            size: drive.geometry.size,
            finding: host
                .observe(&drive, None)
                .map(|seen| judge(&seen, &KnownPools::default()))
                .map_err(|error| error.to_string()),
        });
        Ok(candidates.collect())
    };
    tokio::task::spawn_blocking(look).await?
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use strand_placement::verdict::{Reason, Verdict};

    fn candidate(number: u8, verdict: Verdict, reason: Reason) -> Candidate {
        Candidate {
            path: format!("/dev/nvme{number}n1"),
            who: format!("Fast-1 S{number}"),
            size: 4 << 40,
            finding: Ok(Finding {
                verdict,
                reasons: vec![reason],
            }),
        }
    }

    /// A server with all it needs.
    pub fn server() -> Facts {
        let watched = || Reason::StillWatched {
            remaining_ms: 60_000,
        };
        let root = Reason::Mounted {
            device: "/dev/nvme2n1p2".into(),
            at: "/".into(),
        };
        Facts {
            release: "6.12.9-amd64".into(),
            root: true,
            uring_disabled: Some(0),
            modules: MODULES.map(|name| (name, Module::Loadable)).into(),
            io_limits: true,
            modules_locked: false,
            panics_after: None,
            memory: 512 << 30,
            taken: BTreeSet::new(),
            lent: BTreeSet::new(),
            link: Some(Link {
                interface: "bond0".into(),
                megabits: Some(100_000),
            }),
            rdma: vec![Rdma {
                device: "mlx5_0".into(),
                up: true,
            }],
            drives: vec![
                candidate(0, Verdict::InUse, watched()),
                candidate(1, Verdict::InUse, watched()),
                candidate(2, Verdict::InUse, root),
            ],
        }
    }

    /// A machine without nearly everything.
    pub fn laptop() -> Facts {
        Facts {
            release: "5.4.0".into(),
            root: false,
            uring_disabled: Some(2),
            modules: MODULES.map(|name| (name, Module::None)).into(),
            io_limits: false,
            modules_locked: true,
            panics_after: Some(120),
            memory: 8 << 30,
            taken: [4420].into(),
            lent: [9465, 9466].into(),
            link: Some(Link {
                interface: "wlan0".into(),
                megabits: Some(866),
            }),
            rdma: Vec::new(),
            drives: Vec::new(),
        }
    }

    #[test]
    fn files_of_the_kernel_are_read_to_the_letter() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        write(
            "modules.dep",
            "kernel/drivers/nvme/target/nvmet-tcp.ko.xz: kernel/drivers/nvme/target/nvmet.ko.xz\nkernel/fs/xfs/xfs.ko:\n",
        );
        write("modules.builtin", "kernel/drivers/block/loop.ko\n");
        let found = loadable(directory.path());
        assert_eq!(found.get("nvmet_tcp"), Some(&Module::Loadable));
        assert_eq!(found.get("xfs"), Some(&Module::Loadable));
        assert_eq!(found.get("loop"), Some(&Module::There));
        assert_eq!(found.len(), 3);
        let head = "#subsys_name\thierarchy\tnum_cgroups\tenabled\n";
        assert!(io_limits(&format!("{head}cpu\t0\t9\t1\nblkio\t0\t9\t1\n")));
        assert!(!io_limits(&format!("{head}blkio\t0\t9\t0\n")));
        assert_eq!(total("MemTotal:       2 kB\nMemFree: 1 kB"), Some(2048));
    }
}
