//! What an agent shows over HTTP: `/metrics`, `/healthz`, `/readyz`; on its Unix socket also `/drives`, `/context`, and what the
//! processes of its node ask of it: `/doors` and `/scratch` space of pods, and attachments of `/volumes`.

use axum::extract::Path;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use strand_api::{DrivePhase, DriveReason, DriveVerdict};
use strand_arrays::ArrayError;
use strand_drives::{OwnedDrive, SeenDrive};
use strand_fabric::FabricError;
use strand_volumes::VolumeError;

use crate::agent::Handle;
use crate::context::{ContextMemory, DoorError, DoorRequest};
use crate::volumes::{AttachError, AttachRequest, ScratchRequest, Volumes};

/// One drive as `/drives` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DriveReport {
    /// Name of its object.
    pub name: String,
    /// The drive as it is seen; left out while it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<SeenDrive>,
    /// The agent's finding; left out before there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<DriveVerdict>,
    /// Every reason for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<DriveReason>,
    /// The phase that the API shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<DrivePhase>,
    /// The drive as it is owned, with how to reach its partitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owned: Option<OwnedDrive>,
    /// Work under way, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_work: Option<String>,
    /// The failure of the last work, in words, while it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// The routes that are open to the network: `/metrics`, `/healthz`, `/readyz`.
pub fn public(handle: &Handle) -> Router {
    strand_process::router(handle.registry().clone(), handle.health().clone())
}

/// The routes of the node's own socket: the same, `/drives`, `/context`, `/doors`, `/volumes` and `/scratch`.
pub fn local(handle: &Handle) -> Router {
    let local = Router::new()
        .route("/drives", get(drives))
        .route("/context", get(context))
        .route("/doors", get(doors))
        .route("/doors/{id}", put(open_door).delete(close_door))
        .route("/volumes", get(volumes))
        .route("/volumes/{volume}/attachment", put(attach).delete(detach))
        .route("/scratch", get(all_scratch))
        .route("/scratch/{id}", put(scratch).delete(end_scratch))
        .with_state(handle.clone());
    public(handle).merge(local)
}

async fn drives(State(handle): State<Handle>) -> Response {
    match handle.drives().await {
        Some(drives) => Json(drives).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "the agent is ending\n").into_response(),
    }
}

/// Why `/context` or `/doors` cannot do what was asked.
enum Refusal {
    NoContext,
    Door(DoorError),
}

