//! What volumes say of themselves.

use super::{
    Action, Owner, Pass, YOUNG, array, attach, evacuate, growth,
    state::{self, Conditions, Why, ailment},
    volume::Found,
    young,
};
use strand_api::{PoolVolume, PoolVolumeStatus, Provisioning, VolumePhase, names};

/// Grants attachments, and writes the status.
pub(super) fn say(pass: &mut Pass, volume: &PoolVolume, found: &Found) {
    let owner = Owner::Volume(volume);
    let earlier = volume.status.clone().unwrap_or_default();
    let generation = volume.metadata.generation;
    let in_use = volume.spec.legs.iter().filter(|leg| leg.lack.is_none());
    let in_use = in_use.filter_map(|l| pass.claims.of(owner, l));
    let unlimited = in_use.clone().find_map(state::unlimited);
    let ailments: Vec<(bool, Why)> = in_use.filter_map(|leg| ailment(pass, leg)).collect();
    let dead = ailments.iter().filter(|(fatal, _)| *fatal).count();
    let ailment = ailments.into_iter().max_by_key(|(fatal, _)| *fatal);
    let fatal = ailment
        .as_ref()
        .filter(|_| dead > 0 && dead > array::spare(volume) && found.why.is_none());
    let why = found.why.as_ref().or(fatal.map(|(_, why)| why));
    let kept = evacuate::kept(pass, volume);
    let mut why = why.cloned();
    if let Some(why) = why.as_mut().filter(|why| !why.passing()) {
        why.message.extend(kept.clone());
    }
    let why = why.as_ref();
    let mut pairs = found.legs.iter();
    let settling = found
        .why
        .is_none()
        .then(|| pairs.find_map(|(placed, leg)| evacuate::settling(pass, owner, placed, leg)));
    let settling = settling.flatten();
    let usable = match why {
        None => settling.as_deref().map_or(Ok(()), Err),
        Some(_) => Err("the volume is not ready"),
    };
    let grants = attach::decide(pass, volume, usable);
    attach::export(pass, volume, &grants);

    let degraded = array::degraded(volume, found.obstacle.as_ref());
    let mut conditions = Conditions::new(&earlier.conditions, pass.now, generation);
    conditions.ready(why, &place_words(volume));
    if let Some(degraded) = &degraded {
        conditions.say(names::DEGRADED, true, &degraded.reason, &degraded.message);
    }
    if let Some((reason, message)) = &grants.refused {
        conditions.say(names::ATTACHED, false, reason, message);
    }
    // Growing is no news: `status.size` tells when it is done.
    let growth = found.growth.as_ref();
    if let Some(growth) = growth.filter(|g| found.why.is_none() && !g.passing()) {
        conditions.say(names::RESIZED, false, &growth.reason, &growth.message);
    }
    let unreached = array::unreached(volume);
    let unwell = ailment.as_ref().map(|(_, why)| why);
    if let Some(unwell) = unwell.or(unreached.as_ref()) {
        let kept = kept.filter(|_| why.is_none()).unwrap_or_default();
        let message = format!("{}{kept}", unwell.message);
        conditions.say(names::HEALTHY, false, &unwell.reason, message);
    }
    if let Some(why) = &unlimited {
        conditions.say(names::LIMITED, false, &why.reason, &why.message);
    }
    let phase = match why {
        _ if volume.spec.deletion_mark => VolumePhase::Deleting,
        None if degraded.is_some() => VolumePhase::Degraded,
        None => VolumePhase::Ready,
        Some(why) if !why.passing() && broken(volume) => VolumePhase::Failed,
        Some(_) => VolumePhase::Pending,
    };
    let sizes = found.legs.iter().filter(|_| found.why.is_none());
    let sizes = sizes.map(|(_, leg)| leg.status.as_ref().map_or(0, |s| s.size.0));
    let size = sizes.min().map(|leg| growth::size(volume, leg));
    let status = PoolVolumeStatus {
        observed_generation: generation,
        phase: Some(phase),
        size: size.unwrap_or(earlier.size),
        attachment_generation: grants.generation,
        attachments: grants.attachments,
        // Its agent's.
        array: None,
        conditions: conditions.list,
    };
    let early = volume.status.is_none()
        && why.is_some_and(Why::passing)
        && young(&volume.metadata, pass.now, YOUNG);
    let known = volume.status.is_some()
        && PoolVolumeStatus {
            array: None,
            ..earlier
        } == status;
    if !known && !early {
        pass.actions.push(Action::SetVolumeStatus {
            volume: owner.name().into(),
            status: Box::new(status),
        });
    }
}

/// Whether there is something that could be lost: its bytes were there.
fn broken(volume: &PoolVolume) -> bool {
    volume.spec.legs.iter().any(|leg| leg.uuid.is_some())
}

fn place_words(volume: &PoolVolume) -> String {
    let kind = match volume.spec.provisioning {
        Provisioning::Thick => "thick",
        Provisioning::Thin => "thin",
    };
    let legs = volume.spec.legs.iter();
    let places: Vec<String> = legs
        .map(|l| format!("{} on {}", l.drive, l.node_name))
        .collect();
    format!("{kind}, on drive {}", places.join(", "))
}
