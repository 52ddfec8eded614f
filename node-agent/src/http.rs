//! What an agent shows over HTTP: `/metrics`, `/healthz`, `/readyz`, and `/drives` on its Unix socket.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use strand_api::{DrivePhase, DriveReason, DriveVerdict};
use strand_drives::{OwnedDrive, SeenDrive};

use crate::agent::Handle;

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

/// The routes of the node's own socket: the same, and `/drives`.
pub fn local(handle: &Handle) -> Router {
    let drives = Router::new()
        .route("/drives", get(drives))
        .with_state(handle.clone());
    public(handle).merge(drives)
}

async fn drives(State(handle): State<Handle>) -> Response {
    match handle.drives().await {
        Some(drives) => Json(drives).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "the agent is ending\n").into_response(),
    }
}
