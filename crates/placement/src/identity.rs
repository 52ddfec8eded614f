//! The identity that a pool writes on its drives.

use std::collections::BTreeMap;
use strand_api::{Drive, MemoryPool};

/// Decides the identity of each pool that has none in its spec.
///
/// A pool that is created again takes over the one identity that drives carry with its name; where
/// none do, a pool's identity is the UID of its object, so that deciding twice gives the same.
///
/// # Errors
/// The reason, where drives carry the pool's name with several identities.
pub fn decide(
    pool: &MemoryPool,
    pools: &[&MemoryPool],
    drives: &[&Drive],
) -> Result<String, String> {
    if let Some(id) = &pool.spec.pool_id {
        return Ok(id.clone());
    }
    let name = pool.metadata.name.as_deref().unwrap_or_default();
    let mut carried: BTreeMap<&str, usize> = BTreeMap::new();
    for label in drives
        .iter()
        .filter_map(|d| d.status.as_ref()?.label.as_ref())
    {
        let taken = pools
            .iter()
            .any(|p| p.spec.pool_id.as_deref() == Some(&label.pool_id));
        if label.pool == name && !taken {
            *carried.entry(&label.pool_id).or_default() += 1;
        }
    }
    let mut ids = carried.keys();
    match (ids.next(), ids.next()) {
        (Some(id), None) => Ok((*id).into()),
        (None, _) => pool
            .metadata
            .uid
            .clone()
            .ok_or_else(|| "the object has no UID".into()),
        _ => {
            let list: Vec<String> = carried
                .iter()
                .map(|(id, n)| format!("{id} ({n})"))
                .collect();
            Err(format!(
                "drives carry its name with several identities: {}; set spec.poolID to the one that is meant",
                list.join(", ")
            ))
        }
    }
}
