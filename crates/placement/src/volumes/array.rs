//! A volume of several legs: what is seen of each, and what is recorded of it next.

use super::{
    Owner, Pass, claim, evacuate, ledger,
    leg::Standing,
    loss::{self, Demand, Next, Reach},
    shape, site,
    state::Why,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::time::Duration;
use strand_api::{
    ArrayLeg, ArrayStatus, Attachment, DrivePhase, LackPhase, LegArray, LegHolding, LegLack,
    PlacedLeg, PoolLeg, PoolVolume, Redundancy, VolumeArray, condition, names,
};

/// Reason of an array that its agent puts together as soon as its legs are there, or recorded out.
const ASSEMBLING: &str = "Assembling";
/// Reason of a leg that takes the place of one whose drive is being emptied.
const LEAVING: &str = "DriveEmptied";
/// Reason of a leg whose drive does not answer, as its agent tells it.
const DRIVE_FAILED: &str = "DriveFailed";

/// The array of a volume that is just placed.
pub(super) fn new(volume: &PoolVolume) -> Option<VolumeArray> {
    (volume.spec.redundancy != Redundancy::None).then(|| VolumeArray {
        uuid: Owner::Volume(volume).uid().into(),
        formed: false,
        look: 0,
    })
}

/// What each leg of a volume says of its array.
pub(super) fn of_leg(volume: &PoolVolume) -> Option<LegArray> {
    let array = volume.spec.array.as_ref()?;
    Some(LegArray {
        uuid: array.uuid.clone(),
        redundancy: volume.spec.redundancy,
        legs: i32::try_from(volume.spec.legs.len()).unwrap_or(i32::MAX),
    })
}

/// What is known of a leg's drive and node.
pub(super) fn reach(pass: &Pass, placed: &PlacedLeg, standing: &Standing) -> Reach {
    let Some(drive) = pass.drives.get(placed.drive.as_str()) else {
        return Reach::Gone;
    };
    if !ledger::ready(pass.storage.nodes.get(placed.node_name.as_str()).copied()) {
        return Reach::Away;
    }
    let missing = drive.status.as_ref().and_then(|s| s.phase) == Some(DrivePhase::Missing);
    let failed = |leg: &PoolLeg| {
        let conditions = leg.status.as_ref().map_or(&[][..], |s| &s.conditions);
        let told = condition::find(conditions, names::HEALTHY);
        told.is_some_and(|c| c.status == "False" && c.reason == DRIVE_FAILED)
    };
    let silent = missing || matches!(standing, Standing::Usable(leg) if failed(leg));
    match standing {
        // It may answer again, and is not given up before somebody needs it to.
        _ if silent && placed.lack.is_none() => Reach::Away,
        _ if silent => Reach::Gone,
        Standing::Broken(_) => Reach::Gone,
        Standing::Progress(_) if placed.uuid.is_some() => Reach::Away,
        _ => Reach::Well,
    }
}

/// What somebody has or wants of a volume.
fn demand(volume: &PoolVolume) -> Demand {
    let Some(status) = &volume.status else {
        return match volume.spec.attach_to.is_empty() {
            true => Demand::None,
            false => Demand::Wanted(None),
        };
    };
    let wishes = &volume.spec.attach_to;
    let wished = |a: &Attachment| {
        let same =
            |wish: &strand_api::AttachTo| wish.node == a.node && wish.read_only == a.read_only;
        a.phase != strand_api::AttachmentPhase::Fencing && wishes.iter().any(same)
    };
    if !status.attachments.iter().all(wished) {
        return Demand::Fencing;
    }
    let mut granted = status.attachments.iter().filter(|a| a.phase.is_granted());
    match granted.next() {
        Some(reader) if reader.read_only => Demand::Readers,
        Some(writer) => Demand::Writer {
            generation: writer.generation,
            patience: told(volume).map_or(loss::STALL, |told| patience(volume, told)),
        },
        None if wishes.is_empty() => Demand::None,
        None => {
            let told = condition::find(&status.conditions, names::ATTACHED);
            let told = told.filter(|c| c.status == "False");
            Demand::Wanted(told.map(|c| c.last_transition_time.0))
        }
    }
}

/// A raid6 whose legs are not equal yet after a crash would compute wrong bytes in the place of a leg.
fn spares_none(volume: &PoolVolume, told: &ArrayStatus) -> bool {
    told.resyncing && volume.spec.redundancy == Redundancy::Raid6
}

/// How long a leg is waited for that a consumer does not reach. No write waits for an array that does not run yet; and machines of a rack that
/// lost power come back one after the other.
pub(super) fn patience(volume: &PoolVolume, told: &ArrayStatus) -> Duration {
    match &told.refused {
        None if spares_none(volume, told) => loss::REBOOT,
        None => loss::STALL,
        Some(refused) if refused.reason == names::LEGS_NEEDED => loss::REBOOT,
        Some(_) => loss::WAIT,
    }
}

/// What the agent of the node says that has a volume attached for writing now.
pub(super) fn told(volume: &PoolVolume) -> Option<&ArrayStatus> {
    told_by(volume, |writer| writer.phase.is_granted())
}

/// The same, also of one that is being kept out: what it told last is still so of what it wrote.
pub(super) fn last_told(volume: &PoolVolume) -> Option<&ArrayStatus> {
    told_by(volume, |_| true)
}

fn told_by(volume: &PoolVolume, counts: impl Fn(&Attachment) -> bool) -> Option<&ArrayStatus> {
    let status = volume.status.as_ref()?;
    let told = status.array.as_ref()?;
    let by_writer = |a: &Attachment| {
        !a.read_only && a.generation == told.generation && a.node == told.node && counts(a)
    };
    status.attachments.iter().any(by_writer).then_some(told)
}

pub(super) fn told_of<'a>(
    told: Option<&'a ArrayStatus>,
    placed: &PlacedLeg,
) -> Option<&'a ArrayLeg> {
    let uuid = placed.uuid.as_ref()?;
    told?.legs.iter().find(|leg| leg.uuid == *uuid)
}

