//! This node's legs for other nodes: what their objects ask for is made so in the kernel's NVMe target, and what that has is told. All
//! of it blocks.
//!
//! Whom an object does not name any more is kept out first; an export that is there and whole is not touched, so that a new process
//! goes on with what it finds. After a reboot nothing is reached before [`Exports::open`]: see [`strand_fabric::Target::reach`].

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use strand_api::{ExportedLeg, LegExport, PoolLeg};
use strand_fabric::{
    Export, Exported, FabricError, Listen, Nqn, Secret, Step, Target, Transport, plan, rdma,
};
use strand_volumes::{Drive, LegRecord, VolumeError};
use uuid::Uuid;

use super::FabricConfig;
use crate::peer_key::PeerKey;

/// Why a leg is not exported, or is still: reason and words for the condition `Exported`.
pub type Trouble = (&'static str, String);

/// What other nodes have of a leg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lent {
    /// For `status.exports`.
    pub exports: Vec<ExportedLeg>,
    /// What is not as its object asks for.
    pub trouble: Option<Trouble>,
    /// The generation that its record has, where its object asks for older ones.
    pub stale: Option<u64>,
    /// Whether `exports` is what the kernel has.
    pub seen: bool,
}

impl Lent {
    /// What is told where the kernel could not be asked: what was told before, and not of the object as it is now.
    pub fn unknown(leg: &PoolLeg, trouble: Trouble) -> Self {
        let earlier = leg.status.as_ref().map(|status| status.exports.clone());
        Self {
            exports: earlier.unwrap_or_default(),
            trouble: Some(trouble),
            stale: None,
            seen: false,
        }
    }
}

/// Why something was not done to a leg's exports.
enum Failed {
    Trouble(Trouble),
    /// Its device is not to be had.
    Lend(VolumeError),
}

impl From<Trouble> for Failed {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

impl From<VolumeError> for Failed {
    fn from(error: VolumeError) -> Self {
        Self::Lend(error)
    }
}

/// The exports of this node.
pub struct Exports {
    listen: Option<Listen>,
    key: Option<PeerKey>,
    target: Mutex<Option<Arc<Target>>>,
    /// What is prepared, and reached only once everything is.
    prepared: Mutex<BTreeSet<Nqn>>,
    open: AtomicBool,
    /// Whether it was said that RDMA does not lead here.
    told_of_rdma: AtomicBool,
}

impl Exports {
    pub fn new(config: &FabricConfig) -> Self {
        Self {
            listen: config.listen.map(|at| Listen {
                transport: Transport::Tcp,
                address: at.ip(),
                port: at.port(),
            }),
            key: config.key.clone(),
            target: Mutex::default(),
            prepared: Mutex::default(),
            open: AtomicBool::new(false),
            told_of_rdma: AtomicBool::new(false),
        }
    }

    /// What the kernel exports of ours now. A kernel without a target exports nothing.
    ///
    /// # Errors
    /// It cannot be looked at: then nobody is known to be kept out.
    pub fn seen() -> Result<Vec<Exported>, Trouble> {
        Target::exported().map_err(|error| {
            let why = format!("what this node exports cannot be looked at: {error}");
            ("NotSeen", why)
        })
    }

    /// Brings the exports of one leg, whose bytes have this UUID, to what its object says; without a record of bytes that are there,
    /// only who has to be kept out is. `seen` is what the kernel exports.
    pub fn tend(
        &self,
        seen: &[Exported],
        leg: &PoolLeg,
        uuid: Uuid,
        bytes: Option<(&Drive, &LegRecord)>,
    ) -> Lent {
        let wanted = match leg.spec.deletion_mark {
            true => &[][..],
            false => &leg.spec.exports,
        };
        let mine: Vec<Exported> = of(seen, uuid).cloned().collect();
        // Whose it is, is about to be said.
        let failed = match leg.spec.orphaned {
            true => None,
            false => self.make_so(&mine, wanted, bytes).err(),
        };
        let (trouble, stale) = match failed {
            None => (None, None),
            Some(Failed::Trouble(trouble)) => (Some(trouble), None),
            Some(Failed::Lend(VolumeError::Stale { recorded, .. })) => (None, Some(recorded)),
            Some(Failed::Lend(error @ VolumeError::OldKernel { .. })) => {
                (Some(("OldKernel", error.to_string())), None)
            }
            Some(Failed::Lend(error)) => (Some(("InUse", error.to_string())), None),
        };
        let now = match mine.is_empty() && wanted.is_empty() {
            true => Ok(Vec::new()),
            false => Self::seen(),
        };
        let now = match now {
            Ok(now) => now,
            Err(trouble) => return Lent::unknown(leg, trouble),
        };
        Lent {
            exports: self.told(&now, uuid, wanted),
            trouble,
            stale,
            seen: true,
        }
    }

