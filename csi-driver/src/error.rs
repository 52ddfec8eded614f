//! Everything that can go wrong in a call, and the gRPC code that the specification has for it.

use std::io;
use std::path::PathBuf;

use strand_placement::access::NotGranted;
use tonic::{Code, Status};

/// Why a call was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A field that every such request has is empty.
    #[error("the request has no {0}")]
    Missing(&'static str),
    /// A field holds what it cannot.
    #[error("{field}: {why}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What is wrong, and what would be right.
        why: String,
    },
    /// No volume of that id.
    #[error("there is no volume {0}")]
    NoVolume(String),
    /// No snapshot of that id.
    #[error("there is no snapshot {0}")]
    NoSnapshot(String),
    /// No group of snapshots of that id.
    #[error("there is no group of snapshots {0}")]
    NoGroup(String),
    /// A node has as many volumes as it can.
    #[error(
        "node {node} has {limit} volumes attached, and takes no more; detach one, or raise --max-volumes of its driver"
    )]
    Limit {
        /// The node.
        node: String,
        /// How many it can have.
        limit: i64,
    },
    /// No node of that name.
    #[error("there is no node {0}")]
    NoNode(String),
    /// Nothing of that volume at that path.
    #[error("volume {volume} is not at {}", path.display())]
    NotThere {
        /// The volume.
        volume: String,
        /// The path.
        path: PathBuf,
    },
    /// Something of that name is there, and it is another.
    #[error("{what} is there already, with {why}")]
    Exists {
        /// Which object, or which path.
        what: String,
        /// What differs.
        why: String,
    },
    /// Another operation on the same volume is under way.
    #[error("another operation on {0} is under way; try again when it has ended")]
    Busy(String),
    /// What had this name is still being taken away, or changed while the call was at work.
    #[error("{what} {why}; try again")]
    Changing {
        /// Which object.
        what: String,
        /// What happens to it.
        why: &'static str,
    },
    /// A page's token that this driver did not give.
    #[error("starting_token is none of this driver's; start again without one")]
    Token,
    /// The volume is in use in a way that forbids it.
    #[error("{volume} {why}")]
    InUse {
        /// The volume.
        volume: String,
        /// How it is used, and what to do.
        why: String,
    },
    /// NodeStageVolume has to come first.
    #[error("volume {volume} is not staged at {}: stage it first", path.display())]
    NotStaged {
        /// The volume.
        volume: String,
        /// The staging path.
        path: PathBuf,
    },
    /// The bytes are not what is needed.
    #[error("volume {volume}: {why}")]
    Content {
        /// The volume.
        volume: String,
        /// What was found, and what to do.
        why: String,
    },
    /// The claim's namespace may not use the pool.
    #[error(transparent)]
    NotGranted(NotGranted),
    /// A size that no volume can have.
    #[error("{0}")]
    OutOfRange(String),
    /// Nothing has that much room.
    #[error("{what}: {why}")]
    NoSpace {
        /// The volume or snapshot.
        what: String,
        /// The operator's words; they name the closest fit.
        why: String,
    },
    /// The operator or an agent says that it cannot be done now.
    #[error("{what}: {why}")]
    Refused {
        /// The volume or snapshot.
        what: String,
        /// Their words.
        why: String,
    },
    /// The operator or an agent has not done its part in time.
    #[error("{what} is not yet {state}; try again, and look at its conditions if this goes on")]
    Late {
        /// The volume or snapshot.
        what: String,
        /// What was waited for.
        state: &'static str,
    },
    /// This driver does not do that.
    #[error("{0}")]
    Unsupported(String),
    /// The Kubernetes API did not do what was asked.
    #[error("{what}: the Kubernetes API says: {error}")]
    Api {
        /// What was asked.
        what: String,
        /// Its answer.
        error: Box<kube::Error>,
    },
    /// The node agent cannot be reached.
    #[error(
        "the node agent at {} cannot be reached: {why}; it is restarting, or --agent-socket is wrong",
        socket.display()
    )]
    NoAgent {
        /// Its socket.
        socket: PathBuf,
        /// The failure.
        why: String,
    },
    /// The node agent refuses.
    #[error("the node agent says: {words}")]
    Agent {
        /// Its HTTP status.
        status: u16,
        /// Its words.
        words: String,
    },
    /// The kernel refuses.
    #[error("{doing} {}: {error}", path.display())]
    Host {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// The kernel's answer.
        error: io::Error,
    },
    /// A program of the host failed.
    #[error("{program} failed on {}: {words}", path.display())]
    Program {
        /// Its name.
        program: &'static str,
        /// What it worked on.
        path: PathBuf,
        /// What it wrote.
        words: String,
    },
}

