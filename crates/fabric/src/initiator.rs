//! This node's connections to legs on others, through `/dev/nvme-fabrics` and sysfs (linux drivers/nvme/host/fabrics.c).

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{FabricError, Nqn, Secret, Transport};

/// Seconds without an answer after which a target is taken for dead, at the earliest.
const KEEP_ALIVE: u64 = 5;
/// The same where somebody decides on what becomes of what waits: he shall learn of it soon.
const KEEP_ALIVE_DECIDED: u64 = 2;
/// Seconds between attempts to connect again. To a machine that is gone an attempt takes the kernel 3 s, in which the connection cannot be taken
/// away: where somebody decides, the first one ends as the decision comes, some 4 s after the loss was seen.
const RECONNECT: u64 = 1;

/// A leg on another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remote {
    /// Its name in this attachment.
    pub nqn: Nqn,
    /// How it is reached best; over TCP it always is.
    pub transport: Transport,
    /// That node's address, for every transport.
    pub address: IpAddr,
    /// The port there.
    pub port: u16,
    /// What shows that this host is the attachment's.
    pub secret: Option<Secret>,
    /// How long I/O waits for a target that went away before it fails. None: until this connection is taken away, because
    /// somebody decides on that.
    pub patience: Option<Duration>,
}

impl Remote {
    /// What is written to `/dev/nvme-fabrics`.
    fn options(&self, transport: Transport) -> String {
        let host = self.nqn.host();
        let keep_alive = match self.patience {
            Some(_) => KEEP_ALIVE,
            None => KEEP_ALIVE_DECIDED,
        };
        let mut options = format!(
            "nqn={},transport={},traddr={},trsvcid={},hostnqn={host},hostid={},keep_alive_tmo={keep_alive},reconnect_delay={RECONNECT},ctrl_loss_tmo={}",
            self.nqn,
            transport.name(),
            self.address,
            self.port,
            host.id(),
            self.patience
                .map_or("-1".to_owned(), |patience| patience.as_secs().to_string()),
        );
        if let Some(secret) = &self.secret {
            options.push_str(",dhchap_secret=");
            options.push_str(secret.text());
        }
        options
    }
}

/// What the kernel has of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// The leg.
    pub nqn: Nqn,
    /// Its block device. Its name may be another one's after the next connection: do not store it.
    pub device: Option<PathBuf>,
    /// The kernel's word for each of its controllers: `live`, `connecting`, `deleting` and others.
    pub states: Vec<String>,
}

impl Connection {
    /// Whether its target answers, as far as is known.
    pub fn is_live(&self) -> bool {
        self.states.iter().any(|state| state == "live")
    }
}

/// The NVMe host of this node.
#[derive(Debug)]
pub struct Initiator {
    fabrics: PathBuf,
    subsystems: PathBuf,
    /// Block devices by their numbers.
    devices: PathBuf,
}

impl Initiator {
    /// The kernel's.
    ///
    /// # Errors
    /// [`FabricError::NoModule`].
    pub fn open() -> Result<Self, FabricError> {
        let fabrics = PathBuf::from("/dev/nvme-fabrics");
        if !fabrics.exists() {
            return Err(FabricError::NoModule {
                module: "nvme-tcp",
                path: fabrics,
            });
        }
        Ok(Self {
            fabrics,
            subsystems: "/sys/class/nvme-subsystem".into(),
            devices: "/sys/dev/block".into(),
        })
    }

    /// Connects to a leg; one that is connected, or is connecting again, is left alone. Returns when the target has answered.
    /// Its device appears a little later: see [`Self::connections`]. Where RDMA does not lead there, TCP does.
    ///
    /// # Errors
    /// [`FabricError::Refused`]; [`FabricError::Io`].
    pub fn connect(&self, remote: &Remote) -> Result<(), FabricError> {
        if self.find(remote.nqn)?.is_some() {
            return Ok(());
        }
        match self.open_over(remote, remote.transport) {
            Err(FabricError::Refused { .. }) if remote.transport == Transport::Rdma => {
                self.open_over(remote, Transport::Tcp)
            }
            answer => answer,
        }
    }

