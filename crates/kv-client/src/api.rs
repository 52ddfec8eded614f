//! The words of the client's interface: options, outcomes, errors, counters.

use std::path::PathBuf;
use std::time::Duration;

use crate::frame::FOREVER;

/// The longest key, in bytes. A key has at least one byte.
pub const MAX_KEY: usize = 1024;

/// How a [`Client`](crate::Client) connects.
#[derive(Clone, Debug)]
pub struct Options {
    /// The door's socket. It may appear later, and again after an agent's restart.
    pub socket: PathBuf,
    /// Bytes of GET arena to ask for; 0 leaves it to the agent. It may grant less.
    pub get_bytes: u64,
    /// Bytes of PUT arena to ask for; 0 leaves it to the agent. It may grant less.
    pub put_bytes: u64,
    /// How long a request that was in flight when the agent went away waits for a new agent, to be sent
    /// once more, before it is a miss or a dropped put. Default 500 ms.
    pub resend_within: Duration,
    /// How long a request may take in all (waiting for arena slots included) before it counts as a miss
    /// or a dropped put. Default 10 s.
    pub patience: Duration,
    /// With exactly one request outstanding, poll the socket for its reply this long before sleeping.
    /// Saves a wake-up on fast drives and costs that much processor time; at most 50 µs. Where that is too short again
    /// and again it is tried now and then only. Default 0.
    pub spin: Duration,
    /// A name for the agent's logs, at most 64 bytes of it are sent.
    pub name: String,
}

impl Options {
    /// The defaults, for the door at `socket`.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
            get_bytes: 0,
            put_bytes: 0,
            resend_within: Duration::from_millis(500),
            patience: Duration::from_secs(10),
            spin: Duration::ZERO,
            name: String::new(),
        }
    }
}

/// Whether there is an agent behind the client now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connection {
    /// No agent; what the last attempt said. The client goes on trying.
    Down {
        /// Why, in words.
        reason: String,
    },
    /// An agent serves.
    Up {
        /// The session's epoch; a new one after each reconnect.
        epoch: u64,
        /// The protocol version both speak.
        version: u16,
        /// Size of the GET arena: the longest value that can be read whole.
        get_bytes: u64,
        /// Size of the PUT arena: the longest value that can be written whole.
        put_bytes: u64,
    },
}

/// What a put may carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PutOptions {
    /// The value expires after this time (1 ms at least); none leaves it to the pool's policy.
    pub ttl: Option<Duration>,
    /// Store only where the key is absent.
    pub only_if_absent: bool,
}

impl PutOptions {
    /// As frames have it.
    pub(crate) fn ttl_ms(&self) -> u64 {
        self.ttl.map_or(0, |ttl| milliseconds(ttl).max(1))
    }
}

/// A time in milliseconds, no longer than a frame can say.
pub(crate) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).map_or(FOREVER - 1, |ms| ms.min(FOREVER - 1))
}

/// How a put ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// Readable from now on, by every pod of the namespace.
    Stored,
    /// `only_if_absent`, and the key was there: nothing was written.
    Present,
    /// Not taken (no agent, no time, no room, endurance budget): only a later miss. Counted.
    Dropped,
}

/// What is known of a key's lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// No such key.
    Absent,
    /// Present, without expiry.
    Forever,
    /// Present, expires after this time.
    Left(Duration),
}

/// A part of a scan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Where to go on; 0 when the scan is complete.
    pub cursor: u64,
    /// Keys. One may be reported twice; one present during the whole scan is reported at least once.
    pub keys: Vec<Vec<u8>>,
}

/// What the agent says of the namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NamespaceStats {
    /// Blocks present.
    pub blocks: u64,
    /// Bytes that they take on drives: whole pages, their keys included.
    pub bytes: u64,
}

/// Why a call failed. Misses, dropped puts and an absent agent are not among these, except where a caller
/// relies on the effect (delete, expire, flush) or on the answer's being exact (scan, stats).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Empty or too long.
    #[error("a key of {length} bytes: keys have 1 to {MAX_KEY} bytes")]
    KeyLength {
        /// Bytes in the key.
        length: usize,
    },
    /// Empty.
    #[error("an empty value cannot be stored; values have at least one byte")]
    Empty,
    /// Too long.
    #[error(
        "a value of {length} bytes: at most {max} are taken here; use smaller blocks, or a larger arena"
    )]
    ValueLength {
        /// Bytes in the value.
        length: u64,
        /// The longest that this session takes.
        max: u64,
    },
    /// To a get: it has to be read in parts.
    #[error(
        "the value does not fit the {max} bytes of this session's GET arena; fetch it in parts"
    )]
    Larger {
        /// Bytes in GET.
        max: u64,
    },
    /// No agent, and the call's effect cannot be dropped silently.
    #[error("the context-memory agent is away ({reason}): {call} was not done; try again")]
    Down {
        /// Which call.
        call: &'static str,
        /// Why there is no agent.
        reason: String,
    },
    /// The agent refused, in its own words.
    #[error("the context-memory agent refused {call}: {words}")]
    Refused {
        /// Which call.
        call: &'static str,
        /// The agent's code.
        code: u16,
        /// The agent's words.
        words: String,
    },
}

/// The rest of a value that is read in parts cannot be had: what was given of it is right, and worth nothing.
#[derive(Debug, thiserror::Error)]
#[error(
    "the rest of a value of {length} bytes is lost after {given}: {reason}; read it again, or take it for a miss"
)]
pub struct Lost {
    /// Bytes in the value.
    pub length: u64,
    /// Bytes of it that were given.
    pub given: u64,
    /// Why.
    pub reason: String,
}

/// What the client has seen since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Gets that found their block.
    pub hits: u64,
    /// Gets that did not, for whatever reason.
    pub misses: u64,
    /// Of `misses`: there was no agent.
    pub misses_down: u64,
    /// Of `misses`: the agent was too busy, the arena full, or `patience` at its end.
    pub misses_busy: u64,
    /// Gets sent a second time after the agent went away.
    pub gets_resent: u64,
    /// Puts stored.
    pub puts: u64,
    /// Puts dropped, for whatever reason.
    pub dropped: u64,
    /// Of `dropped`: there was no agent.
    pub dropped_down: u64,
    /// Puts sent a second time after the agent went away.
    pub puts_resent: u64,
    /// Values read in parts whose rest was lost.
    pub lost: u64,
    /// Values read in parts that went on in another session.
    pub resumed: u64,
    /// Sessions opened.
    pub sessions: u64,
}
