//! What a running agent shows of its drives.

use std::collections::BTreeMap;
use std::time::Instant;

use strand_api::DrivePhase;

use crate::http::DriveReport;
use crate::metrics::Standing;
use crate::state::{Entry, State};
use crate::status;

impl State {
    pub(crate) fn show_standing(&mut self, now: Instant) {
        let mut standing: BTreeMap<Standing, i64> = BTreeMap::new();
        for (name, entry) in &self.drives {
            let finding = entry.memory.finding(&self.mirror.index.known, now);
            let verdict = finding.map(|found| format!("{:?}", found.verdict));
            let phase = self.phase_of(name).map(|phase| format!("{phase:?}"));
            let [verdict, phase] = [verdict, phase].map(|word| word.unwrap_or("Unknown".into()));
            *standing.entry((verdict, phase)).or_default() += 1;
        }
        if standing != self.standing {
            self.metrics.drives(&self.standing, &standing);
            self.standing = standing;
        }
    }

    pub(crate) fn report(&self) -> Vec<DriveReport> {
        let now = Instant::now();
        self.drives
            .iter()
            .map(|(name, entry)| self.report_of(name, entry, now))
            .collect()
    }

    fn phase_of(&self, name: &str) -> Option<DrivePhase> {
        self.mirror.drives.get(name)?.status.as_ref()?.phase
    }

    fn report_of(&self, name: &str, entry: &Entry, now: Instant) -> DriveReport {
        let memory = &entry.memory;
        let finding = memory.finding(&self.mirror.index.known, now);
        DriveReport {
            name: name.into(),
            seen: memory.seen.clone(),
            verdict: finding.as_ref().map(|f| status::api_verdict(f.verdict)),
            reasons: finding
                .iter()
                .flat_map(|f| f.reasons.iter().map(status::api_reason))
                .collect(),
            phase: self.phase_of(name),
            owned: memory.owned.clone(),
            at_work: memory.busy.map(|busy| busy.kind.words().into()),
            trouble: memory.trouble.as_ref().map(|t| t.message.clone()),
        }
    }
}
