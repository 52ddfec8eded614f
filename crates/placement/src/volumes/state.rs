//! What a volume or snapshot says when it cannot be used.

use super::{Pass, claim};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use strand_api::{DrivePhase, DriveVerdict, PoolLeg, condition, names};

/// Reasons that pass without anybody doing anything, and soon.
const PASSING: [&str; 9] = [
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
    let conditions = leg.status.as_ref().map_or(&[][..], |s| &s.conditions);
    if let Some(told) = condition::find(conditions, names::HEALTHY).filter(|c| c.status == "False")
    {
        let message = format!("leg {} on drive {name}: {}", claim::name(leg), told.message);
        return Some((false, Why::new(&told.reason, message)));
    }
    let failing = status.is_some_and(|s| {
        s.verdict == Some(DriveVerdict::Failed)
            || s.health.as_ref().is_some_and(|h| h.critical_warning != 0)
    });
    if failing {
        let message = format!("drive {name} on node {node} is about to fail; copy what is needed");
        return Some((false, Why::new("DriveFailing", message)));
    }
    if !super::ledger::ready(pass.storage.nodes.get(node.as_str()).copied()) {
        let message = format!("node {node}, which holds it, is not ready");
        return Some((false, Why::new("NodeNotReady", message)));
    }
    None
}
