//! Work on one drive, done by its host on a blocking thread.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use strand_drives::{
    CarveOrder, DataOnRelease, DriveError, DriveHost, OwnedDrive, Resumed, SeenDrive, WipeOrder,
};
use strand_placement::carve::Split;
use strand_placement::verdict::{Health, KnownPools, Observation};

/// One piece of work on one drive.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// Look at everything that may speak against taking it.
    Observe,
    /// Take it back by its label.
    Resume,
    /// Read its SMART log.
    Health,
    /// Judge once more, then carve.
    Adopt(CarveOrder),
    /// Move the boundary between its partitions.
    Recarve(Split),
    /// Take label and partition table away, for an operation.
    Release,
    /// Make it read blank, for an operation.
    Wipe(WipeOrder),
}

/// What kind of work it is; the variants are those of [`Work`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkKind {
    Observe,
    Resume,
    Health,
    Adopt,
    Recarve,
    Release,
    Wipe,
}

impl WorkKind {
    /// The work as the subject of a sentence.
    pub fn words(self) -> &'static str {
        match self {
            WorkKind::Observe => "looking at the drive",
            WorkKind::Resume => "taking the drive back",
            WorkKind::Health => "reading the SMART log",
            WorkKind::Adopt => "carving the drive",
            WorkKind::Recarve => "changing the carve",
            WorkKind::Release => "releasing the drive",
            WorkKind::Wipe => "wiping the drive",
        }
    }
}

impl Work {
    /// What kind of work it is.
    pub fn kind(&self) -> WorkKind {
        match self {
            Work::Observe => WorkKind::Observe,
            Work::Resume => WorkKind::Resume,
            Work::Health => WorkKind::Health,
            Work::Adopt(_) => WorkKind::Adopt,
            Work::Recarve(_) => WorkKind::Recarve,
            Work::Release => WorkKind::Release,
            Work::Wipe(_) => WorkKind::Wipe,
        }
    }
}

/// What a piece of work came to; the variants are those of [`Work`].
#[derive(Debug)]
pub enum Outcome {
    Observed(Result<Box<Observation>, DriveError>),
    Resumed(Result<Resumed, DriveError>),
    Health(Health),
    Adopted(Result<OwnedDrive, DriveError>),
    Recarved(Result<OwnedDrive, DriveError>),
    Released(Result<(), DriveError>),
    Wiped(Result<(), DriveError>),
}

impl Outcome {
    /// Why it was not done.
    pub fn error(&self) -> Option<&DriveError> {
        match self {
            Outcome::Observed(result) => result.as_ref().err(),
            Outcome::Resumed(result) => result.as_ref().err(),
            Outcome::Adopted(result) | Outcome::Recarved(result) => result.as_ref().err(),
            Outcome::Released(result) | Outcome::Wiped(result) => result.as_ref().err(),
            Outcome::Health(_) => None,
        }
    }
}

/// Everything that a piece of work needs, moved to the thread that does it.
pub struct Job {
    /// The machine.
    pub host: Arc<dyn DriveHost>,
    /// What to do.
    pub work: Work,
    /// The drive.
    pub seen: SeenDrive,
    /// The drive as it is owned, where it is.
    pub owned: Option<OwnedDrive>,
    /// What was found before.
    pub observation: Option<Observation>,
    /// The pools of this cluster.
    pub pools: KnownPools,
    /// Set when the agent ends: a wipe then stops, to go on later.
    pub stop: Arc<AtomicBool>,
}

impl Job {
    /// Does it. Blocks. `progress` is told the tens of percent that a wipe has done.
    pub fn perform(&self, progress: &mut dyn FnMut(u8)) -> Outcome {
        let owned = || {
            self.owned.as_ref().ok_or_else(|| {
                self.error("its partitions are not known yet; the agent tries again")
            })
        };
        match &self.work {
            Work::Observe => {
                let earlier = self.observation.as_ref();
                Outcome::Observed(self.host.observe(&self.seen, earlier).map(Box::new))
            }
            Work::Resume => Outcome::Resumed(self.host.resume(&self.seen, &self.pools)),
            Work::Health => Outcome::Health(self.host.health(&self.seen)),
            Work::Adopt(order) => Outcome::Adopted(match &self.observation {
                Some(watched) => self.host.adopt(&self.seen, watched, order),
                None => Err(self.error("it was not watched yet; the agent tries again")),
            }),
            Work::Recarve(split) => {
                Outcome::Recarved(owned().and_then(|owned| self.host.recarve(owned, split)))
            }
            Work::Release => Outcome::Released(
                owned().and_then(|owned| self.host.release(owned, DataOnRelease::Erase)),
            ),
            Work::Wipe(order) => Outcome::Wiped(self.wipe(order, progress)),
        }
    }

    /// What stands for the outcome when the work itself broke off.
    pub fn broken(&self) -> Outcome {
        let error = self.error("the agent's work on it broke off; please report this");
        match &self.work {
            Work::Observe => Outcome::Observed(Err(error)),
            Work::Resume => Outcome::Resumed(Err(error)),
            Work::Health => Outcome::Health(Health::Unknown {
                why: error.to_string(),
            }),
            Work::Adopt(_) => Outcome::Adopted(Err(error)),
            Work::Recarve(_) => Outcome::Recarved(Err(error)),
            Work::Release => Outcome::Released(Err(error)),
            Work::Wipe(_) => Outcome::Wiped(Err(error)),
        }
    }

    fn wipe(&self, order: &WipeOrder, progress: &mut dyn FnMut(u8)) -> Result<(), DriveError> {
        let mut told = None;
        self.host.wipe(&self.seen, order, &self.pools, &mut |at| {
            let tens = (u128::from(at.done) * 10 / u128::from(at.total.max(1))).min(10) as u8 * 10;
            if told.replace(tens) != Some(tens) {
                progress(tens);
            }
            match self.stop.load(Ordering::Relaxed) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })
    }

    fn error(&self, words: &'static str) -> DriveError {
        DriveError::Io {
            path: self.seen.path.clone(),
            action: self.work.kind().words(),
            source: std::io::Error::other(words),
        }
    }
}
