//! What the door serves from.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use strand_context_store::Span;
use strand_kv_client::arena::{GetSlot, Memory, PutBytes};
use strand_kv_client::slots::SLOT;

use crate::{Namespace, Refused, Room};

/// How a block is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PutOptions {
    /// The block's life.
    pub life: Life,
    /// Only where the key is absent.
    pub only_if_absent: bool,
}

/// How long a block lives, if it is not evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// What the pool's policy says.
    Policy,
    /// No expiry.
    Endless,
    /// This long from now.
    For(Duration),
}

/// How a put ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// Committed: readable by every pod of the namespace.
    Stored,
    /// The key was there.
    Present,
    /// Not taken: only a later miss.
    Dropped,
}

/// A value that was read and verified.
#[derive(Debug)]
pub struct Landed<A> {
    /// Where it lies.
    pub slot: Arc<GetSlot<A>>,
    /// Its bytes, no more than the slot has.
    pub length: usize,
}

/// Bytes in a part of a value that is read in parts; the last part has what is left.
pub const PART: usize = SLOT;

/// A block that is read in parts, because it does not fit a session's arena whole. Dropped, it is closed.
pub trait Opened<A>: Send + Sync + 'static {
    /// Value bytes.
    fn length(&self) -> u64;

    /// A number that differs where values differ: a reader whose connection was lost goes on with the same key only
    /// where this is the same. Equal values need not have equal ones.
    fn digest(&self) -> u64;

    /// Reads part `number`, from 0 on, into `slot` and verifies it. `None`: there is no such part, or it cannot be
    /// read or verified, and the block is a miss from here on. Parts may be asked for in any order, several at once.
    fn read(
        &self,
        number: u64,
        slot: GetSlot<A>,
    ) -> impl Future<Output = Result<Option<Landed<A>>, Refused>> + Send;
}

/// What is known of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described {
    /// Value bytes.
    pub length: u64,
    /// What is left of its life; none: no expiry.
    pub left: Option<Duration>,
}

/// Some keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Where to go on; 0: that was all.
    pub cursor: u64,
    /// Keys.
    pub keys: Vec<Vec<u8>>,
}

/// What a namespace holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Blocks.
    pub blocks: u64,
    /// Bytes that they take.
    pub bytes: u64,
}

/// The blocks of all namespaces. Keys have 1 to 1,024 bytes, the door has checked that.
///
/// A refusal with [`Code::Busy`](strand_kv_client::frame::Code::Busy) or
/// [`Code::Store`](strand_kv_client::frame::Code::Store) is a miss or a dropped put to the client, every other
/// one an error. The futures may be dropped at any time; whatever still touches a slot then keeps it.
pub trait Blocks: Send + Sync + 'static {
    /// What it keeps of a session's arenas, for instance its own mappings of them.
    type Arena: Send + Sync + 'static;

    /// A block that is being read in parts.
    type Opened: Opened<Self::Arena>;

    /// Called once for new arenas, before the pod gets them: GET, PUT, each with its size in bytes.
    fn map(&self, get: Memory<'_>, put: Memory<'_>) -> io::Result<Self::Arena>;

    /// Reads a block into slots taken from `room`, and verifies all of it. `None` is a miss. A value for which `room`
    /// has no room is refused with [`Code::Length`](strand_kv_client::frame::Code::Length), as [`Room::take`] does.
    fn get(
        &self,
        namespace: Namespace,
        key: &[u8],
        room: Room<Self::Arena>,
    ) -> impl Future<Output = Result<Option<Landed<Self::Arena>>, Refused>> + Send;

    /// Opens a block that does not fit, to be read in parts. `None` is a miss.
    fn open(
        &self,
        namespace: Namespace,
        key: &[u8],
    ) -> impl Future<Output = Result<Option<Self::Opened>, Refused>> + Send;

    /// Stores a block. The bytes are hostile: what changes while they are read must be no more than a
    /// later miss of this key.
    fn put(
        &self,
        namespace: Namespace,
        key: &[u8],
        value: PutBytes<Self::Arena>,
        options: PutOptions,
    ) -> impl Future<Output = Result<Put, Refused>> + Send;

    /// Stores a block that came in parts, from the agent's own memory: whole slots, but for the last one. Nobody
    /// else writes them.
    fn put_gathered(
        &self,
        namespace: Namespace,
        key: &[u8],
        value: Vec<Span>,
        options: PutOptions,
    ) -> impl Future<Output = Result<Put, Refused>> + Send;

    /// Which keys are there, in their order; those get a lease.
    fn exists(
        &self,
        namespace: Namespace,
        keys: &[Vec<u8>],
    ) -> impl Future<Output = Result<Vec<bool>, Refused>> + Send;

    /// How many of the first keys are there without a gap; those get a lease.
    fn leading_run(
        &self,
        namespace: Namespace,
        keys: &[Vec<u8>],
    ) -> impl Future<Output = Result<usize, Refused>> + Send;

    /// What is known of a block.
    fn describe(
        &self,
        namespace: Namespace,
        key: &[u8],
    ) -> impl Future<Output = Result<Option<Described>, Refused>> + Send;

    /// Sets a block's life from now on; none: no expiry. Whether it is there.
    fn expire(
        &self,
        namespace: Namespace,
        key: &[u8],
        left: Option<Duration>,
    ) -> impl Future<Output = Result<bool, Refused>> + Send;

    /// Deletes a block for good. Whether it was there.
    fn delete(
        &self,
        namespace: Namespace,
        key: &[u8],
    ) -> impl Future<Output = Result<bool, Refused>> + Send;

    /// Deletes every block of the namespace for good.
    fn flush(&self, namespace: Namespace) -> impl Future<Output = Result<(), Refused>> + Send;

    /// About `limit` keys from `cursor` on.
    fn scan(
        &self,
        namespace: Namespace,
        cursor: u64,
        limit: usize,
    ) -> impl Future<Output = Result<Page, Refused>> + Send;

    /// What the namespace holds.
    fn totals(&self, namespace: Namespace) -> impl Future<Output = Result<Totals, Refused>> + Send;
}
