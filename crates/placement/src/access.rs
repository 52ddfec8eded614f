//! Which namespaces may use a pool, and how much of its context memory.

use std::collections::BTreeMap;

use strand_api::{Access, ContextShare, MemoryPool, PoolGrant};

/// Why a namespace may not use a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// There is no such pool, or it is being deleted.
    NoPool,
    /// It is for namespaces that it is granted to, and this is none.
    NotGranted,
}

/// What a namespace hears that a pool is not granted to: the same words for a door, a volume and scratch space.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "namespace {namespace} may not use MemoryPool {pool}, which is for namespaces that it is granted to: ask an administrator for a PoolGrant named {pool}.{namespace}"
)]
pub struct NotGranted {
    /// The pool's name.
    pub pool: String,
    /// The namespace.
    pub namespace: String,
}

/// The share of a namespace in a pool.
///
/// # Errors
/// [`Denied`]: it gets no door, no new volume and no scratch space.
pub fn share<'a>(
    pool: Option<&MemoryPool>,
    grants: impl IntoIterator<Item = &'a PoolGrant>,
    namespace: &str,
) -> Result<ContextShare, Denied> {
    let pool = pool.filter(|pool| pool.metadata.deletion_timestamp.is_none());
    let pool = pool.ok_or(Denied::NoPool)?;
    let name = pool.metadata.name.as_deref();
    let grant = grants.into_iter().find(|grant| {
        let live = grant.metadata.deletion_timestamp.is_none();
        live && Some(grant.spec.pool.as_str()) == name && grant.spec.namespace == namespace
    });
    match (grant, pool.spec.access) {
        (Some(grant), _) => Ok(grant.spec.context_memory.clone()),
        (None, Access::Open) => Ok(ContextShare::default()),
        (None, Access::Granted) => Err(Denied::NotGranted),
    }
}

/// A namespace's part of each drive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Part {
    /// Weight among the others, at least 1.
    pub weight: u32,
    /// What of the drive, between 0 and 1, it may fill at most. None: all.
    pub most: Option<f64>,
}

/// The shares of all namespaces in a pool, as far as they are not by default.
#[derive(Clone, Debug, PartialEq)]
pub struct Rights {
    granted: BTreeMap<String, ContextShare>,
    others: Result<ContextShare, Denied>,
}

impl Rights {
    /// What the pool and the grants of all pools say.
    pub fn of<'a>(pool: &MemoryPool, grants: impl IntoIterator<Item = &'a PoolGrant>) -> Self {
        let name = pool.metadata.name.as_deref();
        let live = |grant: &&PoolGrant| {
            grant.metadata.deletion_timestamp.is_none() && Some(grant.spec.pool.as_str()) == name
        };
        let granted = grants.into_iter().filter(live).filter_map(|grant| {
            let namespace = &grant.spec.namespace;
            let share = share(Some(pool), [grant], namespace).ok()?;
            Some((namespace.clone(), share))
        });
        Self {
            granted: granted.collect(),
            others: share(Some(pool), [], ""),
        }
    }

    /// What [`share`] says of a namespace.
    ///
    /// # Errors
    /// As [`share`].
    pub fn share(&self, namespace: &str) -> Result<ContextShare, Denied> {
        match self.granted.get(namespace) {
            Some(share) => Ok(share.clone()),
            None => self.others.clone(),
        }
    }

    /// The namespaces that have a grant, with their parts of each drive of a pool of so many bytes. Keys are spread over the drives by
    /// their sizes, and so is what a namespace may keep. Before anything is known of the pool's size no quota counts.
    pub fn parts(&self, capacity: u64) -> impl Iterator<Item = (&str, Part)> {
        self.granted.iter().map(move |(namespace, share)| {
            let quota = share.quota.filter(|_| capacity > 0);
            let part = Part {
                weight: u32::try_from(share.weight).unwrap_or(1).max(1),
                most: quota.map(|quota| (quota.0 as f64 / capacity as f64).min(1.0)),
            };
            (namespace.as_str(), part)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pool(access: &str) -> MemoryPool {
        serde_json::from_value(json!({
            "apiVersion": "strand.dev/v1alpha1", "kind": "MemoryPool", "metadata": {"name": "rack"},
            "spec": {"drives": {"models": ["*"]}, "access": access},
        }))
        .unwrap()
    }

    fn grant(pool: &str, namespace: &str, weight: i32) -> PoolGrant {
        serde_json::from_value(json!({
            "apiVersion": "strand.dev/v1alpha1", "kind": "PoolGrant", "metadata": {"name": format!("{pool}.{namespace}")},
            "spec": {"pool": pool, "namespace": namespace, "contextMemory": {"weight": weight}},
        }))
        .unwrap()
    }

    #[test]
    fn a_grant_counts_for_its_pool_and_its_namespace() {
        let grants = [grant("rack", "a", 5), grant("other", "b", 7)];
        let weight =
            |access, namespace| share(Some(&pool(access)), &grants, namespace).map(|s| s.weight);
        assert_eq!(weight("Open", "a"), Ok(5));
        assert_eq!(weight("Open", "b"), Ok(1));
        assert_eq!(weight("Granted", "a"), Ok(5));
        assert_eq!(weight("Granted", "b"), Err(Denied::NotGranted));
        assert_eq!(share(None, &grants, "a"), Err(Denied::NoPool));
        for access in ["Open", "Granted"] {
            let rights = Rights::of(&pool(access), &grants);
            for namespace in ["a", "b"] {
                let one = share(Some(&pool(access)), &grants, namespace);
                assert_eq!(rights.share(namespace), one);
            }
            let part = Part {
                weight: 5,
                most: None,
            };
            assert_eq!(rights.parts(1 << 40).collect::<Vec<_>>(), [("a", part)]);
        }
    }

    #[test]
    fn a_quota_is_the_same_part_of_every_drive() {
        let mut bound = grant("rack", "a", 1);
        bound.spec.context_memory.quota = Some("256Gi".parse().unwrap());
        let most = |capacity| {
            let rights = Rights::of(&pool("Open"), [&bound]);
            rights.parts(capacity).next().unwrap().1.most
        };
        assert_eq!(most(1 << 40), Some(0.25));
        assert_eq!(most(1 << 30), Some(1.0));
        assert_eq!(most(0), None);
    }

    #[test]
    fn what_is_going_grants_nothing() {
        let gone = json!("2026-01-01T00:00:00Z");
        let mut last = grant("rack", "a", 5);
        last.metadata.deletion_timestamp = serde_json::from_value(gone.clone()).unwrap();
        assert_eq!(
            share(Some(&pool("Granted")), [&last], "a"),
            Err(Denied::NotGranted)
        );
        assert_eq!(Rights::of(&pool("Open"), [&last]).parts(1).count(), 0);
        let mut old = pool("Open");
        old.metadata.deletion_timestamp = serde_json::from_value(gone).unwrap();
        assert_eq!(share(Some(&old), [], "a"), Err(Denied::NoPool));
    }
}
