//! What is abnormal enough to be told as an Event.

use strand_api::{
    DriveOperation, DriveOperationStatus, DrivePhase, DriveStatus, DriveVerdict, OperationPhase,
    OperationType, condition, names,
};

/// Something that an administrator should hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happening {
    /// Code in CamelCase.
    pub reason: &'static str,
    /// What was being done.
    pub action: &'static str,
    /// What happened and what to do.
    pub note: String,
    /// Whether it is bad news.
    pub warning: bool,
}

/// What a status that replaces another tells. Compared with what the API held, so that a restarted agent does not tell it again.
pub fn of_drive(node: &str, before: Option<&DriveStatus>, after: &DriveStatus) -> Vec<Happening> {
    let mut happenings = Vec::new();
    let verdict = before.and_then(|status| status.verdict);
    if after.verdict == Some(DriveVerdict::Failed) && verdict != Some(DriveVerdict::Failed) {
        let why: Vec<&str> = after.reasons.iter().map(|r| r.message.as_str()).collect();
        happenings.push(Happening {
            reason: "DriveFailed",
            action: "Judge",
            note: format!("the drive is not fit for use: {}", why.join("; ")),
            warning: true,
        });
    }
    let phase = before.and_then(|status| status.phase);
    if after.phase == Some(DrivePhase::Missing) && phase != Some(DrivePhase::Missing) {
        happenings.push(Happening {
            reason: "DriveMissing",
            action: "Scan",
            note: format!(
                "node {node} no longer sees the drive; plug it in again, or create a DriveOperation of type Forget if it is gone for good"
            ),
            warning: true,
        });
    }
    for (about, reason, action) in [
        (names::CARVED, "CarveRefused", "Carve"),
        (names::HEALTHY, "DriveUnhealthy", "Probe"),
    ] {
        let against = |status: &DriveStatus| {
            condition::find(&status.conditions, about)
                .filter(|c| c.status == "False")
                .map(|c| (c.reason.clone(), c.message.clone()))
        };
        if let Some((code, message)) = against(after)
            && before
                .and_then(against)
                .is_none_or(|(before, _)| before != code)
        {
            happenings.push(Happening {
                reason,
                action,
                note: message,
                warning: true,
            });
        }
    }
    happenings
}

/// What the end of an operation tells.
pub fn of_operation(
    operation: &DriveOperation,
    status: &DriveOperationStatus,
) -> Option<Happening> {
    let failed = match status.phase? {
        OperationPhase::Running => return None,
        OperationPhase::Succeeded => false,
        OperationPhase::Failed => true,
    };
    Some(Happening {
        reason: if failed {
            "OperationFailed"
        } else {
            "OperationSucceeded"
        },
        action: match operation.spec.type_ {
            OperationType::Wipe => "Wipe",
            OperationType::Release => "Release",
            OperationType::Forget => "Forget",
            OperationType::Evacuate => "Evacuate",
        },
        note: status.message.clone(),
        warning: failed,
    })
}
