//! What goes over the socket: the hello, then frames.
//!
//! All numbers are little-endian. A frame is a 24-byte [`Header`] and a body; a request's body is a [`Request`],
//! a reply's a [`Reply`], and a reply carries the id of its request. Values never travel here, only offsets
//! into the arenas.
//!
//! Decoding takes any bytes without panicking: whoever wrote them, they are checked here, once, in private
//! memory.

mod code;
mod fields;
mod header;
mod hello;
mod reply;
mod request;

pub use code::Code;
pub use fields::Malformed;
pub use header::{HEADER, Header, MAX_BODY};
pub(crate) use hello::body_length;
pub use hello::{
    Hello, Limits, MAX_HELLO, PREAMBLE, Refusal, VERSIONS, Version, Versions, Welcome,
};
pub use reply::{Put, Reply};
pub use request::{FOREVER, Request};