fn by_our_clock(pass: &Pass, volume: &PoolVolume, array: &ArrayStatus, leg: &ArrayLeg) -> ArrayLeg {
    let name = Owner::Volume(volume).name();
    let heard = pass.storage.heard;
    let since = heard.map_or(leg.since.0, |heard| {
        heard.since(name, array.generation, leg)
    });
    ArrayLeg {
        since: Time(since),
        ..leg.clone()
    }
}

/// Decides what is recorded of a volume's legs; gives why one that is out has nothing in its place.
pub(super) fn decide<'a>(
    pass: &mut Pass<'_, 'a>,
    volume: &'a PoolVolume,
    reach: &[Reach],
    record: &mut [PlacedLeg],
    array: &mut VolumeArray,
) -> Option<Why> {
    let demand = demand(volume);
    if !array.formed {
        array.formed = runs(volume, told(volume));
        if !array.formed {
            remake(pass, volume, demand, reach, record);
        }
        return None;
    }
    let by = match demand {
        Demand::Fencing => last_told(volume),
        _ => told(volume),
    };
    let placed = &volume.spec.legs;
    let told: Vec<Option<ArrayLeg>> = placed
        .iter()
        .map(|placed| Some(by_our_clock(pass, volume, by?, told_of(by, placed)?)))
        .collect();
    let legs: Vec<loss::Leg> = placed
        .iter()
        .zip(reach)
        .zip(&told)
        .map(|((placed, reach), told)| loss::Leg {
            lack: placed.lack.as_ref(),
            reach: *reach,
            told: told.as_ref(),
        })
        .collect();
    let generation = match demand {
        Demand::Writer { generation, .. } => generation,
        // Nobody writes, so that no attachment's bitmap has what it is about to miss.
        _ => 0,
    };
    let mut obstacle = None;
    // What has lost too much is not copied from any more.
    let gone = legs.iter().filter(|leg| leg.reach == Reach::Gone).count();
    let repaired = gone <= shape::losses(volume.spec.redundancy);
    let next = loss::next(volume.spec.redundancy, &legs, demand, pass.now);
    for (at, (next, placed)) in next.into_iter().zip(placed).enumerate() {
        let earlier = placed.lack.clone();
        let on = |phase| earlier.clone().map(|lack| LegLack { phase, ..lack });
        match next {
            Next::Stay => {}
            Next::Replace if !repaired => {}
            Next::In => record[at].lack = None,
            Next::Out(reason) => {
                record[at].lack = Some(LegLack {
                    phase: LackPhase::Out,
                    reason: reason.into(),
                    since: Time(pass.now),
                    generation,
                });
            }
            Next::Returning => record[at].lack = on(LackPhase::Returning),
            Next::Rebuilding => record[at].lack = on(LackPhase::Rebuilding),
            Next::Replace => match site::another(pass, volume, record, placed.index) {
                Ok(other) => {
                    record[at] = PlacedLeg {
                        lack: on(LackPhase::Rebuilding),
                        ..other
                    }
                }
                Err(why) => obstacle = Some(why),
            },
        }
    }
    if !by.is_some_and(|told| spares_none(volume, told)) {
        leave(pass, volume, demand, &told, record);
    }
    obstacle
}

