//! What a drive is to Strand, judged from everything seen about it.
//!
//! A drive is `Stranded`, free to take, only when nothing whatsoever speaks against it: every sign of use, every thing that could
//! not be looked at, and every byte that is not blank is a [`Reason`]. The table of known signatures only explains a drive that is
//! not blank; no decision rests on it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::carve::MIN_DRIVE;

pub use crate::observation::{
    Content, Exclusive, Health, Label, LabelSeen, LabelState, Observation, Sharing, Signature,
    SignatureKind, Smart, Transport, Use, Watch,
};
pub use crate::reason::Reason;

/// The pools of this cluster: the identity written on drives, and the name of the MemoryPool that has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownPools(pub BTreeMap<Uuid, String>);

impl KnownPools {
    /// Whether a pool with this identity exists in this cluster.
    pub fn contains(&self, pool: &Uuid) -> bool {
        self.0.contains_key(pool)
    }
}

/// The finding on a drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Verdict {
    /// Provably unused; a pool may take it.
    Stranded,
    /// Somebody on this machine uses it, or that cannot yet be ruled out.
    InUse,
    /// It holds something that is not ours, is not this machine's alone, or is not a drive that Strand takes.
    Foreign,
    /// It carries the label of a pool of this cluster.
    Pooled,
    /// It cannot do its work.
    Failed,
}

/// A verdict with every reason for it. Only `Stranded` has none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The verdict.
    pub verdict: Verdict,
    /// All reasons, the most telling first.
    pub reasons: Vec<Reason>,
}

/// Judges a drive.
///
/// A drive of this cluster's own (label of a known pool, nothing contradicting it) is `Pooled` whatever its own partitions are
/// used for, or `Failed`. Any other drive gets every reason that speaks against taking it; without one it is `Stranded`.
pub fn judge(seen: &Observation, pools: &KnownPools) -> Finding {
    let mut reasons = Vec::new();
    let ours = judge_label(seen, pools, &mut reasons);
    judge_device(seen, &mut reasons);
    if !ours {
        judge_use(seen, &mut reasons);
        judge_content(seen, &mut reasons);
    }
    // An observation that stopped early has found something already. One that found nothing must have tried everything.
    if reasons.is_empty() && matches!(seen.exclusive, Exclusive::NotTried) {
        reasons.push(Reason::NotExamined {
            what: "whether it opens exclusively".into(),
        });
    }
    reasons.sort_by_key(Reason::rank);
    reasons.dedup();
    let verdict = reasons
        .iter()
        .map(Reason::verdict)
        .max_by_key(|verdict| precedence(*verdict))
        .unwrap_or(Verdict::Stranded);
    Finding { verdict, reasons }
}

/// Which verdict stands when reasons differ: a broken drive is broken whoever has it; a drive of our own is ours whoever uses it.
fn precedence(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Stranded => 0,
        Verdict::Foreign => 1,
        Verdict::InUse => 2,
        Verdict::Pooled => 3,
        Verdict::Failed => 4,
    }
}

/// Adds what the label says; true when the drive is this cluster's own.
fn judge_label(seen: &Observation, pools: &KnownPools, reasons: &mut Vec<Reason>) -> bool {
    let label = match &seen.label {
        LabelSeen::Absent => return false,
        LabelSeen::NotRead => {
            reasons.push(Reason::NotExamined {
                what: "its label".into(),
            });
            return false;
        }
        LabelSeen::Damaged { why } => {
            reasons.push(Reason::DamagedLabel { why: why.clone() });
            return false;
        }
        LabelSeen::Newer { version } => {
            reasons.push(Reason::NewerLabel { version: *version });
            return false;
        }
        LabelSeen::Present(label) => label,
    };
    if label.serial != seen.serial {
        reasons.push(Reason::CopiedLabel {
            labelled: label.serial.clone(),
        });
        return false;
    }
    if let Some(why) = &label.contradiction {
        reasons.push(Reason::LabelContradicted { why: why.clone() });
        return false;
    }
    match pools.0.get(&label.pool_id) {
        Some(name) => {
            reasons.push(Reason::Pooled {
                pool: name.clone(),
                state: label.state,
            });
            true
        }
        None => {
            reasons.push(Reason::OtherPool {
                pool_id: label.pool_id,
                pool_name: label.pool_name.clone(),
            });
            false
        }
    }
}

/// Adds what makes the device unfit, whoever it belongs to.
fn judge_device(seen: &Observation, reasons: &mut Vec<Reason>) {
    if let Health::Smart(smart) = &seen.health {
        let failures = smart.failures();
        if !failures.is_empty() {
            reasons.push(Reason::FailingHealth {
                what: failures.join(", "),
            });
        }
    }
    if seen.read_only {
        reasons.push(Reason::ReadOnly);
    }
    for what in &seen.read_errors {
        reasons.push(Reason::Unreadable { what: what.clone() });
    }
}

