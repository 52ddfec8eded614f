//! Serves the webhooks over TLS.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::{Json, Router, extract::DefaultBodyLimit, extract::State, routing::post};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use prometheus::{HistogramOpts, HistogramVec, Registry};
use serde_json::Value;
use strand_injection::Config;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{self, ServerConfig};

use super::keeper::{Keeper, Served};
use super::review::Review;
use super::seen::Seen;
use super::{inject, validate};

/// Longest request, in bytes: an object of 1.5 MiB twice, and what is around it.
const LONGEST: usize = 4 << 20;
/// Time for a handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Upper bounds of the histogram of answers, in seconds; 20 ms is what is promised of 99 in 100.
const BOUNDS: [f64; 11] = [
    0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.2, 1.0,
];
/// After an accept that failed.
const PAUSE: Duration = Duration::from_millis(50);

/// How long answers take, by hook and outcome.
#[derive(Clone)]
pub struct HookMetrics(HistogramVec);

impl HookMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// If the registry has metrics of that name.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let options = HistogramOpts::new(
            "strand_webhook_seconds",
            "Time to answer the API server, by hook (inject, validate) and outcome",
        )
        .buckets(BOUNDS.to_vec());
        let seconds = HistogramVec::new(options, &["hook", "outcome"])?;
        registry.register(Box::new(seconds.clone()))?;
        Ok(Self(seconds))
    }
}

/// What the hooks answer from.
#[derive(Clone)]
pub struct Hooks {
    seen: Seen,
    /// None: pods are left as they are.
    injection: Option<Arc<Config>>,
    metrics: HookMetrics,
}

impl Hooks {
    /// Hooks that answer from these copies.
    pub fn new(seen: Seen, injection: Option<Config>, metrics: HookMetrics) -> Self {
        Self {
            seen,
            injection: injection.map(Arc::new),
            metrics,
        }
    }

    fn router(self) -> Router {
        Router::new()
            .route("/inject", post(injected))
            .route("/validate", post(validated))
            .layer(DefaultBodyLimit::max(LONGEST))
            .with_state(self)
    }
}

async fn injected(State(hooks): State<Hooks>, Json(review): Json<Review>) -> Json<Value> {
    let begun = Instant::now();
    let request = &review.request;
    let (response, outcome) = match &hooks.injection {
        Some(config) => inject::answer(request, &hooks.seen, config),
        None => (Default::default(), "Off"),
    };
    tracing::debug!(namespace = request.namespace, outcome, "pod");
    hooks
        .metrics
        .0
        .with_label_values(&["inject", outcome])
        .observe(begun.elapsed().as_secs_f64());
    Json(response.to_json(&request.uid))
}

async fn validated(State(hooks): State<Hooks>, Json(review): Json<Review>) -> Json<Value> {
    let begun = Instant::now();
    let request = &review.request;
    let response = validate::answer(request, &hooks.seen);
    let outcome = match (&response.refused, response.warnings.is_empty()) {
        (Some(_), _) => "Refused",
        (None, false) => "Warned",
        (None, true) => "Taken",
    };
    hooks
        .metrics
        .0
        .with_label_values(&["validate", outcome])
        .observe(begun.elapsed().as_secs_f64());
    Json(response.to_json(&request.uid))
}

/// Serves for ever, with the certificates that the keeper has.
///
/// # Errors
/// Where TLS cannot be set up.
pub async fn serve(
    listener: TcpListener,
    keeper: &Keeper,
    hooks: Hooks,
) -> Result<std::convert::Infallible, rustls::Error> {
    let acceptor = acceptor(keeper.served())?;
    let router = hooks.router();
    Ok(accept(listener, acceptor, router).await)
}

fn acceptor(served: Served) -> Result<TlsAcceptor, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(served));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    router: Router,
) -> std::convert::Infallible {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(connection(stream, acceptor.clone(), router.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, router: Router) {
    let _ = stream.set_nodelay(true);
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await else {
        return;
    };
    let builder = Builder::new(TokioExecutor::new());
    let served = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = served.await {
        tracing::trace!(error, "a connection ended");
    }
}
