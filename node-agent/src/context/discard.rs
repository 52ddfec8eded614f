//! Whether what a drive held before may be served again.
//!
//! While a drive is out of the pool map, its keys are written, overwritten and deleted elsewhere, and nobody tells it. The map
//! says since which epoch the drive has been in it without a gap; the agent writes down for which one its blocks are good, and
//! discards them where the two differ. Blocks may be lost, never wrong.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use strand_api::PoolMapSpec;
use uuid::Uuid;

/// What has to be done before a drive joins its rack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    /// Nothing.
    Now,
    /// Its blocks have to go, then this epoch has to be written down.
    AfterDiscard(i64),
    /// Nobody can ask it for anything: no map names it, and none ever has.
    Wait,
}

/// Decides: `listed` is what the newest map says, `good` what is written down.
pub fn join(listed: Option<i64>, good: Option<i64>) -> Join {
    match (listed, good) {
        (None, None) => Join::Wait,
        // Those who know an older map find its blocks for a while.
        (None, Some(_)) => Join::Now,
        (Some(listed), Some(good)) if listed == good => Join::Now,
        (Some(listed), _) => Join::AfterDiscard(listed),
    }
}

/// Since when a map has a drive of a node.
pub fn listed(map: &PoolMapSpec, node: &str, key: u32) -> Option<i64> {
    let node = map.nodes.iter().find(|entry| entry.node == node)?;
    let drive = node.drives.iter().find(|drive| drive.key == key)?;
    Some(drive.since)
}

/// What is written down, a file a drive: `<state dir>/context/<drive id>`.
#[derive(Clone, Debug)]
pub struct Good {
    dir: PathBuf,
}

impl Good {
    /// Uses, and makes, the directory.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        let dir = state_dir.join("context");
        fs::create_dir_all(&dir)?;
        Ok(Self { dir })
    }

    /// The epoch for which a drive's blocks are good; none where nothing that can be read is written down.
    pub fn read(&self, drive: &Uuid) -> Option<i64> {
        let text = fs::read_to_string(self.dir.join(drive.to_string())).ok()?;
        text.trim().parse().ok()
    }

    /// Writes it down, in one step.
    ///
    /// # Errors
    /// The kernel's.
    pub fn write(&self, drive: &Uuid, epoch: i64) -> io::Result<()> {
        let path = self.dir.join(drive.to_string());
        let beside = path.with_extension("new");
        let mut file = File::create(&beside)?;
        writeln!(file, "{epoch}")?;
        file.sync_all()?;
        fs::rename(&beside, &path)?;
        File::open(&self.dir)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strand_api::MapNode;

    #[test]
    fn blocks_are_good_for_one_stay_in_the_map() {
        assert_eq!(join(Some(4), Some(4)), Join::Now);
        assert_eq!(join(Some(9), Some(4)), Join::AfterDiscard(9));
        assert_eq!(join(Some(4), Some(9)), Join::AfterDiscard(4));
        assert_eq!(join(Some(4), None), Join::AfterDiscard(4));
        assert_eq!(join(None, Some(4)), Join::Now);
        assert_eq!(join(None, None), Join::Wait);
    }

    #[test]
    fn it_is_written_down_and_damage_counts_as_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (good, drive) = (Good::open(dir.path()).unwrap(), Uuid::from_u128(7));
        assert_eq!(good.read(&drive), None);
        good.write(&drive, 12).unwrap();
        assert_eq!(Good::open(dir.path()).unwrap().read(&drive), Some(12));
        fs::write(dir.path().join(format!("context/{drive}")), "x").unwrap();
        assert_eq!(good.read(&drive), None);
    }

    #[test]
    fn a_map_lists_a_drive_on_its_node() {
        let node = |text: &str| MapNode::try_from(text.to_owned()).unwrap();
        let map = PoolMapSpec {
            epoch: 9,
            pool_id: "p".into(),
            nodes: vec![
                node("a a:1 - 5@3:00000001;5@9:00000002"),
                node("b b:1 - 5@4:00000003"),
            ],
        };
        assert_eq!(listed(&map, "a", 2), Some(9));
        assert_eq!(listed(&map, "b", 2), None);
        assert_eq!(listed(&map, "c", 2), None);
    }
}
