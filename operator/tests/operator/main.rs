//! The operator against a real API over HTTPS, with agents and API servers' calls played by the tests.
//!
//! Every wait is for a state, with a bound.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that meets an error it did not expect stops there"
)]

mod api;
mod arrays;
mod rack;
mod volumes;
mod webhook;
