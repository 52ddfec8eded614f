//! Drives that come and go: the kernel's uevents for block devices, inotify for plain files.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use futures::StreamExt;
use inotify::{Inotify, WatchMask};
use netlink_sys::protocols::NETLINK_KOBJECT_UEVENT;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::warn;

use crate::config::HostConfig;
use crate::sysfs;

/// A counter of what may have changed; listening ends when it is dropped.
pub(crate) struct Events {
    changes: watch::Receiver<u64>,
    _listeners: JoinSet<()>,
}

impl Events {
    /// Listens for what the configuration names.
    pub(crate) fn listen(config: &HostConfig) -> Events {
        let (sender, changes) = watch::channel(0);
        let mut listeners = JoinSet::new();
        let (directories, names) = watched_files(&config.stand_ins);
        let devices = Devices {
            nvme: config.nvme,
            named: names.clone(),
        };
        if devices.nvme
            || config
                .stand_ins
                .iter()
                .any(|path| path.starts_with(&config.roots.dev))
        {
            let sender = sender.clone();
            listeners.spawn(async move {
                if let Err(error) = uevents(devices, &sender).await {
                    warn!(%error, "no kernel events for drives; only the slow rescan will see them come and go");
                }
            });
        }
        if !directories.is_empty() {
            listeners.spawn(async move {
                if let Err(error) = files(directories, names, &sender).await {
                    warn!(%error, "no events for stand-in files; only the slow rescan will see them come and go");
                }
            });
        }
        Events {
            changes,
            _listeners: listeners,
        }
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }
}

/// The directories in which stand-ins may appear, and the names of those that are configured one by one.
fn watched_files(stand_ins: &[PathBuf]) -> (BTreeSet<PathBuf>, BTreeSet<String>) {
    let mut directories = BTreeSet::new();
    let mut names = BTreeSet::new();
    for path in stand_ins {
        match path.parent() {
            Some(parent) if !path.is_dir() => {
                names.insert(sysfs::device_name(path));
                if !path.starts_with("/dev") {
                    directories.insert(parent.to_owned());
                }
            }
            _ => {
                directories.insert(path.clone());
            }
        }
    }
    (directories, names)
}

struct Devices {
    nvme: bool,
    named: BTreeSet<String>,
}

impl Devices {
    /// Whether a uevent (NUL-separated `KEY=value`) is about a whole device that is looked at here.
    fn concerns(&self, message: &[u8]) -> bool {
        let value = |key: &str| {
            message.split(|byte| *byte == 0).find_map(|field| {
                std::str::from_utf8(field)
                    .ok()?
                    .strip_prefix(key)?
                    .strip_prefix('=')
            })
        };
        let Some(name) = value("DEVNAME").map(|name| name.trim_start_matches("/dev/")) else {
            return false;
        };
        value("SUBSYSTEM") == Some("block")
            && (self.named.contains(name) || (self.nvme && sysfs::is_namespace(name)))
    }
}

async fn uevents(devices: Devices, changes: &watch::Sender<u64>) -> io::Result<()> {
    let mut socket = TokioSocket::new(NETLINK_KOBJECT_UEVENT)?;
    // Group 1 is the kernel's own events; udev's lie in group 2.
    socket.socket_mut().bind(&SocketAddr::new(0, 1))?;
    // Devices may have come or gone between the first scan and this.
    changes.send_modify(|count| *count += 1);
    loop {
        match socket.recv_from_full().await {
            Ok((message, _)) if devices.concerns(&message) => {
                changes.send_modify(|count| *count += 1)
            }
            Ok(_) => {}
            // Events were lost: something may have changed.
            Err(error)
                if error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) =>
            {
                changes.send_modify(|count| *count += 1);
            }
            Err(error) => return Err(error),
        }
    }
}

async fn files(
    directories: BTreeSet<PathBuf>,
    names: BTreeSet<String>,
    changes: &watch::Sender<u64>,
) -> io::Result<()> {
    let inotify = Inotify::init()?;
    let mask = WatchMask::CREATE
        | WatchMask::DELETE
        | WatchMask::MOVE
        | WatchMask::CLOSE_WRITE
        | WatchMask::ONLYDIR;
    for directory in &directories {
        inotify.watches().add(directory, mask)?;
    }
    // Files may have come between the first scan and the watch.
    changes.send_modify(|count| *count += 1);
    let mut events = inotify.into_event_stream([0; 4096])?;
    while let Some(event) = events.next().await {
        if event?
            .name
            .as_deref()
            .is_none_or(|name| is_stand_in(name, &names))
        {
            changes.send_modify(|count| *count += 1);
        }
    }
    Ok(())
}

fn is_stand_in(name: &OsStr, names: &BTreeSet<String>) -> bool {
    Path::new(name).extension() == Some(OsStr::new("img"))
        || name.to_str().is_some_and(|name| names.contains(name))
}
