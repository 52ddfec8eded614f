//! What goes over a link between two agents: a hello in the clear, then sealed frames.
//!
//! All numbers are little-endian. A frame is
//!
//! ```text
//! header (48, in the clear, authenticated) | body (sealed) | tag (16) | payload (sealed; its tag is in the header)
//! ```
//!
//! The body is a request's or a reply's fields; the payload is a piece of a value of at most [`PIECE`] bytes, and goes
//! straight between the socket and the memory that it belongs to. Decoding takes any bytes without panicking.

mod fields;
mod header;
mod hello;
mod parts;
mod reply;
mod request;

pub use fields::Malformed;
pub use header::{HEAD, HEADER, Header, MAX_BODY, PIECE, TAG};
pub(crate) use hello::length_of;
pub use hello::{Hello, Lane, MAX_HELLO, PREAMBLE, Refusal, VERSION, Welcome};
pub use parts::{Key, Spot};
pub use reply::{Deletion, Reply};
pub use request::Request;
