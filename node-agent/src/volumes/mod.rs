//! Volumes of one node: the legs that its drives hold, and their attachments.
//!
//! ```text
//!  plans ──Wanted──────► serving ──► slot (one drive's storage side) ──pass──► strand_volumes::Drive
//!  API watch of legs ──►    │                                                       │
//!  HTTP attach, detach ─►   │ ◄─────────── statuses, objects for orphans ───────────┘
//!  work ──Hold─────────►    └──► writes to the API
//! ```
//!
//! What becomes of a leg is decided in [`decide`], without I/O; [`tend`] does it on a blocking thread, one pass a drive at a time, so
//! that a drive that hangs keeps no other waiting.

pub mod ailment;
mod arrays;
mod connections;
mod decide;
mod error;
mod evacuate;
mod exports;
mod find;
mod metrics;
mod scratch;
mod serving;
mod slot;
mod tend;
mod told;
mod trim;
mod write;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use strand_api::Redundancy;
use strand_arrays::Host;
use strand_drives::{DriveHost, OwnedDrive};
use strand_placement::access::Rights;
use strand_volumes::{Storage, Throttle, VolumeError};
use tokio::sync::{mpsc, oneshot, watch};

use crate::effects::Writer;
use crate::peer_key::PeerKey;
use arrays::Arrayed;
use connections::Connections;
pub use error::AttachError;
use exports::Exports;
pub use metrics::VolumeMetrics;
pub use scratch::{ScratchReport, ScratchRequest};
use serving::{Ask, Parts, Serving};
pub use slot::Hold;

/// How an agent serves volumes.
#[derive(Clone, Debug)]
pub struct VolumesConfig {
    /// Storage sides are mounted below it; consumers of volumes must see it under the same path.
    pub root: PathBuf,
    /// Where control groups are mounted, which limit the I/O to volumes.
    pub control_groups: PathBuf,
    /// How other nodes reach this one's legs, and it theirs.
    pub fabric: FabricConfig,
    /// Where the files are that arrays of several legs need.
    pub arrays: Host,
}

/// How legs are reached across nodes.
#[derive(Clone, Debug, Default)]
pub struct FabricConfig {
    /// Address of this node, and TCP port, at which others reach its legs; none: it exports nothing.
    pub listen: Option<SocketAddr>,
    /// What the keys of attachments are made of; none: only pools with `insecureFabric` are attached across nodes.
    pub key: Option<PeerKey>,
}

/// What the agent's plans say of this node's drives.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// Drives with a storage side, by name of their object.
    pub drives: BTreeMap<String, OwnedDrive>,
    /// Drives that the node no longer sees.
    pub gone: std::collections::BTreeSet<String>,
    /// Of those, drives that take no new legs.
    pub cordoned: std::collections::BTreeSet<String>,
    /// Names of pools whose volumes are thin where nothing else is asked for.
    pub thin_pools: std::collections::BTreeSet<String>,
    /// Who may use the pools, by their names.
    pub rights: BTreeMap<String, Rights>,
    /// Whether the machine was looked over and every drive of ours taken back, or found not to be had.
    pub settled: bool,
}

/// How a drive's storage side stands, as far as its Drive object tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorageStanding {
    /// Bytes that all thick legs of volumes together can have: scratch space of pods is taken out; 0 where it cannot be served.
    pub usable: u64,
    /// Thousandths of its file system that are in use.
    pub used_thousandths: u64,
    /// What ails it.
    pub ailment: Option<ailment::Ailment>,
}

/// How a volume is to be attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AttachRequest {
    /// Generation of the attachment, as the operator granted it.
    pub generation: u64,
    /// Whether the device shall refuse writes.
    #[serde(default)]
    pub read_only: bool,
}

/// An attached volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttachedVolume {
    /// Its block device.
    pub device: PathBuf,
}

