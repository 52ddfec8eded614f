//! `/metrics` in Prometheus' text form, `/healthz` and `/readyz` as the kubelet asks them.

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use prometheus::{Registry, TextEncoder};
use std::sync::{Arc, Mutex};

/// Whether a process is ready, and if not, what it waits for. Clones share one state.
#[derive(Clone, Debug)]
pub struct Health {
    waits_for: Arc<Mutex<Option<String>>>,
}

impl Health {
    /// A process that is not ready yet, waiting for `what`.
    pub fn waiting_for(what: &str) -> Self {
        Self {
            waits_for: Arc::new(Mutex::new(Some(what.into()))),
        }
    }

    /// From now on the process is ready.
    pub fn ready(&self) {
        self.set(None);
    }

    /// From now on the process is not ready, waiting for `what`.
    pub fn wait_for(&self, what: &str) {
        self.set(Some(what.into()));
    }

    fn set(&self, value: Option<String>) {
        *self
            .waits_for
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner()) = value;
    }

    fn get(&self) -> Option<String> {
        self.waits_for
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .clone()
    }
}

/// The routes `/metrics`, `/healthz` and `/readyz`.
pub fn router(registry: Registry, health: Health) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .with_state(registry)
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(move || readyz(health.clone())))
}

async fn metrics(State(registry): State<Registry>) -> impl IntoResponse {
    match TextEncoder::new().encode_to_string(&registry.gather()) {
        Ok(text) => (
            StatusCode::OK,
            [(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)],
            text,
        ),
        Err(e) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [(header::CONTENT_TYPE, "text/plain")],
            format!("metrics cannot be written: {e}\n"),
        ),
    }
}

async fn readyz(health: Health) -> (StatusCode, String) {
    match health.get() {
        None => (StatusCode::OK, "ok\n".into()),
        Some(what) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: waiting for {what}\n"),
        ),
    }
}
