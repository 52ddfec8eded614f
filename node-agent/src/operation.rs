//! What the agent does for a DriveOperation on a drive that it has.

use strand_api::{
    DriveOperation, DriveOperationStatus, DrivePhase, OperationPhase, OperationType, condition,
};
use strand_drives::{DriveError, SeenDrive, WipeOrder};
use strand_placement::carve::MIB;
use strand_placement::operation::{ended, may_release};
use strand_placement::verdict::LabelSeen;

use crate::finding::{REPEATED, being_released};
use crate::memory::DriveMemory;
use crate::view::{Now, View};
use crate::work::{Work, WorkKind};

/// Condition of a DriveOperation: it has ended, well or not.
const COMPLETE: &str = "Complete";

/// What work for an operation came to; kept until the API has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Whether it was done.
    pub done: bool,
    /// What was done, or why not and what to do.
    pub message: String,
}

impl End {
    /// It was done.
    pub fn done(message: impl Into<String>) -> Self {
        Self {
            done: true,
            message: message.into(),
        }
    }

    /// It was not done.
    pub fn failed(message: impl Into<String>) -> Self {
        Self {
            done: false,
            message: message.into(),
        }
    }
}

/// How far this run of the agent is with an operation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// What its work came to.
    pub end: Option<End>,
    /// Tens of percent that its work has done.
    pub tens: u8,
    /// Whether drive and pool were read since the operation was heard of. Watches overtake each other: an administrator's
    /// cordon may arrive after the operation that needs it.
    pub fresh: bool,
}

/// What comes next for an operation.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Nothing before something else has changed.
    Wait,
    /// Read the drive and its pool: what is known of them may be older than the operation.
    Refresh,
    /// Its status shall be this, if it is not already.
    Status(Box<DriveOperationStatus>),
    /// Work on the drive.
    Work(Work),
}

/// Whether the operation is this agent's to carry out.
pub fn concerns_agent(operation: &DriveOperation) -> bool {
    let operators = [OperationType::Forget, OperationType::Evacuate];
    !operators.contains(&operation.spec.type_) && !ended(operation)
}

/// Whether it takes the drive's label away, and has begun.
pub fn releases(operation: &DriveOperation) -> bool {
    operation.spec.type_ == OperationType::Release && running(operation)
}

fn running(operation: &DriveOperation) -> bool {
    let phase = operation.status.as_ref().and_then(|s| s.phase);
    phase == Some(OperationPhase::Running)
}

/// Decides on the next step of an operation.
pub fn next(
    operation: &DriveOperation,
    run: &Run,
    memory: &DriveMemory,
    view: &View,
    now: &Now,
) -> Next {
    let Run { end, tens, fresh } = run;
    if let Some(end) = end {
        return finish(operation, end, view, now);
    }
    if working(memory) {
        return Next::Status(Box::new(progress(operation, *tens)));
    }
    if !*fresh {
        return Next::Refresh;
    }
    match check(operation, memory, view) {
        Check::Wait => Next::Wait,
        Check::Ends(end) => finish(operation, &end, view, now),
        Check::Go(work) => match running(operation) {
            // What is not told as begun is not begun: it can still be deleted.
            false => Next::Status(Box::new(progress(operation, 0))),
            true if memory.busy.is_some() => Next::Wait,
            true if work == Work::Release && !told_as(view, DrivePhase::Releasing) => Next::Wait,
            true => Next::Work(work),
        },
    }
}

fn working(memory: &DriveMemory) -> bool {
    memory
        .busy
        .is_some_and(|busy| matches!(busy.kind, WorkKind::Release | WorkKind::Wipe))
}

/// What an operation comes to with the drive as it is.
enum Check {
    /// Nothing can be said yet.
    Wait,
    /// It is over.
    Ends(End),
    /// It can be carried out.
    Go(Work),
}

fn check(operation: &DriveOperation, memory: &DriveMemory, view: &View) -> Check {
    let name = view.name;
    let Some(seen) = &memory.seen else {
        return match view.object {
            Some(_) => Check::Ends(End::failed(format!(
                "drive {name} is not there, and nothing was done to it. Plug it in and create the operation again, or use type \
                 Forget if it is gone for good"
            ))),
            None => Check::Wait,
        };
    };
    if seen.key.serial != operation.spec.serial {
        return Check::Ends(End::failed(format!(
            "drive {name} has serial {:?}, and the operation names {:?}; nothing was done. Check which drive is meant and create \
             another operation",
            seen.key.serial, operation.spec.serial
        )));
    }
    match operation.spec.type_ {
        OperationType::Wipe => Check::Go(Work::Wipe(wipe_order(operation, seen))),
        OperationType::Release => check_release(operation, memory, view),
        OperationType::Forget | OperationType::Evacuate => Check::Wait,
    }
}

