//! Names and ids of volumes, snapshots and nodes; paths.

use std::path::{Component, Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::Error;

/// Longest string in a request, where the specification says nothing else.
const MAX_STRING: usize = 128;
/// Longest node id.
const MAX_NODE: usize = 256;
/// Longest path: Linux' PATH_MAX.
const MAX_PATH: usize = 4096;
/// Longest name of ours: legs append to it, and a label can hold it.
const MAX_NAME: usize = 63;

/// What names are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A PoolVolume.
    Volume,
    /// A PoolSnapshot.
    Snapshot,
    /// Snapshots of several volumes.
    Group,
}

/// The name of the object for what a caller calls `name`: the same, where objects can be called that, or one made from its hash.
///
/// # Errors
/// Where it is empty or too long, or has characters that no name may have.
pub fn object_name(kind: Kind, name: &str) -> Result<String, Error> {
    let name = text("name", name)?;
    let prefix = match kind {
        Kind::Volume => "volume-",
        Kind::Snapshot => "snapshot-",
        Kind::Group => "group-",
    };
    let made = |text: &str| text.strip_prefix(prefix).is_some_and(is_hash);
    if is_label(name) && !made(name) {
        return Ok(name.to_owned());
    }
    let digest = Sha256::digest(name);
    let hash: String = digest.iter().take(16).map(|b| format!("{b:02x}")).collect();
    Ok(format!("{prefix}{hash}"))
}

/// Whether a text could be the hash in a name of ours; such names are not taken from callers.
fn is_hash(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// An id as a caller gives it. `None`: well-formed, and none that this driver ever gave.
///
/// # Errors
/// Where it is empty or too long, or has characters that no id may have.
pub fn id<'a>(field: &'static str, id: &'a str) -> Result<Option<&'a str>, Error> {
    let id = text(field, id)?;
    Ok(is_label(id).then_some(id))
}

/// A node's name.
///
/// # Errors
/// As for [`id`].
pub fn node(id: &str) -> Result<&str, Error> {
    checked("node_id", id, MAX_NODE)
}

/// A path that a mount may be made at: absolute, without `..`.
///
/// # Errors
/// Where it is not.
pub fn path(field: &'static str, path: &str) -> Result<PathBuf, Error> {
    let path = Path::new(checked(field, path, MAX_PATH)?);
    let plain = |c: Component| matches!(c, Component::RootDir | Component::Normal(_));
    if !path.is_absolute() || !path.components().all(plain) || path.parent().is_none() {
        return Err(Error::invalid(
            field,
            "not an absolute path without '.' and '..'",
        ));
    }
    Ok(path.components().collect())
}

fn text<'a>(field: &'static str, text: &'a str) -> Result<&'a str, Error> {
    checked(field, text, MAX_STRING)
}

fn checked<'a>(field: &'static str, text: &'a str, longest: usize) -> Result<&'a str, Error> {
    if text.is_empty() {
        return Err(Error::Missing(field));
    }
    if text.len() > longest {
        let why = format!("{} bytes long, of which {longest} are allowed", text.len());
        return Err(Error::invalid(field, why));
    }
    if text.chars().any(char::is_control) {
        return Err(Error::invalid(field, "contains control characters"));
    }
    Ok(text)
}

/// A label of a domain name, which every object and file can be called.
/// Source: RFC 1123, as Kubernetes' `IsDNS1123Label` reads it.
fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !text.is_empty()
        && text.len() <= MAX_NAME
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_objects_can_have_are_kept() {
        let name = "pvc-0a5d1de6-2b0c-4c2d-9d2e-5a1d3f0b7c11";
        assert_eq!(object_name(Kind::Volume, name).unwrap(), name);
    }

    #[test]
    fn a_made_name_cannot_be_taken_by_asking_for_it() {
        let made = object_name(Kind::Volume, "Weights of Llama/4").unwrap();
        assert!(made.starts_with("volume-") && is_label(&made), "{made}");
        assert_ne!(object_name(Kind::Volume, &made).unwrap(), made);
    }

    #[test]
    fn ids_that_cannot_be_ours_are_told_from_hostile_ones() {
        assert_eq!(id("volume_id", "a-1").unwrap(), Some("a-1"));
        assert_eq!(id("volume_id", "../../etc").unwrap(), None);
        assert_eq!(id("volume_id", "Ünlike").unwrap(), None);
        assert!(matches!(id("volume_id", ""), Err(Error::Missing(_))));
        assert!(id("volume_id", &"a".repeat(129)).is_err());
        assert!(id("volume_id", "a\nb").is_err());
    }

    #[test]
    fn paths_lead_where_they_say() {
        assert_eq!(path("p", "/a//b/").unwrap(), Path::new("/a/b"));
        for bad in ["", "a", "/", "/a/../b", "..", "/a\0b", &"/x".repeat(2049)] {
            assert!(path("p", bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn every_name_gets_an_object_of_its_own(a in ".{1,40}", b in ".{1,40}") {
            let names = [&a, &b].map(|n| object_name(Kind::Volume, n));
            if let [Ok(x), Ok(y)] = names {
                prop_assert!(is_label(&x));
                prop_assert_eq!(a == b, x == y);
            }
        }
    }
}
