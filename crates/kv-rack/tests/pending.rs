//! Every order in which a caller, the reader of its connection and the next owner of its slot can meet.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets an error it did not expect shall stop there"
)]

mod sync {
    pub(crate) use loom::sync::{Mutex, MutexGuard};
    pub(crate) use std::sync::PoisonError;
}

#[path = "../src/calls.rs"]
#[allow(dead_code, reason = "the crate uses the rest")]
mod calls;

use calls::Calls;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;

/// A slot of an arena: whoever has it is alone with it.
struct Slot {
    taken: Mutex<bool>,
    writers: AtomicUsize,
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            taken: Mutex::new(false),
            writers: AtomicUsize::new(0),
        }
    }
}

/// The right to a slot; it goes back when this is dropped.
struct Guard(Arc<Slot>);

impl Drop for Guard {
    fn drop(&mut self) {
        assert_eq!(
            self.0.writers.load(Ordering::SeqCst),
            0,
            "it is written, and goes back"
        );
        *self.0.taken.lock().unwrap() = false;
    }
}

fn take(slot: &Arc<Slot>) -> Option<Guard> {
    let free = !std::mem::replace(&mut *slot.taken.lock().unwrap(), true);
    free.then(|| Guard(Arc::clone(slot)))
}

fn write(guard: &Guard) {
    let before = guard.0.writers.fetch_add(1, Ordering::SeqCst);
    assert_eq!(before, 0, "two write to one slot");
    thread::yield_now();
    guard.0.writers.fetch_sub(1, Ordering::SeqCst);
}

/// The link's reader gets some of a call's pieces; the peer may stop before the last one.
fn reader(calls: &Calls<Guard>, id: u64, pieces: &[bool]) {
    for last in pieces.iter().copied() {
        let Some(guard) = calls.claim(id) else {
            return;
        };
        write(&guard);
        if last {
            calls.finish(id);
            drop(guard);
        } else {
            drop(calls.put_back(id, guard));
        }
    }
}

/// Whether each piece that comes is the last one.
const STORIES: [&[bool]; 3] = [&[false, true], &[false], &[true]];

#[test]
fn a_late_piece_never_meets_the_slots_next_owner() {
    STORIES.into_iter().for_each(late_piece);
}

fn late_piece(pieces: &'static [bool]) {
    loom::model(move || {
        let slot = Arc::new(Slot::default());
        let calls = Arc::new(Calls::default());
        let id = calls.open(take(&slot).unwrap()).ok().unwrap();
        let reading = {
            let calls = Arc::clone(&calls);
            thread::spawn(move || reader(&calls, id, pieces))
        };
        let giving_up = {
            let calls = Arc::clone(&calls);
            thread::spawn(move || calls.give_up(id))
        };
        // Somebody else gets the slot as soon as it is free.
        if let Some(guard) = take(&slot) {
            write(&guard);
        }
        reading.join().unwrap();
        giving_up.join().unwrap();
        assert!(take(&slot).is_some(), "the slot was lost");
        assert_eq!(calls.len(), 0, "a call was left");
    });
}

#[test]
fn a_link_that_ends_meanwhile_gives_back_everything_once() {
    STORIES.into_iter().for_each(ending_link);
}

fn ending_link(pieces: &'static [bool]) {
    loom::model(move || {
        let slot = Arc::new(Slot::default());
        let calls = Arc::new(Calls::default());
        let id = calls.open(take(&slot).unwrap()).ok().unwrap();
        let reading = {
            let calls = Arc::clone(&calls);
            thread::spawn(move || reader(&calls, id, pieces))
        };
        let closing = {
            let calls = Arc::clone(&calls);
            thread::spawn(move || calls.close())
        };
        if let Some(guard) = take(&slot) {
            write(&guard);
        }
        reading.join().unwrap();
        closing.join().unwrap();
        let guard = take(&slot).expect("the slot was lost");
        assert!(calls.open(guard).is_err(), "it is closed");
        assert_eq!(calls.len(), 0);
    });
}

#[test]
fn a_reply_and_its_callers_end_meet_once() {
    loom::model(|| {
        let slot = Arc::new(Slot::default());
        let calls = Arc::new(Calls::default());
        let id = calls.open(take(&slot).unwrap()).ok().unwrap();
        let replying = {
            let calls = Arc::clone(&calls);
            thread::spawn(move || calls.take(id).is_some())
        };
        let given_up = calls.give_up(id);
        let replied = replying.join().unwrap();
        assert_ne!(given_up, replied, "one of both has it, and one alone");
        assert!(take(&slot).is_some());
    });
}