impl From<DoorError> for Refusal {
    fn from(error: DoorError) -> Self {
        Self::Door(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self::Door(error) = self else {
            let words = "this agent serves no context memory\n";
            return (StatusCode::NOT_FOUND, words).into_response();
        };
        let status = match &error {
            DoorError::Id { .. } => StatusCode::BAD_REQUEST,
            DoorError::NoPool { .. } => StatusCode::NOT_FOUND,
            DoorError::Differs { .. } => StatusCode::CONFLICT,
            DoorError::Denied { .. } => StatusCode::FORBIDDEN,
            DoorError::Ending | DoorError::NotYet { .. } => StatusCode::SERVICE_UNAVAILABLE,
            DoorError::Socket(_) | DoorError::Rack(_) | DoorError::Record(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        (status, format!("{error}\n")).into_response()
    }
}

/// Context memory, or the answer that there is none.
fn served(handle: &Handle) -> Result<&ContextMemory, Refusal> {
    handle.context().ok_or(Refusal::NoContext)
}

async fn context(State(handle): State<Handle>) -> Result<Response, Refusal> {
    Ok(Json(served(&handle)?.report()).into_response())
}

async fn doors(State(handle): State<Handle>) -> Result<Response, Refusal> {
    Ok(Json(served(&handle)?.doors().await).into_response())
}

async fn open_door(
    State(handle): State<Handle>,
    Path(id): Path<String>,
    Json(request): Json<DoorRequest>,
) -> Result<Response, Refusal> {
    let opened = served(&handle)?.open_door(&id, request).await?;
    Ok(Json(opened).into_response())
}

async fn close_door(
    State(handle): State<Handle>,
    Path(id): Path<String>,
) -> Result<StatusCode, Refusal> {
    served(&handle)?.close_door(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Why `/volumes` cannot do what was asked.
enum Unattached {
    NoVolumes,
    Attach(AttachError),
}

impl From<AttachError> for Unattached {
    fn from(error: AttachError) -> Self {
        Self::Attach(error)
    }
}

impl IntoResponse for Unattached {
    fn into_response(self) -> Response {
        let Self::Attach(error) = self else {
            let words = "this agent serves no volumes; give it --volumes-dir, as root\n";
            return (StatusCode::SERVICE_UNAVAILABLE, words).into_response();
        };
        let status = match &error {
            AttachError::NotHere { .. } | AttachError::Volume(VolumeError::NotFound { .. }) => {
                StatusCode::NOT_FOUND
            }
            AttachError::NotYet { .. }
            | AttachError::Fabric(FabricError::Refused { .. })
            | AttachError::Volume(VolumeError::NotOpen { .. }) => StatusCode::SERVICE_UNAVAILABLE,
            AttachError::Refused { .. }
            | AttachError::Busy { .. }
            | AttachError::Several { .. }
            | AttachError::Unowned { .. }
            | AttachError::Array {
                source:
                    ArrayError::Busy { .. } | ArrayError::Refused(_) | ArrayError::NoModule { .. },
                ..
            }
            | AttachError::Fabric(FabricError::NoModule { .. })
            | AttachError::Volume(
                VolumeError::Stale { .. }
                | VolumeError::Busy { .. }
                | VolumeError::OldKernel { .. },
            ) => StatusCode::CONFLICT,
            AttachError::Denied(_) => StatusCode::FORBIDDEN,
            AttachError::NoRoom { .. }
            | AttachError::Volume(VolumeError::NoSpace { .. } | VolumeError::Full { .. }) => {
                StatusCode::INSUFFICIENT_STORAGE
            }
            AttachError::Volume(VolumeError::BadName { .. }) => StatusCode::BAD_REQUEST,
            AttachError::Volume(_)
            | AttachError::Fabric(_)
            | AttachError::Array { .. }
            | AttachError::Record { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, format!("{error}\n")).into_response()
    }
}

fn attaching(handle: &Handle) -> Result<&Volumes, Unattached> {
    handle.volumes().ok_or(Unattached::NoVolumes)
}

async fn volumes(State(handle): State<Handle>) -> Result<Response, Unattached> {
    Ok(Json(attaching(&handle)?.report().await?).into_response())
}

async fn attach(
    State(handle): State<Handle>,
    Path(volume): Path<String>,
    Json(request): Json<AttachRequest>,
) -> Result<Response, Unattached> {
    let attached = attaching(&handle)?.attach(&volume, request).await?;
    Ok(Json(attached).into_response())
}

async fn detach(
    State(handle): State<Handle>,
    Path(volume): Path<String>,
) -> Result<StatusCode, Unattached> {
    attaching(&handle)?.detach(&volume).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// An agent that serves no volumes has no scratch space.
async fn all_scratch(State(handle): State<Handle>) -> Result<Response, Unattached> {
    let all = match handle.volumes() {
        Some(volumes) => volumes.all_scratch().await?,
        None => Vec::new(),
    };
    Ok(Json(all).into_response())
}

async fn scratch(
    State(handle): State<Handle>,
    Path(id): Path<String>,
    Json(request): Json<ScratchRequest>,
) -> Result<Response, Unattached> {
    let attached = attaching(&handle)?.scratch(&id, request).await?;
    Ok(Json(attached).into_response())
}

async fn end_scratch(
    State(handle): State<Handle>,
    Path(id): Path<String>,
) -> Result<StatusCode, Unattached> {
    attaching(&handle)?.end_scratch(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}
