//! Legs that are copied from other drives, of this node or ([`fetch`]) of others, each on a thread of its own: a pass over a drive waits for none
//! of them, it asks how far they are.

mod fetch;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use strand_volumes::{CopyOrder, Drive, Storage, VolumeError};
use uuid::Uuid;

/// Progress is told in this many parts of a leg's size.
const PARTS: u64 = 16;
/// Between two attempts at a copy that failed.
const RETRY: Duration = Duration::from_secs(60);

/// The copies under way on this node. Clones are the same.
#[derive(Clone, Default)]
pub struct Copies(Arc<Mutex<BTreeMap<Key, Copying>>>);

/// The drive that a copy is made on, and the leg's name there.
type Key = (Uuid, String);

struct Copying {
    order: CopyOrder,
    through: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    failed: Option<(Instant, Arc<VolumeError>)>,
    /// Why it does not get on just now, though nothing failed.
    waits: Option<String>,
}

/// How far a copy is.
pub enum Progress {
    /// So many bytes are there.
    Through(u64),
    /// It failed, and will be tried again.
    Failed(Arc<VolumeError>),
    /// It waits for its source's node, with so many bytes there.
    Waits(u64, String),
    /// No open drive has what is to be copied.
    NoSource,
}

impl Copies {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Copying>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that a copy is being made; how far it is. `wake` is called when there is news.
    pub fn tend(
        &self,
        storage: &Storage,
        to: &Arc<Drive>,
        order: &CopyOrder,
        wake: impl Fn() + Send + 'static,
    ) -> Progress {
        let key = (to.id(), order.name.clone());
        if let Some(progress) = self.under_way(&key, order) {
            return progress;
        }
        let has = |drive: &Arc<Drive>| {
            let records = drive.records().unwrap_or_default();
            records.iter().any(|record| record.uuid == order.of)
        };
        let Some(from) = storage.drives().into_iter().find(has) else {
            return Progress::NoSource;
        };
        let (through, stop) = self.begin(&key, order);
        let (this, to, order) = (self.clone(), Arc::clone(to), order.clone());
        let work = move || {
            let size = |record: &strand_volumes::LegRecord| record.size;
            let records = from.records().unwrap_or_default();
            let of = records.iter().find(|record| record.uuid == order.of);
            let part = (of.map_or(0, size) / PARTS).max(1);
            let copied = to.copy(&from, &order, |now| {
                let before = through.swap(now, Ordering::Relaxed);
                if now / part != before / part {
                    wake();
                }
                !stop.load(Ordering::Relaxed)
            });
            this.ended(&key, copied.map(|_| ()));
            wake();
        };
        // The runtime keeps threads for what blocks; this one is few, and may take hours.
        tokio::task::spawn_blocking(work);
        Progress::Through(0)
    }

    /// What is to be told of a copy that is under way, or failed a short while ago; none where it is to be begun.
    fn under_way(&self, key: &Key, order: &CopyOrder) -> Option<Progress> {
        let copies = self.lock();
        let copying = copies.get(key)?;
        match &copying.failed {
            Some((at, error)) if copying.order == *order && at.elapsed() < RETRY => {
                Some(Progress::Failed(Arc::clone(error)))
            }
            Some(_) => None,
            None => {
                // One with another order ends first.
                if copying.order != *order {
                    copying.stop.store(true, Ordering::Relaxed);
                }
                let through = copying.through.load(Ordering::Relaxed);
                Some(match &copying.waits {
                    Some(why) => Progress::Waits(through, why.clone()),
                    None => Progress::Through(through),
                })
            }
        }
    }

    /// Notes a copy that begins: how far it is, and whether it has to stop.
    fn begin(&self, key: &Key, order: &CopyOrder) -> (Arc<AtomicU64>, Arc<AtomicBool>) {
        let copying = Copying {
            order: order.clone(),
            through: Arc::default(),
            stop: Arc::default(),
            failed: None,
            waits: None,
        };
        let shared = (Arc::clone(&copying.through), Arc::clone(&copying.stop));
        self.lock().insert(key.clone(), copying);
        shared
    }

    /// Stops a copy that nobody wants any more; whether it still has to end.
    pub fn is_ending(&self, drive: Uuid, name: &str) -> bool {
        match self.lock().get(&(drive, name.to_owned())) {
            Some(copying) if copying.failed.is_none() => {
                copying.stop.store(true, Ordering::Relaxed);
                true
            }
            _ => false,
        }
    }

    fn ended(&self, key: &Key, result: Result<(), VolumeError>) {
        let mut copies = self.lock();
        match result {
            Ok(()) | Err(VolumeError::CopyStopped { .. } | VolumeError::CopyEnded { .. }) => {
                copies.remove(key);
            }
            Err(error) => {
                tracing::warn!(leg = key.1, %error, "a leg could not be copied; it is tried again");
                if let Some(copying) = copies.get_mut(key) {
                    copying.failed = Some((Instant::now(), Arc::new(error)));
                }
            }
        }
    }

    /// Stops all of them: they go on after the next start.
    pub fn stop(&self) {
        for copying in self.lock().values() {
            copying.stop.store(true, Ordering::Relaxed);
        }
    }

    /// Stops copies to a drive that nobody wants any more, and forgets what became of them.
    pub fn keep(&self, drive: Uuid, wanted: impl Fn(&str) -> bool) {
        self.lock().retain(|(of, name), copying| {
            if *of != drive || wanted(name) {
                return true;
            }
            copying.stop.store(true, Ordering::Relaxed);
            copying.failed.is_none()
        });
    }
}

/// Bytes as they are told: whole parts of `size`.
pub fn told(through: u64, size: u64) -> u64 {
    let part = (size / PARTS).max(1);
    (through / part * part).min(size)
}
