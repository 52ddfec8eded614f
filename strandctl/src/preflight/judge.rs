//! What a machine's facts mean for Strand.

mod network;

use super::facts::{Candidate, Facts, Module};
use crate::text::count;
use serde::Serialize;
use strand_api::ByteQuantity;
use strand_placement::{carve::MIN_DRIVE, verdict::Reason};

/// How a check ended; what is worse is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Mark {
    /// As it should be.
    Good,
    /// It works, with less.
    Less,
    /// It does not work.
    Missing,
}

impl Mark {
    /// In a table.
    pub fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Less => "less",
            Self::Missing => "MISSING",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// How it ended.
    pub mark: Mark,
    /// What it is about.
    pub what: String,
    /// What is there.
    pub found: String,
    /// What follows, and what to do; empty where nothing does.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub then: String,
}

/// The oldest kernel that Strand is meant for.
const OLDEST: (u32, u32) = (5, 15);
/// Memory of an index for 128 KiB blocks on a drive of 4 TB, and what else an agent takes.
const MEMORY: u64 = 2 << 30;
/// Seconds for which I/O of a volume waits for a node that is away.
const AWAY: u64 = 600;

/// All checks, in the order in which they matter.
pub fn judge(facts: &Facts) -> Vec<Check> {
    let mut checks = vec![kernel(facts), privileges(facts), uring(facts)];
    let volumes = "volumes";
    checks.push(modules(facts, volumes, &["loop", "xfs"], Mark::Missing));
    checks.push(modules(
        facts,
        "volumes on other nodes",
        &["nvmet", "nvmet_tcp", "nvme_tcp"],
        Mark::Less,
    ));
    checks.push(modules(
        facts,
        "redundant volumes",
        &["md_mod", "raid0", "raid1", "raid456"],
        Mark::Less,
    ));
    checks.extend([settings(facts), limits(facts), memory(facts), ports(facts)]);
    checks.extend([network::link(facts), network::rdma(facts)]);
    checks.push(drives(&facts.drives));
    checks
}

fn check(what: &str, mark: Mark, found: impl Into<String>, then: impl Into<String>) -> Check {
    Check {
        mark,
        what: what.into(),
        found: found.into(),
        then: then.into(),
    }
}

fn kernel(facts: &Facts) -> Check {
    let mut numbers = facts
        .release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= OLDEST {
        return check("kernel", Mark::Good, &facts.release, "");
    }
    let then = format!("Linux {}.{} or later is needed", OLDEST.0, OLDEST.1);
    check("kernel", Mark::Missing, &facts.release, then)
}

fn privileges(facts: &Facts) -> Check {
    if facts.root {
        return check("privileges", Mark::Good, "root", "");
    }
    let then = "drives can be looked at by root alone: run this with sudo, or in a privileged pod; what is said of drives is not all";
    check("privileges", Mark::Less, "not root", then)
}

fn uring(facts: &Facts) -> Check {
    let what = "io_uring";
    match facts.uring_disabled {
        None | Some(0) => check(what, Mark::Good, "allowed", ""),
        Some(1) => check(
            what,
            Mark::Good,
            "allowed to privileged processes, as the agent is one",
            "",
        ),
        Some(_) => check(
            what,
            Mark::Less,
            "forbidden",
            "context memory is served by threads, slower; sysctl kernel.io_uring_disabled=0 allows it",
        ),
    }
}

