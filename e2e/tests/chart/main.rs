//! The chart `charts/strand`, as Helm renders it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that meets what it did not expect stops there"
)]

mod certificates;
mod code;
mod dockerfile;
mod golden;
mod helm;
mod kinds;
mod monitoring;
mod privileges;
mod reference;
mod values;
