//! What is told of an array's legs. Pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use strand_api::{ArrayLeg, ArrayRefusal, LegHolding};
use strand_arrays::{
    ArrayError, Holding, Present, Refusal, Running, Seen, Standing, Wanted, report,
};
use uuid::Uuid;

/// Longest message that an object takes, in characters.
const MESSAGE: usize = 1024;

/// Why an array does not run, and which of its legs are behind, by their places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    pub refusal: ArrayRefusal,
    pub behind: Vec<usize>,
    /// Asking again alone does not help.
    pub lasts: bool,
}

impl Trouble {
    pub fn of(error: &ArrayError) -> Self {
        let (reason, behind, lasts) = match error {
            ArrayError::Refused(Refusal::Behind(places)) => ("LegsBehind", places.clone(), false),
            ArrayError::Refused(Refusal::Away(_)) => ("LegsAway", Vec::new(), false),
            ArrayError::Refused(refusal) => (refusal.reason(), Vec::new(), true),
            ArrayError::NoModule { .. } => ("NoModule", Vec::new(), true),
            ArrayError::NoTool(_) => ("NoTool", Vec::new(), true),
            ArrayError::Tool { .. }
            | ArrayError::Busy { .. }
            | ArrayError::Io { .. }
            | ArrayError::Restless { .. } => ("NotAssembled", Vec::new(), false),
        };
        Self {
            refusal: refusal(reason, &error.to_string()),
            behind,
            lasts,
        }
    }

    /// Legs that it needs are not reached.
    pub fn away(wanted: &Wanted, waits_for: &str) -> Option<Self> {
        let mut legs = wanted.legs.iter().enumerate();
        let away = |(_, leg): &(usize, &strand_arrays::Leg)| {
            leg.standing == Standing::In && leg.device.is_none()
        };
        legs.any(|leg| away(&leg)).then(|| Self {
            refusal: refusal("LegsAway", waits_for),
            behind: Vec::new(),
            lasts: false,
        })
    }
}

fn refusal(reason: &str, message: &str) -> ArrayRefusal {
    ArrayRefusal {
        reason: reason.to_owned(),
        message: message.chars().take(MESSAGE).collect(),
    }
}

/// What is known of the legs: of all while the array runs, else of those that keep it from running. `contents` is what was on legs that are
/// in no array when that was looked at last, `earlier` what was told before.
pub fn legs(
    wanted: &Wanted,
    running: Option<&Running>,
    contents: &BTreeMap<Uuid, Present>,
    behind: &[usize],
    earlier: &[ArrayLeg],
    now: &Time,
) -> Vec<ArrayLeg> {
    let seen = Seen {
        array: running.cloned(),
        legs: wanted
            .legs
            .iter()
            .map(|leg| contents.get(&leg.uuid).cloned())
            .collect(),
    };
    let held = report(wanted, &seen);
    let told = wanted.legs.iter().enumerate().filter_map(|(place, leg)| {
        let uuid = leg.uuid.to_string();
        let before = earlier.iter().find(|before| before.uuid == uuid);
        let is_in = leg.standing == Standing::In;
        let (holding, percent) = match held.as_ref().map(|held| held[place]) {
            Some(Holding::Whole) => (LegHolding::Whole, None),
            Some(Holding::Behind(done)) => (LegHolding::Behind, Some(i64::from(done / 100 * 10))),
            Some(Holding::Lost) => (LegHolding::Lost, None),
            Some(Holding::Apart) => (LegHolding::Apart, None),
            Some(Holding::Empty) => (LegHolding::Empty, None),
            // It is reached, and was not looked at yet.
            Some(Holding::Away) if leg.device.is_some() => (before?.holding, before?.percent),
            Some(Holding::Away) => (LegHolding::Away, None),
            None if is_in && leg.device.is_none() => (LegHolding::Away, None),
            None if is_in && behind.contains(&place) => (LegHolding::Stale, None),
            None => return None,
        };
        let since = before.filter(|before| before.holding == holding);
        Some(ArrayLeg {
            uuid,
            holding,
            since: since.map_or_else(|| now.clone(), |before| before.since.clone()),
            percent,
        })
    });
    told.collect()
}