    fn open_over(&self, remote: &Remote, transport: Transport) -> Result<(), FabricError> {
        let mut file = OpenOptions::new()
            .write(true)
            .open(&self.fabrics)
            .map_err(FabricError::io("opening", &self.fabrics))?;
        match file.write_all(remote.options(transport).as_bytes()) {
            // Another one's connection came first.
            Err(source) if source.raw_os_error() == Some(EALREADY) => Ok(()),
            Err(source) => Err(FabricError::Refused {
                nqn: remote.nqn.to_string(),
                address: format!("{}:{}", remote.address, remote.port),
                source,
            }),
            Ok(()) => Ok(()),
        }
    }

    /// All connections to our legs.
    ///
    /// # Errors
    /// [`FabricError::Io`].
    pub fn connections(&self) -> Result<Vec<Connection>, FabricError> {
        let mut found = Vec::new();
        for name in names(&self.subsystems) {
            let subsystem = self.subsystems.join(name);
            // A subsystem that has just gone has no name any more.
            let text = fs::read_to_string(subsystem.join("subsysnqn")).unwrap_or_default();
            let Ok(nqn) = text.trim_end().parse::<Nqn>() else {
                continue;
            };
            let controllers = controllers(&subsystem);
            if controllers.is_empty() {
                continue;
            }
            let states = controllers.iter().filter_map(|controller| {
                let state = fs::read_to_string(controller.join("state")).ok()?;
                Some(state.trim_end().to_owned())
            });
            found.push(Connection {
                nqn,
                states: states.collect(),
                device: device(&subsystem, &controllers, nqn),
            });
        }
        Ok(found)
    }

    /// The connection to one leg.
    ///
    /// # Errors
    /// As for [`Self::connections`].
    pub fn find(&self, nqn: Nqn) -> Result<Option<Connection>, FabricError> {
        let all = self.connections()?;
        Ok(all.into_iter().find(|connection| connection.nqn == nqn))
    }

    /// Whether a block device that somebody has open is a leg's, by its number: no other device gets that before it is closed, while its name may
    /// be another one's by now. One whose connection is gone is nobody's.
    pub fn is_of(&self, number: u64, nqn: Nqn) -> bool {
        let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
        let device = fs::canonicalize(self.devices.join(format!("{major}:{minor}")));
        let says = |path: &Path, file: &str| {
            let text = fs::read_to_string(path.join(file)).unwrap_or_default();
            text.trim_end().to_owned()
        };
        // Above it is the subsystem, where the kernel puts paths together, else the controller; both have the name.
        device.is_ok_and(|device| {
            let above = device.parent().map(|above| says(above, "subsysnqn"));
            says(&device, "uuid").parse() == Ok(nqn.uuid())
                && above.is_some_and(|name| name.parse() == Ok(nqn))
        })
    }

