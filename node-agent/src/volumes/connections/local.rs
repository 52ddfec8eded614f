//! Connections as this node's kernel has them, with the records of whose they are. All of it blocks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::io::Errno;
use strand_fabric::{Connection, FabricError, Initiator, Nqn, Remote};
use strand_volumes::{IoLimits, Throttle};

use super::record::{self, Record};
use crate::volumes::AttachError;

/// How long a device may take to come once its target has answered, and to go once it is let go.
const SOON: Duration = Duration::from_secs(20);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(50);

/// The connections of this node.
#[derive(Clone)]
pub struct Local {
    /// Where the records are.
    pub records: PathBuf,
    /// What limits devices.
    pub throttle: Throttle,
    /// Legs that are copied to this node just now: a process that goes on with a copy makes its connection anew, so that no record is kept.
    pub copied: Arc<Mutex<BTreeSet<Nqn>>>,
}

impl Local {
    /// Connects to a leg, as a record says; its device. What is connected so stays as it is.
    pub fn attach(&self, record: &Record, remote: &Remote) -> Result<PathBuf, AttachError> {
        self.put(record)?;
        let initiator = self.connect(&record.volume, remote)?;
        let device = device(&initiator, &record.volume, remote.nqn)?;
        if record.read_only {
            strand_volumes::set_read_only(&device)?;
        }
        self.limit(&device, record.limits());
        Ok(device)
    }

    /// Keeps a record, which has to be there before what it speaks of is made.
    pub fn put(&self, record: &Record) -> Result<(), AttachError> {
        record::put(&self.records, record).map_err(|source| AttachError::Record {
            path: self.records.clone(),
            source,
        })
    }

    /// Connects to a leg, whose device comes soon after.
    pub fn connect(&self, volume: &str, remote: &Remote) -> Result<Initiator, AttachError> {
        let initiator = Initiator::open()?;
        let nqn = remote.nqn;
        // What this node had of the leg in earlier attachments.
        for old in initiator.connections()? {
            if old.nqn.uuid() == nqn.uuid() && old.nqn != nqn {
                self.end(&initiator, volume, &old)?;
            }
        }
        initiator.connect(remote)?;
        Ok(initiator)
    }

    /// Connects to a leg that is copied to this node, for reading; its device, open, and its name. Whoever has the leg attached here by a newer
    /// generation keeps it.
    pub fn borrow(&self, leg: &str, remote: &Remote) -> Result<(File, PathBuf), AttachError> {
        let initiator = Initiator::open()?;
        let nqn = remote.nqn;
        self.copied().insert(nqn);
        for other in initiator.connections()? {
            let same = other.nqn.uuid() == nqn.uuid();
            if same && other.nqn.generation() > nqn.generation() {
                return Err(AttachError::NotYet {
                    volume: leg.to_owned(),
                    why: "this node has it attached".into(),
                });
            }
        }
        // Of an earlier process, or of before its node went away: nobody waits for that.
        if let Some(found) = initiator.find(nqn)?.filter(|found| !found.is_live()) {
            self.end(&initiator, leg, &found)?;
        }
        initiator.connect(remote)?;
        let path = device(&initiator, leg, nqn)?;
        let not_yet = |why: String| AttachError::NotYet {
            volume: leg.to_owned(),
            why,
        };
        let failed = |error: std::io::Error| {
            not_yet(format!(
                "its device {} is not to be had ({error})",
                path.display()
            ))
        };
        let device = strand_volumes::open_direct(&path).map_err(failed)?;
        // The name may have been given to another one's connection since it was found.
        if !initiator.is_of(device.metadata().map_err(failed)?.rdev(), nqn) {
            let path = path.display();
            return Err(not_yet(format!("device {path} is another leg's by now")));
        }
        strand_volumes::refuse_writes(&device).map_err(failed)?;
        Ok((device, path))
    }

    /// Ends what [`Self::borrow`] made, or began. What it never began may be an attachment's, whose generation was meant for a copy once.
    pub fn give_back(&self, leg: &str, nqn: Nqn) -> Result<(), AttachError> {
        if !self.copied().contains(&nqn) {
            return Ok(());
        }
        let ended = || match Initiator::open() {
            // Without the kernel's host there is no connection.
            Err(_) => Ok(()),
            Ok(initiator) => match initiator.find(nqn)? {
                Some(found) => self.end(&initiator, leg, &found),
                None => Ok(()),
            },
        };
        let ended = ended();
        // What could not be ended is nobody's from now on, and swept.
        self.copied().remove(&nqn);
        ended
    }

    fn copied(&self) -> MutexGuard<'_, BTreeSet<Nqn>> {
        self.copied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a volume's connections away; whether it had any.
    pub fn detach(&self, volume: &str) -> Result<bool, AttachError> {
        match record::read(&record::path(&self.records, volume)) {
            None => Ok(false),
            Some(record) => self.leave(&record).map(|()| true),
        }
    }

