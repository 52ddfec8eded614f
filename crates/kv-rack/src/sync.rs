//! What threads share state with; tests put a model checker's in its place.

pub(crate) use std::sync::{Mutex, MutexGuard, PoisonError};
