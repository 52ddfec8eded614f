//! Loop devices over the files that stand for drives (`--loop`).

use anyhow::{Context, Result, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread::sleep,
    time::{Duration, Instant},
};

/// How long detaching waits for whoever has a device open: the host's udev looks at what was written to, and a mount goes a moment
/// after the process whose namespace held it.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Loop devices that are detached when this goes.
#[derive(Debug, Default)]
pub struct Loops {
    devices: Vec<PathBuf>,
}

impl Loops {
    /// Attaches a loop device to a file.
    pub fn attach(&mut self, file: &Path) -> Result<PathBuf> {
        let output = losetup(&[
            "--find".as_ref(),
            "--show".as_ref(),
            "--partscan".as_ref(),
            "--direct-io=on".as_ref(),
            file.as_os_str(),
        ])?;
        if !output.status.success() {
            bail!(
                "no loop device for {}: {}; --loop needs root and free loop devices",
                file.display(),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        let device = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        self.devices.push(device.clone());
        Ok(device)
    }

    /// Those that are attached.
    pub fn devices(&self) -> &[PathBuf] {
        &self.devices
    }
}

impl Drop for Loops {
    fn drop(&mut self) {
        for device in self.devices.drain(..) {
            if let Err(error) = detach(&device) {
                eprintln!("{error:#}");
            }
        }
    }
}

/// Loop devices with the files that lie under them, as sysfs shows them
/// (`/sys/block/loopN/loop/backing_file`, Documentation/ABI/testing/sysfs-block-loop).
pub fn attached(sys_block: &Path) -> Vec<(PathBuf, PathBuf)> {
    let entries = fs::read_dir(sys_block).into_iter().flatten().flatten();
    let mut attached = Vec::new();
    for entry in entries {
        let file = entry.path().join("loop/backing_file");
        // A device that is detached at this moment has no such file any more.
        if let Ok(backing) = fs::read_to_string(file) {
            let device = Path::new("/dev").join(entry.file_name());
            attached.push((device, backing.trim_end_matches('\n').into()));
        }
    }
    attached
}

/// Asks for one to be detached: one that something has open goes when that closes it.
pub fn ask_to_detach(device: &Path) -> Result<()> {
    let output = losetup(&["--detach".as_ref(), device.as_os_str()])?;
    if !output.status.success() {
        bail!(
            "{} stays attached: {}; detach it with `losetup -d {}`",
            device.display(),
            String::from_utf8_lossy(&output.stderr).trim(),
            device.display()
        );
    }
    Ok(())
}

/// Detaches one and waits until it is gone.
fn detach(device: &Path) -> Result<()> {
    let file = |sys| attached(sys).into_iter().find(|one| one.0 == device);
    let sys = Path::new("/sys/block");
    let Some(was) = file(sys) else { return Ok(()) };
    ask_to_detach(device)?;
    let start = Instant::now();
    // A device that is attached to another file by now is somebody else's.
    while file(sys).is_some_and(|now| now == was) {
        if start.elapsed() > PATIENCE {
            bail!(
                "{} stays attached until what has it open or mounted ends",
                device.display()
            );
        }
        sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn losetup(arguments: &[&std::ffi::OsStr]) -> Result<Output> {
    Command::new("losetup")
        .args(arguments)
        .output()
        .context("cannot run losetup, which --loop needs; install it (Debian: the package mount)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_devices_with_a_file_under_them_are_attached() {
        let sys = tempfile::tempdir().unwrap();
        fs::create_dir_all(sys.path().join("loop0")).unwrap();
        fs::create_dir_all(sys.path().join("loop7/loop")).unwrap();
        fs::write(
            sys.path().join("loop7/loop/backing_file"),
            "/rack/a b.img\n",
        )
        .unwrap();
        assert_eq!(
            attached(sys.path()),
            [("/dev/loop7".into(), "/rack/a b.img".into())]
        );
    }
}
