//! What a volume or snapshot says when it cannot be used.

use super::{Pass, claim};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use strand_api::{DrivePhase, DriveVerdict, PoolLeg, condition, names};

/// Reasons that pass without anybody doing anything, and soon.
const PASSING: [&str; 11] = [
    "Checking",
    "TakenAgain",
    "Assembling",
    "Placing",
    "Making",
    "Claiming",
    "Growing",
    "Deleting",
    "Exporting",
    "Fencing",
    "SourceNotReady",
];

/// Whether what has this reason passes by itself.
pub(super) fn passing(reason: &str) -> bool {
    PASSING.contains(&reason)
}

/// Why something cannot be used.
#[derive(Clone, Debug)]
pub(super) struct Why {
    pub reason: String,
    pub message: String,
}

impl Why {
    pub fn new(reason: &str, message: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            message: message.into(),
        }
    }

    pub fn passing(&self) -> bool {
        passing(&self.reason)
    }
}

/// Builds an object's conditions from those it had.
pub(super) struct Conditions<'a> {
    earlier: &'a [Condition],
    now: Time,
    generation: Option<i64>,
    pub list: Vec<Condition>,
}

impl<'a> Conditions<'a> {
    pub fn new(earlier: &'a [Condition], now: Timestamp, generation: Option<i64>) -> Self {
        Self {
            earlier,
            now: Time(now),
            generation,
            list: Vec::new(),
        }
    }

    pub fn say(&mut self, type_: &str, status: bool, reason: &str, message: impl Into<String>) {
        let condition = condition::condition(
            self.earlier,
            &self.now,
            type_,
            status,
            reason,
            message,
            self.generation,
        );
        self.list.push(condition);
    }

    pub fn ready(&mut self, why: Option<&Why>, message: &str) {
        match why {
            None => self.say(names::READY, true, "Ready", message),
            Some(why) => self.say(names::READY, false, &why.reason, &why.message),
        }
    }
}

/// Why the limits of a leg are not enforced where it is attached.
pub(super) fn unlimited(leg: &PoolLeg) -> Option<Why> {
    let conditions = leg.status.as_ref().map_or(&[][..], |s| &s.conditions);
    let told = condition::find(conditions, names::LIMITED).filter(|c| c.status == "False")?;
    let message = format!("node {}: {}", leg.spec.node_name, told.message);
    Some(Why::new(&told.reason, message))
}

/// What is wrong with the drive or node of a leg, and whether the leg cannot be used at all for it.
pub(super) fn ailment(pass: &Pass, leg: &PoolLeg) -> Option<(bool, Why)> {
    let ill = unserved(pass, leg).or_else(|| unhealthy(leg).map(|why| (false, why)));
    ill.or_else(|| {
        let drive = pass.drives.get(leg.spec.drive.as_str())?;
        let failing = drive.status.as_ref().is_some_and(|s| {
            s.verdict == Some(DriveVerdict::Failed)
                || s.health.as_ref().is_some_and(|h| h.critical_warning != 0)
        });
        let (name, node) = (&leg.spec.drive, &leg.spec.node_name);
        let message = format!("drive {name} on node {node} is about to fail; copy what is needed");
        failing.then(|| (false, Why::new("DriveFailing", message)))
    })
}

/// What its agent says of a leg's drive.
fn unhealthy(leg: &PoolLeg) -> Option<Why> {
    let conditions = leg.status.as_ref().map_or(&[][..], |s| &s.conditions);
    let told = condition::find(conditions, names::HEALTHY).filter(|c| c.status == "False")?;
    let (name, drive) = (claim::name(leg), &leg.spec.drive);
    let message = format!("leg {name} on drive {drive}: {}", told.message);
    Some(Why::new(&told.reason, message))
}

/// Why the bytes of a leg are not known to be there just now, if they are not, and whether that is for good: nobody serves them. A drive that is
/// full, or about to fail, still does.
pub(super) fn unserved(pass: &Pass, leg: &PoolLeg) -> Option<(bool, Why)> {
    let name = leg.spec.drive.as_str();
    let Some(drive) = pass.drives.get(name) else {
        let message = format!("there is no Drive {name}; if it is gone for good, so are its bytes");
        return Some((true, Why::new("DriveUnknown", message)));
    };
    let status = drive.status.as_ref();
    let node = &leg.spec.node_name;
    if status.and_then(|s| s.phase) == Some(DrivePhase::Missing) {
        let message = format!("drive {name} is no longer seen by node {node}");
        return Some((true, Why::new("DriveMissing", message)));
    }
    if let Some(why) = unhealthy(leg).filter(|why| why.reason != names::DRIVE_FULL) {
        return Some((false, why));
    }
    if !super::ledger::ready(pass.storage.nodes.get(node.as_str()).copied()) {
        let message = format!("node {node}, which holds it, is not ready");
        return Some((false, Why::new("NodeNotReady", message)));
    }
    None
}
