//! `strandctl up --vms`: the rack of virtual machines on which the project's own scenarios run, to play with.

use super::{UpArgs, child};
use anyhow::{Context, Result};
use std::{os::unix::process::CommandExt, process::Command};

/// Becomes the program that brings such a rack up; returns only where it cannot.
pub fn run(args: &UpArgs) -> Result<()> {
    let program = child::beside_this("rack-up")
        .context("virtual machines come with the source tree: `make rack-up` there builds what they need, and starts this")?;
    let mut rack = Command::new(&program);
    rack.arg("--dir").arg(&args.dir);
    rack.arg("--drive-size").arg(args.drive_size.to_string());
    for (flag, number) in [("--nodes", args.nodes), ("--drives", args.drives)] {
        if let Some(number) = number {
            rack.arg(flag).arg(number.to_string());
        }
    }
    Err(rack.exec()).with_context(|| format!("{} cannot be started", program.display()))
}
