//! How far a rack is: a line for each change, and what is still missing.

use crate::{
    cluster::serial,
    standing::{Word, standing},
    text::{Style, Tone, count},
};
use std::collections::BTreeMap;
use strand_api::{Drive, DrivePhase, DriveVerdict, MemoryPool, condition, names};

/// What has been seen of a rack.
#[derive(Debug, Default)]
pub struct Progress {
    drives: BTreeMap<String, Drive>,
    pools: BTreeMap<String, MemoryPool>,
    told: BTreeMap<String, String>,
}

impl Progress {
    /// Takes in a drive; returns a line if it says something new.
    pub fn drive(&mut self, style: Style, drive: Drive) -> Option<String> {
        let name = drive.metadata.name.clone()?;
        let standing = standing(&drive);
        let judged = drive.status.as_ref().is_some_and(|s| s.verdict.is_some());
        let mut sentence = standing.sentence;
        if standing.word == Word::Out
            && let Some(reason) = drive.status.as_ref().and_then(|s| s.reasons.first())
        {
            sentence = format!("out: {sentence}: {}", reason.message);
        }
        let tone = match standing.word {
            Word::In => Some(Tone::Good),
            Word::Out => Some(Tone::Bad),
            Word::Free | Word::Waits => None,
        };
        if let Some(tone) = tone {
            sentence = style.paint(tone, &sentence);
        }
        let line = format!("{}  {}: {sentence}", drive.spec.node_name, serial(&drive));
        self.drives.insert(name.clone(), drive);
        if !judged {
            return None;
        }
        self.news(format!("drive {name}"), line)
    }

    /// Takes in that a drive is gone.
    pub fn drive_gone(&mut self, drive: &Drive) -> Option<String> {
        let name = drive.metadata.name.as_ref()?;
        self.drives.remove(name)?;
        self.told.remove(&format!("drive {name}"));
        Some(format!("{}  {}: gone", drive.spec.node_name, serial(drive)))
    }

    /// Takes in a pool; returns a line if it says something new.
    pub fn pool(&mut self, style: Style, pool: MemoryPool) -> Option<String> {
        let name = pool.metadata.name.clone()?;
        let line = pool.status.as_ref().and_then(|status| {
            let ready = condition::find(&status.conditions, names::READY)?;
            let (tone, word) = match ready.status.as_str() {
                "True" => (Tone::Good, "ready"),
                _ => (Tone::Note, "not ready"),
            };
            let epoch = match status.map_epoch {
                0 => String::new(),
                epoch => format!(" (map epoch {epoch})"),
            };
            let word = style.paint(tone, word);
            Some(format!("pool {name}: {word}{epoch}: {}", ready.message))
        });
        self.pools.insert(name.clone(), pool);
        self.news(format!("pool {name}"), line?)
    }

    /// Takes in that a pool is gone.
    pub fn pool_gone(&mut self, pool: &MemoryPool) -> Option<String> {
        let name = pool.metadata.name.as_ref()?;
        self.pools.remove(name)?;
        self.told.remove(&format!("pool {name}"));
        Some(format!("pool {name}: gone"))
    }

    fn news(&mut self, about: String, line: String) -> Option<String> {
        let before = self.told.insert(about, line.clone());
        (before.as_ref() != Some(&line)).then_some(line)
    }

    /// What is still missing until the rack is up, in sentences: `pools` ready, and each node's
    /// drives (`nodes`: name and number) judged and, where a pool takes them, serving.
    pub fn missing(&self, pools: &[String], nodes: &[(String, usize)]) -> Vec<String> {
        let mut missing = Vec::new();
        for (node, number) in nodes {
            let seen = self.drives.values().filter(|drive| {
                let status = drive.status.as_ref();
                let phase = status.and_then(|s| s.phase);
                drive.spec.node_name == *node
                    && status.is_some_and(|s| s.verdict.is_some())
                    && phase != Some(DrivePhase::Missing)
            });
            let judged = seen.count();
            if judged < *number {
                missing.push(format!(
                    "{node} has judged {judged} of its {}",
                    count(*number, "drive")
                ));
            }
        }
        for drive in self.drives.values() {
            let standing = standing(drive);
            let verdict = drive.status.as_ref().and_then(|s| s.verdict);
            let on_its_way = standing.word == Word::Waits && verdict.is_some();
            if on_its_way && verdict != Some(DriveVerdict::InUse) {
                missing.push(format!("{}: {}", serial(drive), standing.sentence));
            }
        }
        for name in pools {
            let said = self.pools.get(name).and_then(|pool| {
                let status = pool.status.as_ref()?;
                let ready = condition::find(&status.conditions, names::READY)?;
                let current = ready.observed_generation.or(status.observed_generation);
                Some((ready, current == pool.metadata.generation))
            });
            match said {
                Some((ready, true)) if ready.status == "True" => {}
                Some((ready, true)) => {
                    missing.push(format!("pool {name} is not ready: {}", ready.message))
                }
                Some((_, false)) | None => {
                    missing.push(format!(
                        "pool {name} has not been looked at by the operator"
                    ));
                }
            }
        }
        missing
    }

    /// The drives seen, by node and serial.
    pub fn drives(&self) -> Vec<Drive> {
        let mut drives: Vec<Drive> = self.drives.values().cloned().collect();
        crate::cluster::sort(&mut drives);
        drives
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::{drives, pools};

    #[test]
    fn each_change_is_told_once() {
        let mut progress = Progress::default();
        let ready = drives().into_iter().next().unwrap();
        let mut young = ready.clone();
        young.status = None;
        assert_eq!(progress.drive(Style::PLAIN, young), None);
        let line = progress.drive(Style::PLAIN, ready.clone()).unwrap();
        assert_eq!(
            line,
            "node-1  node-1-drive-0: serves pool default with 1.2Gi of context memory and 817Mi of storage"
        );
        assert_eq!(progress.drive(Style::PLAIN, ready.clone()), None);
        assert_eq!(
            progress.drive_gone(&ready).unwrap(),
            "node-1  node-1-drive-0: gone"
        );
        assert_eq!(progress.drive_gone(&ready), None);
        assert!(progress.drive(Style::PLAIN, ready).is_some());
    }

    #[test]
    fn what_is_missing_is_told_until_nothing_is() {
        let mut progress = Progress::default();
        let wanted = ["default".to_owned()];
        let nodes = [("node-1".to_owned(), 2)];
        assert_eq!(
            progress.missing(&wanted, &nodes),
            [
                "node-1 has judged 0 of its 2 drives",
                "pool default has not been looked at by the operator"
            ]
        );
        for drive in drives()
            .into_iter()
            .filter(|d| d.spec.node_name == "node-1")
        {
            progress.drive(Style::PLAIN, drive);
        }
        let mut pool = pools().remove(0);
        if let Some(status) = &mut pool.status {
            status.conditions[0].status = "False".into();
            status.conditions[0].message = "no drive yet".into();
        }
        progress.pool(Style::PLAIN, pool);
        assert_eq!(
            progress.missing(&wanted, &nodes),
            ["pool default is not ready: no drive yet"]
        );

        // Ready, but said of an older spec.
        let mut pool = pools().remove(0);
        pool.metadata.generation = Some(9);
        progress.pool(Style::PLAIN, pool);
        assert_eq!(progress.missing(&wanted, &nodes).len(), 1);

        progress.pool(Style::PLAIN, pools().remove(0));
        assert!(progress.missing(&wanted, &nodes).is_empty());
    }
}
