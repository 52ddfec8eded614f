//! Volumes whose legs lie on other nodes: connections of this node to them.
//!
//! Which volumes those are is kept in a small file each, written before the connection is made: with it a volume is detached with the
//! API away, and what an earlier process left is told from what somebody has.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kube::{Api, Client};
use rustix::fs::OFlags;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use strand_api::{Attachment, ExportedLeg, LegExport, PlacedLeg, PoolLeg, PoolVolume};
use strand_fabric::{Connection, FabricError, Initiator, Nqn, Remote, Secret, Transport};
use uuid::Uuid;

use super::decide::uuid;
use super::{AttachError, AttachRequest, AttachedVolume, blocking};
use crate::peer_key::PeerKey;

/// How long I/O waits for a node that went away: a reboot is no error.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long a device may take to come once its target has answered, and to go once it is let go.
const SOON: Duration = Duration::from_secs(20);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(50);

/// A volume that this node reaches on others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    volume: String,
    generation: u64,
    #[serde(default)]
    read_only: bool,
    legs: Vec<Nqn>,
}

/// A leg to connect to.
struct Reached {
    remote: Remote,
    read_only: bool,
}

/// The connections of this node. Clones are the same.
#[derive(Clone)]
pub struct Connections {
    client: Client,
    node: String,
    key: Option<PeerKey>,
    /// Where the records are; without it nothing of other nodes is attached.
    records: Option<PathBuf>,
    sweeping: Arc<AtomicBool>,
}

impl Connections {
    pub fn new(client: Client, node: &str, key: Option<PeerKey>, state_dir: Option<&Path>) -> Self {
        Self {
            client,
            node: node.to_owned(),
            key,
            records: state_dir.map(|dir| dir.join("attachments")),
            sweeping: Arc::default(),
        }
    }

    /// Makes a volume whose leg lies on another node a device of this one.
    ///
    /// # Errors
    /// [`AttachError`].
    pub async fn attach(
        &self,
        volume: &str,
        request: &AttachRequest,
    ) -> Result<AttachedVolume, AttachError> {
        let records = self.records.clone().ok_or_else(|| AttachError::Refused {
            volume: volume.to_owned(),
            why:
                "its bytes lie on another node, and this agent keeps no state; give it --state-dir"
                    .into(),
        })?;
        let reached = self.reached(volume, request).await?;
        let record = Record {
            volume: volume.to_owned(),
            generation: reached.remote.nqn.generation(),
            read_only: reached.read_only,
            legs: vec![reached.remote.nqn],
        };
        let (volume, name) = (volume.to_owned(), volume.to_owned());
        let device = blocking(&name, move || {
            let initiator = Initiator::open()?;
            leave_older(&initiator, &volume, reached.remote.nqn)?;
            put(&records, &record).map_err(|source| AttachError::Record {
                path: records.clone(),
                source,
            })?;
            initiator.connect(&reached.remote)?;
            let device = device(&initiator, &volume, reached.remote.nqn)?;
            if reached.read_only {
                strand_volumes::set_read_only(&device)?;
            }
            Ok(device)
        });
        Ok(AttachedVolume {
            device: device.await?,
        })
    }

    /// Takes a volume's connections away; whether it had any.
    ///
    /// # Errors
    /// [`AttachError`], above all while its device is in use.
    pub async fn detach(&self, volume: &str) -> Result<bool, AttachError> {
        let Some(records) = self.records.clone() else {
            return Ok(false);
        };
        if !is_name(volume) {
            return Ok(false);
        }
        let name = volume.to_owned();
        blocking(volume, move || match read(&path(&records, &name)) {
            None => Ok(false),
            Some(record) => leave(&records, &record).map(|()| true),
        })
        .await
    }

    /// What the API says of a volume's leg, and how this node reaches it.
    async fn reached(&self, volume: &str, request: &AttachRequest) -> Result<Reached, AttachError> {
        let not_yet = |why: String| AttachError::NotYet {
            volume: volume.to_owned(),
            why,
        };
        let refused = |why: String| AttachError::Refused {
            volume: volume.to_owned(),
            why,
        };
        let away =
            |error: kube::Error| not_yet(format!("the API does not tell where it lies ({error})"));
        let volumes: Api<PoolVolume> = Api::all(self.client.clone());
        let object = match is_name(volume) {
            true => volumes.get_opt(volume).await.map_err(away)?,
            false => None,
        };
        let Some(object) = object else {
            return Err(AttachError::NotHere {
                volume: volume.to_owned(),
            });
        };
        let attachment = granted(&object, &self.node)
            .filter(|a| a.generation.unsigned_abs() >= request.generation);
        let attachment =
            attachment.ok_or_else(|| not_yet("it is not granted to this node now".into()))?;
        if attachment.read_only != request.read_only {
            return Err(refused(
                "it is granted in another way than it is asked for".into(),
            ));
        }
        let [placed] = object.spec.legs.as_slice() else {
            return Err(refused(
                "it has several legs, and this version attaches volumes of one".into(),
            ));
        };
        if placed.node_name == self.node {
            return Err(AttachError::NotHere {
                volume: volume.to_owned(),
            });
        }
        let legs: Api<PoolLeg> = Api::all(self.client.clone());
        let leg = legs.get_opt(&placed.name).await.map_err(away)?;
        let waits = || {
            not_yet(format!(
                "leg {} is not exported by node {} yet",
                placed.name, placed.node_name
            ))
        };
        let (leg, export, there) = leg
            .as_ref()
            .and_then(|leg| exported(leg, placed, attachment))
            .ok_or_else(waits)?;
        let nqn = Nqn::leg(leg, attachment.generation.unsigned_abs());
        let address: IpAddr = there.address.parse().map_err(|_| waits())?;
        let secret = match (&self.key, export.insecure) {
            (_, true) => None,
            (Some(key), false) => Some(Secret::derived(key.bytes(), nqn)),
            (None, false) => {
                let why = "this node's agent has no --peer-key-file to make its key of";
                return Err(refused(why.into()));
            }
        };
        Ok(Reached {
            remote: Remote {
                nqn,
                transport: Transport::Tcp,
                address,
                port: u16::try_from(there.port).map_err(|_| waits())?,
                secret,
                patience: Some(PATIENCE),
            },
            read_only: attachment.read_only,
        })
    }

