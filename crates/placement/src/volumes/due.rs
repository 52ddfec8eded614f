//! When something comes to be decided by time alone.

use super::{Storage, array, loss};
use k8s_openapi::jiff::Timestamp;
use std::time::Duration;
use strand_api::{ArrayLeg, ArrayStatus, PoolVolume, condition, names};

/// The soonest moment after `now` at which time alone changes what [`super::plan`] does about legs that volumes lose: writes wait for
/// some of that.
pub fn due(storage: &Storage, now: Timestamp) -> Option<Timestamp> {
    let arrays = storage.volumes.iter().filter(|v| v.spec.array.is_some());
    let moments = arrays.flat_map(|v| moments(storage, v));
    moments.filter(|at| *at > now).min()
}

fn moments(storage: &Storage, volume: &PoolVolume) -> Vec<Timestamp> {
    let after = |since: Timestamp, time: Duration| since.checked_add(time).ok();
    let status = volume.status.as_ref();
    let told = status.and_then(|s| s.array.as_ref());
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    let since = |array: &ArrayStatus, leg: &ArrayLeg| match storage.heard {
        Some(heard) => heard.since(name, array.generation, leg),
        None => leg.since.0,
    };
    let told = told.iter().flat_map(|told| {
        let legs = told.legs.iter();
        legs.filter_map(move |leg| after(since(told, leg), array::patience(volume, told)))
    });
    let lacks = volume.spec.legs.iter().filter_map(|leg| leg.lack.as_ref());
    let lacks = lacks.flat_map(|lack| {
        let graces = [loss::DEAD, loss::REBOOT].into_iter();
        graces.filter_map(|grace| after(lack.since.0, grace))
    });
    let wanted = status.and_then(|s| condition::find(&s.conditions, names::ATTACHED));
    let wanted = wanted.and_then(|c| after(c.last_transition_time.0, loss::WAIT));
    told.chain(lacks).chain(wanted).collect()
}
