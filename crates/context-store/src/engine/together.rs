//! Transfers that are started together are handed to the kernel together: one system call for all of them, and adjacent ones
//! (a record's first page and its payload) reach the drive as one command. The kernel merges only what comes in one call.

use std::cell::RefCell;
use std::sync::Arc;

use super::uring::Ring;

thread_local! {
    /// Rings with transfers that wait for the end of what this thread runs; none where it runs nothing of the kind.
    static WAITING: RefCell<Option<Vec<Arc<Ring>>>> = const { RefCell::new(None) };
}

/// Submits what has waited, also where what was run panics.
struct End {
    outer: Option<Vec<Arc<Ring>>>,
}

impl Drop for End {
    fn drop(&mut self) {
        for ring in WAITING.replace(self.outer.take()).unwrap_or_default() {
            ring.submit();
        }
    }
}

/// Runs `start`; transfers that this thread starts meanwhile are handed to their drives at its end. For what takes some
/// microseconds, such as polling the futures of requests that came together.
pub fn together<T>(start: impl FnOnce() -> T) -> T {
    let _end = End {
        outer: WAITING.replace(Some(Vec::new())),
    };
    start()
}

/// Whether `ring` is submitted later.
pub(super) fn waits(ring: &Arc<Ring>) -> bool {
    WAITING.with_borrow_mut(|waiting| {
        let Some(rings) = waiting else { return false };
        if !rings.iter().any(|known| Arc::ptr_eq(known, ring)) {
            rings.push(Arc::clone(ring));
        }
        true
    })
}
