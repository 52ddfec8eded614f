//! Volumes whose legs lie on other nodes: connections of this node to them.
//!
//! Which volumes those are is kept in a small file each, written before the connection is made: with it a volume is detached with the
//! API away, and what an earlier process left is told from what somebody has.

mod borrow;
mod local;
mod record;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kube::{Api, Client, ResourceExt};
use strand_api::{Attachment, ExportedLeg, LegExport, PlacedLeg, PoolLeg, PoolVolume};
use strand_fabric::{Initiator, Nqn, Remote, Secret, Transport, rdma};
use strand_volumes::{IoLimits, Throttle};
use tokio::net::TcpStream;
use uuid::Uuid;

use super::decide::{limits, uuid};
use super::{AttachError, AttachRequest, AttachedVolume, blocking};
use crate::peer_key::PeerKey;
pub use borrow::milliseconds;
pub use local::Local;
pub use record::Record;
use record::is_name;

/// How long I/O waits for a node that went away: a reboot is no error.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// How long a node may take to answer.
const ANSWER: Duration = Duration::from_secs(2);

/// A volume that this node may attach.
#[derive(Clone)]
pub struct Granted {
    /// Its object.
    pub object: PoolVolume,
    /// By which it may.
    pub attachment: Attachment,
}

impl Granted {
    /// Whether all of it lies on another node than the one that may attach it.
    pub fn is_elsewhere(&self) -> bool {
        let legs = self.object.spec.legs.as_slice();
        matches!(legs, [leg] if leg.node_name != self.attachment.node)
    }
}

/// A leg as another node exports it to this one.
struct Way<'a> {
    nqn: Nqn,
    insecure: bool,
    there: &'a ExportedLeg,
    node: &'a str,
}

/// The connections of this node. Clones are the same.
#[derive(Clone)]
pub struct Connections {
    client: Client,
    node: String,
    key: Option<PeerKey>,
    /// None where nothing can be kept: nothing of other nodes is attached then.
    local: Option<Local>,
    sweeping: Arc<AtomicBool>,
}

impl Connections {
    pub fn new(
        client: Client,
        node: &str,
        key: Option<PeerKey>,
        state_dir: Option<&Path>,
        throttle: Throttle,
    ) -> Self {
        Self {
            client,
            node: node.to_owned(),
            key,
            local: state_dir.map(|dir| Local {
                records: dir.join("attachments"),
                throttle,
                copied: Arc::default(),
            }),
            sweeping: Arc::default(),
        }
    }

    /// What this node keeps of attachments, and does about them.
    ///
    /// # Errors
    /// [`AttachError::Refused`] where it keeps nothing.
    pub fn local(&self, volume: &str) -> Result<Local, AttachError> {
        self.local.clone().ok_or_else(|| AttachError::Refused {
            volume: volume.to_owned(),
            why:
                "its bytes lie on another node, and this agent keeps no state; give it --state-dir"
                    .into(),
        })
    }

    /// All records of what this node has attached.
    pub fn records(&self) -> Vec<Record> {
        let local = self.local.as_ref();
        local.map_or_else(Vec::new, |local| record::all(&local.records))
    }

    /// Makes a volume whose leg lies on another node a device of this one.
    ///
    /// # Errors
    /// [`AttachError`].
    pub async fn attach(&self, granted: &Granted) -> Result<AttachedVolume, AttachError> {
        let Granted { object, attachment } = granted;
        let volume = object.name_any();
        let local = self.local(&volume)?;
        let [placed] = object.spec.legs.as_slice() else {
            return Err(AttachError::NotYet {
                volume,
                why: "its legs are not placed yet".into(),
            });
        };
        if placed.node_name == self.node {
            return Err(AttachError::NotHere { volume });
        }
        let (remote, limits) = self
            .remote(&volume, placed, attachment, Some(PATIENCE))
            .await?;
        let record = Record {
            volume: volume.clone(),
            generation: remote.nqn.generation(),
            read_only: attachment.read_only,
            legs: vec![remote.nqn],
            array: None,
            iops: limits.iops,
            bandwidth: limits.bandwidth,
        };
        let device = blocking(&volume, move || local.attach(&record, &remote));
        Ok(AttachedVolume {
            device: device.await?,
        })
    }

    /// Takes a volume's connections away; whether it had any.
    ///
    /// # Errors
    /// [`AttachError`], above all while its device is in use.
    pub async fn detach(&self, volume: &str) -> Result<bool, AttachError> {
        let Some(local) = self.local.clone().filter(|_| is_name(volume)) else {
            return Ok(false);
        };
        let name = volume.to_owned();
        blocking(volume, move || local.detach(&name)).await
    }