fn modules(facts: &Facts, what: &str, names: &[&'static str], without: Mark) -> Check {
    let state = |name: &&'static str| facts.modules.get(name).copied().unwrap_or(Module::None);
    let missing: Vec<_> = names
        .iter()
        .filter(|name| state(name) == Module::None)
        .copied()
        .collect();
    if !missing.is_empty() {
        let then = format!(
            "{what} do not work without {}; the rest does. Install the kernel's modules, or a kernel that has them",
            missing.join(", ")
        );
        return check(what, without, format!("no {}", missing.join(", ")), then);
    }
    let unloaded: Vec<_> = names
        .iter()
        .filter(|name| state(name) == Module::Loadable)
        .copied()
        .collect();
    if unloaded.is_empty() {
        return check(what, Mark::Good, names.join(", "), "");
    }
    let at_start = format!(
        "printf '%s\\n' {} >> /etc/modules-load.d/strand.conf",
        unloaded.join(" ")
    );
    let unloaded = unloaded.join(", ");
    if facts.modules_locked {
        let then = format!(
            "{what} do not work without {unloaded}, and the kernel loads no module until it starts anew (kernel.modules_disabled=1): have them \
             loaded before that is set, and restart the machine: {at_start}"
        );
        return check(what, without, format!("{unloaded} not loaded"), then);
    }
    let then = format!("{unloaded} can be loaded; make it so at each start: {at_start}");
    check(what, Mark::Good, names.join(", "), then)
}

/// Settings of the kernel that come to matter only when something happens. What Strand does not come near is not looked at: locked memory
/// (the agent is privileged), `fs.aio-max-nr` (it uses io_uring), `fs.inotify` (for files that stand for drives alone), loop devices (the
/// kernel makes as many as are asked for).
fn settings(facts: &Facts) -> Check {
    let mut found = Vec::new();
    let mut then = Vec::new();
    if let Some(seconds) = facts.panics_after.filter(|seconds| *seconds <= AWAY) {
        found.push(format!("kernel.hung_task_panic after {seconds} s"));
        then.push(format!(
            "I/O of a volume waits for up to {AWAY} s while the node with its bytes is away, and after {seconds} s this machine may panic: set \
             kernel.hung_task_panic=0, or kernel.hung_task_timeout_secs above {AWAY}"
        ));
    }
    if !facts.lent.is_empty() {
        let ports: Vec<_> = facts.lent.iter().map(u16::to_string).collect();
        let ports = ports.join(",");
        found.push("net.ipv4.ip_local_port_range has Strand's ports".into());
        then.push(format!(
            "an outgoing connection may have one of Strand's ports when Strand starts, which then does not serve: add them to \
             net.ipv4.ip_local_reserved_ports ({ports})"
        ));
    }
    if found.is_empty() {
        return check("settings", Mark::Good, "none in the way", "");
    }
    let then = format!(
        "{}; for good: in /etc/sysctl.d/strand.conf",
        then.join("; ")
    );
    check("settings", Mark::Less, found.join(", "), then)
}

fn limits(facts: &Facts) -> Check {
    if facts.io_limits {
        return check(
            "limits of volumes",
            Mark::Good,
            "control groups limit I/O",
            "",
        );
    }
    let then = "the limits of a VolumeAttributesClass have no effect, and volumes say so; the kernel's control groups lack their controller of I/O";
    check(
        "limits of volumes",
        Mark::Less,
        "no controller of I/O",
        then,
    )
}

fn memory(facts: &Facts) -> Check {
    let found = ByteQuantity(facts.memory).rounded();
    let drives = u64::try_from(facts.drives.len()).unwrap_or(u64::MAX).max(1);
    if facts.memory / 8 >= drives.saturating_mul(MEMORY) / 2 {
        return check("memory", Mark::Good, found, "");
    }
    let then = format!(
        "an index takes about 32 bytes a block: {} for 4 TB in blocks of 128 KiB; less is fine for larger blocks",
        ByteQuantity((4 << 40) / (128 << 10) * 32).rounded()
    );
    check("memory", Mark::Less, found, then)
}

fn ports(facts: &Facts) -> Check {
    if facts.taken.is_empty() {
        return check("ports", Mark::Good, "free", "");
    }
    let taken: Vec<_> = facts.taken.iter().map(u16::to_string).collect();
    let found = format!("taken: {}", taken.join(", "));
    let then = "somebody listens there: Strand itself, if it runs here already; otherwise set other ports in the chart's node.ports";
    check("ports", Mark::Less, found, then)
}

fn drives(drives: &[Candidate]) -> Check {
    let size = |drive: &Candidate| ByteQuantity(drive.size).rounded();
    let (free, out): (Vec<_>, Vec<_>) = drives.iter().partition(|drive| is_free(drive));
    let bytes = free.iter().map(|drive| drive.size).sum();
    let found = format!(
        "{} of {} look unused, {}",
        free.len(),
        count(drives.len(), "NVMe drive"),
        ByteQuantity(bytes).rounded()
    );
    let line = |drive: &Candidate, says: &str| {
        format!(
            "\n  {} ({}, {}): {says}",
            drive.path,
            drive.who,
            size(drive)
        )
    };
    let mut then: String = free
        .iter()
        .map(|drive| {
            line(
                drive,
                "looks unused; it is watched for a minute before it is taken",
            )
        })
        .collect();
    for drive in out {
        let why = match &drive.finding {
            Ok(finding) => finding
                .reasons
                .first()
                .map(ToString::to_string)
                .unwrap_or_default(),
            Err(error) => error.clone(),
        };
        then.push_str(&line(drive, &why));
    }
    match free.is_empty() {
        false => check("drives", Mark::Good, found, then),
        true => {
            let alone = format!(
                "without a drive this is a consumer's node: its pods use the drives of others. A drive is taken if it is NVMe, blank, unused and has {} at least{then}",
                ByteQuantity(MIN_DRIVE).rounded()
            );
            check("drives", Mark::Less, found, alone)
        }
    }
}

/// Whether nothing speaks against it but that nobody has watched it yet.
fn is_free(drive: &Candidate) -> bool {
    drive.finding.as_ref().is_ok_and(|finding| {
        let reasons = &finding.reasons;
        reasons
            .iter()
            .all(|reason| matches!(reason, Reason::StillWatched { .. }))
    })
}

#[cfg(test)]
mod tests {
    use super::{super::facts::tests::server, *};

    fn of(what: &str, change: impl FnOnce(&mut Facts)) -> Check {
        let mut facts = server();
        change(&mut facts);
        let mut checks = judge(&facts).into_iter();
        checks.find(|check| check.what == what).unwrap()
    }

    #[test]
    fn settings_are_told_where_they_come_to_matter() {
        assert_eq!(of("settings", |_| ()).mark, Mark::Good);
        let patient = of("settings", |facts| facts.panics_after = Some(1200));
        assert_eq!((patient.mark, patient.then.as_str()), (Mark::Good, ""));
        let panics = of("settings", |facts| facts.panics_after = Some(120));
        assert_eq!(panics.mark, Mark::Less);
        assert!(
            panics.then.contains("kernel.hung_task_panic=0"),
            "{}",
            panics.then
        );
        let lent = of("settings", |facts| facts.lent = [4420, 9466].into());
        assert_eq!(lent.mark, Mark::Less);
        assert!(
            lent.then.contains("reserved_ports (4420,9466)"),
            "{}",
            lent.then
        );
    }

    #[test]
    fn modules_that_the_kernel_no_longer_loads_are_missing() {
        assert_eq!(of("volumes", |_| ()).mark, Mark::Good);
        let locked = of("volumes", |facts| facts.modules_locked = true);
        assert_eq!(
            (locked.mark, locked.found.as_str()),
            (Mark::Missing, "loop, xfs not loaded")
        );
        let loaded = of("volumes", |facts| {
            facts.modules_locked = true;
            facts
                .modules
                .extend(["loop", "xfs"].map(|name| (name, Module::There)));
        });
        assert_eq!((loaded.mark, loaded.then.as_str()), (Mark::Good, ""));
    }
}
