//! Pool maps kept between runs, so that context memory can be served while the API is away and no map ever goes back.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use strand_api::PoolMapSpec;
use uuid::Uuid;

/// Why maps cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum MapsError {
    /// A file or directory cannot be used.
    #[error("{path}: {source}; check that the state directory is there and writable")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A map cannot be written as JSON.
    #[error("the map of pool {pool} cannot be written: {source}; please report this")]
    Json {
        /// The pool.
        pool: String,
        /// What is wrong.
        source: serde_json::Error,
    },
}

/// A map as it is kept in `<state dir>/maps/<pool id>.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeptMap {
    /// Name of the pool.
    pub pool: String,
    /// The map.
    #[serde(flatten)]
    pub map: PoolMapSpec,
}

/// What is remembered of a kept map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Name of the pool.
    pub pool: String,
    /// Its epoch.
    pub epoch: i64,
}

/// The newest map of each pool.
#[derive(Debug, Default)]
pub struct Maps {
    dir: Option<PathBuf>,
    kept: BTreeMap<String, Kept>,
    waiting: BTreeMap<String, KeptMap>,
    hold: bool,
    /// The newest maps themselves, by pool id, where they are held.
    newest: BTreeMap<Uuid, Newest>,
}

/// The newest map that is known of a pool.
#[derive(Clone, Debug)]
pub struct Newest {
    /// Name of the pool.
    pub pool: String,
    /// The map.
    pub map: Arc<PoolMapSpec>,
}

impl Maps {
    /// Reads what was kept; holds the maps themselves in memory where whoever serves by them asks for it. A file that cannot be read as a map is left where it is and counts as none: the API has the map.
    ///
    /// # Errors
    /// [`MapsError::Io`] when the directory cannot be made or read.
    pub fn load(state_dir: Option<&Path>, hold: bool) -> Result<Self, MapsError> {
        let Some(state_dir) = state_dir else {
            return Ok(Self {
                hold,
                ..Self::default()
            });
        };
        let dir = state_dir.join("maps");
        let error = |source| MapsError::Io {
            path: dir.clone(),
            source,
        };
        fs::create_dir_all(&dir).map_err(error)?;
        let mut kept = BTreeMap::new();
        let mut newest = BTreeMap::new();
        for entry in fs::read_dir(&dir).map_err(error)? {
            let path = entry.map_err(error)?.path();
            if path.extension().is_none_or(|ending| ending != "json") {
                continue;
            }
            let read = fs::read(&path)
                .map_err(|e| e.to_string())
                .and_then(|bytes| {
                    serde_json::from_slice::<KeptMap>(&bytes).map_err(|e| e.to_string())
                });
            match read {
                Ok(KeptMap { pool, map }) => {
                    if let Ok(id) = Uuid::parse_str(&map.pool_id)
                        && hold
                    {
                        let (pool, map) = (pool.clone(), Arc::new(map.clone()));
                        newest.insert(id, Newest { pool, map });
                    }
                    kept.insert(
                        map.pool_id,
                        Kept {
                            pool,
                            epoch: map.epoch,
                        },
                    );
                }
                Err(why) => {
                    tracing::warn!(path = %path.display(), why, "a kept pool map cannot be read and counts as none");
                }
            }
        }
        Ok(Self {
            dir: Some(dir),
            kept,
            waiting: BTreeMap::new(),
            hold,
            newest,
        })
    }

    /// The newest maps, kept or not, by pool id; none where they are not held.
    pub fn newest(&self) -> &BTreeMap<Uuid, Newest> {
        &self.newest
    }

    /// What is kept, by pool id.
    pub fn kept(&self) -> &BTreeMap<String, Kept> {
        &self.kept
    }

    /// Takes a map from the API, if it is newer than what is kept or waits to be. One whose pool id is none is no map: the id
    /// becomes a file name.
    pub fn offer(&mut self, pool: &str, map: &PoolMapSpec) {
        let Ok(id) = Uuid::parse_str(&map.pool_id) else {
            tracing::warn!(
                pool,
                id = map.pool_id,
                "a pool map without a valid pool id is left out"
            );
            return;
        };
        let newest = [
            self.kept.get(&map.pool_id).map(|kept| kept.epoch),
            self.waiting.get(&map.pool_id).map(|kept| kept.map.epoch),
        ]
        .into_iter()
        .flatten()
        .max();
        if newest.is_some_and(|newest| newest >= map.epoch) {
            return;
        }
        if self.hold {
            let newest = Newest {
                pool: pool.into(),
                map: Arc::new(map.clone()),
            };
            self.newest.insert(id, newest);
        }
        let Some(_) = &self.dir else {
            self.note(pool, &map.pool_id, map.epoch);
            return;
        };
        let map = KeptMap {
            pool: pool.into(),
            map: map.clone(),
        };
        self.waiting.insert(map.map.pool_id.clone(), map);
    }