impl Error {
    /// The gRPC code of the specification.
    pub fn code(&self) -> Code {
        match self {
            Self::Missing(_) | Self::Invalid { .. } => Code::InvalidArgument,
            Self::NoVolume(_)
            | Self::NoSnapshot(_)
            | Self::NoGroup(_)
            | Self::NoNode(_)
            | Self::NotThere { .. } => Code::NotFound,
            Self::Exists { .. } => Code::AlreadyExists,
            Self::Busy(_) | Self::Changing { .. } | Self::Token => Code::Aborted,
            Self::InUse { .. } | Self::NotStaged { .. } | Self::Content { .. } => {
                Code::FailedPrecondition
            }
            // Nothing is being made: the provisioner gives the claim an event with the words, and asks again.
            Self::NotGranted(_) => Code::PermissionDenied,
            Self::OutOfRange(_) => Code::OutOfRange,
            Self::NoSpace { .. } | Self::Limit { .. } => Code::ResourceExhausted,
            Self::Refused { .. } | Self::NoAgent { .. } => Code::Unavailable,
            Self::Late { .. } => Code::DeadlineExceeded,
            Self::Unsupported(_) => Code::Unimplemented,
            Self::Api { error, .. } => api_code(error),
            Self::Agent { status, .. } => agent_code(*status),
            Self::Host { error, .. } => host_code(error),
            Self::Program { .. } => Code::Internal,
        }
    }

    /// An answer of the Kubernetes API to `what`.
    pub fn api(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let what = what.into();
        move |error| Self::Api {
            what,
            error: Box::new(error),
        }
    }

    /// The kernel's answer to `doing` something with `path`.
    pub fn host<E: Into<io::Error>>(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |error| Self::Host {
            doing,
            path,
            error: error.into(),
        }
    }

    /// A field that holds what it cannot.
    pub fn invalid(field: &'static str, why: impl Into<String>) -> Self {
        Self::Invalid {
            field,
            why: why.into(),
        }
    }
}

/// What cannot be reached or is overloaded is tried again; a conflict too, from the start; the rest needs a hand.
fn api_code(error: &kube::Error) -> Code {
    match error {
        kube::Error::Api(status) => match status.code {
            409 => Code::Aborted,
            400 | 422 => Code::InvalidArgument,
            429 | 500..=599 => Code::Unavailable,
            _ => Code::Internal,
        },
        _ => Code::Unavailable,
    }
}

/// A path where there is a file for a directory, or a directory for a file, or a name that is too long, is its caller's; so is a
/// mount that is in use, and a directory that holds what is not ours.
fn host_code(error: &io::Error) -> Code {
    match error.kind() {
        io::ErrorKind::NotADirectory
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::AlreadyExists
        | io::ErrorKind::InvalidFilename => Code::InvalidArgument,
        io::ErrorKind::ResourceBusy | io::ErrorKind::DirectoryNotEmpty => Code::FailedPrecondition,
        _ => Code::Internal,
    }
}

fn agent_code(status: u16) -> Code {
    match status {
        400 | 422 => Code::InvalidArgument,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        409 | 412 => Code::FailedPrecondition,
        507 => Code::ResourceExhausted,
        429 | 502..=504 => Code::Unavailable,
        _ => Code::Internal,
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
