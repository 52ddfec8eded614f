//! This node's exports: the kernel's NVMe target, through the files of its configfs (linux drivers/nvme/target/configfs.c).

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, mount};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{FabricError, Nqn, Secret};

/// Where configfs is mounted, by whoever is first.
const CONFIGFS: &str = "/sys/kernel/config";
/// Where the target's tree lies once configfs is mounted and nvmet is loaded.
const CONFIG: &str = "/sys/kernel/config/nvmet";
/// Where the kernel shows that it has a target.
const MODULE: &str = "/sys/module/nvmet";
/// Where controllers of a subsystem are shown; kernels before 6.11 have nothing there.
const DEBUG: &str = "/sys/kernel/debug/nvmet";
/// Most that controllers are waited for when a subsystem is taken away.
const PATIENCE: Duration = Duration::from_secs(10);

/// How exports are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// NVMe/TCP.
    Tcp,
    /// NVMe over RDMA.
    Rdma,
}

impl Transport {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Rdma => "rdma",
        }
    }

    /// The number of our port directory. Anyone may make ports; these numbers are ours.
    fn port(self) -> u16 {
        match self {
            Self::Tcp => 7420,
            Self::Rdma => 7421,
        }
    }

    fn module(self) -> &'static str {
        match self {
            Self::Tcp => "nvmet-tcp",
            Self::Rdma => "nvmet-rdma",
        }
    }
}

/// Where the target listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listen {
    /// The transport.
    pub transport: Transport,
    /// An address of this node.
    pub address: IpAddr,
    /// The port, usually 4420.
    pub port: u16,
}

/// A leg that shall be exported to the one host of an attachment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Export {
    /// The leg's UUID.
    pub leg: Uuid,
    /// The attachment's generation.
    pub generation: u64,
    /// The leg's block device on this node.
    pub device: PathBuf,
    /// What the host has to know. None lets in whoever gives the host's name.
    pub secret: Option<Secret>,
}

impl Export {
    /// The name that it is exported under.
    pub fn nqn(&self) -> Nqn {
        Nqn::leg(self.leg, self.generation)
    }
}

/// What the kernel has of an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exported {
    /// Its name.
    pub nqn: Nqn,
    /// Its device, if that was reached.
    pub device: Option<PathBuf>,
    /// Whether its namespace can be read and written.
    pub enabled: bool,
    /// Whether it is on a port. That is the last step of an export: what is reachable has its host and key.
    pub reachable: bool,
    /// Whether it is on our port for RDMA.
    #[serde(default)]
    pub rdma: bool,
}

impl Exported {
    /// Whether this is the export, and whole.
    pub fn is(&self, export: &Export) -> bool {
        let device = self.device.as_deref() == Some(&export.device);
        self.nqn == export.nqn() && device && self.enabled && self.reachable
    }
}

/// Held while our ports are made, changed or taken away.
static PORTS: Mutex<()> = Mutex::new(());

/// The NVMe target of this node as one transport has it, one of each for a process. What is done to different exports may be done at once: fencing one waits for its I/O,
/// and nothing else waits for that.
#[derive(Debug)]
pub struct Target {
    config: PathBuf,
    debug: PathBuf,
    listen: Listen,
}

impl Target {
    /// The kernel's.
    ///
    /// # Errors
    /// [`FabricError::NoModule`].
    pub fn open(listen: Listen) -> Result<Self, FabricError> {
        let config = mounted();
        if !config.join("subsystems").is_dir() {
            return Err(FabricError::NoModule {
                module: "nvmet",
                path: config,
            });
        }
        Ok(Self {
            config,
            debug: DEBUG.into(),
            listen,
        })
    }

    /// All our exports of this kernel; none where it has no target at all.
    ///
    /// # Errors
    /// [`FabricError::Io`] where it may have some that cannot be seen: nobody is known to be kept out then.
    pub fn exported() -> Result<Vec<Exported>, FabricError> {
        let config = mounted();
        match config.join("subsystems").is_dir() || Path::new(MODULE).exists() {
            true => listed(&config),
            false => Ok(Vec::new()),
        }
    }

    /// All our exports, whole or half made. Those of others are not told of, and never touched.
    ///
    /// # Errors
    /// [`FabricError::Io`].
    pub fn exports(&self) -> Result<Vec<Exported>, FabricError> {
        listed(&self.config)
    }

    /// Exports a leg, or finishes what was begun; what is there already is not written again, and its connections do not notice.
    ///
    /// # Errors
    /// [`FabricError::NoModule`] without the transport's module; [`FabricError::NoAuthentication`]; [`FabricError::Io`].
    pub fn export(&self, export: &Export) -> Result<(), FabricError> {
        self.prepare(export)?;
        self.reach(&[export.nqn()])
    }