/// Adds who uses the drive, and whether it is a drive to take at all.
fn judge_use(seen: &Observation, reasons: &mut Vec<Reason>) {
    reasons.extend(seen.uses.iter().map(Reason::of_use));
    reasons.extend(
        seen.unseen
            .iter()
            .map(|what| Reason::NotExamined { what: what.clone() }),
    );
    if seen.exclusive == Exclusive::Busy {
        reasons.push(Reason::OpenElsewhere { by: None });
    }
    match &seen.transport {
        Transport::Pcie | Transport::StandIn => {}
        Transport::Fabric { name } => reasons.push(Reason::FabricVolume {
            transport: name.clone(),
        }),
        Transport::Unknown { name } => reasons.push(Reason::UnknownTransport {
            transport: name.clone(),
        }),
    }
    if let Some(service) = &seen.cloud_volume {
        reasons.push(Reason::CloudVolume {
            service: service.clone(),
        });
    }
    match &seen.sharing {
        Sharing::Private => {}
        Sharing::Shared { why } => {
            reasons.push(Reason::SharedBetweenControllers { why: why.clone() })
        }
        Sharing::Unknown => reasons.push(Reason::NotExamined {
            what: "whether other controllers reach it".into(),
        }),
    }
    if seen.size < MIN_DRIVE {
        reasons.push(Reason::TooSmall {
            size: seen.size,
            minimum: MIN_DRIVE,
        });
    }
    match &seen.health {
        Health::Unknown { why } => reasons.push(Reason::HealthUnknown { why: why.clone() }),
        Health::Smart(smart) if smart.used_percent >= 100 => reasons.push(Reason::WornOut {
            used_percent: smart.used_percent,
        }),
        Health::Smart(_) | Health::None => {}
    }
}

/// Adds what the drive holds, and whether it was watched long enough.
fn judge_content(seen: &Observation, reasons: &mut Vec<Reason>) {
    reasons.extend(seen.signatures.iter().map(Reason::of_signature));
    match seen.content {
        Content::Blank => {}
        Content::NotBlank { at } => reasons.push(Reason::NotBlank { at }),
        Content::NotRead => reasons.push(Reason::NotExamined {
            what: "its content".into(),
        }),
    }
    if let Some(what) = &seen.watch.changed {
        reasons.push(Reason::ChangedWhileWatched { what: what.clone() });
    }
    // Watching tells nothing about a drive that is out anyway.
    if reasons.is_empty() && (seen.watch.remaining_ms() > 0 || seen.watch.required_ms == 0) {
        reasons.push(Reason::StillWatched {
            remaining_ms: seen.watch.remaining_ms(),
        });
    }
}

/// Why a wipe that names this drive's serial is refused; empty when it may be done. Blank or not does not matter here: only use
/// by somebody, and membership in a pool of this cluster.
pub fn wipe_refusals(seen: &Observation, pools: &KnownPools) -> Vec<Reason> {
    let mut reasons: Vec<Reason> = seen.uses.iter().map(Reason::of_use).collect();
    reasons.extend(
        seen.unseen
            .iter()
            .map(|what| Reason::NotExamined { what: what.clone() }),
    );
    if seen.exclusive == Exclusive::Busy {
        reasons.push(Reason::OpenElsewhere { by: None });
    }
    if seen.exclusive == Exclusive::NotTried {
        reasons.push(Reason::NotExamined {
            what: "whether it opens exclusively".into(),
        });
    }
    if seen.read_only {
        reasons.push(Reason::ReadOnly);
    }
    match &seen.transport {
        Transport::Pcie | Transport::StandIn => {}
        Transport::Fabric { name } => reasons.push(Reason::FabricVolume {
            transport: name.clone(),
        }),
        Transport::Unknown { name } => reasons.push(Reason::UnknownTransport {
            transport: name.clone(),
        }),
    }
    match &seen.sharing {
        Sharing::Private => {}
        Sharing::Shared { why } => {
            reasons.push(Reason::SharedBetweenControllers { why: why.clone() })
        }
        Sharing::Unknown => reasons.push(Reason::NotExamined {
            what: "whether other controllers reach it".into(),
        }),
    }
    if let Some(service) = &seen.cloud_volume {
        reasons.push(Reason::CloudVolume {
            service: service.clone(),
        });
    }
    if let LabelSeen::Present(label) = &seen.label
        && let Some(name) = pools.0.get(&label.pool_id)
        && label.serial == seen.serial
        && label.contradiction.is_none()
    {
        reasons.push(Reason::Pooled {
            pool: name.clone(),
            state: label.state,
        });
    }
    reasons.sort_by_key(Reason::rank);
    reasons
}
