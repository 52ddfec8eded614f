//! Records of the doors that are open, kept so that a restarted agent opens them again in the same places.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use strand_kv_door::Namespace;
use uuid::Uuid;

/// Name of a door's socket in its directory.
pub const SOCKET: &str = "door.sock";

/// What a pod's door shall be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DoorRequest {
    /// Name of the pool whose context memory it leads to.
    pub pool: String,
    /// The pod's Kubernetes namespace: whose blocks it sees.
    pub namespace: String,
    /// A directory that is there; the socket is made in it, as `door.sock`.
    pub directory: PathBuf,
    /// Arena bytes of all the pod's sessions together; left out: 64 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arena_bytes: Option<usize>,
    /// The pod's uid: processes of other pods are refused. Left out: whoever gets to the socket is admitted, as by agents that did not
    /// know of it.
    #[serde(rename = "podUID", default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
}

/// A door as it is kept in `<state dir>/doors/<id>.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DoorRecord {
    /// Identity of the pool.
    #[serde(rename = "poolID")]
    pub pool_id: Uuid,
    /// What was asked for.
    #[serde(flatten)]
    pub request: DoorRequest,
}

impl DoorRequest {
    /// Where its socket is.
    pub fn socket(&self) -> PathBuf {
        self.directory.join(SOCKET)
    }

    /// Whether another asks for the same door. One of before whose pod is not known is not opened anew: its pod has sessions.
    pub fn same_door(&self, other: &Self) -> bool {
        let known = self.pod_uid.is_some() && other.pod_uid.is_some();
        let without = |request: &Self| Self {
            pod_uid: request.pod_uid.clone().filter(|_| known),
            ..request.clone()
        };
        without(self) == without(other)
    }
}

/// The number by which stores know a Kubernetes namespace: the first 128 bits of SHA-256 over its name, the same on every node.
pub fn namespace_of(name: &str) -> Namespace {
    let digest = Sha256::new()
        .chain_update(b"strand context memory namespace\0")
        .chain_update(name)
        .finalize();
    let mut first = [0; 16];
    first.copy_from_slice(&digest[..16]);
    Namespace(u128::from_be_bytes(first))
}

/// Whether a text can be a door's id: a pod's uid or a volume handle, fit for a file's name.
pub fn is_id(id: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !id.is_empty() && id.len() <= 128 && id.bytes().all(fits)
}

/// The directory of records.
#[derive(Clone, Debug)]
pub struct Records {
    dir: PathBuf,
}

impl Records {
    /// Uses, and makes, `<state dir>/doors`.
    ///
    /// # Errors
    /// The kernel's, with the directory.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        let dir = state_dir.join("doors");
        fs::create_dir_all(&dir)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", dir.display())))?;
        Ok(Self { dir })
    }

    /// All doors on record. A file that cannot be read as one is logged and left where it is.
    ///
    /// # Errors
    /// The kernel's, where the directory cannot be read.
    pub fn all(&self) -> io::Result<BTreeMap<String, DoorRecord>> {
        let mut doors = BTreeMap::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let id = path.file_stem().and_then(|stem| stem.to_str());
            let Some(id) = id.filter(|_| path.extension().is_some_and(|e| e == "json")) else {
                continue;
            };
            match fs::read(&path).map(|bytes| serde_json::from_slice(&bytes)) {
                Ok(Ok(record)) => {
                    doors.insert(id.to_owned(), record);
                }
                Ok(Err(error)) => {
                    tracing::warn!(path = %path.display(), %error, "not a door's record; it is left alone");
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "a door's record cannot be read");
                }
            }
        }
        Ok(doors)
    }

    /// Keeps a record: beside its place first, then over it in one step.
    ///
    /// # Errors
    /// The kernel's.
    pub fn keep(&self, id: &str, record: &DoorRecord) -> io::Result<()> {
        let path = self.path(id);
        let beside = path.with_extension("new");
        let mut file = File::create(&beside)?;
        file.write_all(&serde_json::to_vec(record)?)?;
        file.sync_all()?;
        fs::rename(&beside, &path)?;
        File::open(&self.dir)?.sync_all()
    }

    /// Forgets a record; one that is not there is forgotten already.
    ///
    /// # Errors
    /// The kernel's.
    pub fn forget(&self, id: &str) -> io::Result<()> {
        match fs::remove_file(self.path(id)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    fn path(&self, id: &str) -> PathBuf {
        self.dir.join(format!("{id}.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(directory: &str) -> DoorRecord {
        DoorRecord {
            pool_id: Uuid::from_u128(7),
            request: DoorRequest {
                pool: "rack".into(),
                namespace: "team-a".into(),
                directory: directory.into(),
                arena_bytes: None,
                pod_uid: None,
            },
        }
    }

    #[test]
    fn records_outlive_the_agent_and_damaged_ones_harm_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(dir.path()).unwrap();
        records.keep("a", &record("/run/a")).unwrap();
        records.keep("b", &record("/run/b")).unwrap();
        fs::write(dir.path().join("doors/c.json"), b"{\"pool").unwrap();
        let again = Records::open(dir.path()).unwrap();
        let expected = [("a", "/run/a"), ("b", "/run/b")];
        let expected = expected.map(|(id, at)| (id.to_owned(), record(at)));
        assert_eq!(again.all().unwrap(), expected.into());
        again.forget("a").unwrap();
        again.forget("a").unwrap();
        assert_eq!(again.all().unwrap().len(), 1);
        assert!(dir.path().join("doors/c.json").exists());
    }

    #[test]
    fn a_door_of_before_is_the_same_once_its_pod_is_told() {
        let before = record("/run/a").request;
        let of = |uid: &str| DoorRequest {
            pod_uid: Some(uid.into()),
            ..before.clone()
        };
        assert!(before.same_door(&of("u")) && of("u").same_door(&of("u")));
        assert!(!of("u").same_door(&of("v")));
        let elsewhere = record("/run/b").request;
        assert!(!before.same_door(&elsewhere));
        let text = serde_json::to_string(&of("u")).unwrap();
        assert!(text.contains(r#""podUID":"u""#), "{text}");
    }

    #[test]
    fn an_id_is_a_file_name_and_nothing_else() {
        assert!(is_id("0a5d1de6-2b0c-4c2d-9d2e-5a1d3f0b7c11"));
        for id in ["", "..", "a/b", "A", "a b", "a.json", &"x".repeat(129)] {
            assert!(!is_id(id), "{id}");
        }
    }

    #[test]
    fn namespaces_have_numbers_of_their_own_that_never_change() {
        assert_ne!(namespace_of("a"), namespace_of("b"));
        assert_eq!(namespace_of("default").0, namespace_of("default").0,);
    }
}
