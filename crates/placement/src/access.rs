//! Whose pods may use a pool's context memory, and how much of it.

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
        let mut old = pool("Open");
        old.metadata.deletion_timestamp = serde_json::from_value(gone).unwrap();
        assert_eq!(share(Some(&old), [], "a"), Err(Denied::NoPool));
    }
}
