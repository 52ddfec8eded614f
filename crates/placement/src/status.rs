//! What a pool's status and events say.

use crate::{
    adopt::{self, Candidate, Desire},
    rack::{self, Rack},
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use std::collections::BTreeMap;
use strand_api::{
    ByteQuantity, Drive, DriveCounts, DrivePhase, DriveVerdict, MemoryPoolStatus, PartitionRole,
    PartitionStatus, PoolDisplay, ReasonCount, SideStatus, condition, names,
};

/// How many reasons the status names.
const TOP_REASONS: usize = 5;
/// How many of them fit a column.
const SHOWN_REASONS: usize = 3;
/// Condition: drives of the pool are missing or failed.
pub const DEGRADED: &str = "Degraded";

/// Drives of one pool, by where they are.
#[derive(Default)]
struct Tally<'a> {
    found: usize,
    waiting: usize,
    adopted: Vec<&'a Drive>,
    serving: Vec<&'a Drive>,
    lost: Vec<String>,
    holding: Vec<String>,
    reasons: BTreeMap<String, i64>,
    rejected: usize,
    older: BTreeMap<String, usize>,
}

/// The status of a pool, whose map may be `map_outdated`: about to be published anew.
pub fn of(
    candidate: &Candidate,
    pools: &[Candidate],
    rack: &Rack,
    desires: &[Desire],
    map_outdated: bool,
    now: Timestamp,
) -> MemoryPoolStatus {
    let tally = tally(candidate, rack, desires);
    let earlier = candidate.pool.status.clone().unwrap_or_default();
    let generation = candidate.pool.metadata.generation;
    let side = |role| {
        let capacity = sum(&tally.serving, role, |partition| partition.size);
        let used = sum(&tally.serving, role, |partition| partition.used);
        SideStatus {
            capacity: ByteQuantity(capacity),
            used: ByteQuantity(sixteenths(used, capacity)),
        }
    };
    let (context_memory, storage) = (
        side(PartitionRole::ContextMemory),
        side(PartitionRole::Storage),
    );
    let top_reasons = top(&tally.reasons);

    let was_ready = condition::is_true(&earlier.conditions, names::READY);
    let (ready, reason, message) = readiness(candidate, &tally, was_ready, map_outdated);
    let now = Time(now);
    let mut conditions = vec![condition::condition(
        &earlier.conditions,
        &now,
        names::READY,
        ready,
        reason,
        message,
        generation,
    )];
    let mut rare = |type_: &str, holds: bool, reasons: (&str, &str), message: String| {
        if holds || condition::find(&earlier.conditions, type_).is_some() {
            let reason = if holds { reasons.0 } else { reasons.1 };
            conditions.push(condition::condition(
                &earlier.conditions,
                &now,
                type_,
                holds,
                reason,
                message,
                generation,
            ));
        }
    };
    rare(
        names::CONFLICT,
        !tally.older.is_empty(),
        ("OlderPool", "None"),
        conflict(&tally, pools, candidate),
    );
    rare(
        DEGRADED,
        !tally.lost.is_empty(),
        ("DrivesLost", "None"),
        lost(&tally),
    );

    MemoryPoolStatus {
        observed_generation: generation,
        conditions,
        nodes: rack::nodes_of(tally.adopted.iter().copied()) as i64,
        drives: DriveCounts {
            found: tally.found as i64,
            adopted: tally.adopted.len() as i64,
            ready: tally.serving.len() as i64,
            rejected: tally.rejected as i64,
            top_reasons: top_reasons.clone(),
        },
        display: PoolDisplay {
            drives: format!("{}/{}", tally.adopted.len(), tally.found),
            context_memory: display(&context_memory),
            storage: display(&storage),
            rejected: shown(&top_reasons),
        },
        context_memory,
        storage,
        map_epoch: rack
            .maps
            .get(candidate.name)
            .map_or(0, |map| map.spec.epoch),
    }
}

