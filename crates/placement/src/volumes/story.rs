//! What is worth an event: something abnormal began, or ended.

use super::state;
use crate::status::Story;
use strand_api::{PoolSnapshotStatus, PoolVolumeStatus, condition, condition::Condition, names};

/// What to tell about a volume whose status goes from `before` to `after`.
pub fn stories(before: &PoolVolumeStatus, after: &PoolVolumeStatus) -> Vec<Story> {
    let turns = [
        (names::READY, "VolumeNotReady", Some("VolumeReady")),
        (names::DEGRADED, "VolumeDegraded", Some("VolumeWhole")),
        (names::HEALTHY, "VolumeUnhealthy", Some("VolumeHealthy")),
        (names::RESIZED, "VolumeNotResized", None),
        (names::LIMITED, "VolumeNotLimited", None),
        (names::ATTACHED, "VolumeNotAttached", None),
    ];
    let turns = turns.into_iter();
    turns
        .filter_map(|turn| story(&before.conditions, &after.conditions, turn))
        .collect()
}

/// What to tell about a snapshot whose status goes from `before` to `after`.
pub fn snapshot_stories(before: &PoolSnapshotStatus, after: &PoolSnapshotStatus) -> Vec<Story> {
    let turn = (names::READY, "SnapshotNotReady", Some("SnapshotReady"));
    story(&before.conditions, &after.conditions, turn)
        .into_iter()
        .collect()
}

fn story(
    before: &[Condition],
    after: &[Condition],
    (type_, bad, good): (&str, &'static str, Option<&'static str>),
) -> Option<Story> {
    let wrong = |conditions| {
        condition::find(conditions, type_)
            .filter(|c: &&Condition| is_wrong(c) && !state::passing(&c.reason))
    };
    match (wrong(before), wrong(after)) {
        (old, Some(new)) if old.is_none_or(|old| old.reason != new.reason) => Some(Story {
            warning: true,
            reason: bad,
            message: format!("{}: {}", new.reason, new.message),
        }),
        (Some(old), None) => {
            // Readiness ends what was wrong; a condition that is there only while False just goes.
            let ended = condition::find(after, type_).is_none_or(|c| !is_wrong(c));
            good.filter(|_| ended).map(|reason| Story {
                warning: false,
                reason,
                message: format!("{} is over", old.reason),
            })
        }
        _ => None,
    }
}

/// Whether something is wrong by a condition: being degraded is the one thing that is not well to be.
fn is_wrong(condition: &Condition) -> bool {
    (condition.type_ == names::DEGRADED) == (condition.status == "True")
}
