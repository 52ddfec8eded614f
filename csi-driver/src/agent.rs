//! The node's agent, over HTTP on its Unix socket.

use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;

use crate::error::Error;

/// How long a request may take. Detaching waits for the device's I/O.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest answer that is read, in bytes.
const LONGEST: usize = 4 << 20;

/// What a volume shall be attached as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttachmentRequest {
    /// Generation of the attachment, as the controller was granted it.
    pub generation: i64,
    /// Whether the device shall refuse writes.
    pub read_only: bool,
}

/// An attached volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attached {
    /// Its device node.
    pub device: PathBuf,
}

/// A door to context memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DoorRequest {
    /// The MemoryPool.
    pub pool: String,
    /// The pod's namespace.
    pub namespace: String,
    /// Where the socket is made.
    pub directory: PathBuf,
    /// The pod's uid: who else connects is refused.
    #[serde(rename = "podUID")]
    pub pod_uid: String,
}

/// Scratch space of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScratchRequest {
    /// The MemoryPool on whose drives it lies.
    pub pool: String,
    /// The pod's namespace.
    pub namespace: String,
    /// Bytes.
    pub size: u64,
    /// The directory in which the pod sees it.
    pub target: PathBuf,
}

/// Scratch space that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scratch {
    /// Its id.
    pub id: String,
    /// The directory in which its pod sees it.
    pub target: PathBuf,
}

/// The agent behind a socket.
#[derive(Clone, Debug)]
pub struct Agent {
    socket: PathBuf,
}

impl Agent {
    /// The agent that listens there.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    /// Attaches a volume; one that is attached so stays as it is.
    ///
    /// # Errors
    /// [`Error::NoAgent`] and [`Error::Agent`].
    pub async fn attach(&self, volume: &str, how: &AttachmentRequest) -> Result<PathBuf, Error> {
        let path = format!("/volumes/{volume}/attachment");
        let attached: Attached = self.put(&path, how).await?;
        Ok(attached.device)
    }

    /// Detaches a volume; afterwards its device is gone.
    ///
    /// # Errors
    /// As for [`Self::attach`].
    pub async fn detach(&self, volume: &str) -> Result<(), Error> {
        self.delete(&format!("/volumes/{volume}/attachment")).await
    }

    /// Opens a door; one that is open so stays as it is.
    ///
    /// # Errors
    /// As for [`Self::attach`].
    pub async fn open_door(&self, id: &str, door: &DoorRequest) -> Result<(), Error> {
        let path = format!("/doors/{id}");
        let _: serde_json::Value = self.put(&path, door).await?;
        Ok(())
    }

    /// Closes a door.
    ///
    /// # Errors
    /// As for [`Self::attach`].
    pub async fn close_door(&self, id: &str) -> Result<(), Error> {
        self.delete(&format!("/doors/{id}")).await
    }

    /// Makes scratch space a device; what is there of that id stays as it is.
    ///
    /// # Errors
    /// As for [`Self::attach`].
    pub async fn scratch(&self, id: &str, space: &ScratchRequest) -> Result<PathBuf, Error> {
        let attached: Attached = self.put(&format!("/scratch/{id}"), space).await?;
        Ok(attached.device)
    }

    /// Takes scratch space away, its bytes too.
    ///
    /// # Errors
    /// As for [`Self::attach`].
    pub async fn end_scratch(&self, id: &str) -> Result<(), Error> {
        self.delete(&format!("/scratch/{id}")).await
    }

    /// All scratch space of this node.
    ///
    /// # Errors
    /// As for [`Self::attach`].
    pub async fn all_scratch(&self) -> Result<Vec<Scratch>, Error> {
        let answer = match self.ask(Method::GET, "/scratch", Vec::new()).await {
            // An agent from before there was any.
            Err(Error::Agent { status: 404, .. }) => return Ok(Vec::new()),
            answer => answer?,
        };
        serde_json::from_slice(&answer).map_err(|e| self.unreadable(&e))
    }

    async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        let body = serde_json::to_vec(body).map_err(|e| self.unreadable(&e))?;
        let answer = self.ask(Method::PUT, path, body).await?;
        serde_json::from_slice(&answer).map_err(|e| self.unreadable(&e))
    }

    /// What is not there is gone already.
    async fn delete(&self, path: &str) -> Result<(), Error> {
        match self.ask(Method::DELETE, path, Vec::new()).await {
            Ok(_) | Err(Error::Agent { status: 404, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn ask(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Bytes, Error> {
        let asking = async {
            let stream = UnixStream::connect(&self.socket).await;
            let stream = stream.map_err(|e| self.unreached(&e))?;
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|e| self.unreached(&e))?;
            let connection = tokio::spawn(connection);
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header("host", "agent")
                .header("content-type", "application/json")
                .body(Full::new(Bytes::from(body)))
                .map_err(|e| self.unreached(&e))?;
            let answer = sender.send_request(request).await;
            let (head, body) = answer.map_err(|e| self.unreached(&e))?.into_parts();
            let body = Limited::new(body, LONGEST).collect().await;
            connection.abort();
            let body = body.map_err(|e| self.unreached(&*e))?.to_bytes();
            refused(head.status, &body).map_or(Ok(body), Err)
        };
        let late = |_| self.unreached(&"no answer in 30 s");
        tokio::time::timeout(PATIENCE, asking).await.map_err(late)?
    }

    fn unreached(&self, error: &(impl std::fmt::Display + ?Sized)) -> Error {
        Error::NoAgent {
            socket: self.socket.clone(),
            why: error.to_string(),
        }
    }

    fn unreadable(&self, error: &serde_json::Error) -> Error {
        Error::Agent {
            status: 500,
            words: format!("something that is not understood: {error}"),
        }
    }
}

fn refused(status: StatusCode, body: &[u8]) -> Option<Error> {
    (!status.is_success()).then(|| Error::Agent {
        status: status.as_u16(),
        words: String::from_utf8_lossy(body).trim().to_owned(),
    })
}