    fn make_so(
        &self,
        mine: &[Exported],
        wanted: &[LegExport],
        bytes: Option<(&Drive, &LegRecord)>,
    ) -> Result<(), Failed> {
        let is_wanted = |nqn: Nqn| wanted.iter().any(|e| generation(e) == nqn.generation());
        for old in mine.iter().filter(|seen| !is_wanted(seen.nqn)) {
            self.fence(old.nqn)?;
        }
        let Some((drive, record)) = bytes else {
            return Ok(());
        };
        let Some(highest) = wanted.iter().map(generation).max() else {
            return Ok(drive.take_back(&record.name)?);
        };
        let target = self.target()?;
        let read_only = wanted.iter().all(|export| export.read_only);
        if !read_only && wanted.len() > 1 {
            let why = "more than one node is to have it, and one of them writes";
            return Err(("Refused", why.to_owned()).into());
        }
        let secrets = wanted.iter().map(|export| self.secret(export, record.uuid));
        let secrets: Vec<Option<Secret>> = secrets.collect::<Result<_, _>>()?;
        let lent = drive.lend(&record.name, highest, read_only)?;
        let exports: Vec<Export> = wanted
            .iter()
            .zip(secrets)
            .map(|(export, secret)| Export {
                leg: record.uuid,
                generation: generation(export),
                device: lent.device.clone(),
                secret,
            })
            .collect();
        for whole in mine
            .iter()
            .filter(|seen| exports.iter().any(|e| seen.is(e)))
        {
            if let Err(error) = target.resized(whole.nqn) {
                tracing::debug!(%error, "its consumer learns of its size later");
            }
        }
        let kept: Vec<Exported> = mine.iter().filter(|e| is_wanted(e.nqn)).cloned().collect();
        for step in plan(&kept, &exports) {
            match step {
                Step::Fence(nqn) => self.fence(nqn)?,
                Step::Export(export) => self.export(&target, &export)?,
            }
        }
        // RDMA may have come up later than the rest of the machine.
        if self.is_open() && kept.iter().any(|seen| seen.reachable && !seen.rdma) {
            self.reach_by_rdma();
        }
        Ok(())
    }

    fn export(&self, target: &Target, export: &Export) -> Result<(), Trouble> {
        let nqn = export.nqn();
        target.prepare(export).map_err(|error| trouble(&error))?;
        let mut prepared = self.prepared();
        if !self.is_open() {
            prepared.insert(nqn);
            return Ok(());
        }
        drop(prepared);
        self.reach(target, &[nqn])
            .map_err(|error| trouble(&error))?;
        tracing::info!(%nqn, "exported");
        Ok(())
    }

    /// Keeps whoever has it out, for good.
    pub fn fence(&self, nqn: Nqn) -> Result<(), Trouble> {
        self.prepared().remove(&nqn);
        let fenced = self.target()?.fence(nqn);
        fenced.map_err(|error| ("NotFenced", error.to_string()))?;
        tracing::info!(%nqn, "fenced: nobody reaches it any more");
        Ok(())
    }

    /// Whether what is exported is reached.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Lets everything that is prepared be reached, and from now on at once whatever comes.
    pub fn open(&self) {
        let mut prepared = self.prepared();
        let exports: Vec<Nqn> = std::mem::take(&mut *prepared).into_iter().collect();
        self.open.store(true, Ordering::Release);
        drop(prepared);
        if let Ok(target) = self.target()
            && let Err(error) = self.reach(&target, &exports)
        {
            tracing::warn!(%error, "an export is not reached; it is tried again");
        }
    }

