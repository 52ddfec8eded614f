//! The driver's socket.

use std::fs;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use strand_csi::v1::controller_server::ControllerServer;
use strand_csi::v1::group_controller_server::GroupControllerServer;
use strand_csi::v1::identity_server::IdentityServer;
use strand_csi::v1::node_server::NodeServer;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

use crate::{Controller, Identity, Node};

/// Where the driver listens: a Unix socket, written as `unix:///path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(PathBuf);

/// Why the driver cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// Not an address of a Unix socket.
    #[error("{0:?} is no endpoint; write unix:///path/of/a/socket")]
    Malformed(String),
    /// The socket cannot be made.
    #[error("cannot listen on {}: {error}; give another path with --endpoint", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        error: io::Error,
    },
    /// The socket broke.
    #[error("serving gRPC failed: {0}")]
    Serve(#[from] tonic::transport::Error),
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let path = text.strip_prefix("unix://").or(text.strip_prefix("unix:"));
        match path {
            Some(path) if path.starts_with('/') && path.len() > 1 => Ok(Self(path.into())),
            _ => Err(EndpointError::Malformed(text.into())),
        }
    }
}

/// What a process serves.
#[derive(Clone, Default)]
pub struct Services {
    /// The controller's calls.
    pub controller: Option<Controller>,
    /// The node's calls.
    pub node: Option<Node>,
}

/// Serves until `stop`; calls under way are finished.
///
/// # Errors
/// [`EndpointError`].
pub async fn serve(
    endpoint: &Endpoint,
    services: Services,
    stop: impl Future<Output = ()>,
) -> Result<(), EndpointError> {
    let path = &endpoint.0;
    let listener = listen(path).map_err(|error| EndpointError::Listen {
        path: path.clone(),
        error,
    })?;
    Server::builder()
        .add_service(IdentityServer::new(Identity))
        .add_optional_service(services.controller.clone().map(GroupControllerServer::new))
        .add_optional_service(services.controller.map(ControllerServer::new))
        .add_optional_service(services.node.map(NodeServer::new))
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), stop)
        .await?;
    // The kubelet takes a socket that is there for a driver that runs.
    let _ = fs::remove_file(path);
    Ok(())
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    // What a driver that was killed left. Nothing else is taken away.
    match fs::symlink_metadata(path) {
        Ok(there) if there.file_type().is_socket() => fs::remove_file(path)?,
        Ok(_) => return Err(ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}