    /// What the API says of a volume that is granted to this node.
    ///
    /// # Errors
    /// [`AttachError`]; [`AttachError::NotHere`] where there is no such volume.
    pub async fn granted(
        &self,
        volume: &str,
        request: &AttachRequest,
    ) -> Result<Granted, AttachError> {
        let not_yet = |why: String| AttachError::NotYet {
            volume: volume.to_owned(),
            why,
        };
        let volumes: Api<PoolVolume> = Api::all(self.client.clone());
        let object = match is_name(volume) {
            true => volumes.get_opt(volume).await.map_err(|error| {
                not_yet(format!("the API does not tell where it lies ({error})"))
            })?,
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
            return Err(AttachError::Refused {
                volume: volume.to_owned(),
                why: "it is granted in another way than it is asked for".into(),
            });
        }
        Ok(Granted {
            attachment: attachment.clone(),
            object,
        })
    }

    /// How this node reaches a leg in an attachment, and what limits it.
    ///
    /// # Errors
    /// [`AttachError::NotYet`] while its node does not export it, or does not answer.
    pub async fn remote(
        &self,
        volume: &str,
        placed: &PlacedLeg,
        attachment: &Attachment,
        patience: Option<Duration>,
    ) -> Result<(Remote, IoLimits), AttachError> {
        let not_yet = |why: String| AttachError::NotYet {
            volume: volume.to_owned(),
            why,
        };
        let legs: Api<PoolLeg> = Api::all(self.client.clone());
        let leg = legs.get_opt(&placed.name).await;
        let leg =
            leg.map_err(|error| not_yet(format!("the API does not tell where it lies ({error})")))?;
        let waits = || {
            not_yet(format!(
                "leg {} is not exported by node {} yet",
                placed.name, placed.node_name
            ))
        };
        let leg = leg.ok_or_else(waits)?;
        let (bytes, export, there) = exported(&leg, placed, attachment).ok_or_else(waits)?;
        let nqn = Nqn::leg(bytes, attachment.generation.unsigned_abs());
        let way = Way {
            nqn,
            insecure: export.insecure,
            there,
            node: &placed.node_name,
        };
        let remote = self.reach(volume, &way, patience).await?;
        Ok((remote, limits(leg.spec.limits.as_ref())))
    }

    /// How this node connects to a leg that another one exports to it, if that answers.
    async fn reach(
        &self,
        volume: &str,
        way: &Way<'_>,
        patience: Option<Duration>,
    ) -> Result<Remote, AttachError> {
        let not_yet = |why: String| AttachError::NotYet {
            volume: volume.to_owned(),
            why,
        };
        let Way { nqn, node, .. } = *way;
        let waits = || {
            not_yet(format!(
                "node {node} tells no address at which it is reached"
            ))
        };
        let address: IpAddr = way.there.address.parse().map_err(|_| waits())?;
        let port = u16::try_from(way.there.port).map_err(|_| waits())?;
        let secret = match (&self.key, way.insecure) {
            (_, true) => None,
            (Some(key), false) => Some(Secret::derived(key.bytes(), nqn)),
            (None, false) => {
                return Err(AttachError::Refused {
                    volume: volume.to_owned(),
                    why: "this node's agent has no --peer-key-file to make its key of".into(),
                });
            }
        };
        Initiator::open()?;
        // The kernel makes one connection at a time, and waits minutes for a host that is down.
        let answers = tokio::time::timeout(ANSWER, TcpStream::connect((address, port))).await;
        if !matches!(answers, Ok(Ok(_))) {
            return Err(not_yet(format!(
                "node {node} does not answer at {address} port {port}"
            )));
        }
        Ok(Remote {
            nqn,
            transport: match way.there.rdma && rdma::is_there(rdma::End::Initiator) {
                true => Transport::Rdma,
                false => Transport::Tcp,
            },
            address,
            port,
            secret,
            patience,
        })
    }

    /// Finds connections that nobody has any more, and takes them away; returns at once.
    pub fn sweep(&self) {
        let Some(local) = self.local.clone() else {
            return;
        };
        if self.sweeping.swap(true, Ordering::AcqRel) {
            return;
        }
        let connections = self.clone();
        tokio::spawn(async move {
            if let Err(error) = connections.sweep_now(local).await {
                tracing::warn!(%error, "connections that nobody has any more cannot be looked for");
            }
            connections.sweeping.store(false, Ordering::Release);
        });
    }

    async fn sweep_now(&self, local: Local) -> Result<(), AttachError> {
        let seen = local.clone();
        let doubtful = blocking("", move || seen.sweep()).await?;
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
            let (local, volume) = (local.clone(), record.volume.clone());
            match blocking(&volume, move || local.leave(&record)).await {
                Ok(()) => tracing::info!(
                    volume,
                    "what is left of an earlier attachment was taken away"
                ),
                Err(error) => {
                    tracing::info!(%error, "a connection that was fenced stays while it is in use");
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
