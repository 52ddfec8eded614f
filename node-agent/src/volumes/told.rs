//! What a leg's status says: pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use strand_api::condition::{Condition, condition};
use strand_api::{ByteQuantity, LegPhase, PoolLeg, PoolLegStatus, names};
use strand_volumes::{LegRecord, VolumeError};

use super::ailment::Ailment;
use super::decide::uuid;
use super::evacuate;
use super::exports::Trouble;

/// Reasons of conditions, besides those that the operator knows.
pub const SOURCE_NOT_FOUND: &str = "SourceNotFound";
pub const IN_USE: &str = "InUse";
pub const DRIVE_ERROR: &str = "DriveError";
const NOT_ENFORCED: &str = "NotEnforced";
/// Reason of a leg that is on its way from another drive: nothing is wrong with it.
pub const COPYING: &str = "Copying";
pub const COPY_FAILED: &str = "CopyFailed";

/// The reason for which a drive refused.
pub fn reason(error: &VolumeError) -> &'static str {
    match error {
        VolumeError::NoSpace { .. } | VolumeError::Full { .. } => names::NO_SPACE,
        VolumeError::NameTaken { .. } => names::NAME_TAKEN,
        _ => DRIVE_ERROR,
    }
}

/// How a leg's status is told: on top of what was told before.
pub struct Told<'a> {
    pub leg: &'a PoolLeg,
    ailment: Option<&'a Ailment>,
    /// Why its limits are not enforced.
    pub unlimited: Option<&'a str>,
    earlier: &'a [Condition],
    now: Time,
}

impl<'a> Told<'a> {
    pub fn new(leg: &'a PoolLeg, ailment: Option<&'a Ailment>) -> Self {
        Self {
            leg,
            ailment,
            unlimited: None,
            earlier: leg.status.as_ref().map_or(&[], |status| &status.conditions),
            now: Time(Timestamp::now()),
        }
    }

    fn condition(&self, type_: &str, reason: &str, message: &str) -> Condition {
        let generation = self.leg.metadata.generation;
        condition(
            self.earlier,
            &self.now,
            type_,
            false,
            reason,
            message,
            generation,
        )
    }

    pub fn blank(&self) -> PoolLegStatus {
        PoolLegStatus {
            observed_generation: self.leg.metadata.generation,
            ..PoolLegStatus::default()
        }
    }

    fn healthy(&self) -> Option<Condition> {
        let Ailment { reason, message } = self.ailment?;
        Some(self.condition(names::HEALTHY, reason, message))
    }

    fn limited(&self) -> Option<Condition> {
        let message = self.unlimited.filter(|_| self.leg.spec.limits.is_some())?;
        Some(self.condition(names::LIMITED, NOT_ENFORCED, message))
    }

    /// Other nodes do not have it as its object asks for.
    pub fn exported(&self, (reason, message): &Trouble) -> Condition {
        self.condition(names::EXPORTED, reason, message)
    }

    pub fn deleted(&self) -> PoolLegStatus {
        PoolLegStatus {
            phase: Some(LegPhase::Deleted),
            uuid: uuid(self.leg).map(str::to_owned),
            ..self.blank()
        }
    }

    pub fn failed(&self, reason: &str, message: String) -> PoolLegStatus {
        let ready = self.condition(names::READY, reason, &message);
        PoolLegStatus {
            phase: Some(LegPhase::Failed),
            uuid: uuid(self.leg).map(str::to_owned),
            conditions: [Some(ready), self.healthy()]
                .into_iter()
                .flatten()
                .collect(),
            ..self.blank()
        }
    }

    /// It was not made. What the drive has no room for can be placed elsewhere; what a fault kept from being made is tried again.
    pub fn refused(&self, error: &VolumeError) -> PoolLegStatus {
        let failed = self.failed(reason(error), error.to_string());
        match reason(error) {
            DRIVE_ERROR => PoolLegStatus {
                phase: Some(LegPhase::Pending),
                ..failed
            },
            _ => failed,
        }
    }

    /// What it takes on the drive, as far as it is worth a write.
    pub fn used(&self, now: Option<u64>, size: u64) -> Option<ByteQuantity> {
        let told = self.leg.status.as_ref().and_then(|s| s.used);
        let step = (size / 16).max(1);
        let now = now?.min(size);
        match told {
            Some(told) if told.0 <= size && told.0.abs_diff(now) < step => Some(told),
            _ => Some(ByteQuantity((now.div_ceil(step) * step).min(size))),
        }
    }

    /// It is to go, and a copy to it has to end before.
    pub fn ending(&self) -> PoolLegStatus {
        PoolLegStatus {
            phase: Some(LegPhase::Pending),
            ..self.blank()
        }
    }

    /// It is being copied from another node, which is not reached just now.
    pub fn waiting(&self, through: u64, why: String) -> PoolLegStatus {
        let copied = evacuate::told(through, self.leg.spec.size.0);
        PoolLegStatus {
            phase: Some(LegPhase::Pending),
            copied: Some(ByteQuantity(copied)),
            ..self.failed(names::SOURCE_AWAY, why)
        }
    }

    /// It is being copied from another drive.
    pub fn copying(&self, through: u64, from: &str) -> PoolLegStatus {
        let message = format!("it is being copied from drive {from}");
        let copied = evacuate::told(through, self.leg.spec.size.0);
        PoolLegStatus {
            phase: Some(LegPhase::Pending),
            copied: Some(ByteQuantity(copied)),
            ..self.failed(COPYING, message)
        }
    }

    pub fn there(
        &self,
        record: &LegRecord,
        stale: Option<u64>,
        trouble: Option<(&str, String)>,
    ) -> PoolLegStatus {
        let spec = &self.leg.spec;
        let ready = trouble.map(|(reason, message)| self.condition(names::READY, reason, &message));
        let told = self
            .leg
            .status
            .as_ref()
            .and_then(|s| s.attachment_generation);
        // An object that was made again, took another's place, or lost its status has to know of attachments before it.
        let lost = self.leg.status.as_ref().is_none_or(|s| s.uuid.is_none());
        let again = ((spec.uuid.is_some() || spec.copy.is_some() || lost)
            && record.attachment_generation > 0)
            .then_some(record.attachment_generation);
        let generation = stale.or(again.filter(|_| told.is_none()));
        PoolLegStatus {
            phase: Some(match spec.orphaned {
                true => LegPhase::Orphaned,
                false => LegPhase::Ready,
            }),
            uuid: Some(record.uuid.to_string()),
            size: ByteQuantity(record.size),
            taken_at: spec.snapshot.as_ref().and_then(|_| taken_at(record)),
            attachment_generation: generation
                .and_then(|generation| i64::try_from(generation).ok())
                .or(told),
            conditions: [ready, self.healthy(), self.limited()]
                .into_iter()
                .flatten()
                .collect(),
            ..self.blank()
        }
    }
}

/// To the second, as the API keeps times.
fn taken_at(record: &LegRecord) -> Option<Time> {
    let seconds = i64::try_from(record.made_at_ms / 1000).ok()?;
    Timestamp::from_second(seconds).ok().map(Time)
}

/// The status of a leg whose drive is not served, where it was told as usable.
pub fn unserved(leg: &PoolLeg, ailment: &Ailment) -> Option<PoolLegStatus> {
    let live = leg.status.as_ref()?;
    live.uuid
        .as_ref()
        .filter(|_| live.phase != Some(LegPhase::Deleted))?;
    let mut status = live.clone();
    status.conditions.retain(|c| c.type_ != names::HEALTHY);
    status
        .conditions
        .extend(Told::new(leg, Some(ailment)).healthy());
    Some(status)
}
