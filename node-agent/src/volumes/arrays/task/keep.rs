//! Having the array brought to what it shall be.

use std::path::PathBuf;

use strand_arrays::{ArrayError, Running, Wanted};
use strand_volumes::IoLimits;

use super::hold::hold;
use super::{Done, Job, Kept, OVER, Task};
use crate::volumes::arrays::told::Trouble;

impl Task {
    /// Has the array brought to what it shall be, where that or it has changed.
    pub(super) fn keep(&mut self, now: &Wanted, running: Option<&Running>) {
        if running.is_none() {
            if !self.asked_for {
                return;
            }
            let words: Vec<&str> = self.waits_for.values().map(String::as_str).collect();
            let words = match words.as_slice() {
                [] => "its legs are being reached".to_owned(),
                words => words.join("; "),
            };
            if let Some(away) = Trouble::away(now, &words) {
                self.trouble = Some(away);
                self.kept = None;
                return;
            }
        }
        let is_so = |kept: &Kept| {
            kept.wanted == *now && kept.array == still(running) && kept.at.elapsed() < OVER
        };
        if self.kept.as_ref().is_some_and(is_so) {
            return;
        }
        let Ok(arrays) = self.parts.arrays.clone() else {
            return;
        };
        let (wanted, limits) = (now.clone(), self.record.limits());
        let local = self.parts.connections.local(&self.record.volume).ok();
        let (generation, here) = (self.record.generation, self.here.values());
        let here: Vec<PathBuf> = here.cloned().collect();
        self.start(Job::Keep, async move {
            let by = Box::new(wanted.clone());
            let kept = tokio::task::spawn_blocking(move || {
                let mut wanted = wanted;
                let _held = hold(&mut wanted, generation, &here);
                let seen = arrays.keep(&wanted);
                if let (Ok(seen), Some(local)) = (&seen, local)
                    && let Some(array) = &seen.array
                    && limits != IoLimits::default()
                {
                    // Control groups come with pods.
                    local.limit(&array.device(), limits);
                }
                Done::Kept(Box::new(wanted), seen.map(Box::new))
            });
            kept.await.unwrap_or_else(|_| {
                let array = by.array;
                let broken = ArrayError::Restless {
                    array,
                    rounds: 0,
                    next: "nothing: the work on it broke off; please report this".into(),
                };
                Done::Kept(by, Err(broken))
            })
        });
    }
}

/// An array without what changes all the time.
pub(super) fn still(array: Option<&Running>) -> Option<Running> {
    let mut array = array.cloned()?;
    if let Some(sync) = &mut array.sync {
        sync.thousandths = None;
    }
    Some(array)
}