    /// Over TCP, and over RDMA where this node has it.
    fn reach(&self, target: &Target, exports: &[Nqn]) -> Result<(), FabricError> {
        target.reach(exports)?;
        self.reach_by_rdma();
        Ok(())
    }

    /// Whatever is reached over TCP alone, all of it at once: hosts that wait for it over RDMA would not come again if they met a port that has
    /// others and not theirs. Where RDMA does not lead to this node's address, TCP stays the way.
    fn reach_by_rdma(&self) {
        let Some(listen) = self.listen.filter(|_| rdma::is_there(rdma::End::Target)) else {
            return;
        };
        let transport = Transport::Rdma;
        let reached = Target::exported().and_then(|seen| {
            let lacks = seen.iter().filter(|seen| seen.reachable && !seen.rdma);
            let lacks: Vec<Nqn> = lacks.map(|seen| seen.nqn).collect();
            Target::open(Listen {
                transport,
                ..listen
            })?
            .reach(&lacks)
        });
        if let Err(error) = reached
            && !self.told_of_rdma.swap(true, Ordering::AcqRel)
        {
            tracing::warn!(%error, address = %listen.address, "reached over TCP alone, although this node has RDMA");
        }
    }

    /// What is told of a leg's exports. What is wanted is told once it is reached; what is not, as long as there is anything of it.
    pub fn told(&self, seen: &[Exported], leg: Uuid, wanted: &[LegExport]) -> Vec<ExportedLeg> {
        let is_wanted = |nqn: Nqn| wanted.iter().any(|e| generation(e) == nqn.generation());
        let told =
            of(seen, leg).filter(|seen| (seen.reachable && seen.enabled) || !is_wanted(seen.nqn));
        let mut told: Vec<ExportedLeg> = told
            .map(|seen| ExportedLeg {
                generation: i64::try_from(seen.nqn.generation()).unwrap_or(i64::MAX),
                address: self
                    .listen
                    .map_or_else(|| "unknown".to_owned(), |at| at.address.to_string()),
                port: self.listen.map_or(1, |at| i32::from(at.port)),
                rdma: seen.rdma,
            })
            .collect();
        told.sort_by_key(|export| export.generation);
        told
    }

    fn secret(&self, export: &LegExport, leg: Uuid) -> Result<Option<Secret>, Trouble> {
        let nqn = Nqn::leg(leg, generation(export));
        match (&self.key, export.insecure) {
            (_, true) => Ok(None),
            (Some(key), false) => Ok(Some(Secret::derived(key.bytes(), nqn))),
            (None, false) => Err((
                "NoKey",
                "this node's agent has no --peer-key-file to make keys of; give it one, or set insecureFabric: true in the MemoryPool if \
                 every host of the network may be trusted"
                    .to_owned(),
            )),
        }
    }

    fn target(&self) -> Result<Arc<Target>, Trouble> {
        let mut target = self.target.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(target) = &*target {
            return Ok(Arc::clone(target));
        }
        let listen = self.listen.ok_or_else(|| {
            let why = "this node's agent does not know at which address others reach it; give it --fabric-address or --peer-address";
            ("NoAddress", why.to_owned())
        })?;
        let opened = Target::open(listen).map_err(|error| trouble(&error))?;
        Ok(Arc::clone(target.insert(Arc::new(opened))))
    }

    fn prepared(&self) -> MutexGuard<'_, BTreeSet<Nqn>> {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What of it is a leg's.
pub fn of(seen: &[Exported], leg: Uuid) -> impl Iterator<Item = &Exported> {
    seen.iter().filter(move |seen| seen.nqn.uuid() == leg)
}

fn generation(export: &LegExport) -> u64 {
    export.generation.unsigned_abs()
}

fn trouble(error: &FabricError) -> Trouble {
    let reason = match error {
        FabricError::NoModule { .. } => "NoModule",
        FabricError::NoAuthentication { .. } => "NoAuthentication",
        _ => "NotExported",
    };
    (reason, error.to_string())
}