fn check_release(operation: &DriveOperation, memory: &DriveMemory, view: &View) -> Check {
    let name = view.name;
    let Some(observation) = &memory.observation else {
        return unreachable_yet(memory, name);
    };
    let label = match &observation.label {
        LabelSeen::Present(label) => label,
        LabelSeen::NotRead => return Check::Wait,
        _ if running(operation) => {
            return Check::Ends(End::done(released(name)));
        }
        _ => {
            return Check::Ends(End::failed(format!(
                "drive {name} carries no label of Strand that can be read; there is nothing to release. To make it blank, use type Wipe"
            )));
        }
    };
    let Some(pool) = view.pools.get(&label.pool_id) else {
        return Check::Ends(End::failed(format!(
            "drive {name} is labelled for pool {} ({}), which this cluster does not have; nothing was done. To give the drive up, \
             use type Wipe",
            label.pool_name, label.pool_id
        )));
    };
    if let Some(object) = view.object
        && !being_released(label)
        && let Err(denial) = may_release(object, Some(pool))
    {
        return Check::Ends(End::failed(denial.to_string()));
    }
    match (&memory.owned, view.object) {
        (Some(_), Some(_)) => Check::Go(Work::Release),
        _ => unreachable_yet(memory, name),
    }
}

/// A drive that is being looked at or taken back is waited for, one that cannot be is not.
fn unreachable_yet(memory: &DriveMemory, name: &str) -> Check {
    match memory.trouble.as_ref().filter(|t| t.failures >= REPEATED) {
        Some(trouble) => Check::Ends(End::failed(format!(
            "drive {name} was not released: {}",
            trouble.message
        ))),
        None => Check::Wait,
    }
}

/// Where a wipe goes on: at the tens of percent that are on record.
fn wipe_order(operation: &DriveOperation, seen: &SeenDrive) -> WipeOrder {
    let percent = operation
        .status
        .as_ref()
        .and_then(|status| status.progress_percent)
        .map_or(0, |percent| percent.clamp(0, 100) as u128);
    let from = (u128::from(seen.geometry.size) * percent / 100) as u64;
    WipeOrder {
        serial: operation.spec.serial.clone(),
        from: from / MIB * MIB,
    }
}

fn told_as(view: &View, phase: DrivePhase) -> bool {
    let Some(object) = view.object else {
        return true;
    };
    // A drive that no pool claims has no phase of its own for this.
    object.spec.pool.is_none() || object.status.as_ref().and_then(|s| s.phase) == Some(phase)
}

fn progress(operation: &DriveOperation, tens: u8) -> DriveOperationStatus {
    let told = operation
        .status
        .as_ref()
        .and_then(|status| status.progress_percent)
        .unwrap_or(0);
    DriveOperationStatus {
        phase: Some(OperationPhase::Running),
        message: String::new(),
        progress_percent: Some(told.max(i64::from(tens))),
        ..DriveOperationStatus::default()
    }
}

/// Tells the end, a release's only after the drive was told as released: the operator takes that for its word.
fn finish(operation: &DriveOperation, end: &End, view: &View, now: &Now) -> Next {
    if end.done
        && operation.spec.type_ == OperationType::Release
        && !told_as(view, DrivePhase::Released)
    {
        return Next::Wait;
    }
    let phase = match end.done {
        true => OperationPhase::Succeeded,
        false => OperationPhase::Failed,
    };
    let earlier = operation
        .status
        .as_ref()
        .map_or(&[][..], |status| &status.conditions);
    let told = operation.status.as_ref().and_then(|s| s.progress_percent);
    Next::Status(Box::new(DriveOperationStatus {
        phase: Some(phase),
        message: end.message.clone(),
        progress_percent: if end.done { Some(100) } else { told },
        conditions: vec![condition::condition(
            earlier,
            &now.wall,
            COMPLETE,
            true,
            if end.done { "Succeeded" } else { "Failed" },
            end.message.clone(),
            operation.metadata.generation,
        )],
        ..DriveOperationStatus::default()
    }))
}

/// What finished work means for the operation that asked for it; `None` where the work shall go on later.
pub fn end_of(work: &Work, error: Option<&DriveError>, name: &str) -> Option<End> {
    Some(match (work, error) {
        (_, Some(DriveError::Stopped { .. })) => return None,
        (_, Some(error)) => End::failed(format!("drive {name}: {error}")),
        (Work::Wipe(_), None) => End::done(format!("drive {name} was wiped and reads blank")),
        (_, None) => End::done(released(name)),
    })
}

fn released(name: &str) -> String {
    format!("drive {name} was released: label and partition table are gone, what it held is erased")
}
