//! What the agent knows of one drive, and how that changes with what work on the drive brings.

use std::time::{Duration, Instant};

use strand_drives::{DriveError, OwnedDrive, Resumed, SeenDrive};
use strand_placement::carve::Split;
use strand_placement::verdict::{
    KnownPools, Label, LabelSeen, Observation, Reason, Verdict, judge,
};
use uuid::Uuid;

use crate::backoff;
use crate::work::{Outcome, Work, WorkKind};

/// A changed carve that was refused is tried again after this time: what stood against it may have gone.
const RECARVE_RETRY: Duration = Duration::from_secs(300);
/// Between two looks at a drive that reported changes ask for.
const LOOK_REST: Duration = Duration::from_secs(2);
/// What a drive holds does not go away by itself, and a blank one is judged again before it is taken: such drives are read
/// only every so many rescans, unless something reports a change.
const RARELY: u32 = 5;

/// One drive of this node.
#[derive(Debug)]
pub struct DriveMemory {
    /// Identity that the drive gets when it is taken: chosen once, so that an order given again is the same order.
    pub drive_id: Uuid,
    /// The drive as the last scan saw it; `None` while it is not there.
    pub seen: Option<SeenDrive>,
    /// What was last found when looking at it.
    pub observation: Option<Observation>,
    /// When to look at it again; `None` for at once.
    pub look_at: Option<Instant>,
    /// When it was last looked at.
    pub looked_at: Option<Instant>,
    /// The drive, once it carries a label of this cluster and a complete carve.
    pub owned: Option<OwnedDrive>,
    /// Work under way.
    pub busy: Option<Busy>,
    /// Work that failed and is tried again.
    pub trouble: Option<Trouble>,
    /// Why the drive was taken out of service: its faults came too often. Stays until the drive goes or the agent starts anew.
    pub taken_out: Option<String>,
    /// Why an adoption was turned down.
    pub turned_down: Option<TurnedDown>,
    /// Why a changed carve was refused.
    pub refusal: Option<Refusal>,
    /// Counts the times that the drive came or changed; results of work begun before are not believed.
    pub incarnation: u64,
}

/// Work under way on a drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy {
    /// What.
    pub kind: WorkKind,
    /// Since when.
    pub since: Instant,
}

/// Work that failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Trouble {
    /// What was tried.
    pub kind: WorkKind,
    /// Why it failed, in words.
    pub message: String,
    /// Failures in a row.
    pub failures: u32,
    /// When it may be tried again.
    pub retry_at: Instant,
}

/// The judgement on the held descriptor spoke against an adoption.
#[derive(Clone, Debug, PartialEq)]
pub struct TurnedDown {
    /// Every reason.
    pub reasons: Vec<Reason>,
    /// Times in a row.
    pub failures: u32,
    /// Until then the reasons stand; then the drive is judged anew.
    pub until: Instant,
}

/// A changed carve that the drive does not get.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// The carve that was asked for.
    pub split: Split,
    /// Code for the condition.
    pub code: &'static str,
    /// Why, in words.
    pub message: String,
    /// When it may be tried again.
    pub retry_at: Instant,
}

impl DriveMemory {
    /// A drive that nothing is known of but the identity that it would get.
    pub fn new(drive_id: Uuid) -> Self {
        Self {
            drive_id,
            seen: None,
            observation: None,
            look_at: None,
            looked_at: None,
            owned: None,
            busy: None,
            trouble: None,
            taken_out: None,
            turned_down: None,
            refusal: None,
            incarnation: 0,
        }
    }

    /// Takes what a scan says: the drive as it is now, or that it is not there. True when that is news.
    pub fn sight(&mut self, seen: Option<SeenDrive>) -> bool {
        if self.seen == seen {
            return false;
        }
        *self = Self {
            seen,
            busy: self.busy,
            incarnation: self.incarnation + 1,
            ..Self::new(self.drive_id)
        };
        true
    }

    /// Something may have changed: the next look comes at `soonest`, or as soon after it as looks may follow each other.
    pub fn hasten(&mut self, soonest: Instant) {
        let rested = self.looked_at.map_or(soonest, |at| at + LOOK_REST);
        self.look_at = self.look_at.map(|at| at.min(rested.max(soonest)));
    }

    /// Forgets what was found, so that the drive is looked at from the beginning.
    pub fn look_anew(&mut self) {
        self.observation = None;
        self.owned = None;
        self.look_at = None;
    }

    /// Notes that work has begun.
    pub fn begin(&mut self, work: &Work, now: Instant) {
        self.busy = Some(Busy {
            kind: work.kind(),
            since: now,
        });
        if matches!(work, Work::Observe | Work::Health) {
            self.looked_at = Some(now);
        }
    }