fn tally<'a>(candidate: &Candidate, rack: &Rack<'a>, desires: &[Desire]) -> Tally<'a> {
    let mut tally = Tally::default();
    let selected: BTreeMap<&str, bool> = rack
        .nodes
        .iter()
        .map(|(name, node)| (*name, candidate.selects_node(Some(node))))
        .collect();
    for (drive, desire) in rack.drives.iter().zip(desires) {
        let status = drive.status.as_ref();
        let phase = status.and_then(|s| s.phase);
        let mine = matches!(desire, Desire::Claimed(claim) if claim.pool == candidate.name);
        let on_selected = selected
            .get(drive.spec.node_name.as_str())
            .copied()
            .unwrap_or(false);
        if !mine && (!on_selected || phase == Some(DrivePhase::Missing)) {
            continue;
        }
        tally.found += 1;
        let id = candidate.pool.spec.pool_id.as_deref();
        let carried = status
            .zip(id)
            .is_some_and(|(status, id)| adopt::carries(status, id));
        match desire {
            Desire::Undecided => tally.waiting += 1,
            Desire::Claimed(_) if mine && carried => {
                tally.adopted.push(drive);
                match rack::legs_on(drive, rack) {
                    0 => {}
                    legs => {
                        let words = format!("holds {legs} legs of volumes");
                        tally.holding.push(describe(drive, &words));
                    }
                }
                let pooled = status.is_some_and(|s| s.verdict == Some(DriveVerdict::Pooled));
                let node_there = rack.nodes.contains_key(drive.spec.node_name.as_str());
                match phase {
                    Some(DrivePhase::Ready) if pooled && node_there => tally.serving.push(drive),
                    Some(DrivePhase::Missing) => tally.lost.push(describe(drive, "is missing")),
                    _ if !pooled => tally.lost.push(describe(drive, "has failed")),
                    _ if !node_there => tally
                        .lost
                        .push(describe(drive, "is on a node that is gone")),
                    _ => tally.waiting += 1,
                }
            }
            Desire::Claimed(_) if mine => tally.waiting += 1,
            Desire::Claimed(claim) => {
                tally.reject("OtherPool");
                let wanted = status.is_some_and(|s| {
                    crate::select::drive_selected(candidate.name, &candidate.pool.spec, s).is_ok()
                });
                if wanted {
                    *tally.older.entry(claim.pool.clone()).or_default() += 1;
                }
            }
            Desire::Unclaimed(Some(refusal)) => tally.reject(refusal.code()),
            Desire::Unclaimed(None) => {
                tally.rejected += 1;
                if phase == Some(DrivePhase::Released) {
                    *tally.reasons.entry("Released".into()).or_default() += 1;
                }
                for reason in status.iter().flat_map(|s| &s.reasons) {
                    *tally.reasons.entry(reason.code.clone()).or_default() += 1;
                }
            }
        }
    }
    tally.lost.sort();
    tally.holding.sort();
    tally
}

impl Tally<'_> {
    fn reject(&mut self, code: &str) {
        self.rejected += 1;
        *self.reasons.entry(code.into()).or_default() += 1;
    }
}

fn describe(drive: &Drive, what: &str) -> String {
    format!(
        "{} {what}",
        drive.metadata.name.as_deref().unwrap_or_default()
    )
}

/// Use in steps of a sixteenth: drives fill all the time, and the API is written to when something is worth telling.
pub fn sixteenths(used: u64, size: u64) -> u64 {
    match size / 16 {
        0 => 0,
        step => used / step * step,
    }
}

fn sum(drives: &[&Drive], role: PartitionRole, of: fn(&PartitionStatus) -> ByteQuantity) -> u64 {
    let partitions = drives
        .iter()
        .filter_map(|d| d.status.as_ref())
        .flat_map(|s| &s.partitions);
    partitions.filter(|p| p.role == role).map(|p| of(p).0).sum()
}

fn top(reasons: &BTreeMap<String, i64>) -> Vec<ReasonCount> {
    let mut top: Vec<ReasonCount> = reasons
        .iter()
        .map(|(reason, count)| ReasonCount {
            reason: reason.clone(),
            count: *count,
        })
        .collect();
    top.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.reason.cmp(&b.reason)));
    top.truncate(TOP_REASONS);
    top
}

fn shown(top: &[ReasonCount]) -> String {
    let words: Vec<String> = top
        .iter()
        .take(SHOWN_REASONS)
        .map(|r| format!("{} {}", r.count, r.reason))
        .collect();
    words.join(", ")
}

fn display(side: &SideStatus) -> String {
    format!("{}/{}", side.used.rounded(), side.capacity.rounded())
}

