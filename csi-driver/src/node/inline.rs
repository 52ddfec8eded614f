//! Inline volumes: what a pod's own specification asks for. A door to context memory, or scratch space.

use std::collections::HashMap;
use std::path::Path;

use strand_api::ByteQuantity;
use strand_csi::v1::CapacityRange;

use super::Parts;
use crate::error::Error;
use crate::request::capability::{Access, Capability, FsType};
use crate::request::parameters;
use crate::request::size::{Sizes, signed};

/// Volume attributes that the kubelet adds (podInfoOnMount in the CSIDriver).
const INLINE: &str = "csi.storage.k8s.io/ephemeral";
const POD_NAMESPACE: &str = "csi.storage.k8s.io/pod.namespace";
const POD_UID: &str = "csi.storage.k8s.io/pod.uid";

/// Whether a volume is part of its pod.
pub fn is_inline(context: &HashMap<String, String>) -> bool {
    context.get(INLINE).is_some_and(|v| v == "true")
}

/// An id of a volume, as an inline one can have it: what the agent takes for one.
///
/// # Errors
/// Where it is none.
pub fn id(id: &str) -> Result<&str, Error> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    match id {
        "" => Err(Error::Missing("volume_id")),
        id if id.len() <= 128 && id.bytes().all(fits) => Ok(id),
        _ => Err(Error::invalid(
            "volume_id",
            "no volume or inline volume of this driver has it",
        )),
    }
}

/// The pod that asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whose {
    /// Its namespace.
    pub namespace: String,
    /// Its uid.
    pub uid: String,
}

/// What a pod asks for inline.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Asked {
    Door {
        pool: String,
        pod: Whose,
    },
    Scratch {
        pool: String,
        pod: Whose,
        size: ByteQuantity,
    },
}

/// Reads a volume's attributes; pure.
fn read(context: &HashMap<String, String>) -> Result<Asked, Error> {
    let refuse = |why: &str| Error::invalid("volumeAttributes", why);
    let kind = context.get("kind").map_or("", String::as_str);
    let known: &[&str] = match kind {
        "kv" => &["kind", "pool"],
        "scratch" => &["kind", "pool", "size"],
        _ => return Err(refuse("kind: write kv or scratch")),
    };
    let ours = |key: &&String| !key.starts_with("csi.storage.k8s.io/");
    if let Some(key) = context
        .keys()
        .filter(ours)
        .find(|key| !known.contains(&key.as_str()))
    {
        let key: String = key.chars().take(64).collect();
        let known = known.join(", ");
        return Err(refuse(&format!("{key:?} is unknown; there are: {known}")));
    }
    let of_pod = |key: &str| {
        let value = context.get(key).filter(|value| !value.is_empty());
        value.ok_or_else(|| {
            refuse(&format!(
                "{key} is missing: the CSIDriver needs podInfoOnMount: true"
            ))
        })
    };
    let pod = Whose {
        namespace: of_pod(POD_NAMESPACE)?.clone(),
        uid: of_pod(POD_UID)?.clone(),
    };
    let pool = parameters::pool(context.get("pool").map_or("", String::as_str))?;
    if kind == "kv" {
        return Ok(Asked::Door { pool, pod });
    }
    let size = context.get("size").and_then(|size| size.parse().ok());
    Ok(Asked::Scratch {
        pool,
        pod,
        size: size.ok_or_else(|| refuse("size: write bytes, such as 10Gi"))?,
    })
}

/// The size of scratch space that is asked for: as a volume's, and never less than its file system takes.
fn scratch_size(size: ByteQuantity, fs: FsType) -> Result<u64, Error> {
    let range = CapacityRange {
        required_bytes: signed(size.0),
        limit_bytes: 0,
    };
    Ok(Sizes::read(Some(&range), Some(fs))?.wanted)
}

impl Parts {
    pub(super) async fn publish_inline(
        &self,
        id: &str,
        target: &Path,
        capability: &Capability,
        read_only: bool,
        context: &HashMap<String, String>,
    ) -> Result<(), Error> {
        let Access::Mount { fs, options } = &capability.access else {
            let why = "an inline volume is a directory, not a device";
            return Err(Error::invalid("volume_capability", why));
        };
        match read(context)? {
            Asked::Door { pool, pod } => self.publish_door(id, target, pool, pod).await,
            Asked::Scratch { .. } if read_only => {
                let why = "scratch space is empty at first: it is of no use for reading only";
                Err(Error::invalid("readonly", why))
            }
            Asked::Scratch { pool, pod, size } => {
                let size = scratch_size(size, *fs)?;
                let of = (pool, pod.namespace);
                self.publish_scratch(id, target, (*fs, options.as_slice()), of, size)
                    .await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        let owned = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn attributes_are_read_or_refused() {
        let pod = [(POD_NAMESPACE, "team-a"), (POD_UID, "u"), (INLINE, "true")];
        let with = |more: &[(&str, &str)]| read(&map(&[&pod[..], more].concat()));
        let whose = Whose {
            namespace: "team-a".into(),
            uid: "u".into(),
        };
        let door = Asked::Door {
            pool: "rack".into(),
            pod: whose.clone(),
        };
        assert_eq!(with(&[("kind", "kv"), ("pool", "rack")]).unwrap(), door);
        let scratch = Asked::Scratch {
            pool: "rack".into(),
            pod: whose,
            size: ByteQuantity(10 << 30),
        };
        let asked = with(&[("kind", "scratch"), ("pool", "rack"), ("size", "10Gi")]);
        assert_eq!(asked.unwrap(), scratch);
        for bad in [
            &[("kind", "kv")][..],
            &[("kind", "kv"), ("pool", "../x")],
            &[("kind", "kv"), ("pool", "rack"), ("namespace", "other")],
            &[("kind", "kv"), ("pool", "rack"), ("size", "10Gi")],
            &[("kind", "scratch"), ("pool", "rack")],
            &[("kind", "scratch"), ("pool", "rack"), ("size", "much")],
            &[("kind", "disk"), ("pool", "rack")],
        ] {
            assert!(with(bad).is_err(), "{bad:?}");
        }
        assert!(read(&map(&[("kind", "kv"), ("pool", "rack")])).is_err());
    }

    #[test]
    fn scratch_space_has_room_for_its_file_system() {
        let size = |bytes| scratch_size(ByteQuantity(bytes), FsType::Xfs);
        assert_eq!(size(1).unwrap(), FsType::Xfs.smallest());
        assert_eq!(size((1 << 30) + 1).unwrap(), (1 << 30) + (1 << 20));
        assert!(size(u64::MAX).is_err());
    }

    #[test]
    fn an_id_never_leads_out_of_the_directory() {
        let kubernetes = format!("csi-{}", "0a".repeat(32));
        assert_eq!(id(&kubernetes).unwrap(), kubernetes);
        for bad in ["", "..", "a/b", "a.ended", "A", &"x".repeat(129)] {
            assert!(id(bad).is_err(), "{bad}");
        }
    }
}