    /// A map that waits to be kept, with the directory for it.
    pub fn take_waiting(&mut self) -> Option<(PathBuf, KeptMap)> {
        let dir = self.dir.clone()?;
        self.waiting.pop_first().map(|(_, map)| (dir, map))
    }

    /// Whether a map waits to be kept.
    pub fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Notes that a map was kept.
    pub fn note(&mut self, pool: &str, pool_id: &str, epoch: i64) {
        let kept = Kept {
            pool: pool.into(),
            epoch,
        };
        self.kept.insert(pool_id.into(), kept);
    }

    /// Takes back a map that could not be kept, unless a newer one waits already.
    pub fn put_back(&mut self, map: KeptMap) {
        self.waiting.entry(map.map.pool_id.clone()).or_insert(map);
    }
}

/// Keeps a map: beside its place first, then over it in one step. Blocks.
///
/// # Errors
/// [`MapsError`]; what was kept before stays.
pub fn keep(dir: &Path, map: &KeptMap) -> Result<(), MapsError> {
    let path = dir.join(format!("{}.json", map.map.pool_id));
    let beside = path.with_extension("new");
    let error = |source| MapsError::Io {
        path: path.clone(),
        source,
    };
    let bytes = serde_json::to_vec(map).map_err(|source| MapsError::Json {
        pool: map.pool.clone(),
        source,
    })?;
    let mut file = File::create(&beside).map_err(error)?;
    file.write_all(&bytes).map_err(error)?;
    file.sync_all().map_err(error)?;
    fs::rename(&beside, &path).map_err(error)?;
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(error)
}

/// Epoch of the kept map of every pool whose map in the API is missing or older.
pub fn ahead(kept: &BTreeMap<String, Kept>, api: &BTreeMap<String, i64>) -> BTreeMap<String, i64> {
    kept.iter()
        .filter(|(id, kept)| api.get(*id).is_none_or(|epoch| *epoch < kept.epoch))
        .map(|(id, kept)| (id.clone(), kept.epoch))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0a5d1de6-2b0c-4c2d-9d2e-5a1d3f0b7c11";

    fn map(epoch: i64) -> PoolMapSpec {
        PoolMapSpec {
            epoch,
            pool_id: ID.into(),
            nodes: vec![],
        }
    }

    fn keep_all(maps: &mut Maps) {
        while let Some((dir, map)) = maps.take_waiting() {
            keep(&dir, &map).unwrap();
            maps.note(&map.pool, &map.map.pool_id, map.map.epoch);
        }
    }

    #[test]
    fn the_newest_map_outlives_the_agent_and_never_goes_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut maps = Maps::load(Some(dir.path()), true).unwrap();
        maps.offer("p", &map(3));
        maps.offer("p", &map(5));
        maps.offer("p", &map(4));
        keep_all(&mut maps);

        let mut maps = Maps::load(Some(dir.path()), true).unwrap();
        assert_eq!(maps.kept()[ID].epoch, 5);
        maps.offer("p", &map(2));
        assert!(!maps.waits());
        assert_eq!(ahead(maps.kept(), &BTreeMap::new())[ID], 5);
        assert_eq!(ahead(maps.kept(), &BTreeMap::from([(ID.into(), 4)]))[ID], 5);
        assert!(ahead(maps.kept(), &BTreeMap::from([(ID.into(), 5)])).is_empty());
    }

    #[test]
    fn a_torn_file_counts_as_none_and_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let mut maps = Maps::load(Some(dir.path()), true).unwrap();
        let path = dir.path().join(format!("maps/{ID}.json"));
        fs::write(&path, b"{\"pool\":\"p\",\"ep").unwrap();
        fs::write(path.with_extension("new"), b"half").unwrap();
        assert!(
            Maps::load(Some(dir.path()), true)
                .unwrap()
                .kept()
                .is_empty()
        );
        maps.offer("p", &map(7));
        keep_all(&mut maps);
        let again = Maps::load(Some(dir.path()), true).unwrap();
        assert_eq!(
            again.kept()[ID],
            Kept {
                pool: "p".into(),
                epoch: 7
            }
        );
    }
}
