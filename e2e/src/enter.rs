//! A bed's namespaces: this program runs again in mounts, a network and processes of its own. When the first of them ends, or the
//! program outside, the kernel ends all others, and takes addresses, routes, rules and mounts away with them.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result};

use crate::process::run;

/// Tells the program inside where its bed is.
const INSIDE: &str = "STRAND_E2E_INSIDE";

/// The bed's directory, if this program runs inside.
pub fn inside() -> Option<PathBuf> {
    std::env::var_os(INSIDE).map(PathBuf::from)
}

/// Runs this program again, inside, with these arguments, to its end.
///
/// # Errors
/// When it cannot be started.
pub fn enter(dir: &Path, args: &[String]) -> Result<ExitStatus> {
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--"])
        .args([
            "unshare",
            "--mount",
            "--net",
            "--pid",
            "--uts",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ])
        .arg("--")
        .arg(std::env::current_exe()?)
        .args(args)
        .env(INSIDE, dir)
        .status()
        .context("namespaces cannot be made: setpriv and unshare (util-linux), as root")
}

/// Lets go of what others have mounted on loop devices: what is mounted inside too they could not take away while the bed runs.
///
/// # Errors
/// When something stays mounted.
pub fn let_go() -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("/proc/self/mounts")?;
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let device = fields.next()?;
        let at = fields.next()?;
        device.starts_with("/dev/loop").then_some(at)
    });
    // What was mounted last lies on top.
    for at in mounts.collect::<Vec<_>>().into_iter().rev() {
        // As proc_pid_mounts(5) writes a blank, which is all that paths here have of what it escapes.
        let at = at.replace("\\040", " ");
        run(Command::new("umount").args(["--lazy", &at]))?;
    }
    Ok(())
}

/// Makes the network of the inside: the bridge to which nodes are wired, and the address of the Service `kubernetes`, which nobody
/// routes here.
///
/// # Errors
/// When `ip` fails.
pub fn network() -> Result<()> {
    run(Command::new("mount").args(["-t", "tmpfs", "tmpfs", "/run"]))?;
    for line in [
        "link set lo up",
        "link add rack type bridge",
        "address add 10.255.0.1/24 dev rack",
        "address add 10.96.0.1/32 dev lo",
        "link set rack up",
    ] {
        run(Command::new("ip").args(line.split(' ')))?;
    }
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("ip_forward")?;
    Ok(())
}