    /// Finds connections that nobody has any more, and takes them away; returns at once.
    pub fn sweep(&self) {
        let Some(records) = self.records.clone() else {
            return;
        };
        if self.sweeping.swap(true, Ordering::AcqRel) {
            return;
        }
        let connections = self.clone();
        tokio::spawn(async move {
            if let Err(error) = connections.sweep_now(records).await {
                tracing::warn!(%error, "connections that nobody has any more cannot be looked for");
            }
            connections.sweeping.store(false, Ordering::Release);
        });
    }

    async fn sweep_now(&self, records: PathBuf) -> Result<(), AttachError> {
        let dir = records.clone();
        let doubtful = blocking("", move || sweep_unknown(&dir)).await?;
        let volumes: Api<PoolVolume> = Api::all(self.client.clone());
        for record in doubtful {
            // With the API away nobody knows.
            let Ok(object) = volumes.get_opt(&record.volume).await else {
                return Ok(());
            };
            let attachment = object
                .as_ref()
                .and_then(|object| granted(object, &self.node));
            if attachment.is_some_and(|a| a.generation.unsigned_abs() <= record.generation) {
                continue;
            }
            let (dir, volume) = (records.clone(), record.volume.clone());
            match blocking(&volume, move || leave(&dir, &record)).await {
                Ok(()) => tracing::info!(
                    volume,
                    "its connection is another attachment's, and was taken away"
                ),
                Err(error) => {
                    tracing::info!(%error, "a connection that was fenced stays while it is in use")
                }
            }
        }
        Ok(())
    }
}

/// The attachment that a node may use.
fn granted<'a>(volume: &'a PoolVolume, node: &str) -> Option<&'a Attachment> {
    let mut attachments = volume.status.iter().flat_map(|s| &s.attachments);
    attachments.find(|a| a.node == node && a.phase.is_granted())
}

/// How a leg is reached in an attachment, once it is exported for it.
fn exported<'a>(
    leg: &'a PoolLeg,
    placed: &PlacedLeg,
    attachment: &Attachment,
) -> Option<(Uuid, &'a LegExport, &'a ExportedLeg)> {
    let bytes = uuid(leg).filter(|uuid| placed.uuid.as_deref() == Some(uuid))?;
    let mut wanted = leg.spec.exports.iter();
    let wanted =
        wanted.find(|e| e.generation == attachment.generation && e.node == attachment.node)?;
    let mut there = leg.status.as_ref()?.exports.iter();
    let there = there.find(|e| e.generation == attachment.generation)?;
    Some((Uuid::parse_str(bytes).ok()?, wanted, there))
}

/// Takes away what this node had of a leg in earlier attachments.
fn leave_older(initiator: &Initiator, volume: &str, nqn: Nqn) -> Result<(), AttachError> {
    for old in initiator.connections()? {
        if old.nqn.uuid() == nqn.uuid() && old.nqn != nqn {
            end(initiator, volume, &old)?;
        }
    }
    Ok(())
}

/// The device of a leg, as soon as it is there.
fn device(initiator: &Initiator, volume: &str, nqn: Nqn) -> Result<PathBuf, AttachError> {
    let begun = Instant::now();
    loop {
        let found = initiator.find(nqn)?;
        let live = |found: &Connection| found.states.iter().any(|state| state == "live");
        if let Some(device) = found
            .as_ref()
            .filter(|c| live(c))
            .and_then(|c| c.device.clone())
        {
            return Ok(device);
        }
        if begun.elapsed() > SOON {
            let states = found.map_or_else(|| "gone".to_owned(), |found| found.states.join(", "));
            return Err(AttachError::NotYet {
                volume: volume.to_owned(),
                why: format!("its connection {nqn} has no device yet ({states})"),
            });
        }
        std::thread::sleep(LOOK);
    }
}

