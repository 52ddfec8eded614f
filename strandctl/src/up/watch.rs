//! Changes of the rack's objects, as they come.

use super::progress::Progress;
use crate::text::Style;
use futures::{Stream, StreamExt, TryStreamExt, stream::select};
use kube::{
    Api, Client,
    runtime::{WatchStreamExt, watcher},
};
use strand_api::{Drive, MemoryPool};

/// A change of an object.
pub enum Change {
    /// A drive.
    Drive(watcher::Event<Drive>),
    /// A pool.
    Pool(watcher::Event<MemoryPool>),
}

impl Change {
    /// Takes it into the picture; returns a line if it says something new.
    pub fn told_by(self, progress: &mut Progress, style: Style) -> Option<String> {
        use watcher::Event::{Apply, Delete, InitApply};
        match self {
            Change::Drive(Apply(drive) | InitApply(drive)) => progress.drive(style, drive),
            Change::Drive(Delete(drive)) => progress.drive_gone(&drive),
            Change::Pool(Apply(pool) | InitApply(pool)) => progress.pool(style, pool),
            Change::Pool(Delete(pool)) => progress.pool_gone(&pool),
            Change::Drive(_) | Change::Pool(_) => None,
        }
    }
}

/// Drives and pools, present ones first. Never ends.
pub fn changes(client: &Client) -> impl Stream<Item = Change> + use<> {
    let drives = watcher(
        Api::<Drive>::all(client.clone()),
        watcher::Config::default(),
    );
    let pools = watcher(
        Api::<MemoryPool>::all(client.clone()),
        watcher::Config::default(),
    );
    // A watch that breaks is begun again; only the log needs to know.
    let heard = |error: &watcher::Error| tracing::warn!(%error, "watch broken off");
    let drives = drives
        .default_backoff()
        .inspect_err(heard)
        .filter_map(async |event| event.ok());
    let pools = pools
        .default_backoff()
        .inspect_err(heard)
        .filter_map(async |event| event.ok());
    select(
        drives.map(Change::Drive).boxed(),
        pools.map(Change::Pool).boxed(),
    )
}