/// Of an attached volume that has all its legs and outlives two losses, one whose drive is being emptied is given up for another: one loss it
/// still outlives while that is copied to.
fn leave<'a>(
    pass: &mut Pass<'_, 'a>,
    volume: &'a PoolVolume,
    demand: Demand,
    told: &[Option<ArrayLeg>],
    record: &mut [PlacedLeg],
) {
    let Demand::Writer { generation, .. } = demand else {
        return;
    };
    let is_whole = |leg: &Option<ArrayLeg>| {
        leg.as_ref()
            .is_some_and(|leg| leg.holding == LegHolding::Whole)
    };
    let outlives = shape::losses(volume.spec.redundancy) > 1;
    if !outlives || !told.iter().all(is_whole) || record.iter().any(|leg| leg.lack.is_some()) {
        return;
    }
    let mut drives = record.iter();
    let Some(at) = drives.position(|leg| evacuate::is_left(pass, &leg.drive)) else {
        return;
    };
    match site::another(pass, volume, record, record[at].index) {
        Ok(other) => {
            let lack = LegLack {
                phase: LackPhase::Rebuilding,
                reason: LEAVING.into(),
                since: Time(pass.now),
                generation,
            };
            record[at] = PlacedLeg {
                lack: Some(lack),
                ..other
            };
        }
        Err(why) => {
            let name = Owner::Volume(volume).name();
            let words = format!("volume {name}: {}", why.message);
            evacuate::wait(pass, &record[at].drive, false, words);
        }
    }
}

/// Whether the array was made: it runs over all legs that are recorded.
fn runs(volume: &PoolVolume, told: Option<&ArrayStatus>) -> bool {
    let is_whole = |placed: &PlacedLeg| {
        told_of(told, placed).is_some_and(|leg| leg.holding == LegHolding::Whole)
    };
    told.is_some_and(|told| told.refused.is_none()) && volume.spec.legs.iter().all(is_whole)
}

/// Of an array that was never made, legs that are lost are made elsewhere: nobody has written to them.
fn remake<'a>(
    pass: &mut Pass<'_, 'a>,
    volume: &'a PoolVolume,
    demand: Demand,
    reach: &[Reach],
    record: &mut [PlacedLeg],
) {
    let waited = match demand {
        // A consumer that was let in may be making it now. Once it is being kept out it is given no device any more.
        Demand::Writer { .. } | Demand::Readers => return,
        Demand::Fencing => true,
        Demand::Wanted(Some(since)) => loss::passed(since, loss::WAIT, pass.now),
        Demand::None | Demand::Wanted(None) => false,
    };
    for (at, (reach, placed)) in reach.iter().zip(&volume.spec.legs).enumerate() {
        let lost = *reach == Reach::Gone || (*reach == Reach::Away && waited);
        if placed.uuid.is_some()
            && lost
            && let Ok(other) = site::another(pass, volume, record, placed.index)
        {
            record[at] = other;
        }
    }
}

/// Why a volume whose array its consumer cannot run is not to be used, as that tells it.
pub(super) fn refused(volume: &PoolVolume) -> Option<Why> {
    let told = told(volume)?;
    let refused = told.refused.as_ref()?;
    let waits = |leg: &ArrayLeg| matches!(leg.holding, LegHolding::Away | LegHolding::Stale);
    let reason = match told.legs.iter().any(waits) {
        true => ASSEMBLING,
        false => refused.reason.as_str(),
    };
    Some(Why::new(reason, &refused.message))
}

/// That whoever has a volume does not reach one of its legs, where none is given up, ever or now.
pub(super) fn unreached(volume: &PoolVolume) -> Option<Why> {
    let told = told(volume).filter(|told| told.refused.is_none())?;
    let why = match shape::losses(volume.spec.redundancy) {
        0 => "",
        _ if spares_none(volume, told) => {
            ", or for 20 minutes: its legs are being made equal after a crash, and none can be spared before"
        }
        _ => return None,
    };
    let is_away = |placed: &&PlacedLeg| {
        let leg = told_of(Some(told), placed);
        placed.lack.is_none() && leg.is_some_and(|leg| leg.holding == LegHolding::Away)
    };
    let placed = volume.spec.legs.iter().find(is_away)?;
    let message = format!(
        "node {} does not reach leg {} on drive {} of node {}; I/O that needs it waits until it does{why}",
        told.node, placed.name, placed.drive, placed.node_name
    );
    Some(Why::new(loss::UNREACHABLE, message))
}

