//! The next step for one drive: from what is known to what is done. Pure.

use std::time::{Duration, Instant};

use kube::ResourceExt;
use strand_api::{DriveOperationStatus, DriveStatus};
use strand_placement::verdict::Verdict;

use crate::memory::DriveMemory;
use crate::operation::{self, Next, Run};
use crate::status::{self, Want};
use crate::view::{Now, View};
use crate::work::Work;

/// Reasons whose words alone changed are written again only after this time: on a busy system drive they never rest.
const REWORD: Duration = Duration::from_secs(600);

/// A request to the API about one drive.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// Make the drive's object.
    Create,
    /// Apply its status.
    Status(Box<DriveStatus>),
    /// Delete it.
    Delete,
    /// Read it and its pool.
    Refresh,
    /// Apply an operation's status.
    Operation(String, Box<DriveOperationStatus>),
}

/// How the writes about one drive go.
#[derive(Clone, Copy, Debug, Default)]
pub struct Writing {
    /// One is under way.
    pub in_flight: bool,
    /// Failures in a row.
    pub failures: u32,
    /// None is tried before.
    pub retry_at: Option<Instant>,
    /// When the last status was written.
    pub last_status: Option<Instant>,
}

/// Everything that a plan for one drive is made from.
pub struct Known<'a> {
    /// What is known of the drive.
    pub memory: &'a DriveMemory,
    /// What is known around it.
    pub view: View<'a>,
    /// How far the operation is.
    pub run: &'a Run,
    /// How its writes go.
    pub writing: Writing,
    /// Whether the machine was scanned and the whole API seen; before, nothing is decided.
    pub settled: bool,
}

/// What to do now, and when to plan again if nothing happens before.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Work to begin on the drive.
    pub work: Option<Work>,
    /// The write to make.
    pub write: Option<Write>,
    /// When time alone makes another plan.
    pub wake: Option<Instant>,
}

/// Plans the next step for one drive.
pub fn plan(known: &Known, now: &Now) -> Plan {
    let Known { memory, view, .. } = known;
    let next = view.operation.filter(|_| known.settled).map(|operation| {
        let next = operation::next(operation, known.run, memory, view, now);
        (operation, next)
    });
    let for_operation = match &next {
        Some((_, Next::Work(work))) => Some(work.clone()),
        _ => None,
    };
    let mut wake = memory.ripens_at(now.at);
    let write = known.settled.then(|| {
        write(known, now, &mut wake).or_else(|| match next {
            Some((operation, Next::Status(status)))
                if operation.status.as_ref() != Some(&*status) =>
            {
                Some(Write::Operation(operation.name_any(), status))
            }
            Some((_, Next::Refresh)) => Some(Write::Refresh),
            _ => None,
        })
    });
    let write = write.flatten().filter(|_| !known.writing.in_flight);
    let delayed = known.writing.retry_at.filter(|at| *at > now.at);
    if write.is_some() {
        wake = [wake, delayed].into_iter().flatten().min();
    }
    Plan {
        work: work(known, for_operation, now),
        write: write.filter(|_| delayed.is_none()),
        wake,
    }
}

/// The write about the drive's object, if it needs one.
fn write(known: &Known, now: &Now, wake: &mut Option<Instant>) -> Option<Write> {
    let wanted = match status::want(known.memory, &known.view, now) {
        Want::AsItIs => return None,
        Want::Gone => return Some(Write::Delete),
        Want::Status(wanted) => wanted,
    };
    let Some(object) = known.view.object else {
        return Some(Write::Create);
    };
    let live = object.status.as_ref().map(status::own_part);
    let Some(live) = live else {
        return Some(Write::Status(wanted));
    };
    if live == *wanted {
        return None;
    }
    if status::only_words_differ(&live, &wanted)
        && let Some(rested) = known.writing.last_status.map(|at| at + REWORD)
        && rested > now.at
    {
        *wake = Some(wake.map_or(rested, |wake| wake.min(rested)));
        return None;
    }
    Some(Write::Status(wanted))
}

/// The work to begin, if any. One piece at a time on each drive.
fn work(known: &Known, for_operation: Option<Work>, now: &Now) -> Option<Work> {
    let Known { memory, view, .. } = known;
    memory.seen.as_ref()?;
    if memory.busy.is_some() {
        return None;
    }
    if for_operation.is_some() {
        return for_operation;
    }
    if memory.trouble.as_ref().is_some_and(|t| now.at < t.retry_at) {
        return None;
    }
    let due = memory.look_at.is_none_or(|at| at <= now.at);
    let finding = memory.finding(&view.pools.known, now.at);
    let pooled = finding
        .as_ref()
        .is_some_and(|f| matches!(f.verdict, Verdict::Pooled | Verdict::Failed));
    // A drive of ours is not read time and again; one whose pool has gone is looked at like any other.
    if due && (memory.owned.is_none() || !pooled) {
        return Some(Work::Observe);
    }
    let finding = finding?;
    let Some(owned) = &memory.owned else {
        let labelled = memory
            .label()
            .is_some_and(|label| view.pools.known.contains(&label.pool_id));
        return match finding.verdict {
            // Also before the API was seen: what is ours by label and by a kept map goes on serving without it.
            Verdict::Pooled | Verdict::Failed if labelled => Some(Work::Resume),
            Verdict::Stranded if known.settled => view.order(memory).map(Work::Adopt),
            _ => None,
        };
    };
    if !known.settled {
        return None;
    }
    if let Some(wish) = view.wish()
        && view.lasting()
        && view.operation.is_none()
        && finding.verdict == Verdict::Pooled
        && wish.pool_id == owned.pool_id
        && !memory.lies_as(&wish.split)
        && memory
            .refused(&wish.split)
            .is_none_or(|refusal| refusal.retry_at <= now.at)
    {
        return Some(Work::Recarve(wish.split));
    }
    (due && memory.has_health()).then_some(Work::Health)
}

#[cfg(test)]
mod tests;
