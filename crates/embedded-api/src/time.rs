//! The time, as objects carry it.

use std::time::SystemTime;

use k8s_openapi::jiff::Timestamp;

/// Now, in whole seconds.
pub(crate) fn timestamp() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_second(since.as_secs() as i64).unwrap_or_default()
}

/// Now, as objects carry it.
pub(crate) fn now() -> String {
    timestamp().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
