//! What keeps the host's own tools off our devices, and ours off the host's.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::ArrayError;

/// Our arrays are `md1000` and above, which nobody else's are: mdadm counts down from 127 by itself.
pub(crate) const FIRST: u32 = 1000;
/// And below this.
pub(crate) const END: u32 = 2000;

/// What mdadm goes by instead of the host's mdadm.conf: it takes nothing but what it is named, and reserves no list of bad blocks, with
/// which a leg that fails writes would stay in its array with holes that only the list knows.
const CONFIG: &str = "\
# Written by Strand's node agent for the arrays of its volumes; the host's own are not touched by it.
HOMEHOST strand
AUTO -all
CREATE bbl=no names=no
";

/// For udev (7): our legs and arrays are no business of mdadm, LVM, multipath or anything that looks for file systems. Legs are known by
/// the names of their subsystems or by the path of the file under their loop devices, arrays by their numbers. The rules for arrays do look
/// into them; but no link leads to what they find: what a pod writes into its volume could have the UUID of the host's own file system.
const RULE: &str = "\
# Written by Strand's node agent: its legs and arrays are its own.
SUBSYSTEM!=\"block\", GOTO=\"strand_end\"
KERNEL==\"nvme*\", ATTRS{subsysnqn}==\"nqn.2024-01.dev.strand:*\", GOTO=\"strand_ours\"
KERNEL==\"loop*\", ATTR{loop/backing_file}==\"*/legs/*/data\", GOTO=\"strand_ours\"
KERNEL==\"md1[0-9][0-9][0-9]|md1[0-9][0-9][0-9]p[0-9]*\", GOTO=\"strand_ours\"
GOTO=\"strand_end\"
LABEL=\"strand_ours\"
ENV{SYSTEMD_READY}=\"0\", ENV{UDEV_DISABLE_PERSISTENT_STORAGE_RULES_FLAG}=\"1\"
ENV{DM_UDEV_DISABLE_OTHER_RULES_FLAG}=\"1\", ENV{nompath}=\"1\", ENV{UDISKS_IGNORE}=\"1\"
SYMLINK:=\"\", OPTIONS:=\"nowatch\"
LABEL=\"strand_end\"
";

/// Before the rules that look into devices (60-), assemble (64-) and activate (69-).
const RULE_NAME: &str = "59-strand.rules";

/// Where the host's files are.
#[derive(Clone, Debug)]
pub struct Host {
    /// A directory of ours that ends with the next boot.
    pub run: PathBuf,
    /// The host's `/run/udev`; without it there is no udev to be told anything.
    pub udev: PathBuf,
    /// The host's `/sys`.
    pub sys: PathBuf,
}

impl Host {
    /// With a directory for our own files.
    pub fn new(run: impl Into<PathBuf>) -> Self {
        Self {
            run: run.into(),
            udev: "/run/udev".into(),
            sys: "/sys".into(),
        }
    }

    /// What mdadm shall go by.
    pub(crate) fn config(&self) -> PathBuf {
        self.run.join("mdadm.conf")
    }

    /// Writes mdadm's configuration, and udev's rule where there is udev.
    ///
    /// # Errors
    /// [`ArrayError::Io`].
    pub(crate) fn prepare(&self) -> Result<(), ArrayError> {
        fs::create_dir_all(&self.run).map_err(ArrayError::io("making", &self.run))?;
        put(&self.config(), CONFIG)?;
        if self.udev.is_dir() {
            let rules = self.udev.join("rules.d");
            fs::create_dir_all(&rules).map_err(ArrayError::io("making", &rules))?;
            put(&rules.join(RULE_NAME), RULE)?;
        }
        Ok(())
    }

    pub(crate) fn block(&self) -> PathBuf {
        self.sys.join("block")
    }

    /// Whether the kernel has md.
    pub(crate) fn has_md(&self) -> bool {
        self.sys.join("module/md_mod").exists()
    }
}

/// Writes a file that says something else, by renaming: who reads it sees one or the other.
fn put(path: &Path, text: &str) -> Result<(), ArrayError> {
    match fs::read_to_string(path) {
        Ok(found) if found == text => return Ok(()),
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(ArrayError::io("reading", path)(error));
        }
        _ => {}
    }
    let new = path.with_extension("new");
    fs::write(&new, text)
        .and_then(|()| fs::rename(&new, path))
        .map_err(ArrayError::io("writing", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn udev_is_told_where_there_is_udev_and_a_second_time_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host {
            udev: dir.path().join("udev"),
            ..Host::new(dir.path().join("run"))
        };
        host.prepare().unwrap();
        assert!(host.config().exists() && !host.udev.exists());
        fs::create_dir(&host.udev).unwrap();
        host.prepare().unwrap();
        let rule = host.udev.join("rules.d").join(RULE_NAME);
        let written = fs::metadata(&rule).unwrap().modified().unwrap();
        host.prepare().unwrap();
        assert_eq!(fs::metadata(&rule).unwrap().modified().unwrap(), written);
        let names: Vec<_> = fs::read_dir(rule.parent().unwrap()).unwrap().collect();
        assert_eq!(names.len(), 1, "no half-written file is left");
    }
}