    /// Does everything that [`Self::export`] does but for the last step: nobody reaches it yet.
    ///
    /// # Errors
    /// As for [`Self::export`].
    pub fn prepare(&self, export: &Export) -> Result<(), FabricError> {
        let nqn = export.nqn();
        let host = self.host(nqn);
        make(&host)?;
        if let Some(secret) = &export.secret {
            let key = host.join("dhchap_key");
            if !key.exists() {
                return Err(FabricError::NoAuthentication { path: key });
            }
            set(&key, secret.text())?;
        }
        let subsystem = self.subsystem(nqn);
        make(&subsystem)?;
        set(&subsystem.join("attr_allow_any_host"), "0")?;
        set(
            &subsystem.join("attr_serial"),
            &export.leg.simple().to_string()[..20],
        )?;
        let allowed = subsystem.join("allowed_hosts").join(nqn.host().to_string());
        link(&host, &allowed)?;

        let namespace = self.namespace(nqn);
        make(&namespace)?;
        let device = export.device.to_string_lossy();
        let path = namespace.join("device_path");
        let enable = namespace.join("enable");
        if read(&path).as_deref() != Some(&device) {
            // A device that took another name, as after its loop was made again; the kernel changes none that is enabled.
            set(&enable, "0")?;
            // Without these the kernel makes them up with each export, and a consumer that connects again takes the leg for another.
            set(&namespace.join("device_uuid"), &export.leg.to_string())?;
            set(&namespace.join("device_nguid"), &export.leg.to_string())?;
            set(&path, &device)?;
        }
        set(&enable, "1")
    }

    /// Lets hosts reach what was prepared, all of it at once: after a reboot hosts come back by themselves, and one that asks for what
    /// is not there does not come again (linux drivers/nvme/host/fabrics.c, nvmf_should_reconnect), so that its I/O fails. As long as
    /// nothing is reached nobody listens, and they go on trying.
    ///
    /// # Errors
    /// As for [`Self::export`].
    pub fn reach(&self, exports: &[Nqn]) -> Result<(), FabricError> {
        if exports.is_empty() {
            return Ok(());
        }
        let _held = PORTS.lock().unwrap_or_else(PoisonError::into_inner);
        self.listen()?;
        let port = self.listen.transport.port().to_string();
        let mut first = Ok(());
        for nqn in exports {
            let at = self.config.join(link_path(&port, *nqn));
            let linked = link(&self.subsystem(*nqn), &at);
            // One that went meanwhile keeps no other from being reached.
            first = first.and(linked.map_err(|error| self.without_transport(error)));
        }
        first
    }

    /// Has the hosts of an export told how large its device is now.
    ///
    /// # Errors
    /// [`FabricError::Io`].
    pub fn resized(&self, nqn: Nqn) -> Result<(), FabricError> {
        set(&self.namespace(nqn).join("revalidate_size"), "1")
    }

    /// Takes an export away: nobody reaches it any more, and what was written through it has arrived. Done already where it is not there.
    ///
    /// # Errors
    /// [`FabricError::StillConnected`]; [`FabricError::Io`].
    pub fn fence(&self, nqn: Nqn) -> Result<(), FabricError> {
        let subsystem = self.subsystem(nqn);
        let host = nqn.host().to_string();
        // Nobody comes in again; then who is in has to leave.
        gone(fs::remove_file, &subsystem.join("allowed_hosts").join(host))?;
        self.unreach(nqn)?;
        let namespace = self.namespace(nqn);
        if namespace.exists() {
            // Returns when no I/O is under way.
            set(&namespace.join("enable"), "0")?;
        }
        self.until_nobody_is_connected(nqn)?;
        gone(fs::remove_dir, &namespace)?;
        gone(fs::remove_dir, &subsystem)?;
        gone(fs::remove_dir, &self.host(nqn))?;
        self.end_listening()
    }

    fn unreach(&self, nqn: Nqn) -> Result<(), FabricError> {
        let _held = PORTS.lock().unwrap_or_else(PoisonError::into_inner);
        for port in entries(&self.config.join("ports"))? {
            gone(fs::remove_file, &self.config.join(link_path(&port, nqn)))?;
        }
        Ok(())
    }

    fn end_listening(&self) -> Result<(), FabricError> {
        let _held = PORTS.lock().unwrap_or_else(PoisonError::into_inner);
        for transport in [Transport::Tcp, Transport::Rdma] {
            let port = self.port(transport);
            if entries(&port.join("subsystems")).is_ok_and(|exports| exports.is_empty()) {
                gone(fs::remove_dir, &port)?;
            }
        }
        Ok(())
    }

    /// Where the kernel shows its controllers, it is waited for the last one. Where it does not, the namespace's end is what counts.
    fn until_nobody_is_connected(&self, nqn: Nqn) -> Result<(), FabricError> {
        let shown = self.debug.join(nqn.to_string());
        let begun = Instant::now();
        loop {
            let names = entries(&shown).unwrap_or_default();
            let count = names.iter().filter(|name| name.starts_with("ctrl")).count();
            if count == 0 {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                let nqn = nqn.to_string();
                return Err(FabricError::StillConnected { nqn, count });
            }
            sleep(Duration::from_millis(20));
        }
    }

