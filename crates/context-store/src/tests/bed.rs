//! Stores on files and on media that fail.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::engine::faulty::Faulty;
use crate::layout::Layout;
use crate::{DriveFault, Identity, Medium, Namespace, OpenError, Options, Recovery, Store};

pub(crate) const NS: Namespace = Namespace(7);

pub(crate) fn identity() -> Identity {
    Identity {
        pool: "pool-a".to_owned(),
        drive: "node-1-abc".to_owned(),
    }
}

/// A clock that stands until it is moved.
#[derive(Clone)]
pub(crate) struct Hands(Arc<AtomicU64>);

impl Hands {
    pub(crate) fn new() -> Hands {
        Hands(Arc::new(AtomicU64::new(1_800_000_000_000)))
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_millis() as u64, Ordering::SeqCst);
    }

    pub(crate) fn options(&self) -> Options {
        let hands = Arc::clone(&self.0);
        Options {
            clock: Arc::new(move || hands.load(Ordering::SeqCst)),
            health: Arc::new(|_| {}),
            trim_rate: 64 << 30,
            patience: Duration::from_secs(5),
            ..Options::default()
        }
    }
}

/// Options that keep faults.
pub(crate) fn faults(options: &mut Options) -> Arc<std::sync::Mutex<Vec<DriveFault>>> {
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let into = Arc::clone(&seen);
    options.health = Arc::new(move |fault| into.lock().unwrap().push(fault));
    seen
}

pub(crate) async fn on_file(
    file: &File,
    len: u64,
    options: Options,
) -> Result<(Store, Recovery), OpenError> {
    let medium = Medium {
        file: file.try_clone().unwrap(),
        offset: 0,
        len,
    };
    Store::open(medium, &identity(), options).await
}

pub(crate) fn file(len: u64) -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(len).unwrap();
    file
}

pub(crate) async fn on_faulty(
    medium: &Faulty,
    len: u64,
    options: Options,
) -> Result<(Store, Recovery), OpenError> {
    Store::with_engine(
        Arc::new(medium.clone()),
        0,
        len,
        Layout::new(0, len).unwrap(),
        &identity(),
        options,
        |secret, namespace, key| secret.fingerprint(namespace, key),
    )
    .await
}

/// Bytes that tell their number apart.
pub(crate) fn value(number: u64, len: usize) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