/// Whether the pool is ready, why, and in words. A pool that was ready stays so while it serves.
fn readiness(
    candidate: &Candidate,
    tally: &Tally,
    was_ready: bool,
    map_outdated: bool,
) -> (bool, &'static str, String) {
    let (serving, adopted) = (tally.serving.len(), tally.adopted.len());
    if candidate.pool.metadata.deletion_timestamp.is_some() {
        let message = format!(
            "the pool is being deleted; {adopted} drives are still to be released{}{}",
            and_some(&tally.holding),
            and_some(&tally.lost)
        );
        return (false, "Deleting", message);
    }
    if let Err(why) = &candidate.id {
        return (false, "NoPoolID", why.clone());
    }
    if serving > 0 && (was_ready || (tally.waiting == 0 && !map_outdated)) {
        return (
            true,
            "Serving",
            format!("{serving} of {adopted} drives serve{}", and_lost(tally)),
        );
    }
    if serving > 0 && tally.waiting == 0 {
        let message = format!("serving {serving}; the pool map with them is about to be published");
        return (false, "Publishing", message);
    }
    if tally.waiting > 0 {
        let message = format!(
            "serving {serving} so far, {} being judged or carved",
            tally.waiting
        );
        return (false, "Adopting", message);
    }
    if adopted > 0 {
        return (
            false,
            "NoDriveServes",
            format!("none of {adopted} drives serves{}", and_lost(tally)),
        );
    }
    let message = match (tally.found, shown(&top(&tally.reasons))) {
        (0, _) => "no drive was found on the selected nodes; check spec.nodeSelector, and that the node agent runs there".into(),
        (found, reasons) => {
            format!("none of {found} drives was taken ({reasons}); strandctl drives --why tells the reasons")
        }
    };
    (false, "NoDrives", message)
}

fn and_lost(tally: &Tally) -> String {
    and_some(&tally.lost)
}

fn and_some(sentences: &[String]) -> String {
    if sentences.is_empty() {
        String::new()
    } else {
        format!("; {}", some(sentences))
    }
}

fn lost(tally: &Tally) -> String {
    if tally.lost.is_empty() {
        "all drives are there".into()
    } else {
        some(&tally.lost)
    }
}

fn some(sentences: &[String]) -> String {
    const SHOWN: usize = 3;
    match sentences.len() {
        n if n <= SHOWN => sentences.join(", "),
        n => format!("{} and {} more", sentences[..SHOWN].join(", "), n - SHOWN),
    }
}

fn conflict(tally: &Tally, pools: &[Candidate], candidate: &Candidate) -> String {
    if tally.older.is_empty() {
        return "no other pool has drives that this one selects".into();
    }
    let words: Vec<String> = tally
        .older
        .iter()
        .map(|(pool, drives)| {
            let position = |name: &str| pools.iter().position(|p| p.name == name);
            let age = if position(pool) < position(candidate.name) {
                "older"
            } else {
                "other"
            };
            format!("{age} pool {pool} has {drives} drives that this one selects too")
        })
        .collect();
    format!("{}; make the selectors disjoint", words.join(", "))
}

/// An event worth telling: what changed between two statuses of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Story {
    /// Whether it is a Warning.
    pub warning: bool,
    /// CamelCase reason.
    pub reason: &'static str,
    /// The sentence.
    pub message: String,
}

/// What to tell about a pool whose status goes from `before` to `after`.
pub fn stories(before: &MemoryPoolStatus, after: &MemoryPoolStatus) -> Vec<Story> {
    let mut stories = Vec::new();
    let mut turned =
        |type_: &str, good: bool, reason_true: &'static str, reason_false: &'static str| {
            let Some(now) = condition::find(&after.conditions, type_) else {
                return;
            };
            let before = condition::find(&before.conditions, type_);
            let is_true = now.status == "True";
            if before.map_or(is_true, |b| b.status != now.status) {
                let reason = if is_true { reason_true } else { reason_false };
                stories.push(Story {
                    warning: is_true != good,
                    reason,
                    message: now.message.clone(),
                });
            }
        };
    turned(names::READY, true, "PoolReady", "PoolNotReady");
    turned(names::CONFLICT, false, "DrivesOfOlderPool", "ConflictEnded");
    turned(DEGRADED, false, "DrivesLost", "DrivesBack");
    stories
}
