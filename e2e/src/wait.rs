//! Waiting for states.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Between two looks.
const AGAIN: Duration = Duration::from_millis(200);
/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Looks again and again until `look` finds what was waited for, at most for `bound`. `look` answers `Err` with the state as it is,
/// in words.
///
/// # Errors
/// The last state seen, once the bound has passed.
pub fn until<T>(
    what: &str,
    bound: Duration,
    mut look: impl FnMut() -> Result<T, String>,
) -> Result<T> {
    let begun = Instant::now();
    loop {
        match look() {
            Ok(found) => return Ok(found),
            Err(state) if begun.elapsed() >= bound => {
                bail!(
                    "{what}: not so after {} s; last seen: {state}",
                    bound.as_secs()
                )
            }
            Err(_) => sleep(AGAIN),
        }
    }
}
