//! What is started: scans, work on drives, writes of objects.

use std::sync::Arc;
use std::time::Instant;

use super::{Done, State, Worked};
use kube::ResourceExt;
use strand_api::Drive;
use strand_drives::DriveError;
use uuid::Uuid;

use crate::happening::{self, Happening};
use crate::maps::{self};
use crate::plan::Write;
use crate::view::Now;
use crate::work::{Job, Work, WorkKind};

impl State {
    pub(super) fn start_scan(&mut self, now: &Now, wake: &mut Instant) {
        if self.scanning.under_way {
            return;
        }
        if now.at < self.scanning.at {
            *wake = self.scanning.at.min(*wake);
            return;
        }
        self.scanning.under_way = true;
        self.scanning.at = now.at + self.config.rescan;
        let host = self.host.clone();
        self.effects.push(Box::pin(async move {
            let scan = tokio::task::spawn_blocking(move || host.scan()).await;
            Done::Scanned(scan.unwrap_or_else(|_| {
                Err(DriveError::Io {
                    path: "/".into(),
                    action: "scanning",
                    source: std::io::Error::other("it broke off; please report this"),
                })
            }))
        }));
    }

    /// Keeps the maps that wait for it, one at a time.
    pub(super) fn start_keeping(&mut self, now: &Now, wake: &mut Instant) {
        if self.keeping || !self.maps.waits() {
            return;
        }
        if now.at < self.keep_at {
            *wake = self.keep_at.min(*wake);
            return;
        }
        let Some((dir, map)) = self.maps.take_waiting() else {
            return;
        };
        self.keeping = true;
        self.effects.push(Box::pin(async move {
            let kept = tokio::task::spawn_blocking(move || {
                let result = maps::keep(&dir, &map);
                (map, result)
            });
            Done::Kept(kept.await.ok())
        }));
    }

    pub(super) fn start_work(&mut self, name: &str, work: Work, now: &Now) {
        if let Work::Adopt(order) = &work
            && self.key_is_taken(name, &order.drive_id)
        {
            let id = Uuid::new_v4();
            if let Some(entry) = self.drives.get_mut(name) {
                entry.memory.drive_id = id;
                entry.memory.look_at = Some(now.at);
            }
            return;
        }
        let operation = match work.kind() {
            WorkKind::Release | WorkKind::Wipe => {
                self.mirror.operation(name).and_then(ResourceExt::uid)
            }
            _ => None,
        };
        let Some(entry) = self.drives.get_mut(name) else {
            return;
        };
        let memory = &mut entry.memory;
        let Some(seen) = memory.seen.clone() else {
            return;
        };
        memory.begin(&work, now.at);
        tracing::debug!(drive = name, work = work.kind().words(), "begins");
        let job = Arc::new(Job {
            host: self.host.clone(),
            work,
            seen,
            owned: memory.owned.clone(),
            observation: memory.observation.clone(),
            pools: self.mirror.index.known.clone(),
            stop: self.stop.clone(),
        });
        let (name, incarnation) = (name.to_owned(), memory.incarnation);
        // What changes the partitions must find them closed.
        let changes = matches!(
            job.work.kind(),
            WorkKind::Recarve | WorkKind::Release | WorkKind::Wipe
        );
        let context = self.context.clone().filter(|_| changes);
        let volumes = self.volumes.clone().filter(|_| changes);
        let told = (operation.clone(), self.tell_progress.clone());
        self.effects.push(Box::pin(async move {
            let _held = match &context {
                Some(context) => context.hold(&name).await,
                None => None,
            };
            let _kept = match &volumes {
                Some(volumes) => volumes.hold(&name).await,
                None => None,
            };
            let doing = job.clone();
            let outcome = tokio::task::spawn_blocking(move || {
                doing.perform(&mut |tens| {
                    if let (Some(operation), sender) = &told {
                        // An agent that ends needs no progress.
                        let _ = sender.send((operation.clone(), tens));
                    }
                })
            });
            let outcome = outcome.await.unwrap_or_else(|_| job.broken());
            Done::Worked(Box::new(Worked {
                name,
                work: job.work.clone(),
                outcome,
                incarnation,
                operation,
            }))
        }));
    }

    /// Whether another drive of this node has the first 32 bits of this id, by which the pool map tells a node's drives apart.
    pub(super) fn key_is_taken(&self, name: &str, id: &Uuid) -> bool {
        let key = |id: &Uuid| id.as_fields().0;
        self.drives
            .iter()
            .filter(|(other, _)| *other != name)
            .any(|(_, entry)| {
                let memory = &entry.memory;
                let labelled = memory.label().map(|label| key(&label.drive_id));
                key(&memory.drive_id) == key(id) || labelled == Some(key(id))
            })
    }

    pub(super) fn start_write(&mut self, name: &str, write: Write, now: &Now) {
        let object = self.mirror.drives.get(name).cloned();
        let happenings = self.happenings(object.as_ref(), &write);
        let Some(entry) = self.drives.get_mut(name) else {
            return;
        };
        entry.writing.in_flight = true;
        if let Write::Status(status) = &write {
            entry.writing.last_status = Some(now.at);
            tracing::info!(
                drive = name,
                verdict = ?status.verdict,
                phase = ?status.phase,
                reasons = status.display_reasons,
                "drive"
            );
        }
        let (writer, name, kind) = (self.writer.clone(), name.to_owned(), write.kind());
        self.effects.push(Box::pin(async move {
            Done::Wrote {
                result: writer.write(name.clone(), object, write).await,
                name,
                kind,
                happenings,
            }
        }));
    }

    pub(super) fn happenings(&self, object: Option<&Drive>, write: &Write) -> Vec<Happening> {
        match write {
            Write::Status(status) => {
                let before = object.and_then(|object| object.status.as_ref());
                happening::of_drive(&self.config.node_name, before, status)
            }
            Write::Operation(name, status) => self
                .mirror
                .operations
                .get(name)
                .and_then(|operation| happening::of_operation(operation, status))
                .into_iter()
                .collect(),
            Write::Create | Write::Delete | Write::Refresh => Vec::new(),
        }
    }
}