/// A leg on this node, as `/volumes` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LegReport {
    /// Its volume.
    pub volume: String,
    /// The snapshot that it is, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// The directory of the pod whose scratch space it is, if it is that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch: Option<PathBuf>,
    /// Its name on the drive.
    pub leg: String,
    /// Name of the Drive object.
    pub drive: String,
    /// UUID of its bytes.
    pub uuid: String,
    /// Bytes that its consumer sees.
    pub size: u64,
    /// Bytes that it takes on the drive, those that it shares with others included.
    pub allocated: u64,
    /// Its device, while it is attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<PathBuf>,
    /// Whether it is attached for reading only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// The highest attachment generation that it has seen.
    pub generation: u64,
    /// Its file, for `mount -o loop`.
    pub path: PathBuf,
}

/// Volumes as the rest of the agent sees them. Clones are the same.
#[derive(Clone)]
pub struct Volumes {
    asks: mpsc::UnboundedSender<Ask>,
    standing: watch::Receiver<BTreeMap<String, StorageStanding>>,
    storage: Arc<Storage>,
    connections: Connections,
    arrayed: Arrayed,
    metrics: VolumeMetrics,
}

impl Volumes {
    /// Waits for drives to serve; needs a tokio runtime.
    pub(crate) fn start(
        config: &VolumesConfig,
        node: &str,
        state_dir: Option<&Path>,
        client: kube::Client,
        host: Arc<dyn DriveHost>,
        writer: Writer,
    ) -> Self {
        let (asks, asked) = mpsc::unbounded_channel();
        let (tell, standing) = watch::channel(BTreeMap::new());
        let throttle = Throttle::new(&config.control_groups);
        let storage = Storage::new(&config.root).throttled_by(throttle.clone());
        let storage = Arc::new(storage);
        let key = config.fabric.key.clone();
        let connections = Connections::new(client.clone(), node, key, state_dir, throttle);
        let arrayed = Arrayed::start(
            node,
            client.clone(),
            connections.clone(),
            config.arrays.clone(),
            asks.clone(),
        );
        let serving = Serving::new(Parts {
            node: node.to_owned(),
            client,
            host,
            storage: Arc::clone(&storage),
            exports: Arc::new(Exports::new(&config.fabric)),
            connections: connections.clone(),
            writer,
            asks: asks.clone(),
            standing: tell,
        });
        let metrics = serving.metrics();
        tokio::spawn(serving.run(asked));
        Self {
            asks,
            standing,
            storage,
            connections,
            arrayed,
            metrics,
        }
    }

    /// What is shown of them as metrics.
    pub fn metrics(&self) -> VolumeMetrics {
        self.metrics.clone()
    }

    /// Says what shall be served from now on.
    pub fn serve(&self, wanted: Wanted) {
        self.ask(Ask::Serve(Box::new(wanted)));
    }

    /// Closes a drive's storage side, as far as it can be, until the hold is dropped: one without legs is made blank besides; one with
    /// legs that are attached stays open. None once the agent ends.
    pub async fn hold(&self, drive: &str) -> Option<Hold> {
        let (held, hold) = oneshot::channel();
        let drive = drive.to_owned();
        self.ask(Ask::Hold { drive, held });
        hold.await.ok()
    }

    /// How the storage sides stand.
    pub fn standing(&self) -> watch::Receiver<BTreeMap<String, StorageStanding>> {
        self.standing.clone()
    }

