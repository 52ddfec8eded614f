//! The pools' policies as they were last seen, for a start without the API.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use strand_api::ContextMemoryPolicy;
use uuid::Uuid;

/// Policies by pool, each also in a file: `<state dir>/policies/<pool id>.json`.
#[derive(Debug, Default)]
pub struct Policies {
    dir: Option<PathBuf>,
    known: BTreeMap<Uuid, ContextMemoryPolicy>,
}

impl Policies {
    /// Reads what was written down; without a directory, or where a file is damaged, nothing is.
    ///
    /// # Errors
    /// The kernel's, where the directory cannot be made or read.
    pub fn open(state_dir: Option<&Path>) -> io::Result<Self> {
        let Some(state_dir) = state_dir else {
            return Ok(Self::default());
        };
        let dir = state_dir.join("policies");
        fs::create_dir_all(&dir)?;
        let mut known = BTreeMap::new();
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            let id = path.file_stem().and_then(|stem| stem.to_str());
            let id = id.and_then(|id| Uuid::parse_str(id).ok());
            let read = fs::read(&path).ok();
            let policy = read.and_then(|bytes| serde_json::from_slice(&bytes).ok());
            known.extend(id.zip(policy));
        }
        let dir = Some(dir);
        Ok(Self { dir, known })
    }

    /// A pool's policy; the default where none was ever seen.
    pub fn of(&self, pool: &Uuid) -> ContextMemoryPolicy {
        self.known.get(pool).cloned().unwrap_or_default()
    }

    /// Takes what the API says. A file that cannot be written costs no more than a late start by the old policy.
    pub fn learn(&mut self, pool: Uuid, policy: &ContextMemoryPolicy) {
        if self.known.get(&pool) == Some(policy) {
            return;
        }
        self.known.insert(pool, policy.clone());
        if let Err(error) = self.write(pool, policy) {
            tracing::warn!(%pool, %error, "a pool's policy could not be written down");
        }
    }

    fn write(&self, pool: Uuid, policy: &ContextMemoryPolicy) -> io::Result<()> {
        let Some(dir) = &self.dir else {
            return Ok(());
        };
        let path = dir.join(format!("{pool}.json"));
        let beside = path.with_extension("new");
        fs::write(&beside, serde_json::to_vec(policy)?)?;
        fs::rename(&beside, &path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_outlives_the_agent() {
        let dir = tempfile::tempdir().unwrap();
        let (pool, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let policy = ContextMemoryPolicy {
            drive_writes_per_day: 3.0,
            ..ContextMemoryPolicy::default()
        };
        let mut policies = Policies::open(Some(dir.path())).unwrap();
        policies.learn(pool, &policy);
        let again = Policies::open(Some(dir.path())).unwrap();
        assert_eq!(again.of(&pool), policy);
        assert_eq!(again.of(&other), ContextMemoryPolicy::default());
        fs::write(dir.path().join(format!("policies/{pool}.json")), "{").unwrap();
        let damaged = Policies::open(Some(dir.path())).unwrap();
        assert_eq!(damaged.of(&pool), ContextMemoryPolicy::default());
    }
}
