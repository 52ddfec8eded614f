//! Guests with a network between them.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use tempfile::TempDir;

use crate::drive::DrivePlan;
use crate::guest::Guest;
use crate::image::Image;
use crate::network::Network;

/// How the names of racks' directories begin.
const PREFIX: &str = "strand-rack-";
/// A file in them, locked as long as the rack is up.
const LOCK: &str = "lock";

/// Most machines that a rack may have.
pub const MOST: usize = 6;

/// A rack, up as long as it is kept. Dropped, it leaves nothing; where its test panics, its logs stay in `target/rack-logs/`.
pub struct Rack {
    name: String,
    guests: Vec<Guest>,
    network: Network,
    dir: TempDir,
    /// Says to others that this rack's directory is in use.
    _lock: File,
}

impl Rack {
    /// Brings up a rack with one machine for each list of drives. `name` is that of its logs.
    ///
    /// # Errors
    /// When the image is missing, or a machine does not come up.
    pub async fn boot(name: &str, machines: &[Vec<DrivePlan>]) -> Result<Self> {
        ensure!(machines.len() <= MOST, "a rack has at most {MOST} machines");
        // Paths of sockets are short (unix(7)), so not in the build directory.
        remove_left_over(&env::temp_dir())?;
        let dir = tempfile::Builder::new().prefix(PREFIX).tempdir()?;
        let lock = File::create(dir.path().join(LOCK))?;
        lock.try_lock()?;
        let image = Image::make(dir.path())?;
        let network = Network::start(dir.path(), machines.len())?;
        let mut rack = Self {
            name: name.to_owned(),
            guests: Vec::new(),
            network,
            dir,
            _lock: lock,
        };
        for (port, drives) in machines.iter().enumerate() {
            let guest = Guest::new(rack.dir.path(), image.clone(), port, drives)?;
            rack.guests.push(guest);
        }
        let outcome = try_join_all(rack.guests.iter_mut().map(Guest::power_on)).await;
        match outcome {
            Ok(_) => Ok(rack),
            Err(error) => {
                let kept = rack.keep_logs()?;
                Err(error).with_context(|| format!("its logs are in {}", kept.display()))
            }
        }
    }

    /// A machine, from 0.
    pub fn guest(&self, number: usize) -> &Guest {
        &self.guests[number]
    }

    /// A machine, from 0, to do something to it.
    pub fn guest_mut(&mut self, number: usize) -> &mut Guest {
        &mut self.guests[number]
    }

    /// All machines.
    pub fn guests(&self) -> &[Guest] {
        &self.guests
    }

    /// The network between the machines, whose ports are the machines' numbers.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The rack's own directory, gone with it.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn keep_logs(&self) -> Result<PathBuf> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/rack-logs");
        let kept = root.join(&self.name);
        fs::create_dir_all(&kept)?;
        for guest in &self.guests {
            for log in guest.logs() {
                let name = log.file_name().unwrap_or_default().to_string_lossy();
                // A machine that never ran has none.
                let _ = fs::copy(&log, kept.join(format!("{}-{name}", guest.name())));
            }
        }
        Ok(fs::canonicalize(kept)?)
    }
}

impl Drop for Rack {
    fn drop(&mut self) {
        if thread::panicking() {
            match self.keep_logs() {
                Ok(kept) => eprintln!("logs of the rack: {}", kept.display()),
                Err(error) => eprintln!("the rack's logs are lost: {error:#}"),
            }
        }
    }
}

/// Removes the directories of racks whose tests were killed.
fn remove_left_over(parent: &Path) -> Result<()> {
    for entry in fs::read_dir(parent)? {
        let dir = entry?.path();
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        if !name.starts_with(PREFIX) {
            continue;
        }
        // Without a lock it is only being made; or another rack is just removing it.
        if File::open(dir.join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok()) {
            let _ = fs::remove_dir_all(&dir);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_directories_of_racks_that_are_down_are_removed() {
        let parent = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let dir = parent.path().join(name);
            fs::create_dir(&dir).unwrap();
            dir
        };
        let (up, down, new, other) = (
            make("strand-rack-up"),
            make("strand-rack-down"),
            make("strand-rack-new"),
            make("other"),
        );
        let held = File::create(up.join(LOCK)).unwrap();
        held.try_lock().unwrap();
        for dir in [&down, &other] {
            File::create(dir.join(LOCK)).unwrap();
        }
        remove_left_over(parent.path()).unwrap();
        assert!(up.exists() && new.exists() && other.exists());
        assert!(!down.exists());
    }
}