    /// Takes what work on the drive came to. `rescan` is the time to the next look at a drive that does not
    /// wait for anything. True when the machine should be scanned again.
    pub fn learn(
        &mut self,
        work: &Work,
        outcome: Outcome,
        incarnation: u64,
        rescan: Duration,
        pools: &KnownPools,
        now: Instant,
    ) -> bool {
        self.busy = None;
        if incarnation != self.incarnation {
            return false;
        }
        let result = match (work, outcome) {
            (_, Outcome::Observed(result)) => result.map(|observation| {
                self.look_at = Some(now + next_look(&observation, pools, rescan));
                self.observation = Some(*observation);
                self.owned = None;
            }),
            (_, Outcome::Health(health)) => {
                self.look_at = Some(now + rescan);
                if let Some(observation) = &mut self.observation {
                    observation.health = health;
                }
                Ok(())
            }
            (_, Outcome::Resumed(Ok(Resumed::Released))) => {
                self.look_anew();
                Ok(())
            }
            (_, Outcome::Resumed(Ok(Resumed::Owned(owned))))
            | (_, Outcome::Adopted(Ok(owned)) | Outcome::Recarved(Ok(owned))) => {
                self.own(owned);
                self.look_at = Some(now + rescan);
                Ok(())
            }
            (_, Outcome::Adopted(Err(DriveError::NotStranded { reasons, .. }))) => {
                self.turn_down(reasons, now);
                Ok(())
            }
            (Work::Recarve(split), Outcome::Recarved(Err(error))) => {
                self.refuse(*split, error, now)
            }
            (_, Outcome::Released(Ok(())) | Outcome::Wiped(Ok(()))) => {
                self.look_anew();
                Ok(())
            }
            // The operation that asked for it ends with this error; nothing is tried again by itself, but what was begun may
            // have changed anything.
            (_, Outcome::Released(Err(DriveError::Busy { .. }))) => Ok(()),
            (_, Outcome::Released(Err(_)) | Outcome::Wiped(Err(_))) => {
                self.look_anew();
                Ok(())
            }
            (
                _,
                Outcome::Resumed(Err(error))
                | Outcome::Adopted(Err(error))
                | Outcome::Recarved(Err(error)),
            ) => Err(error),
        };
        match result {
            Ok(()) => {
                self.trouble = None;
                false
            }
            Err(error) => self.fail(work.kind(), &error, now),
        }
    }

    /// Notes that the drive is ours, so that it is judged by the label that it carries now.
    fn own(&mut self, owned: OwnedDrive) {
        let observation = self.observation.get_or_insert_with(Observation::default);
        observation.label = LabelSeen::Present(Label {
            generation: owned.generation,
            state: owned.state,
            pool_id: owned.pool_id,
            pool_name: owned.pool_name.clone(),
            drive_id: owned.drive_id,
            serial: owned.seen.key.serial.clone(),
            layout: owned.layout,
            previous: None,
            contradiction: None,
        });
        observation.serial = owned.seen.key.serial.clone();
        self.turned_down = None;
        self.refusal = None;
        self.owned = Some(owned);
    }

    fn turn_down(&mut self, reasons: Vec<Reason>, now: Instant) {
        let failures = self.turned_down.as_ref().map_or(0, |t| t.failures) + 1;
        let wait =
            Duration::from_secs(10) + backoff::DRIVE.after(failures, &self.drive_id.to_string());
        self.turned_down = Some(TurnedDown {
            reasons,
            failures,
            until: now + wait,
        });
        self.look_at = Some(now + wait);
        self.observation = None;
    }

    fn refuse(&mut self, split: Split, error: DriveError, now: Instant) -> Result<(), DriveError> {
        let code = match &error {
            DriveError::Refused { .. } => "StorageHoldsData",
            DriveError::Busy { .. } => "InUse",
            DriveError::Carve { .. } => "CannotBeCarved",
            _ => return Err(error),
        };
        self.refusal = Some(Refusal {
            split,
            code,
            message: error.to_string(),
            retry_at: now + RECARVE_RETRY,
        });
        Ok(())
    }

    fn fail(&mut self, kind: WorkKind, error: &DriveError, now: Instant) -> bool {
        let failures = self
            .trouble
            .as_ref()
            .filter(|t| t.kind == kind)
            .map_or(0, |t| t.failures)
            + 1;
        let retry_at = now + backoff::DRIVE.after(failures, &self.drive_id.to_string());
        self.trouble = Some(Trouble {
            kind,
            message: error.to_string(),
            failures,
            retry_at,
        });
        if matches!(kind, WorkKind::Observe | WorkKind::Resume) {
            // What was found before is no longer known to be so.
            self.observation = None;
            self.owned = None;
        }
        self.look_at = Some(retry_at);
        matches!(
            error,
            DriveError::Gone { .. } | DriveError::IdentityChanged { .. }
        )
    }
}

/// How long after this observation the next one is due.
fn next_look(observation: &Observation, pools: &KnownPools, rescan: Duration) -> Duration {
    let finding = judge(observation, pools);
    let watching = finding.reasons.iter().all(|reason| {
        matches!(
            reason,
            Reason::StillWatched { .. } | Reason::ChangedWhileWatched { .. }
        )
    });
    if finding.verdict != Verdict::InUse {
        return rescan * RARELY;
    }
    if !watching {
        return rescan;
    }
    let remaining = Duration::from_millis(observation.watch.remaining_ms());
    // A little more than what remains, so that the next observation is not a millisecond early.
    (remaining + Duration::from_millis(20)).max(Duration::from_millis(200))
}
