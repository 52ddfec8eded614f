//! Whether the leg that a mirror's snapshot was taken of had every acknowledged byte.
//!
//! ```text
//!   Taking ──taken──► Looking ──whoever writes sees the leg whole; nobody writes, and it was given back in order──► Passed
//!     └─────────────────┴──the leg lacks writes, or another attachment──► Failed ──► Taking, of a leg that lacks none
//! ```
//! A leg that is recorded in has every acknowledged byte, but for a moment: where its drive answers with an error, md goes on without it before that is
//! recorded. So whoever writes is asked, after the snapshot was taken, to look whether md still has the leg: then it had it all the time before.
//! Asking is a write to the volume, so what is seen of it afterwards is no older than the snapshot. Who has given it back in order has seen to
//! it that all was recorded. While the legs are made equal after a crash, what one of them has need not be what was read from the
//! other; so nothing is taken then, and an attachment that began meanwhile, which may have begun so, has it taken again.

use super::{
    Owner, Pass,
    array::{last_told, told_of},
    state::Why,
};
use strand_api::{
    CheckPhase, LegHolding, PlacedLeg, PoolSnapshot, PoolVolume, PoolVolumeStatus, SnapshotCheck,
};

/// What is next of a snapshot that has not passed.
pub(super) enum Next {
    /// This is to be recorded.
    Record(SnapshotCheck),
    /// Somebody else has to do something.
    Wait(Why),
}

/// A new check, if a snapshot can be taken of one leg of this volume now; a leg that whoever writes says is no whole part is not to be taken.
///
/// # Errors
/// Why not now.
pub(super) fn begin(volume: &PoolVolume) -> Result<SnapshotCheck, Why> {
    let name = Owner::Volume(volume).name();
    let wait = |message: String| Err(Why::new("SourceNotReady", message));
    let status = volume.status.as_ref();
    let told = last_told(volume);
    match (status.and_then(writer), told) {
        (None, _) => at_rest(volume)?,
        (Some(writer), None) => {
            return wait(format!(
                "waiting for node {writer}, which has volume {name} attached, to tell of its legs"
            ));
        }
        (Some(_), Some(told)) => {
            if let Some(refused) = &told.refused {
                return wait(format!("volume {name}: {}", refused.message));
            }
        }
    }
    if told.is_some_and(|told| told.resyncing) {
        return wait(format!(
            "the legs of volume {name} are being made equal after a crash; a snapshot is taken once they are"
        ));
    }
    Ok(SnapshotCheck {
        phase: CheckPhase::Taking,
        generation: generation(volume),
        look: 0,
    })
}

/// Whether all is recorded that is to be known of the legs of a volume that nobody writes to.
fn at_rest(volume: &PoolVolume) -> Result<(), Why> {
    let array = volume.spec.array.as_ref();
    let told = volume.status.as_ref().and_then(|s| s.array.as_ref());
    let in_order = told.is_some_and(|told| told.stopped && told.generation == generation(volume));
    if in_order || array.is_some_and(|array| !array.formed) {
        return Ok(());
    }
    let message = format!(
        "volume {} was not given back in order by who wrote to it last, or was moved, or attached and not written to, since: attach it for writing, while or \
         after which it can be taken",
        Owner::Volume(volume).name()
    );
    Err(Why::new("NotInOrder", message))
}

/// Whether whoever writes to a volume says that a leg is no whole part of it.
pub(super) fn is_doubted(volume: &PoolVolume, placed: &PlacedLeg) -> bool {
    let told = last_told(volume);
    told.is_some() && told_of(told, placed).is_none_or(|leg| leg.holding != LegHolding::Whole)
}

/// What is next of a snapshot, one leg of which was `taken` of the leg `placed` of its volume, or is being.
pub(super) fn next(
    pass: &Pass,
    snapshot: &PoolSnapshot,
    check: SnapshotCheck,
    placed: &PlacedLeg,
    taken: bool,
) -> Next {
    let name = snapshot.spec.volume.as_str();
    let record = |phase| Next::Record(SnapshotCheck { phase, ..check });
    let wait = |reason, message: String| Next::Wait(Why::new(reason, message));
    let found = pass.volumes.get(name).copied();
    let Some(volume) = found.filter(|volume| !volume.spec.deletion_mark) else {
        return wait(
            "SourceNotFound",
            format!(
                "volume {name} is gone or deleted, and whether its leg had everything is not known; delete this snapshot"
            ),
        );
    };
    let origin = volume.spec.legs.iter().find(|l| l.index == placed.index);
    let origin = origin.filter(|l| l.lack.is_none() && l.drive == placed.drive);
    let Some(origin) = origin.filter(|_| generation(volume) == check.generation) else {
        return record(CheckPhase::Failed);
    };
    if !taken {
        return wait("Making", "being taken".into());
    }
    let asked = volume.spec.array.as_ref().map_or(0, |array| array.look);
    if check.phase == CheckPhase::Taking {
        // No other look has this number, whatever of the volume is not seen yet.
        let look = pass.now.as_millisecond().max(asked + 1);
        return Next::Record(SnapshotCheck {
            phase: CheckPhase::Looking,
            look,
            ..check
        });
    }
    let looks = |who: &str| {
        let leg = &origin.name;
        let message = format!(
            "taken; {who} looks whether leg {leg} had everything. Where that lasts, the agent there is away, or older than the operator"
        );
        wait("Checking", message)
    };
    if asked < check.look {
        return looks("whoever writes to the volume");
    }
    let Some(writer) = volume.status.as_ref().and_then(writer) else {
        return match at_rest(volume) {
            Ok(()) => record(CheckPhase::Passed),
            Err(why) => Next::Wait(why),
        };
    };
    let writer = format!("node {writer}");
    let Some(told) = last_told(volume).filter(|told| told.looked >= check.look) else {
        return looks(&writer);
    };
    match told_of(Some(told), origin).map(|leg| leg.holding) {
        Some(LegHolding::Whole) if told.refused.is_none() && !told.resyncing => {
            record(CheckPhase::Passed)
        }
        // Nothing is written without it before it is recorded out.
        Some(LegHolding::Away) | None => looks(&writer),
        Some(_) => record(CheckPhase::Failed),
    }
}

/// The look at a volume's legs that its snapshots wait for.
pub(super) fn asked(pass: &Pass, volume: &PoolVolume) -> i64 {
    let name = Owner::Volume(volume).name();
    let snapshots = pass.storage.snapshots.iter();
    let checks = snapshots
        .filter(|snapshot| snapshot.spec.volume == name)
        .filter_map(|snapshot| snapshot.spec.check)
        .filter(|check| check.phase == CheckPhase::Looking);
    checks.map(|check| check.look).max().unwrap_or(0)
}

fn generation(volume: &PoolVolume) -> i64 {
    let status = volume.status.as_ref();
    status.map_or(0, |status| status.attachment_generation)
}

/// The node that has the volume attached for writing, or is being kept out.
fn writer(status: &PoolVolumeStatus) -> Option<&str> {
    let mut attachments = status.attachments.iter();
    let writer = attachments.find(|attachment| !attachment.read_only)?;
    Some(&writer.node)
}
