//! Reaching the legs of a volume, and letting go of them: connections to those on other nodes, loop devices of those on this one.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use strand_api::{Attachment, PlacedLeg};
use strand_arrays::{Level, Wanted, unrecorded};
use strand_fabric::{Initiator, Nqn};
use strand_volumes::{IoLimits, VolumeError};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::Parts;
use crate::volumes::connections::{PATIENCE, Record};
use crate::volumes::serving::Ask;
use crate::volumes::{AttachError, blocking};

impl Parts {
    /// Reaches a leg in an attachment, for which there is a record; its device, where it lies here. One on another node has a connection
    /// then, whose device comes soon. Done already where it is.
    pub(super) async fn reach(
        &self,
        volume: &str,
        leg: &PlacedLeg,
        uuid: Uuid,
        attachment: &Attachment,
        level: Level,
    ) -> Result<Option<PathBuf>, AttachError> {
        if leg.node_name == self.node {
            return self.give(volume, uuid, attachment).await.map(Some);
        }
        // Somebody decides on what waits for a leg, unless no leg can be given up.
        let patience = (level == Level::Stripe).then_some(PATIENCE);
        let remote = self.connections.remote(volume, leg, attachment, patience);
        let (remote, _) = remote.await?;
        let local = self.connections.local(volume)?;
        let name = volume.to_owned();
        blocking(volume, move || local.connect(&name, &remote).map(|_| None)).await
    }

    /// Keeps what this node has of a volume, before it has it.
    pub(super) async fn note(&self, record: Record) -> Result<(), AttachError> {
        let local = self.connections.local(&record.volume)?;
        let volume = record.volume.clone();
        blocking(&volume, move || local.put(&record)).await
    }

    async fn give(
        &self,
        volume: &str,
        uuid: Uuid,
        attachment: &Attachment,
    ) -> Result<PathBuf, AttachError> {
        let (answer, found) = oneshot::channel();
        let ask = Ask::FindLeg {
            volume: volume.to_owned(),
            uuid,
            answer,
        };
        // Who serves ends with the agent; then nobody answers.
        let _ = self.asks.send(ask);
        let ending = |_| AttachError::NotYet {
            volume: volume.to_owned(),
            why: "the agent is ending".into(),
        };
        let found = found.await.map_err(ending)??;
        let (generation, read_only) = (attachment.generation.unsigned_abs(), attachment.read_only);
        let (drive, leg) = (Arc::clone(&found.drive), found.leg.clone());
        let given = blocking(volume, move || {
            Ok(drive.attach(&leg, generation, read_only)?)
        })
        .await;
        if let Err(AttachError::Volume(VolumeError::Stale { recorded, .. })) = &given {
            let _ = self.asks.send(Ask::Stale {
                drive: found.name,
                leg: found.leg,
                recorded: *recorded,
            });
        }
        given.map(|given| given.device)
    }

    /// Ends the connection to a leg that counts for nothing any more; what waits for it fails.
    pub(super) async fn cut(&self, volume: &str, nqn: Nqn) -> Result<(), AttachError> {
        blocking(volume, move || Ok(Initiator::open()?.disconnect(nqn)?)).await
    }

    /// Takes away the devices of a volume's legs that lie here, but for these.
    pub(super) async fn take_back(
        &self,
        volume: &str,
        but: BTreeSet<Uuid>,
    ) -> Result<(), AttachError> {
        let (answer, found) = oneshot::channel();
        let _ = self.asks.send(Ask::FindAttached {
            volume: volume.to_owned(),
            answer,
        });
        // A leg on a drive that is not open is nobody's any more once its array is gone; its loop is taken away when that opens.
        let Ok(Ok(found)) = found.await else {
            return Ok(());
        };
        for found in found {
            let but = but.clone();
            let (drive, name) = (Arc::clone(&found.drive), found.leg);
            let taken = blocking(volume, move || {
                let records = drive.records()?;
                let record = records.iter().find(|record| record.name == name);
                match record {
                    Some(record) if !but.contains(&record.uuid) => Ok(drive.detach(&name)?),
                    _ => Ok(()),
                }
            });
            match taken.await {
                // Deleted since it was found.
                Err(AttachError::Volume(VolumeError::NotFound { .. })) => {}
                taken => taken?,
            }
            let _ = self.asks.send(Ask::Look(found.name));
        }
        Ok(())
    }

    /// Takes down a volume's array and lets go of all its legs, and then of its record. A volume that is in use stays as it is, and one whose
    /// array goes on without a leg that its record counts, where that can still be recorded: the flush of an unmount may be what that leg failed.
    pub(super) async fn give_back(
        &self,
        record: Record,
        here: Vec<PathBuf>,
        recorded: Option<(Wanted, Vec<PlacedLeg>)>,
    ) -> Result<(), AttachError> {
        let volume = record.volume.clone();
        let local = self.connections.local(&volume)?;
        if let (Ok(arrays), Some(array)) = (&self.arrays, record.array) {
            let (recorded, legs) = recorded.unzip();
            let (arrays, local, name) = (Arc::clone(arrays), local.clone(), volume.clone());
            let limited = record.limits();
            let mut devices = here;
            let sight = self.sight().await;
            let connected = sight
                .connections
                .iter()
                .filter(|c| record.legs.contains(&c.nqn));
            devices.extend(connected.filter_map(|c| c.device.clone()));
            let stopped = blocking(&volume, move || {
                let running = arrays.find(array);
                if let (Some(running), Some(wanted)) = (&running, &recorded)
                    && !wanted.read_only
                    && unrecorded(wanted, running)
                {
                    let why =
                        "a leg that its array has given up is not recorded as lost yet".into();
                    return Err(AttachError::NotYet { volume: name, why });
                }
                // Of one whose record does not count any more, or that was not seen running, nobody knows.
                let ran = running.as_ref().filter(|running| running.started());
                let in_order = recorded.is_some_and(|wanted| !wanted.read_only)
                    && ran.is_some_and(|running| !running.resyncing);
                let device = running.map(|running| running.device());
                // They would outlive it, and be somebody else's.
                if let Some(device) = &device {
                    local.limit(device, IoLimits::default());
                }
                let stopped = arrays.stop(array, &devices);
                if let (Some(device), Err(_)) = (&device, &stopped) {
                    local.limit(device, limited);
                }
                match stopped {
                    Ok(()) => Ok(in_order),
                    Err(source) => Err(AttachError::Array {
                        volume: name,
                        source,
                    }),
                }
            });
            if stopped.await? {
                self.tell_stopped(&record, &legs.unwrap_or_default()).await;
            }
        }
        self.take_back(&volume, BTreeSet::new()).await?;
        blocking(&volume, move || local.leave(&record)).await
    }
}
