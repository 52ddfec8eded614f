//! What is said of a drive from what is known of it: its finding, what does not come to an end, and when time alone changes that.

use std::time::{Duration, Instant};

use strand_drives::MediumKind;
use strand_placement::carve::{Layout, Split, layout};
use strand_placement::verdict::{
    Finding, Health, KnownPools, Label, LabelSeen, LabelState, Reason, Verdict, judge,
};

use crate::memory::{DriveMemory, Refusal};
use crate::work::WorkKind;

/// A drive that has not answered for this long is called failed.
const STUCK: Duration = Duration::from_secs(120);
/// A carve that takes longer than this is told.
const LONG_CARVE: Duration = Duration::from_secs(10);
/// So many failures in a row are told.
pub const REPEATED: u32 = 2;

impl DriveMemory {
    /// The finding on the drive as far as it is known.
    pub fn finding(&self, pools: &KnownPools, now: Instant) -> Option<Finding> {
        self.seen.as_ref()?;
        if let Some(turned_down) = self.turned_down.as_ref().filter(|t| now < t.until) {
            return Some(conclude(turned_down.reasons.clone()));
        }
        if let Some(what) = self.taken_out.clone() {
            return Some(conclude(vec![Reason::Unreadable { what }]));
        }
        if let Some(what) = self.silence(now) {
            return Some(conclude(vec![Reason::Unreadable { what }]));
        }
        self.observation.as_ref().map(|seen| judge(seen, pools))
    }

    /// Why the drive counts as not answering: it hangs, or cannot be looked at time and again.
    fn silence(&self, now: Instant) -> Option<String> {
        let looks = |kind| {
            matches!(
                kind,
                WorkKind::Observe | WorkKind::Resume | WorkKind::Health
            )
        };
        if self.hangs(now) {
            return Some(format!(
                "the drive has not answered for {} s",
                STUCK.as_secs()
            ));
        }
        self.trouble
            .as_ref()
            .filter(|t| looks(t.kind) && t.failures >= REPEATED && self.owned.is_none())
            .filter(|_| self.observation.is_none())
            .map(|t| t.message.clone())
    }

    fn hangs(&self, now: Instant) -> bool {
        self.busy.is_some_and(|busy| {
            matches!(
                busy.kind,
                WorkKind::Observe | WorkKind::Resume | WorkKind::Health
            ) && now.saturating_duration_since(busy.since) >= STUCK
        })
    }

    /// When time alone changes what is said of the drive.
    pub fn ripens_at(&self, now: Instant) -> Option<Instant> {
        let busy = self.busy.and_then(|busy| match busy.kind {
            WorkKind::Adopt | WorkKind::Recarve => Some(busy.since + LONG_CARVE),
            WorkKind::Resume => [LONG_CARVE, STUCK]
                .into_iter()
                .map(|wait| busy.since + wait)
                .find(|at| *at > now),
            WorkKind::Observe | WorkKind::Health => Some(busy.since + STUCK),
            WorkKind::Release | WorkKind::Wipe => None,
        });
        let until = self.turned_down.as_ref().map(|t| t.until);
        let retry = self.trouble.as_ref().map(|t| t.retry_at);
        let again = self.refusal.as_ref().map(|r| r.retry_at);
        [busy, until, retry, again, self.look_at]
            .into_iter()
            .flatten()
            .filter(|at| *at > now)
            .min()
    }

    /// Why taking or carving the drive does not come to an end, in words: it keeps failing, or takes long.
    pub fn struggle(&self, now: Instant) -> Option<String> {
        let carves = |kind| matches!(kind, WorkKind::Adopt | WorkKind::Resume | WorkKind::Recarve);
        if let Some(trouble) = &self.trouble
            && carves(trouble.kind)
            && trouble.failures >= REPEATED
        {
            return Some(trouble.message.clone());
        }
        let long = self.busy.filter(|busy| {
            carves(busy.kind) && now.saturating_duration_since(busy.since) >= LONG_CARVE
        })?;
        Some(format!(
            "{} has been under way for more than {} s; see the kernel log if it does not end",
            long.kind.words(),
            LONG_CARVE.as_secs()
        ))
    }

    /// Whether the drive lies as a split asks. A split that cannot be had on this drive lies nowhere.
    pub fn lies_as(&self, split: &Split) -> bool {
        self.owned.as_ref().is_some_and(|owned| {
            layout(&owned.seen.geometry, split).is_ok_and(|wanted: Layout| wanted == owned.layout)
        })
    }

    /// The refusal of this split, while it stands.
    pub fn refused(&self, split: &Split) -> Option<&Refusal> {
        self.refusal.as_ref().filter(|r| r.split == *split)
    }

    /// The label on the drive, as last read or written.
    pub fn label(&self) -> Option<&Label> {
        match &self.observation.as_ref()?.label {
            LabelSeen::Present(label) => Some(label),
            _ => None,
        }
    }

    /// Whether the drive has a SMART log to be read from time to time.
    pub fn has_health(&self) -> bool {
        self.seen
            .as_ref()
            .is_some_and(|seen| !seen.stand_in && matches!(seen.medium, MediumKind::Nvme { .. }))
    }

    /// What its SMART log said last.
    pub fn health(&self) -> Option<&Health> {
        self.observation.as_ref().map(|seen| &seen.health)
    }
}

/// Whether nothing but the watch speaks against a drive: there is nothing to tell of it yet.
pub fn only_watched(finding: &Finding) -> bool {
    !finding.reasons.is_empty()
        && finding
            .reasons
            .iter()
            .all(|reason| matches!(reason, Reason::StillWatched { .. }))
}

/// The finding that these reasons give: a broken drive is broken whoever has it.
fn conclude(reasons: Vec<Reason>) -> Finding {
    let weight = |verdict: &Verdict| match verdict {
        Verdict::Stranded => 0,
        Verdict::Foreign => 1,
        Verdict::InUse => 2,
        Verdict::Pooled => 3,
        Verdict::Failed => 4,
    };
    let verdict = reasons
        .iter()
        .map(Reason::verdict)
        .max_by_key(weight)
        .unwrap_or(Verdict::InUse);
    Finding { verdict, reasons }
}

/// Whether a label says that its drive is being given back.
pub fn being_released(label: &Label) -> bool {
    !matches!(
        label.state,
        LabelState::Carving | LabelState::Carved | LabelState::Moving
    )
}
