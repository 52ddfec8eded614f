//! Refusals: a number for programs, words for people.

/// Why the agent refused. The number is fixed for ever; a client that does not know one shows the words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Code {
    /// No protocol version in common.
    Version = 1,
    /// The bytes were no valid hello or frame; the session is closed.
    Malformed = 2,
    /// The frame carries another session's epoch.
    Epoch = 3,
    /// An operation that this version does not have; the session goes on.
    Unknown = 4,
    /// A key without bytes, or with too many.
    Key = 5,
    /// A value that is larger than the arena or the store takes.
    Length = 6,
    /// Offsets or lengths outside the PUT arena.
    Range = 7,
    /// An id that is still in use by a request or a lease of the session.
    Id = 8,
    /// More requests in flight than the session allows, or no arena slot in time.
    Busy = 9,
    /// No arena: the node's total is used up.
    NodeBudget = 10,
    /// No arena: the pod's share is used up, or its earlier sessions still hold theirs.
    PodBudget = 11,
    /// The store cannot do it now; the words say why.
    Store = 12,
    /// The door is closing.
    Closing = 13,
    /// No block is open, or no put begun, under this id; or it took too long and was given up.
    Gone = 14,
    /// A node that may have what is to be deleted or changed cannot be reached.
    Unreachable = 15,
    /// The door is another pod's.
    Stranger = 16,
}

impl Code {
    /// The number on the wire.
    pub fn number(self) -> u16 {
        self as u16
    }
}