/// That more is lost than a volume outlives.
pub(super) fn too_much(volume: &PoolVolume, why: Why) -> Why {
    let words = format!(
        "more is lost than redundancy {} outlives: {}. Bring the drive back, or restore the volume from a backup",
        words(volume.spec.redundancy),
        why.message
    );
    Why::new(names::TOO_MUCH_LOST, words)
}

/// Legs that a volume can lose besides those that lack writes already.
pub(super) fn spare(volume: &PoolVolume) -> usize {
    let lacking = volume.spec.legs.iter().filter(|leg| leg.lack.is_some());
    shape::losses(volume.spec.redundancy).saturating_sub(lacking.count())
}

/// As StorageClasses call it.
pub(super) fn words(redundancy: Redundancy) -> &'static str {
    match redundancy {
        Redundancy::None => "none",
        Redundancy::Stripe => "stripe",
        Redundancy::Mirror => "mirror",
        Redundancy::Raid6 => "raid6",
    }
}

/// Which legs lack writes, why, and what is done about it. `obstacle` is why one that is out has nothing in its place.
pub(super) fn degraded(volume: &PoolVolume, obstacle: Option<&Why>) -> Option<Why> {
    let told = told(volume);
    let lacking = volume.spec.legs.iter();
    let lacking: Vec<(&PlacedLeg, &LegLack)> = lacking
        .filter_map(|placed| Some((placed, placed.lack.as_ref()?)))
        .collect();
    let (_, first) = lacking.first()?;
    let reason = match first.phase {
        LackPhase::Out => first.reason.as_str(),
        LackPhase::Returning => "Returning",
        LackPhase::Rebuilding => "Rebuilding",
    };
    let legs: Vec<String> = lacking
        .iter()
        .map(|(placed, lack)| lacks(placed, lack, told, obstacle))
        .collect();
    Some(Why::new(reason, legs.join("; ")))
}

fn lacks(
    placed: &PlacedLeg,
    lack: &LegLack,
    told: Option<&ArrayStatus>,
    obstacle: Option<&Why>,
) -> String {
    let place = format!(
        "leg {} on drive {} of node {}",
        placed.name, placed.drive, placed.node_name
    );
    let percent = told_of(told, placed).and_then(|leg| leg.percent);
    let percent = percent.map_or_else(String::new, |percent| format!(", {percent} % done"));
    match lack.phase {
        LackPhase::Out => {
            let (why, next) = match lack.reason.as_str() {
                loss::GONE => ("its bytes are gone", DEAD),
                loss::WRITES_FAILED => ("it failed a write", DEAD),
                loss::UNREACHABLE => ("it could not be reached", AWAY),
                loss::STALE => ("it has missed writes", AWAY),
                loss::INTERRUPTED => ("copying to it was broken off", AWAY),
                other => (other, DEAD),
            };
            match obstacle {
                Some(no) => format!(
                    "{place} is out: {why}; no other takes its place: {}",
                    no.message
                ),
                None => format!("{place} is out: {why}; {next}"),
            }
        }
        LackPhase::Returning => format!("{place} is back, and copied what it has missed{percent}"),
        LackPhase::Rebuilding if placed.uuid.is_none() && lack.reason == LEAVING => {
            format!("{place} is being made, in the place of one whose drive is being emptied")
        }
        LackPhase::Rebuilding if placed.uuid.is_none() => {
            format!("{place} is being made, in the place of one that was lost")
        }
        LackPhase::Rebuilding if told.is_none() => {
            format!("{place} is copied to once the volume is attached for writing")
        }
        LackPhase::Rebuilding => format!("{place} is copied to from end to end{percent}"),
    }
}

const DEAD: &str = "another takes its place within a minute or two";
const AWAY: &str = "it is copied to when it is back, and after 20 minutes another takes its place";

/// Whether the legs that a volume names have all of its bytes, so that nothing else has to be kept.
pub(super) fn is_whole(pass: &Pass, volume: &PoolVolume) -> bool {
    let owner = Owner::Volume(volume);
    let there = |placed: &PlacedLeg| {
        let leg = pass.claims.of(owner, placed);
        placed.lack.is_none()
            && placed.uuid.is_some()
            && leg.is_some_and(|leg| claim::uuid(leg).is_some() && !leg.spec.deletion_mark)
    };
    let formed = volume.spec.array.as_ref().is_some_and(|array| array.formed);
    formed && volume.spec.legs.iter().all(there)
}
