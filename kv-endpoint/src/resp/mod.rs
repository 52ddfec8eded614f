//! The Redis serialization protocol, versions 2 and 3 (<https://redis.io/docs/latest/develop/reference/protocol-spec/>):
//! what clients send ([`Parser`]) and what they are answered ([`Reply`]). No I/O.

mod parser;
mod reply;

pub use parser::{Item, MAX_ARGUMENTS, MAX_BULK, MAX_LINE, Parser, ProtocolError, Step};
pub use reply::{Protocol, Reply, refusal};