/// Ends everything that a record speaks of, and then the record.
fn leave(records: &Path, record: &Record) -> Result<(), AttachError> {
    // Without the kernel's host there is no connection.
    if let Ok(initiator) = Initiator::open() {
        let connections = initiator.connections()?;
        for connection in connections.iter().filter(|c| record.legs.contains(&c.nqn)) {
            end(&initiator, &record.volume, connection)?;
        }
    }
    let path = path(records, &record.volume);
    match fs::remove_file(&path) {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            Err(AttachError::Record { path, source })
        }
        _ => Ok(()),
    }
}

/// Ends a connection whose device nobody uses, and waits until it is gone.
fn end(initiator: &Initiator, volume: &str, connection: &Connection) -> Result<(), AttachError> {
    if let Some(device) = connection
        .device
        .as_deref()
        .filter(|device| is_claimed(device))
    {
        return Err(AttachError::Busy {
            volume: volume.to_owned(),
            device: device.to_owned(),
        });
    }
    initiator.disconnect(connection.nqn)?;
    let begun = Instant::now();
    while initiator.find(connection.nqn)?.is_some() {
        if begun.elapsed() > SOON {
            return Err(AttachError::NotYet {
                volume: volume.to_owned(),
                why: format!("its connection {} has not gone yet", connection.nqn),
            });
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// Whether a device is mounted, or part of another one.
fn is_claimed(device: &Path) -> bool {
    let exclusive = OFlags::EXCL.bits().cast_signed();
    let opened = File::options()
        .read(true)
        .custom_flags(exclusive)
        .open(device);
    opened.is_err_and(|error| error.raw_os_error() == Some(Errno::BUSY.raw_os_error()))
}

/// Takes away connections that no record speaks of; gives the records whose connections are not as they should be.
fn sweep_unknown(records: &Path) -> Result<Vec<Record>, AttachError> {
    let initiator = match Initiator::open() {
        Ok(initiator) => Some(initiator),
        Err(FabricError::NoModule { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let connections = match &initiator {
        Some(initiator) => initiator.connections()?,
        None => Vec::new(),
    };
    // Looked at afterwards: a record is written before its connection is made.
    let known = all(records);
    let is_known = |nqn: Nqn| known.iter().any(|record| record.legs.contains(&nqn));
    for left in connections.iter().filter(|c| !is_known(c.nqn)) {
        match initiator.as_ref().map(|initiator| end(initiator, "", left)) {
            Some(Err(error)) => {
                tracing::info!(nqn = %left.nqn, %error, "a connection that nobody has stays");
            }
            _ => tracing::info!(nqn = %left.nqn, "a connection that nobody has was taken away"),
        }
    }
    let is_live = |nqn: &Nqn| {
        let mut found = connections.iter().filter(|c| c.nqn == *nqn);
        found.any(|c| c.states.iter().any(|state| state == "live"))
    };
    let mut doubtful = known;
    doubtful.retain(|record| !record.legs.iter().all(is_live));
    Ok(doubtful)
}

/// Whether an object, and so a file, can have this name.
fn is_name(volume: &str) -> bool {
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    volume.bytes().next().is_some_and(letter)
        && volume
            .bytes()
            .all(|b| letter(b) || matches!(b, b'-' | b'.'))
}

fn path(records: &Path, volume: &str) -> PathBuf {
    records.join(format!("{volume}.json"))
}

fn all(records: &Path) -> Vec<Record> {
    // Without the directory there are none.
    let Ok(entries) = fs::read_dir(records) else {
        return Vec::new();
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
        .filter_map(|path| read(&path))
        .collect()
}

/// A record; none where there is no file. One that cannot be read is as good as none: its connections are found without it.
fn read(path: &Path) -> Option<Record> {
    let text = fs::read(path).ok()?;
    match serde_json::from_slice(&text) {
        Ok(record) => Some(record),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "this is no record of an attachment");
            None
        }
    }
}

/// Writes a record so that at every instant there is the old one or the new one.
fn put(records: &Path, record: &Record) -> io::Result<()> {
    let path = path(records, &record.volume);
    if read(&path).as_ref() == Some(record) {
        return Ok(());
    }
    fs::create_dir_all(records)?;
    let aside = path.with_extension("new");
    let mut file = File::create(&aside)?;
    file.write_all(&serde_json::to_vec(record)?)?;
    file.sync_all()?;
    fs::rename(&aside, &path)?;
    File::open(records)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_outlives_the_process_that_wrote_it() {
        let dir = tempfile::tempdir().unwrap();
        let records = dir.path().join("attachments");
        assert_eq!(all(&records), []);
        let record = Record {
            volume: "v".into(),
            generation: 3,
            read_only: false,
            legs: vec![Nqn::leg(Uuid::from_u128(1), 3)],
        };
        put(&records, &record).unwrap();
        put(&records, &record).unwrap();
        fs::write(records.join("w.new"), "{").unwrap();
        assert_eq!(all(&records), [record.clone()]);
        // Its connection is not there on this machine, and so nothing keeps the record.
        leave(&records, &record).unwrap();
        assert_eq!(all(&records), []);
    }
}