    /// Takes a connection away; I/O that waits for it fails. Done already where there is none.
    ///
    /// # Errors
    /// [`FabricError::Io`].
    pub fn disconnect(&self, nqn: Nqn) -> Result<(), FabricError> {
        for name in names(&self.subsystems) {
            let subsystem = self.subsystems.join(name);
            let text = fs::read_to_string(subsystem.join("subsysnqn")).unwrap_or_default();
            if text.trim_end().parse() != Ok(nqn) {
                continue;
            }
            for controller in controllers(&subsystem) {
                let end = controller.join("delete_controller");
                match OpenOptions::new()
                    .write(true)
                    .open(&end)
                    .and_then(|mut file| file.write_all(b"1"))
                {
                    Err(error)
                        if error.kind() != ErrorKind::NotFound
                            && error.raw_os_error() != Some(ENODEV) =>
                    {
                        return Err(FabricError::io("disconnecting", &end)(error));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// Linux: already in progress; what a second connection to the same subsystem is answered.
const EALREADY: i32 = 114;
/// Linux: no such device; what a controller that is going answers.
const ENODEV: i32 = 19;

fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.collect()
}

fn controllers(subsystem: &Path) -> Vec<PathBuf> {
    let is_controller = |name: &String| {
        let number = name.strip_prefix("nvme").unwrap_or_default();
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    let names = names(subsystem).into_iter().filter(is_controller);
    names.map(|name| subsystem.join(name)).collect()
}

/// The block device of the namespace with the leg's UUID: the subsystem's where the kernel puts paths together, else a controller's.
fn device(subsystem: &Path, controllers: &[PathBuf], nqn: Nqn) -> Option<PathBuf> {
    let places = std::iter::once(subsystem).chain(controllers.iter().map(PathBuf::as_path));
    for place in places {
        for name in names(place) {
            if !is_namespace(&name) {
                continue;
            }
            let uuid = fs::read_to_string(place.join(&name).join("uuid")).unwrap_or_default();
            if uuid.trim_end().parse() == Ok(nqn.uuid()) {
                return Some(Path::new("/dev").join(name));
            }
        }
    }
    None
}

/// `nvme`, a number, `n`, a number. A path that is part of another device (`nvme0c1n1`) is none.
fn is_namespace(name: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    name.strip_prefix("nvme")
        .and_then(|rest| rest.split_once('n'))
        .is_some_and(|(controller, namespace)| number(controller) && number(namespace))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use uuid::Uuid;

    fn remote() -> Remote {
        Remote {
            nqn: Nqn::leg(Uuid::from_u128(1), 7),
            transport: Transport::Tcp,
            address: [10, 0, 0, 2].into(),
            port: 4420,
            secret: None,
            patience: Some(Duration::from_secs(600)),
        }
    }

    #[test]
    fn options_name_both_ends_and_how_long_io_waits() {
        let remote = remote();
        let id = remote.nqn.host().id();
        assert_eq!(
            remote.options(Transport::Tcp),
            format!(
                "nqn=nqn.2024-01.dev.strand:leg:00000000-0000-0000-0000-000000000001:7,transport=tcp,traddr=10.0.0.2,trsvcid=4420,\
                 hostnqn=nqn.2024-01.dev.strand:host:00000000-0000-0000-0000-000000000001:7,hostid={id},keep_alive_tmo=5,reconnect_delay=1,\
                 ctrl_loss_tmo=600"
            )
        );
        let waits = Remote {
            patience: None,
            ..remote
        };
        let options = waits.options(Transport::Tcp);
        assert!(
            options.ends_with("keep_alive_tmo=2,reconnect_delay=1,ctrl_loss_tmo=-1"),
            "{options}"
        );
    }

    /// As sysfs shows them, with native multipath and without.
    #[test]
    fn a_leg_is_found_by_name_and_uuid_never_by_its_device() {
        let dir = tempfile::tempdir().unwrap();
        let subsystems = dir.path().join("class");
        let leg = remote().nqn;
        let put = |path: &str, text: &str| {
            let path = subsystems.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{text}\n")).unwrap();
        };
        put("nvme-subsys0/subsysnqn", "nqn.2019-08.org.qemu:D0");
        put("nvme-subsys0/nvme0n1/uuid", &leg.uuid().to_string());
        put("nvme-subsys3/subsysnqn", &leg.to_string());
        put("nvme-subsys3/nvme3n1/uuid", &Uuid::from_u128(9).to_string());
        put("nvme-subsys3/nvme3n2/uuid", &leg.uuid().to_string());
        put("nvme-subsys3/nvme3c4n2/uuid", &leg.uuid().to_string());
        put("controllers/nvme4/state", "connecting");
        symlink(
            subsystems.join("controllers/nvme4"),
            subsystems.join("nvme-subsys3/nvme4"),
        )
        .unwrap();
        let initiator = Initiator {
            fabrics: dir.path().join("fabrics"),
            devices: dir.path().join("block"),
            subsystems,
        };
        let seen = Connection {
            nqn: leg,
            device: Some("/dev/nvme3n2".into()),
            states: vec!["connecting".into()],
        };
        assert_eq!(initiator.find(leg).unwrap(), Some(seen));
        assert_eq!(initiator.find(Nqn::leg(leg.uuid(), 8)).unwrap(), None);
        // It is there: no second connection is asked for, and the file that would be written to is not looked for.
        initiator.connect(&remote()).unwrap();
        initiator.disconnect(leg).unwrap();

        // By its number a device is known to be a leg's even when its name is another one's.
        let subsystems = dir.path().join("class/nvme-subsys3");
        fs::create_dir_all(dir.path().join("block")).unwrap();
        for (number, name) in [("259:1", "nvme3n1"), ("259:2", "nvme3n2")] {
            symlink(subsystems.join(name), dir.path().join("block").join(number)).unwrap();
        }
        let number = |minor| rustix::fs::makedev(259, minor);
        assert!(initiator.is_of(number(2), leg));
        assert!(!initiator.is_of(number(2), Nqn::leg(leg.uuid(), 8)));
        assert!(!initiator.is_of(number(1), leg), "another leg's");
        assert!(!initiator.is_of(number(3), leg), "its connection is gone");
    }
}
