//! Waiting for states.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Between two looks.
const AGAIN: Duration = Duration::from_millis(250);

/// Looks again and again until `look` says what was waited for, at most for `bound`. `look` answers `Err` with the state as it is,
/// in words, which become the error's once the bound has passed.
///
/// # Errors
/// The last state seen.
pub async fn until<T, F>(what: &str, bound: Duration, mut look: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T, String>>,
{
    let end = Instant::now() + bound;
    loop {
        match look().await {
            Ok(found) => return Ok(found),
            Err(state) if Instant::now() >= end => {
                bail!(
                    "{what}: not so after {} s; last seen: {state}",
                    bound.as_secs()
                )
            }
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}