    /// Ends everything that a record speaks of, and then the record.
    pub fn leave(&self, record: &Record) -> Result<(), AttachError> {
        // Without the kernel's host there is no connection.
        if let Ok(initiator) = Initiator::open() {
            let connections = initiator.connections()?;
            for connection in connections.iter().filter(|c| record.legs.contains(&c.nqn)) {
                self.end(&initiator, &record.volume, connection)?;
            }
        }
        let path = record::path(&self.records, &record.volume);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                Err(AttachError::Record { path, source })
            }
            _ => Ok(()),
        }
    }

    /// Takes away connections that no record speaks of, and limits the others; gives the records whose connections are not as they
    /// should be.
    pub fn sweep(&self) -> Result<Vec<Record>, AttachError> {
        let initiator = match Initiator::open() {
            Ok(initiator) => initiator,
            Err(FabricError::NoModule { .. }) => return Ok(record::all(&self.records)),
            Err(error) => return Err(error.into()),
        };
        let connections = initiator.connections()?;
        // Looked at afterwards: a record is written before its connection is made.
        let mut known = record::all(&self.records);
        for connection in &connections {
            let nqn = connection.nqn;
            // A copy may have begun, or gone on with it, since the last one was ended.
            if self.copied().contains(&nqn) {
                continue;
            }
            match known.iter().find(|record| record.legs.contains(&nqn)) {
                Some(record) => {
                    // Control groups come with pods.
                    let limits = record.limits();
                    if let Some(device) = &connection.device
                        && record.array.is_none()
                        && limits != IoLimits::default()
                    {
                        self.limit(device, limits);
                    }
                }
                None => match self.end(&initiator, "", connection) {
                    Ok(()) => tracing::info!(%nqn, "a connection that nobody has was taken away"),
                    Err(error) => {
                        tracing::info!(%nqn, %error, "a connection that nobody has stays");
                    }
                },
            }
        }
        let is_live = |nqn: &Nqn| connections.iter().any(|c| c.nqn == *nqn && c.is_live());
        // Arrays have a task each that sees to them.
        known.retain(|record| record.array.is_none() && !record.legs.iter().all(is_live));
        Ok(known)
    }

    /// Ends a connection whose device nobody uses, and waits until it is gone.
    fn end(
        &self,
        initiator: &Initiator,
        volume: &str,
        connection: &Connection,
    ) -> Result<(), AttachError> {
        if let Some(device) = &connection.device {
            if is_claimed(device) {
                return Err(AttachError::Busy {
                    volume: volume.to_owned(),
                    device: device.clone(),
                });
            }
            // They would outlive it, and be somebody else's.
            self.limit(device, IoLimits::default());
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

    /// A volume is of more use without its limits than not at all.
    pub fn limit(&self, device: &Path, limits: IoLimits) {
        let Ok(metadata) = fs::metadata(device) else {
            return;
        };
        if let Err(error) = self
            .throttle
            .set(&BTreeMap::from([(metadata.rdev(), limits)]))
        {
            tracing::warn!(device = %device.display(), %error, "its limits are not enforced");
        }
    }
}

/// The device of a leg, as soon as it is there.
fn device(initiator: &Initiator, volume: &str, nqn: Nqn) -> Result<PathBuf, AttachError> {
    let begun = Instant::now();
    loop {
        let found = initiator.find(nqn)?;
        let there = found.as_ref().filter(|found| found.is_live());
        if let Some(device) = there.and_then(|found| found.device.clone()) {
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

/// Whether a device is mounted, or part of another one.
fn is_claimed(device: &Path) -> bool {
    let exclusive = OFlags::EXCL.bits().cast_signed();
    let opened = File::options()
        .read(true)
        .custom_flags(exclusive)
        .open(device);
    opened.is_err_and(|error| error.raw_os_error() == Some(Errno::BUSY.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn a_record_outlives_the_process_that_wrote_it() {
        let dir = tempfile::tempdir().unwrap();
        let local = Local {
            records: dir.path().join("attachments"),
            throttle: Throttle::new(dir.path().join("groups")),
            copied: Arc::default(),
        };
        assert_eq!(record::all(&local.records), []);
        let record = Record {
            volume: "v".into(),
            generation: 3,
            read_only: false,
            legs: vec![Nqn::leg(Uuid::from_u128(1), 3)],
            array: None,
            iops: Some(100),
            bandwidth: None,
        };
        record::put(&local.records, &record).unwrap();
        record::put(&local.records, &record).unwrap();
        fs::write(local.records.join("w.new"), "{").unwrap();
        assert_eq!(record::all(&local.records), [record]);
        // Its connection is not there on this machine, and so nothing keeps the record.
        assert!(local.detach("v").unwrap());
        assert_eq!(record::all(&local.records), []);
        assert!(!local.detach("v").unwrap());
    }
}
