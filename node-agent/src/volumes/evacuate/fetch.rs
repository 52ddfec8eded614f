//! Legs that are copied from other nodes: connected to, copied, and disconnected, again and again until they are whole. A source that is not there
//! is waited for; what was copied by then stays.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use strand_volumes::{Drive, Foreign, LegRecord, VolumeError};

use super::{Copies, Key, PARTS, Progress};
use crate::volumes::connections::Connections;
use crate::volumes::decide::Fetch;

/// Between two attempts to reach a source.
const AGAIN: Duration = Duration::from_secs(2);

impl Copies {
    /// Sees to it that a leg is being copied from another node; how far that is. `wake` is called when there is news.
    pub fn fetch(
        &self,
        connections: &Connections,
        to: &Arc<Drive>,
        fetch: &Fetch,
        wake: impl Fn() + Clone + Send + Sync + 'static,
    ) -> Progress {
        let key = (to.id(), fetch.order.name.clone());
        if let Some(progress) = self.under_way(&key, &fetch.order) {
            return progress;
        }
        let (through, stop) = self.begin(&key, &fetch.order);
        let work = Work {
            copies: self.clone(),
            connections: connections.clone(),
            to: Arc::clone(to),
            fetch: fetch.clone(),
            key,
            stop,
        };
        tokio::spawn(async move {
            let part = (work.fetch.leg.size / PARTS).max(1);
            let tell = wake.clone();
            let told = move |now: u64| {
                let before = through.swap(now, Ordering::Relaxed);
                if now / part != before / part {
                    tell();
                }
            };
            let copied = work.until_whole(told, &wake).await;
            work.copies.ended(&work.key, copied.map(drop));
            wake();
        });
        Progress::Through(0)
    }

    /// Notes why a copy does not get on, or that it does; whether that is news.
    fn waits(&self, key: &Key, why: Option<String>) -> bool {
        let mut copies = self.lock();
        let Some(copying) = copies.get_mut(key) else {
            return false;
        };
        let news = copying.waits != why;
        copying.waits = why;
        news
    }
}

/// One copy.
struct Work {
    copies: Copies,
    connections: Connections,
    to: Arc<Drive>,
    fetch: Fetch,
    key: Key,
    stop: Arc<AtomicBool>,
}

impl Work {
    async fn until_whole(
        &self,
        told: impl Fn(u64) + Clone + Send + 'static,
        wake: &(impl Fn() + Sync),
    ) -> Result<LegRecord, VolumeError> {
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Err(VolumeError::CopyStopped {
                    name: self.fetch.order.name.clone(),
                });
            }
            let why = match self.connections.borrow(&self.fetch).await {
                Ok(foreign) => {
                    if self.copies.waits(&self.key, None) {
                        wake();
                    }
                    match self.copy(foreign, told.clone()).await {
                        Err(away @ VolumeError::Away { .. }) => away.to_string(),
                        ended => {
                            self.give_back().await;
                            return ended;
                        }
                    }
                }
                Err(error) => error.to_string(),
            };
            self.give_back().await;
            if self.copies.waits(&self.key, Some(why)) {
                wake();
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn copy(
        &self,
        foreign: Foreign,
        told: impl Fn(u64) + Send + 'static,
    ) -> Result<LegRecord, VolumeError> {
        let (to, stop, fetch) = (
            Arc::clone(&self.to),
            Arc::clone(&self.stop),
            self.fetch.clone(),
        );
        let work = move || {
            to.fetch(&foreign, &fetch.order, &fetch.leg, |now| {
                told(now);
                !stop.load(Ordering::Relaxed)
            })
        };
        // The runtime keeps threads for what blocks; this one is few, and may take hours.
        let copied = tokio::task::spawn_blocking(work).await;
        copied.unwrap_or_else(|_| {
            Err(VolumeError::CopyStopped {
                name: self.fetch.order.name.clone(),
            })
        })
    }

    async fn give_back(&self) {
        if let Err(error) = self.connections.give_back(&self.fetch).await {
            tracing::info!(%error, leg = self.fetch.order.name, "the connection that it was copied by is ended later");
        }
    }
}