    fn listen(&self) -> Result<(), FabricError> {
        let port = self.port(self.listen.transport);
        make(&port)?;
        let family = match self.listen.address {
            IpAddr::V4(_) => "ipv4",
            IpAddr::V6(_) => "ipv6",
        };
        set(&port.join("addr_trtype"), self.listen.transport.name())?;
        set(&port.join("addr_adrfam"), family)?;
        set(&port.join("addr_traddr"), &self.listen.address.to_string())?;
        set(&port.join("addr_trsvcid"), &self.listen.port.to_string())
    }

    /// The kernel looks for the transport when the first subsystem comes to a port.
    fn without_transport(&self, error: FabricError) -> FabricError {
        let module = self.listen.transport.module();
        let loaded = Path::new("/sys/module").join(module.replace('-', "_"));
        match error {
            FabricError::Io { source, .. }
                if source.kind() == ErrorKind::InvalidInput && !loaded.exists() =>
            {
                FabricError::NoModule {
                    module,
                    path: loaded,
                }
            }
            other => other,
        }
    }

    fn subsystem(&self, nqn: Nqn) -> PathBuf {
        self.config.join("subsystems").join(nqn.to_string())
    }

    fn namespace(&self, nqn: Nqn) -> PathBuf {
        self.config.join(namespace_path(nqn))
    }

    fn host(&self, nqn: Nqn) -> PathBuf {
        self.config.join("hosts").join(nqn.host().to_string())
    }

    fn port(&self, transport: Transport) -> PathBuf {
        let number = transport.port().to_string();
        self.config.join("ports").join(number)
    }
}

/// Where the target's tree lies; configfs is mounted for it where nobody has done so.
fn mounted() -> PathBuf {
    let config = PathBuf::from(CONFIG);
    let none = None::<&std::ffi::CStr>;
    if Path::new(MODULE).exists() && !config.is_dir() {
        // Where it is not to be had, that shows at once.
        let _ = mount("configfs", CONFIGFS, "configfs", MountFlags::empty(), none);
    }
    config
}

fn listed(config: &Path) -> Result<Vec<Exported>, FabricError> {
    let ports = entries(&config.join("ports"))?;
    let names = entries(&config.join("subsystems"))?;
    let ours = names.iter().filter_map(|name| name.parse::<Nqn>().ok());
    let seen = ours
        .filter(|name| matches!(name, Nqn::Leg { .. }))
        .map(|nqn| {
            let namespace = config.join(namespace_path(nqn));
            let device = read(&namespace.join("device_path")).filter(|path| !path.is_empty());
            let on = |port: &String| config.join(link_path(port, nqn)).exists();
            Exported {
                nqn,
                device: device.map(PathBuf::from),
                enabled: read(&namespace.join("enable")).as_deref() == Some("1"),
                reachable: ports.iter().any(on),
                rdma: on(&Transport::Rdma.port().to_string()),
            }
        });
    Ok(seen.collect())
}

fn namespace_path(nqn: Nqn) -> PathBuf {
    PathBuf::from(format!("subsystems/{nqn}/namespaces/1"))
}

fn link_path(port: &str, nqn: Nqn) -> PathBuf {
    PathBuf::from(format!("ports/{port}/subsystems/{nqn}"))
}

fn entries(directory: &Path) -> Result<Vec<String>, FabricError> {
    let io = |error| FabricError::io("listing", directory)(error);
    let names = fs::read_dir(directory).map_err(io)?.map(|entry| {
        let name = entry?.file_name();
        Ok(name.to_string_lossy().into_owned())
    });
    names.collect::<io::Result<_>>().map_err(io)
}

fn read(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim_end_matches('\n').to_owned())
}

fn make(directory: &Path) -> Result<(), FabricError> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(FabricError::io("making", directory)(error))
        }
        _ => Ok(()),
    }
}

/// Writes an attribute that has another value.
fn set(attribute: &Path, value: &str) -> Result<(), FabricError> {
    if read(attribute).as_deref() == Some(value) {
        return Ok(());
    }
    let file = OpenOptions::new().write(true).open(attribute);
    file.and_then(|mut file| file.write_all(value.as_bytes()))
        .map_err(FabricError::io("setting", attribute))
}

fn link(to: &Path, at: &Path) -> Result<(), FabricError> {
    match symlink(to, at) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(FabricError::io("linking", at)(error))
        }
        _ => Ok(()),
    }
}

fn gone(remove: impl FnOnce(PathBuf) -> io::Result<()>, path: &Path) -> Result<(), FabricError> {
    match remove(path.to_owned()) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(FabricError::io("removing", path)(error))
        }
        _ => Ok(()),
    }
}
