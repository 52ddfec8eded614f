//! One pod's door: its socket, its namespace, its share of arena bytes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use strand_kv_client::frame::Code;
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, watch};

use crate::arenas::Arenas;
use crate::guest::{self, PodUid};
use crate::meter::Meter;
use crate::node::Node;
use crate::session::{self, Ends};
use crate::streams::Streams;
use crate::{Blocks, Namespace, Refused, greet, socket};

/// Connections that a pod may have: as many as could have a slot of each arena by default.
const SESSIONS: usize = 32;

/// The pause after a connection that could not be accepted (no descriptors left).
const PAUSE: Duration = Duration::from_millis(100);

/// What a door is.
#[derive(Clone, Debug)]
pub struct DoorOptions {
    /// Where its socket is bound.
    pub socket: PathBuf,
    /// Whose blocks it serves.
    pub namespace: Namespace,
    /// Arena bytes of all the pod's sessions together.
    pub arena_bytes: usize,
}

impl DoorOptions {
    /// The default share: 64 MiB.
    pub const ARENA_BYTES: usize = 64 << 20;
}

/// Why a door was not opened.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// The socket could not be bound.
    #[error(
        "the native door {path} could not be bound: {error}; check its directory and that the path has fewer than 108 bytes"
    )]
    Socket {
        /// Where.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        error: std::io::Error,
    },
}

/// An open door. Dropped, it removes its socket and ends its sessions.
#[derive(Debug)]
pub struct Door {
    path: PathBuf,
    _open: watch::Sender<()>,
}

impl Door {
    pub(crate) fn open<B: Blocks>(
        node: Arc<Node<B>>,
        guest: Option<PodUid>,
        options: DoorOptions,
    ) -> Result<Self, DoorError> {
        let path = options.socket;
        let listener =
            (socket::listen_at(&path).and_then(UnixListener::from_std)).map_err(|error| {
                DoorError::Socket {
                    path: path.clone(),
                    error,
                }
            })?;
        let (open, closed) = watch::channel(());
        let pod = Arc::new(Pod {
            streams: Streams::default(),
            meter: node.meter(options.namespace),
            arenas: Arenas::new(
                options.arena_bytes,
                Arc::clone(&node.budget),
                Arc::clone(&node.arena_bytes),
            ),
            namespace: options.namespace,
            guest,
            node,
        });
        tokio::spawn(pod.accept(listener, closed));
        Ok(Self { path, _open: open })
    }

    /// Where its socket is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Err(error) = socket::remove(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the door's socket could not be removed");
        }
    }
}

/// What the sessions of one pod share.
pub(crate) struct Pod<B: Blocks> {
    pub(crate) node: Arc<Node<B>>,
    pub(crate) namespace: Namespace,
    /// Whose processes may come in; left out: whoever gets to the socket.
    guest: Option<PodUid>,
    pub(crate) arenas: Arc<Arenas<B::Arena>>,
    pub(crate) streams: Streams,
    pub(crate) meter: Arc<Meter>,
}

impl<B: Blocks> Pod<B> {
    async fn accept(self: Arc<Self>, listener: UnixListener, mut closed: watch::Receiver<()>) {
        let sessions = Arc::new(Semaphore::new(SESSIONS));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = closed.changed() => return,
            };
            match accepted {
                Ok((socket, _)) => {
                    let permit = Arc::clone(&sessions).try_acquire_owned().ok();
                    let pod = Arc::clone(&self);
                    let ends: Ends = closed.clone();
                    tokio::spawn(async move {
                        let admitted = pod.guest.as_ref().map(|pod| guest::admit(pod, &socket));
                        let refused = match (admitted, permit) {
                            (Some(Err(stranger)), _) => stranger,
                            (_, None) => too_many(),
                            (_, Some(_permit)) => {
                                session::serve(pod, socket, ends).await;
                                return;
                            }
                        };
                        pod.node.refused.add(1);
                        greet::refuse(&socket, refused).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a pod's connection could not be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

fn too_many() -> Refused {
    let words = format!("this pod has {SESSIONS} sessions already; share one client between tasks");
    Refused::new(Code::PodBudget, words)
}
