//! The drives of this node that serve a pool's context memory.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use strand_context_store::{Namespace, Share, Store, Value};
use strand_kv_door::{Blocks, Described, Page, Refused, StoreBlocks, Totals, refused};

use crate::frame::{Deletion, Key, Spot};

#[derive(Debug, Default)]
pub(crate) struct Drives {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    here: BTreeMap<u32, Arc<StoreBlocks>>,
    /// Shares of namespaces.
    shares: Vec<(Namespace, Share)>,
    /// Drives that somebody asked for in vain.
    missed: HashSet<u32>,
}

impl Drives {
    pub(crate) fn add(&self, drive: u32, store: Arc<Store>) {
        let mut state = self.lock();
        store.set_shares(&state.shares);
        let blocks = Arc::new(StoreBlocks::new(store));
        state.here.insert(drive, blocks);
    }

    pub(crate) fn set_shares(&self, shares: Vec<(Namespace, Share)>) {
        let mut state = self.lock();
        if state.shares != shares {
            for blocks in state.here.values() {
                blocks.store().set_shares(&shares);
            }
            state.shares = shares;
        }
    }

    pub(crate) fn remove(&self, drive: u32) {
        self.lock().here.remove(&drive);
    }

    pub(crate) fn get(&self, drive: u32) -> Option<Arc<StoreBlocks>> {
        let mut state = self.lock();
        let found = state.here.get(&drive).cloned();
        if found.is_none() {
            state.missed.insert(drive);
        }
        found
    }

    /// Whether somebody asked for a drive in vain since this was last said.
    pub(crate) fn was_missed(&self, drive: u32) -> bool {
        self.lock().missed.remove(&drive)
    }

    pub(crate) fn keys(&self) -> Vec<u32> {
        self.lock().here.keys().copied().collect()
    }

    pub(crate) fn exists(&self, namespace: Namespace, keys: &[Key]) -> Vec<bool> {
        let mut there = vec![false; keys.len()];
        for (blocks, at) in self.grouped(keys) {
            let group: Vec<&[u8]> = at.iter().map(|at| keys[*at].key.as_slice()).collect();
            let found = blocks.store().exists_many(namespace, &group);
            for (at, found) in at.iter().zip(found) {
                there[*at] = found;
            }
        }
        there
    }

    pub(crate) fn leading_run(&self, namespace: Namespace, keys: &[Key]) -> usize {
        let here = self.keys();
        let away = keys.iter().position(|key| !here.contains(&key.drive));
        let mut run = away.unwrap_or(keys.len());
        for (blocks, at) in self.grouped(&keys[..run]) {
            let group: Vec<&[u8]> = at.iter().map(|at| keys[*at].key.as_slice()).collect();
            let present = blocks.store().longest_run(namespace, &group);
            run = run.min(at.get(present).copied().unwrap_or(run));
        }
        run
    }

    /// The keys' positions by drive.
    fn grouped(&self, keys: &[Key]) -> Vec<(Arc<StoreBlocks>, Vec<usize>)> {
        let mut groups: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (at, key) in keys.iter().enumerate() {
            groups.entry(key.drive).or_default().push(at);
        }
        let groups = groups.into_iter();
        groups
            .filter_map(|(drive, at)| Some((self.get(drive)?, at)))
            .collect()
    }

    /// Opens a value to be read in parts, and leases it. `None`: the drive is not here.
    pub(crate) async fn open(&self, spot: &Spot) -> Option<Result<Option<Value>, Refused>> {
        let blocks = self.get(spot.at.drive)?;
        let (namespace, key) = (spot.namespace, spot.at.key.as_slice());
        let _leased = blocks.store().exists(namespace, key);
        let opened = blocks.store().open_value(namespace, key).await;
        Some(opened.map_err(refused))
    }

    /// `None`: the drive is not here.
    pub(crate) async fn describe(&self, spot: &Spot) -> Option<Result<Option<Described>, Refused>> {
        let blocks = self.get(spot.at.drive)?;
        Some(blocks.describe(spot.namespace, &spot.at.key).await)
    }

    /// `None`: the drive is not here.
    pub(crate) async fn expire(
        &self,
        spot: &Spot,
        left: Option<Duration>,
    ) -> Option<Result<bool, Refused>> {
        let blocks = self.get(spot.at.drive)?;
        Some(blocks.expire(spot.namespace, &spot.at.key, left).await)
    }

    pub(crate) async fn delete(&self, spot: &Spot) -> Deletion {
        let Some(blocks) = self.get(spot.at.drive) else {
            return Deletion::Away;
        };
        match blocks.store().delete(spot.namespace, &spot.at.key).await {
            Ok(true) => Deletion::Deleted,
            Ok(false) => Deletion::Absent,
            Err(_) => Deletion::Failed,
        }
    }

    /// Of all drives; `None`: one of `wanted` is not here, and nothing was done.
    pub(crate) async fn flush(
        &self,
        namespace: Namespace,
        wanted: impl IntoIterator<Item = u32>,
    ) -> Option<Result<(), Refused>> {
        for drive in wanted {
            self.get(drive)?;
        }
        for drive in self.keys() {
            let blocks = self.get(drive)?;
            if let Err(error) = blocks.store().flush_namespace(namespace).await {
                return Some(Err(refused(error)));
            }
        }
        Some(Ok(()))
    }

    /// `None`: the drive is not here.
    pub(crate) async fn scan(
        &self,
        drive: u32,
        namespace: Namespace,
        cursor: u64,
        limit: usize,
    ) -> Option<Result<Page, Refused>> {
        let blocks = self.get(drive)?;
        Some(blocks.scan(namespace, cursor, limit).await)
    }

    pub(crate) async fn totals(&self, namespace: Namespace) -> Totals {
        let mut sum = Totals::default();
        for drive in self.keys() {
            if let Some(blocks) = self.get(drive)
                && let Ok(totals) = blocks.totals(namespace).await
            {
                sum.blocks += totals.blocks;
                sum.bytes += totals.bytes;
            }
        }
        sum
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
