//! The server as its users see it.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::Router;
use base64::{Engine, engine::general_purpose::STANDARD};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    builtin, expire,
    http::{self, Api},
    log::LogError,
    object::Key,
    read::Pages,
    registry::Registry,
    stats::{Counter, Stats},
    store::Store,
    tls::{Identity, TlsError, write_private},
    write::{FieldValidation, Target, WriteOptions, Writes},
};

/// How often watchers that want bookmarks get one.
const BOOKMARKS: Duration = Duration::from_secs(30);

/// How a server is started.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where state, certificate and token are kept; made if missing. One server at a time.
    pub dir: PathBuf,
    /// Where to listen. With port 0 the port of the last run in this directory is taken again, or a free one.
    pub listen: SocketAddr,
}

impl Config {
    /// State in `dir`, listening on loopback at a port of the server's choice.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
        }
    }
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state cannot be used.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The address cannot be listened on.
    #[error(
        "the API server cannot listen on {address}: {source}; stop what listens there or choose another address"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
}

/// A running API server. Dropping it stops it as [`Server::shutdown`] does, without waiting.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    identity: Identity,
    api: Arc<Api>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Server {
    /// Opens the state in `config.dir` and serves it.
    ///
    /// # Errors
    /// When the directory is in use, damaged or not writable, or the address cannot be listened on.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let (collector, changes) = mpsc::unbounded_channel();
        let store = Arc::new(Store::open(&config.dir, builtin::selectable, collector)?);
        let registry = Arc::new(Registry::new());
        registry.reload(&store);
        let writes = Arc::new(Writes {
            store: Arc::clone(&store),
            registry,
        });
        make_namespaces(&writes);

        let mut identity = Identity::load_or_make(&config.dir)?;
        let listener = listen(config.listen, identity.port).await?;
        let address = listener.local_addr().map_err(|source| StartError::Listen {
            address: config.listen,
            source,
        })?;
        identity.port = address.port();
        identity.save(&config.dir)?;
        let acceptor = identity.acceptor()?;

        let (stop, stopped) = watch::channel(false);
        let api = Arc::new(Api {
            writes: Arc::clone(&writes),
            pages: Pages::default(),
            counter: Counter::default(),
            token: identity.token.clone(),
        });
        let app = Router::new()
            .fallback(http::handle)
            .with_state(Arc::clone(&api));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, acceptor, app, stopped));
        tasks.spawn(writes.collect(changes));
        tasks.spawn(expire::events(Arc::clone(&store)));
        tasks.spawn(async move {
            loop {
                tokio::time::sleep(BOOKMARKS).await;
                store.bookmark();
            }
        });
        tracing::info!(%address, dir = %config.dir.display(), "API server ready");
        Ok(Self {
            address,
            identity,
            api,
            stop,
            tasks,
        })
    }

    /// Where the server listens, as `https://host:port`.
    #[must_use]
    pub fn url(&self) -> String {
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        format!("https://{address}")
    }

    /// A kubeconfig with full access: certificate and token inline. It stays valid over restarts in the same directory.
    #[must_use]
    pub fn kubeconfig(&self) -> String {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "strand", "cluster": {
                "server": self.url(),
                "certificate-authority-data": STANDARD.encode(&self.identity.certificate),
            }}],
            "users": [{"name": "admin", "user": {"token": self.identity.token}}],
            "contexts": [{"name": "strand", "context": {"cluster": "strand", "user": "admin"}}],
            "current-context": "strand",
        });
        // A JSON document is YAML too; this one has string keys and prints in any case.
        serde_yaml::to_string(&config).unwrap_or_else(|_| config.to_string())
    }

    /// Writes the kubeconfig to a file that only its owner can read.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_kubeconfig(&self, path: &Path) -> io::Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        write_private(path, self.kubeconfig().as_bytes())
    }

    /// What has been asked of the server, and what it holds.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.api.stats()
    }

    /// Stops listening, ends every connection and watch, and gives the directory back.
    pub async fn shutdown(mut self) {
        // Without receivers everything has ended already.
        let _ = self.stop.send(true);
        self.tasks.shutdown().await;
    }
}

async fn listen(address: SocketAddr, last_port: u16) -> Result<TcpListener, StartError> {
    if address.port() == 0 && last_port != 0 {
        let same = SocketAddr::new(address.ip(), last_port);
        return TcpListener::bind(same)
            .await
            .map_err(|source| StartError::Listen {
                address: same,
                source,
            });
    }
    TcpListener::bind(address)
        .await
        .map_err(|source| StartError::Listen { address, source })
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    app: Router,
    mut stopped: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted; trying again");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            _ = stopped.changed() => return,
            Some(_) = connections.join_next() => continue,
        };
        connections.spawn(connection(stream, acceptor.clone(), app.clone()));
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, app: Router) {
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(Duration::from_secs(10), acceptor.accept(stream)).await
    {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a client did not complete TLS");
            return;
        }
        Err(_) => return,
    };
    let builder = Builder::new(TokioExecutor::new());
    let served = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
    // Clients end watches by closing; that is no fault.
    if let Err(error) = served.await {
        tracing::trace!(error, "a connection ended");
    }
}

/// The namespaces that every cluster has.
fn make_namespaces(writes: &Writes) {
    let Some(resource) = writes.registry.find("", "v1", "namespaces") else {
        return;
    };
    for name in ["default", "kube-node-lease", "kube-public", "kube-system"] {
        let key = Key::new("", name);
        if writes.store.get("namespaces", &key).is_some() {
            continue;
        }
        let target = Target {
            resource: Arc::clone(&resource),
            key: Key::new("", ""),
            status: false,
        };
        let options = WriteOptions {
            dry_run: false,
            manager: "strand".into(),
            validation: FieldValidation::Ignore,
            force: false,
        };
        if let Err(failure) = writes.create(&target, json!({"metadata": {"name": name}}), &options)
        {
            tracing::warn!(
                name,
                why = failure.message,
                "a standard namespace could not be made"
            );
        }
    }
}
