//! Free space of a drive's file system, told to the drive now and then.
//!
//! Not by the mount option `discard`: with it each deletion would be discarded at once and as a whole, in the middle of the other
//! volumes' I/O. Once a day, piece by piece and no faster than [`RATE`], a drive does not notice.

use std::sync::Arc;
use std::time::Duration;

use strand_volumes::Drive;

/// After a drive was opened, so that an agent that is restarted again and again does not begin anew each time.
pub const FIRST: Duration = Duration::from_secs(3600);
/// From the end of one to the next.
pub const AGAIN: Duration = Duration::from_secs(24 * 3600);
/// Free bytes that a drive is told of in a second, on average.
const RATE: f64 = (1 << 30) as f64;

/// Tells a drive what is free on it, until it is closed; how many bytes that were.
pub async fn trim(drive: Arc<Drive>) -> u64 {
    let (mut at, mut told) = (0, 0);
    loop {
        let of = Arc::clone(&drive);
        let step = tokio::task::spawn_blocking(move || of.trim(at)).await;
        match step {
            Ok(Ok(Some((bytes, next)))) => {
                (at, told) = (next, told + bytes);
                tokio::time::sleep(Duration::from_secs_f64(bytes as f64 / RATE)).await;
            }
            Ok(Ok(None)) | Err(_) => return told,
            Ok(Err(error)) => {
                tracing::debug!(%error, "free space is not told any further");
                return told;
            }
        }
    }
}
