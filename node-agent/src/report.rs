//! What a running agent shows of its drives.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::http::DriveReport;
use crate::metrics::Standing;
use crate::state::{Entry, State};
use crate::status;

impl State {
    pub(crate) fn show_standing(&mut self, now: Instant) {
        let mut standing: BTreeMap<Standing, i64> = BTreeMap::new();
        for report in self
            .drives
            .iter()
            .map(|(name, entry)| self.report_of(name, entry, now))
        {
            let verdict = report
                .verdict
                .map_or("Unknown".into(), |v| format!("{v:?}"));
            let phase = report.phase.map_or("Unknown".into(), |p| format!("{p:?}"));
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

    fn report_of(&self, name: &str, entry: &Entry, now: Instant) -> DriveReport {
        let memory = &entry.memory;
        let finding = memory.finding(&self.mirror.index.known, now);
        let status = self.mirror.drives.get(name).and_then(|d| d.status.as_ref());
        DriveReport {
            name: name.into(),
            seen: memory.seen.clone(),
            verdict: finding.as_ref().map(|f| status::api_verdict(f.verdict)),
            reasons: finding
                .iter()
                .flat_map(|f| f.reasons.iter().map(status::api_reason))
                .collect(),
            phase: status.and_then(|s| s.phase),
            owned: memory.owned.clone(),
            at_work: memory.busy.map(|busy| busy.kind.words().into()),
            trouble: memory.trouble.as_ref().map(|t| t.message.clone()),
        }
    }
}
