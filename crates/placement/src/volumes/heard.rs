//! When it was first heard that a leg is not reached, by the clock of whoever decides: those of consumers may be apart from it, and nobody's
//! writes shall wait for that.

use super::Storage;
use k8s_openapi::jiff::Timestamp;
use std::collections::BTreeMap;
use strand_api::{ArrayLeg, LegHolding};

/// What was heard, of the legs that are not reached now.
#[derive(Clone, Debug, Default)]
pub struct Heard(BTreeMap<Told, Timestamp>);

/// Volume, attachment, and UUID of the leg.
type Told = (String, i64, String);

impl Heard {
    /// Takes in what consumers tell now.
    pub fn take(&mut self, storage: &Storage, now: Timestamp) {
        let mut heard = BTreeMap::new();
        for volume in &storage.volumes {
            let Some(array) = volume.status.as_ref().and_then(|s| s.array.as_ref()) else {
                continue;
            };
            let away = array
                .legs
                .iter()
                .filter(|leg| leg.holding == LegHolding::Away);
            for leg in away {
                let name = volume.metadata.name.clone().unwrap_or_default();
                let told = (name, array.generation, leg.uuid.clone());
                let since = self.0.get(&told).copied().unwrap_or(now);
                heard.insert(told, since);
            }
        }
        self.0 = heard;
    }

    /// Since when a leg is what its consumer says: of one that is not reached, by our own clock.
    pub(super) fn since(&self, volume: &str, generation: i64, leg: &ArrayLeg) -> Timestamp {
        let told = (volume.to_owned(), generation, leg.uuid.clone());
        self.0.get(&told).copied().unwrap_or(leg.since.0)
    }
}
