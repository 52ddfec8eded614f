//! What guests boot: kernel and root file system of `scripts/rack-image`, with our programs on top.

use std::env;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cpio::Archive;

/// Directory with `vmlinux` and `base.cpio`, as `scripts/rack-image` prints it.
const IMAGE: &str = "STRAND_RACK_IMAGE";
/// Directory with our static programs, as `scripts/rack-programs` prints it.
const PROGRAMS: &str = "STRAND_RACK_PROGRAMS";

/// Where our programs lie in a guest.
pub const IN_GUEST: &str = "/strand";

/// What guests boot.
#[derive(Clone, Debug)]
pub struct Image {
    /// The kernel, as ELF.
    pub kernel: PathBuf,
    /// The root file system.
    pub root: PathBuf,
}

impl Image {
    /// Puts our programs on top of the root file system, into a file in `dir`.
    ///
    /// # Errors
    /// When the image or a program is not there: `make rack-test` makes both.
    pub fn make(dir: &Path) -> Result<Self> {
        let (image, programs) = (directory(IMAGE)?, directory(PROGRAMS)?);
        let root = dir.join("root.cpio");
        let write = || -> Result<()> {
            let mut out = BufWriter::new(File::create(&root)?);
            let base = image.join("base.cpio");
            let mut base = File::open(&base).with_context(|| base.display().to_string())?;
            io::copy(&mut base, &mut out)?;
            let mut archive = Archive::new(out);
            archive.directory(IN_GUEST)?;
            for program in [
                "rack-guest",
                "rack-fabric",
                "rack-arrays",
                "node-agent",
                "csi-driver",
                "kv-endpoint",
            ] {
                let path = programs.join(program);
                let content = fs::read(&path).with_context(|| path.display().to_string())?;
                archive.program(&format!("{IN_GUEST}/{program}"), &content)?;
            }
            archive.end()?.flush()?;
            Ok(())
        };
        write().context("the guests' root file system cannot be made; run `make rack-test`")?;
        Ok(Self {
            kernel: image.join("vmlinux"),
            root,
        })
    }
}

fn directory(variable: &str) -> Result<PathBuf> {
    let value = env::var_os(variable);
    value
        .map(PathBuf::from)
        .with_context(|| format!("{variable} is not set; run these tests by `make rack-test`"))
}
