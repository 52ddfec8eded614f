//! Parameters of StorageClasses and VolumeAttributesClasses.

use std::collections::HashMap;

use strand_api::{ByteQuantity, IoLimits, Locality, Provisioning, Redundancy};

use crate::error::Error;

/// Parameters that Kubernetes' own sidecars add; all but one are not for the driver.
const KUBERNETES: &str = "csi.storage.k8s.io/";
/// The one of them that is: the provisioner writes it (`--extra-create-metadata`), and takes no StorageClass that does.
pub const CLAIM_NAMESPACE: &str = "csi.storage.k8s.io/pvc/namespace";
/// Least bandwidth in bytes a second that can be enforced evenly: 1 MiB.
const LEAST_BANDWIDTH: u64 = 1 << 20;

/// What a StorageClass says; what it leaves out, the pool decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    /// `pool`: the MemoryPool.
    pub pool: Option<String>,
    /// `redundancy`: none, stripe, mirror or raid6.
    pub redundancy: Option<Redundancy>,
    /// `provisioning`: thick or thin.
    pub provisioning: Option<Provisioning>,
    /// `locality`: fabric or node.
    pub locality: Locality,
    /// The claim's namespace; callers that have no claims do not say it.
    pub namespace: Option<String>,
}

impl Parameters {
    /// Reads them.
    ///
    /// # Errors
    /// Where one is unknown, or has a value that it cannot have.
    pub fn read(parameters: &HashMap<String, String>) -> Result<Self, Error> {
        let mut read = Self::default();
        for (key, value) in parameters {
            match key.as_str() {
                "pool" => read.pool = Some(pool(value)?),
                "redundancy" => {
                    read.redundancy = Some(match value.as_str() {
                        "none" => Redundancy::None,
                        "stripe" => Redundancy::Stripe,
                        "mirror" => Redundancy::Mirror,
                        "raid6" => Redundancy::Raid6,
                        _ => return Err(refuse("redundancy: write none, stripe, mirror or raid6")),
                    });
                }
                "provisioning" => {
                    read.provisioning = Some(match value.as_str() {
                        "thick" => Provisioning::Thick,
                        "thin" => Provisioning::Thin,
                        _ => return Err(refuse("provisioning: write thick or thin")),
                    });
                }
                "locality" => {
                    read.locality = match value.as_str() {
                        "fabric" => Locality::Fabric,
                        "node" => Locality::Node,
                        _ => return Err(refuse("locality: write fabric or node")),
                    };
                }
                CLAIM_NAMESPACE if !value.is_empty() => read.namespace = Some(value.clone()),
                key if key.starts_with(KUBERNETES) => {}
                key => return Err(unknown(key, "pool, redundancy, provisioning, locality")),
            }
        }
        Ok(read)
    }
}

/// A pool's name.
///
/// # Errors
/// Where no pool can be called that.
pub fn pool(name: &str) -> Result<String, Error> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    if name.is_empty() || name.len() > 63 || !name.bytes().all(fits) {
        return Err(refuse("pool: no MemoryPool can have that name"));
    }
    Ok(name.to_owned())
}

/// Limits of a VolumeAttributesClass. None of them: the volume is not limited.
///
/// # Errors
/// Where one is unknown, or has a value that it cannot have.
pub fn limits(parameters: &HashMap<String, String>) -> Result<Option<IoLimits>, Error> {
    let mut limits = IoLimits::default();
    for (key, value) in parameters {
        match key.as_str() {
            "iops" => {
                let iops = value.parse::<i64>().ok().filter(|n| *n > 0);
                limits.iops = Some(iops.ok_or_else(|| {
                    refuse("iops: write operations a second, as a whole number above 0")
                })?);
            }
            "bandwidth" => {
                let bytes = value.parse::<ByteQuantity>().ok();
                let bytes = bytes.filter(|b| b.0 >= LEAST_BANDWIDTH);
                limits.bandwidth = Some(bytes.ok_or_else(|| {
                    refuse("bandwidth: write bytes a second, such as 500M or 1Gi; at least 1Mi")
                })?);
            }
            key if key.starts_with(KUBERNETES) => {}
            key => return Err(unknown(key, "iops, bandwidth")),
        }
    }
    Ok((limits != IoLimits::default()).then_some(limits))
}

/// Snapshots have no parameters.
///
/// # Errors
/// Where there is one.
pub fn none(parameters: &HashMap<String, String>) -> Result<(), Error> {
    match parameters.keys().find(|key| !key.starts_with(KUBERNETES)) {
        Some(key) => Err(unknown(key, "none")),
        None => Ok(()),
    }
}

fn refuse(why: &str) -> Error {
    Error::invalid("parameters", why)
}

fn unknown(key: &str, known: &str) -> Error {
    let key: String = key.chars().take(64).collect();
    Error::invalid(
        "parameters",
        format!("{key:?} is unknown; there are: {known}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        let owned = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn parameters_are_read_or_refused_with_what_is_possible() {
        let read = Parameters::read(&map(&[
            ("pool", "rack-1"),
            ("redundancy", "mirror"),
            ("csi.storage.k8s.io/pvc/name", "x"),
            ("csi.storage.k8s.io/pvc/namespace", "team-a"),
        ]))
        .unwrap();
        assert_eq!(read.pool.as_deref(), Some("rack-1"));
        assert_eq!(read.redundancy, Some(Redundancy::Mirror));
        assert_eq!(read.provisioning, None);
        assert_eq!(read.namespace.as_deref(), Some("team-a"));
        for (key, value) in [
            ("pool", ""),
            ("pool", "A/b"),
            ("redundancy", "Mirror"),
            ("locality", ""),
            ("provisioning", "medium"),
            ("replicas", "3"),
        ] {
            assert!(
                Parameters::read(&map(&[(key, value)])).is_err(),
                "{key}={value}"
            );
        }
    }

    #[test]
    fn limits_are_positive() {
        assert_eq!(limits(&map(&[])).unwrap(), None);
        let read = limits(&map(&[("iops", "500"), ("bandwidth", "100Mi")])).unwrap();
        let read = read.unwrap();
        assert_eq!(
            (read.iops, read.bandwidth),
            (Some(500), Some(ByteQuantity(100 << 20)))
        );
        for (key, value) in [
            ("iops", "0"),
            ("iops", "1k"),
            ("bandwidth", "1"),
            ("burst", "1"),
        ] {
            assert!(limits(&map(&[(key, value)])).is_err(), "{key}={value}");
        }
    }
}
