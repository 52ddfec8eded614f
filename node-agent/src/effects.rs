//! Writes to the API, and what they answer.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource, ResourceExt};
use serde_json::json;
use strand_api::{Drive, DriveOperation, DriveSpec, GROUP, MemoryPool, VERSION, names};
use tokio::sync::Semaphore;

use crate::happening::Happening;
use crate::plan::Write;

/// An answer later than this is none.
const PATIENCE: Duration = Duration::from_secs(30);
/// The API's limit on an Event's note, in bytes.
const NOTE_BYTES: usize = 1024;

/// Where writes go.
#[derive(Clone)]
pub struct Writer {
    node: String,
    drives: Api<Drive>,
    operations: Api<DriveOperation>,
    pools: Api<MemoryPool>,
    recorder: Recorder,
    /// Shared by all clones.
    in_flight: Arc<Semaphore>,
}

/// Writes of one agent at once. Each takes a connection of its own, and a rack that comes up together has thousands of agents.
const IN_FLIGHT: usize = 2;

/// What the API answered to a write.
#[derive(Debug)]
pub enum Written {
    /// The object was made.
    Created(Box<Drive>),
    /// Its status is this now.
    Applied(Box<Drive>),
    /// The operation's status is this now.
    Operation(Box<DriveOperation>),
    /// The drive and its pool are this now.
    Read(Option<Box<Drive>>, Option<Box<MemoryPool>>),
    /// It was deleted, or is about to go, or was there or gone already: the watch tells.
    AsWatched,
}

/// Why a write was not done.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The API refused it or cannot be reached.
    #[error("the API server did not take {what} of {object}: {source}; the agent tries again")]
    Api {
        /// What was written.
        what: &'static str,
        /// The object.
        object: String,
        /// Its answer.
        source: Box<kube::Error>,
    },
    /// The API does not answer.
    #[error("the API server did not answer {what} of {object} within {} s; the agent tries again", PATIENCE.as_secs())]
    Silent {
        /// What was written.
        what: &'static str,
        /// The object.
        object: String,
    },
}

impl Write {
    /// The kind of write, for metrics and messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Write::Create => "create",
            Write::Status(_) => "status",
            Write::Delete => "delete",
            Write::Refresh => "refresh",
            Write::Operation(..) => "operation",
        }
    }
}

impl Writer {
    /// Writes as the agent of this node.
    pub fn new(node: &str, client: Client) -> Self {
        let reporter = Reporter {
            controller: names::AGENT_MANAGER.into(),
            instance: Some(node.into()),
        };
        Self {
            node: node.into(),
            drives: Api::all(client.clone()),
            operations: Api::all(client.clone()),
            pools: Api::all(client.clone()),
            recorder: Recorder::new(client, reporter),
            in_flight: Arc::new(Semaphore::new(IN_FLIGHT)),
        }
    }

    /// Does one write about the drive whose object has this name. `object` is that object as it was when the write was decided.
    pub async fn write(
        self,
        name: String,
        object: Option<Drive>,
        write: Write,
    ) -> Result<Written, WriteError> {
        let (what, about) = (write.kind(), self.about(&name, &write));
        // The semaphore is never closed; without a permit the write goes all the same.
        let _turn = self.in_flight.acquire().await;
        let answer = tokio::time::timeout(PATIENCE, self.attempt(&name, object, write)).await;
        match answer {
            Ok(Ok(written)) => Ok(written),
            Ok(Err(source)) => Err(WriteError::Api {
                what,
                object: about,
                source: Box::new(source),
            }),
            Err(_) => Err(WriteError::Silent {
                what,
                object: about,
            }),
        }
    }

    fn about(&self, drive: &str, write: &Write) -> String {
        match write {
            Write::Operation(name, _) => format!("driveoperation {name}"),
            _ => format!("drive {drive}"),
        }
    }

    async fn attempt(
        &self,
        name: &str,
        object: Option<Drive>,
        write: Write,
    ) -> Result<Written, kube::Error> {
        let answer = match write {
            Write::Create => self.create(name).await,
            Write::Delete => self.delete(name, object).await,
            Write::Refresh => self.read(name).await,
            Write::Status(status) => {
                let patch = json!({
                    "apiVersion": format!("{GROUP}/{VERSION}"),
                    "kind": "Drive",
                    "metadata": {"name": name},
                    "status": status,
                });
                let params = PatchParams::apply(names::AGENT_MANAGER).force();
                let applied = self
                    .drives
                    .patch_status(name, &params, &Patch::Apply(patch))
                    .await;
                applied.map(|drive| Written::Applied(Box::new(drive)))
            }
            Write::Operation(operation, status) => {
                let patch = json!({
                    "apiVersion": format!("{GROUP}/{VERSION}"),
                    "kind": "DriveOperation",
                    "metadata": {"name": operation},
                    "status": status,
                });
                let params = PatchParams::apply(names::AGENT_MANAGER).force();
                let applied = self
                    .operations
                    .patch_status(&operation, &params, &Patch::Apply(patch))
                    .await;
                applied.map(|operation| Written::Operation(Box::new(operation)))
            }
        };
        match answer {
            // Gone meanwhile (404), there already, or changed meanwhile (409): what the watch brings decides anew.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                Ok(Written::AsWatched)
            }
            answer => answer,
        }
    }

    async fn create(&self, name: &str) -> Result<Written, kube::Error> {
        let spec = DriveSpec {
            node_name: self.node.clone(),
            pool: None,
            pool_id: None,
            carve: None,
            cordon: false,
        };
        let params = PostParams {
            field_manager: Some(names::AGENT_MANAGER.into()),
            ..PostParams::default()
        };
        let created = self.drives.create(&params, &Drive::new(name, spec)).await?;
        Ok(Written::Created(Box::new(created)))
    }

    async fn read(&self, name: &str) -> Result<Written, kube::Error> {
        let drive = self.drives.get_opt(name).await?;
        let pool = match drive.as_ref().and_then(|drive| drive.spec.pool.as_deref()) {
            Some(pool) => self.pools.get_opt(pool).await?,
            None => None,
        };
        Ok(Written::Read(drive.map(Box::new), pool.map(Box::new)))
    }

    /// Deletes the object as it was seen, so that one that was taken into a pool meanwhile stays.
    async fn delete(&self, name: &str, object: Option<Drive>) -> Result<Written, kube::Error> {
        let preconditions = object.map(|object| Preconditions {
            uid: object.uid(),
            resource_version: object.resource_version(),
        });
        let params = DeleteParams {
            preconditions,
            ..DeleteParams::default()
        };
        self.drives.delete(name, &params).await?;
        Ok(Written::AsWatched)
    }

    /// Tells what happened, as well as it can: an Event that is lost is lost.
    pub async fn tell(self, about: ObjectReference, happening: Happening) -> bool {
        let mut note = happening.note;
        if note.len() > NOTE_BYTES {
            let cut = (0..=NOTE_BYTES - 3)
                .rev()
                .find(|at| note.is_char_boundary(*at));
            note.truncate(cut.unwrap_or(0));
            note.push('…');
        }
        let event = Event {
            type_: match happening.warning {
                true => EventType::Warning,
                false => EventType::Normal,
            },
            reason: happening.reason.into(),
            note: Some(note),
            action: happening.action.into(),
            secondary: None,
        };
        let told = tokio::time::timeout(PATIENCE, self.recorder.publish(&event, &about)).await;
        match told {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::warn!(reason = happening.reason, %error, "an Event could not be written");
                false
            }
            Err(_) => false,
        }
    }
}

/// The reference by which an Event names an object.
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    object.object_ref(&())
}
