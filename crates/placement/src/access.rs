//! Whose pods may use a pool's context memory, and how much of it.

use std::collections::BTreeMap;

use strand_api::{Access, ContextShare, MemoryPool, PoolGrant};

/// Why pods of a namespace may not use a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// There is no such pool, or it is being deleted.
    NoPool,
    /// It is for namespaces that it is granted to, and this is none.
    NotGranted,
}

/// The share of a namespace in a pool.
///
/// # Errors
/// [`Denied`]: its pods get no door.
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

    /// The namespaces that have a grant, with their weights.
    pub fn weights(&self) -> impl Iterator<Item = (&str, u32)> {
        let weight = |share: &ContextShare| u32::try_from(share.weight).unwrap_or(1).max(1);
        let granted = self.granted.iter();
        granted.map(move |(namespace, share)| (namespace.as_str(), weight(share)))
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
            assert_eq!(rights.weights().collect::<Vec<_>>(), [("a", 5)]);
        }
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
        assert_eq!(Rights::of(&pool("Open"), [&last]).weights().count(), 0);
        let mut old = pool("Open");
        old.metadata.deletion_timestamp = serde_json::from_value(gone).unwrap();
        assert_eq!(share(Some(&old), [], "a"), Err(Denied::NoPool));
    }
}
