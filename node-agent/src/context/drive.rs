//! One drive's context partition: opened, served, and watched for faults.

use std::sync::Arc;
use std::time::{Duration, Instant};

use strand_api::ContextMemoryPolicy;
use strand_context_store::{DriveFault, Identity, Medium, OpenError, Options, Recovery, Store};
use strand_drives::{DriveError, DriveHost, OwnedDrive};
use strand_placement::carve::Role;

/// Faults within [`FAULT_WINDOW`] that a drive is taken out for. One may be a hiccup of a cable or a reset.
const FAULTS: usize = 3;
/// The time in which they count together.
const FAULT_WINDOW: Duration = Duration::from_secs(60);

/// Why a drive's context memory is not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The partition cannot be opened as what it was.
    #[error(transparent)]
    Drive(#[from] DriveError),
    /// What lies on it cannot be served.
    #[error(transparent)]
    Store(#[from] OpenError),
}

/// Told of a drive's faults.
pub type OnFault = Arc<dyn Fn(DriveFault) + Send + Sync>;

/// Opens a drive's context partition.
///
/// # Errors
/// [`ServeError`].
pub async fn open(
    host: Arc<dyn DriveHost>,
    drive: OwnedDrive,
    policy: &ContextMemoryPolicy,
    on_fault: OnFault,
) -> Result<(Store, Recovery), ServeError> {
    let identity = Identity {
        pool: drive.pool_id.to_string(),
        drive: drive.drive_id.to_string(),
    };
    let options = options(policy, drive.seen.geometry.size, on_fault);
    let opened = tokio::task::spawn_blocking(move || host.open_partition(&drive, Role::Context));
    let partition = opened.await.map_err(|_| OpenError::Io {
        doing: "opened",
        error: std::io::Error::other("it broke off; please report this"),
    })??;
    let medium = Medium {
        file: partition.file,
        offset: partition.offset,
        len: partition.len,
    };
    Ok(Store::open(medium, &identity, options).await?)
}

fn options(policy: &ContextMemoryPolicy, drive_bytes: u64, on_fault: OnFault) -> Options {
    Options {
        daily_write_budget: Some(daily_budget(policy, drive_bytes)),
        default_ttl: policy
            .ttl_seconds
            .map(|seconds| Duration::from_secs(seconds.unsigned_abs())),
        high_watermark: policy.high_watermark_percent.clamp(2, 99) as u8,
        low_watermark: policy.low_watermark_percent.clamp(1, 98) as u8,
        health: on_fault,
        ..Options::default()
    }
}

/// Bytes that may be written to the drive a day: drive writes per day are of the whole drive (JESD218), not of a partition.
pub fn daily_budget(policy: &ContextMemoryPolicy, drive_bytes: u64) -> u64 {
    (policy.drive_writes_per_day * drive_bytes as f64) as u64
}

/// Counts a drive's faults and says when they are too many.
#[derive(Debug, Default)]
pub struct Faults {
    recent: Vec<Instant>,
}

impl Faults {
    /// Takes a fault that happened now; why the drive shall be taken out, if it shall.
    pub fn take(&mut self, fault: &DriveFault, now: Instant) -> Option<String> {
        self.recent
            .retain(|at| now.saturating_duration_since(*at) < FAULT_WINDOW);
        self.recent.push(now);
        (self.recent.len() >= FAULTS).then(|| {
            format!(
                "{FAULTS} faults within {} s while serving context memory, the last one: {}",
                FAULT_WINDOW.as_secs(),
                words(fault)
            )
        })
    }
}

/// A fault in words.
pub fn words(fault: &DriveFault) -> String {
    match fault {
        DriveFault::Io { offset, reason } => format!("{reason} at byte {offset} of the partition"),
        DriveFault::Stalled { millis } => format!("a transfer has taken {millis} ms so far"),
        DriveFault::Corrupt { offset, what } => {
            format!("{what} at byte {offset} of the partition came back changed")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drive_goes_for_faults_that_come_together() {
        let fault = DriveFault::Stalled { millis: 11_000 };
        let (mut faults, start) = (Faults::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        for seconds in [0, 50, 70, 111] {
            assert_eq!(faults.take(&fault, at(seconds)), None, "{seconds}");
        }
        let words = faults.take(&fault, at(112)).unwrap();
        assert!(words.contains("11000 ms"), "{words}");
    }

    #[test]
    fn the_budget_is_of_the_whole_drive() {
        let policy = ContextMemoryPolicy {
            drive_writes_per_day: 0.5,
            ..ContextMemoryPolicy::default()
        };
        assert_eq!(daily_budget(&policy, 4 << 40), 2 << 40);
    }
}
