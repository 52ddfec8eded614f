//! Under which conditions a figure was measured, and where it is kept.

use crate::context::pairs::{Pairs, Verdict};
use anyhow::Context;
use serde::Serialize;
use std::{fmt, fs, path::Path};

/// What a reader must know of the machine.
#[derive(Debug, Serialize)]
pub struct Conditions {
    kernel: String,
    cpu: String,
    cores: usize,
    memory_bytes: u64,
    profile: &'static str,
}

impl Conditions {
    /// Reads them off this machine.
    pub fn of_this_machine() -> anyhow::Result<Self> {
        let read =
            |path: &str| fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
        let value = |text: &str, key: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(key))
                .map(|rest| rest.trim_start_matches([' ', '\t', ':']).to_owned())
                .unwrap_or_default()
        };
        let memory = value(&read("/proc/meminfo")?, "MemTotal");
        let kib: u64 = memory.trim_end_matches(" kB").parse().unwrap_or(0);
        Ok(Self {
            kernel: read("/proc/sys/kernel/osrelease")?.trim().into(),
            cpu: value(&read("/proc/cpuinfo")?, "model name"),
            cores: std::thread::available_parallelism().map_or(1, Into::into),
            memory_bytes: kib << 10,
            profile: if cfg!(debug_assertions) {
                "dev"
            } else {
                "release"
            },
        })
    }
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "conditions: {} x {}, {} GiB, Linux {}, {} profile",
            self.cores,
            self.cpu,
            self.memory_bytes >> 30,
            self.kernel,
            self.profile
        )
    }
}

/// Writes a result with its conditions to `<dir>/<name>.json`.
pub fn keep(
    dir: &Path,
    name: &str,
    conditions: &Conditions,
    result: &impl Serialize,
) -> anyhow::Result<()> {
    keep_at(&dir.join(format!("{name}.json")), conditions, result)
}

/// Writes a result with its conditions to a file.
pub fn keep_at(
    path: &Path,
    conditions: &Conditions,
    result: &impl Serialize,
) -> anyhow::Result<()> {
    let json = serde_json::json!({"conditions": conditions, "result": result});
    fs::write(path, serde_json::to_vec_pretty(&json)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// One figure against its goal.
#[derive(Debug, Serialize)]
pub struct Row {
    /// What was measured.
    pub what: String,
    /// The figure, with its unit.
    pub figure: String,
    /// The goal, or empty.
    pub goal: String,
    /// What may be said of it; `None` where there is no goal.
    pub verdict: Option<Verdict>,
    /// What it was measured from, where it is a comparison.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pairs: Option<Pairs>,
}

impl Row {
    /// A figure with a goal.
    pub fn goal(what: impl Into<String>, figure: String, goal: &str, reached: bool) -> Self {
        let verdict = if reached {
            Verdict::Reached
        } else {
            Verdict::Missed
        };
        Self {
            what: what.into(),
            figure,
            goal: goal.into(),
            verdict: Some(verdict),
            pairs: None,
        }
    }

    /// A figure without one.
    pub fn plain(what: impl Into<String>, figure: String) -> Self {
        Self {
            what: what.into(),
            figure,
            goal: String::new(),
            verdict: None,
            pairs: None,
        }
    }

    /// A figure of interleaved pairs.
    pub fn compared(
        what: impl Into<String>,
        figure: String,
        goal: &str,
        verdict: Verdict,
        pairs: Pairs,
    ) -> Self {
        Self {
            what: what.into(),
            figure,
            goal: goal.into(),
            verdict: Some(verdict),
            pairs: Some(pairs),
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.verdict {
            Some(Verdict::Reached) => "  reached",
            Some(Verdict::Missed) => "  MISSED",
            Some(Verdict::Inconclusive) => "  inconclusive",
            None => "",
        };
        write!(
            f,
            "  {:<62} {:>24}   {}{mark}",
            self.what, self.figure, self.goal
        )?;
        if let Some(pairs) = &self.pairs {
            write!(f, "  (baseline to itself {:.3})", pairs.control())?;
        }
        Ok(())
    }
}