    /// Makes a volume a block device of this node, wherever its bytes lie; one that is attached so stays as it is.
    ///
    /// # Errors
    /// [`AttachError`].
    pub async fn attach(
        &self,
        volume: &str,
        request: AttachRequest,
    ) -> Result<AttachedVolume, AttachError> {
        let (answer, found) = oneshot::channel();
        self.ask(Ask::Find {
            volume: volume.to_owned(),
            answer,
        });
        let found = match found.await.unwrap_or_else(|_| Err(ending(volume))) {
            Err(AttachError::NotHere { .. } | AttachError::Several { .. }) => {
                let granted = self.connections.granted(volume, &request).await?;
                return match granted.object.spec.redundancy {
                    Redundancy::None => self.connections.attach(&granted).await,
                    _ => self.arrayed.attach(granted).await,
                };
            }
            // It has moved away, and what it was before is still here.
            Err(unowned @ AttachError::Unowned { .. }) => {
                let granted = self.connections.granted(volume, &request).await;
                let granted = granted.ok().filter(|granted| granted.is_elsewhere());
                return match granted {
                    Some(granted) => self.connections.attach(&granted).await,
                    None => Err(unowned),
                };
            }
            found => found?,
        };
        let AttachRequest {
            generation,
            read_only,
        } = request;
        let (drive, leg) = (Arc::clone(&found.drive), found.leg.clone());
        let limits = BTreeMap::from([(leg.clone(), found.limits)]);
        let attached = blocking(volume, move || {
            let attached = drive.attach(&leg, generation, read_only)?;
            // A volume is of more use without its limits than not at all. What fails here fails with the next pass too, which tells.
            Ok((attached, drive.limit(&limits).is_ok()))
        });
        let attached = attached.await;
        if let Err(AttachError::Volume(VolumeError::Stale { recorded, .. })) = &attached {
            self.ask(Ask::Stale {
                drive: found.name.clone(),
                leg: found.leg,
                recorded: *recorded,
            });
        }
        let (attached, limited) = attached?;
        if !limited {
            self.ask(Ask::Look(found.name));
        }
        Ok(AttachedVolume {
            device: attached.device,
        })
    }

    /// Takes a volume's device away; when this returns it is gone, and what was written is durable.
    ///
    /// # Errors
    /// [`AttachError`]; [`AttachError::NotHere`] says that nothing of it is attached.
    pub async fn detach(&self, volume: &str) -> Result<(), AttachError> {
        if self.arrayed.detach(volume).await? || self.connections.detach(volume).await? {
            return Ok(());
        }
        let (answer, found) = oneshot::channel();
        self.ask(Ask::FindAttached {
            volume: volume.to_owned(),
            answer,
        });
        let found = found
            .await
            .unwrap_or_else(|_| Err((ending(volume), Vec::new())));
        let legs = match found {
            Ok(legs) => legs,
            Err((error, unserved)) => {
                let storage = Arc::clone(&self.storage);
                let detached = blocking(volume, move || {
                    let mut any = false;
                    for (drive, leg) in unserved {
                        any |= storage.detach_unanswering(drive, &leg)?;
                    }
                    Ok(any)
                });
                return match detached.await? {
                    true => Ok(()),
                    false => Err(error),
                };
            }
        };
        for found in legs {
            let (drive, leg) = (found.drive, found.leg);
            match blocking(volume, move || Ok(drive.detach(&leg)?)).await {
                // Deleted since it was found, which nothing is while it is attached.
                Err(AttachError::Volume(VolumeError::NotFound { .. })) => {}
                detached => detached?,
            }
            self.ask(Ask::Look(found.name));
        }
        Ok(())
    }

    /// The legs of all open drives.
    ///
    /// # Errors
    /// [`VolumeError`] where a drive does not answer.
    pub async fn report(&self) -> Result<Vec<LegReport>, AttachError> {
        let (answer, drives) = oneshot::channel();
        self.ask(Ask::Drives(answer));
        let drives = drives.await.unwrap_or_default();
        blocking("", move || Ok(find::report(&drives)?)).await
    }

    /// Ends. Everything stays mounted and attached: pods go on.
    pub async fn end(&self) {
        let (ended, end) = oneshot::channel();
        self.ask(Ask::End(ended));
        // A task that has ended already needs no waiting.
        let _ = end.await;
    }

    fn ask(&self, ask: Ask) {
        // The task ends only when the agent does; who waits for an answer learns it from the channel.
        let _ = self.asks.send(ask);
    }
}

fn ending(volume: &str) -> AttachError {
    AttachError::NotYet {
        volume: volume.to_owned(),
        why: "the agent is ending".into(),
    }
}

async fn blocking<T: Send + 'static>(
    volume: &str,
    work: impl FnOnce() -> Result<T, AttachError> + Send + 'static,
) -> Result<T, AttachError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(AttachError::NotYet {
            volume: volume.to_owned(),
            why: "the agent's work on it broke off; please report this".into(),
        }),
    }
}
