//! The objects that the driver reads and writes. It writes specs alone, each change from the version that it was decided on.

use std::time::Duration;

use futures::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::Node;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher::watch_object;
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use strand_api::{MemoryPool, PoolSnapshot, PoolVolume};

use crate::error::Error;

/// How long a call waits for the operator and the agents at most. Callers mostly give up earlier, and ask again.
const PATIENCE: Duration = Duration::from_secs(50);
/// How often a change is decided anew when the object has changed meanwhile.
const ATTEMPTS: usize = 10;
/// Between two attempts to watch.
const PAUSE: Duration = Duration::from_millis(200);

/// Field manager of the driver.
pub const MANAGER: &str = "strand-csi-driver";

/// The Kubernetes API, as far as volumes go. Clones are the same.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
}

/// What every kind here is.
pub trait Kind:
    Resource<DynamicType = (), Scope = kube::core::ClusterResourceScope>
    + Clone
    + std::fmt::Debug
    + DeserializeOwned
    + Serialize
    + Send
    + 'static
{
}

impl<K> Kind for K where
    K: Resource<DynamicType = (), Scope = kube::core::ClusterResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + Serialize
        + Send
        + 'static
{
}

impl Cluster {
    /// Speaks through `client`.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Objects of a kind.
    pub fn api<K: Kind>(&self) -> Api<K> {
        Api::all(self.client.clone())
    }

    /// An object, if it is there.
    ///
    /// # Errors
    /// The API's.
    pub async fn find<K: Kind>(&self, name: &str) -> Result<Option<K>, Error> {
        let found = self.api::<K>().get_opt(name).await;
        found.map_err(Error::api(what::<K>("reading", name)))
    }

    /// All objects of a kind.
    ///
    /// # Errors
    /// The API's.
    pub async fn all<K: Kind>(&self) -> Result<Vec<K>, Error> {
        let found = self.api::<K>().list(&ListParams::default()).await;
        let found = found.map_err(Error::api(what::<K>("listing", "all")))?;
        Ok(found.items)
    }

    /// A volume that is there to stay.
    ///
    /// # Errors
    /// [`Error::NoVolume`], also where it is marked for deletion.
    pub async fn volume(&self, id: &str) -> Result<PoolVolume, Error> {
        let found = self.find::<PoolVolume>(id).await?;
        let found = found.filter(|volume| !volume.spec.deletion_mark);
        found.ok_or_else(|| Error::NoVolume(id.to_owned()))
    }

    /// A snapshot that is there to stay.
    ///
    /// # Errors
    /// [`Error::NoSnapshot`], also where it is marked for deletion.
    pub async fn snapshot(&self, id: &str) -> Result<PoolSnapshot, Error> {
        let found = self.find::<PoolSnapshot>(id).await?;
        let found = found.filter(|snapshot| !snapshot.spec.deletion_mark);
        found.ok_or_else(|| Error::NoSnapshot(id.to_owned()))
    }

    /// The pool of a request: the one it names, or the only one there is.
    ///
    /// # Errors
    /// Where that is none.
    pub async fn pool(&self, name: Option<&str>) -> Result<MemoryPool, Error> {
        let Some(name) = name else {
            let mut pools = self.all::<MemoryPool>().await?;
            return match (pools.pop(), pools.is_empty()) {
                (Some(only), true) => Ok(only),
                (Some(_), false) => Err(Error::invalid(
                    "parameters",
                    "there is more than one MemoryPool: name one as pool",
                )),
                (None, _) => Err(Error::invalid("parameters", "there is no MemoryPool")),
            };
        };
        let found = self.find(name).await?;
        found.ok_or_else(|| {
            Error::invalid("parameters", format!("pool: there is no MemoryPool {name}"))
        })
    }

    /// Whether a node of that name is in the cluster.
    ///
    /// # Errors
    /// [`Error::NoNode`].
    pub async fn node(&self, name: &str) -> Result<(), Error> {
        // A name that the API would refuse is no node's.
        let possible = name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'));
        let found = match possible {
            true => self.find::<Node>(name).await?,
            false => None,
        };
        found
            .map(|_| ())
            .ok_or_else(|| Error::NoNode(name.to_owned()))
    }

    /// Makes an object; `None`: one of that name is there.
    ///
    /// # Errors
    /// The API's.
    pub async fn create<K: Kind>(&self, object: &K) -> Result<Option<K>, Error> {
        let options = PostParams {
            field_manager: Some(MANAGER.into()),
            ..PostParams::default()
        };
        match self.api::<K>().create(&options, object).await {
            Ok(made) => Ok(Some(made)),
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(None),
            Err(error) => Err(Error::api(what::<K>("making", &object.name_any()))(error)),
        }
    }

    /// Changes an object's spec as `decide` says (a merge patch of the spec; none: it is right already). Decides again when
    /// somebody else changed the object meanwhile. `None`: there is no such object.
    ///
    /// # Errors
    /// `decide`'s and the API's; [`Error::Changing`] where the object never keeps still.
    pub async fn change<K: Kind>(
        &self,
        name: &str,
        decide: impl Fn(&K) -> Result<Option<Value>, Error>,
    ) -> Result<Option<K>, Error> {
        let api = self.api::<K>();
        let options = PatchParams {
            field_manager: Some(MANAGER.into()),
            ..PatchParams::default()
        };
        for _ in 0..ATTEMPTS {
            let Some(object) = self.find::<K>(name).await? else {
                return Ok(None);
            };
            let Some(spec) = decide(&object)? else {
                return Ok(Some(object));
            };
            let patch = json!({
                "metadata": {"resourceVersion": object.resource_version()},
                "spec": spec,
            });
            match api.patch(name, &options, &Patch::Merge(patch)).await {
                Ok(changed) => return Ok(Some(changed)),
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
                Err(error) => return Err(Error::api(what::<K>("changing", name))(error)),
            }
        }
        Err(Error::Changing {
            what: name.to_owned(),
            why: "keeps changing",
        })
    }

    /// Waits until `judge` has an answer about the object (`None`: it is gone).
    ///
    /// # Errors
    /// `judge`'s; [`Error::Late`] when the time is up, saying that it is not yet `state`.
    pub async fn wait<K: Kind, T>(
        &self,
        name: &str,
        state: &'static str,
        judge: impl Fn(Option<&K>) -> Option<Result<T, Error>>,
    ) -> Result<T, Error> {
        let waiting = async {
            let seen = watch_object(self.api::<K>(), name);
            pin_mut!(seen);
            loop {
                match seen.next().await {
                    Some(Ok(object)) => {
                        if let Some(answer) = judge(object.as_ref()) {
                            return answer;
                        }
                    }
                    // The stream goes on by itself after a failure.
                    Some(Err(error)) => {
                        tracing::debug!(name, %error, "watching failed; it is tried again");
                        tokio::time::sleep(PAUSE).await;
                    }
                    None => std::future::pending().await,
                }
            }
        };
        let late = |_| Error::Late {
            what: name.to_owned(),
            state,
        };
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .map_err(late)?
    }
}

fn what<K: Kind>(doing: &str, name: &str) -> String {
    format!("{doing} {} {name}", K::kind(&()))
}
