//! A running array as the kernel shows it in `/sys/block/mdN/md` (linux Documentation/admin-guide/md.rst). Reading takes no lock of md's,
//! so it does not hang where a leg does.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// An array that the kernel has, whole or half put together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Running {
    /// The kernel's name, such as `md1000`. Another array may have it next time.
    pub name: String,
    /// Its UUID, once it runs.
    pub array: Option<Uuid>,
    /// What says whose it is where md knows of no superblock, and of no UUID: the name of its external metadata ([`mark`]).
    pub mark: Option<String>,
    /// What it does.
    pub state: State,
    /// Its bytes.
    pub size: u64,
    /// Bytes of each leg that it uses.
    pub component: u64,
    /// Bytes a second that it copies at most.
    pub rate: Option<u64>,
    /// Its legs, by the kernel's names of their devices.
    pub members: Vec<Member>,
    /// What it copies just now.
    pub sync: Option<Sync>,
    /// It was not shut down in order, and md has not made its legs equal yet: what it would compute for a leg of a raid6 may be wrong.
    pub resyncing: bool,
}

/// What an array does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// It was not started, or is just being.
    NotStarted,
    /// It can be read.
    ReadOnly,
    /// It can be read and written.
    ReadWrite,
    /// It has lost more legs than it can, and refuses.
    Broken,
}

/// A leg in an array.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The kernel's name of its device; while the array holds it, no other device has that name.
    pub name: String,
    /// How it is.
    pub state: MemberState,
    /// Its device is gone: everything asked of it fails.
    pub gone: bool,
}

/// How a leg in an array is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MemberState {
    /// It has every byte.
    InSync,
    /// It is, or will be, copied to.
    Behind,
    /// It has failed a write and is still in the array, with a list of what is wrong on it. Arrays are made without such lists, but
    /// mdadm gives one to a leg that is added.
    Failing,
    /// md has given it up.
    Faulty,
}

/// How far copying within an array is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sync {
    /// The kernel's word: `recover` copies to a leg that is behind, `resync` makes legs equal after a crash.
    pub action: String,
    /// Thousandths done; none where it has not begun.
    pub thousandths: Option<u32>,
}

/// What an array for reading of the volume with this UUID is marked with: md keeps 16 bytes of it. 54 bits of a random UUID are not
/// another's by chance.
pub(crate) fn mark(array: Uuid) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digit = |place: u32| char::from(DIGITS[(array.as_u128() >> (6 * place)) as usize & 63]);
    format!("strand:{}", (0..9).map(digit).collect::<String>())
}

impl Running {
    /// Whether it is the array with this UUID, also one that is only for reading.
    pub fn is_of(&self, array: Uuid) -> bool {
        self.array == Some(array) || self.mark.as_ref().is_some_and(|own| *own == mark(array))
    }

    /// Whether it says that it is another one.
    pub(crate) fn is_anothers(&self, array: Uuid) -> bool {
        (self.array.is_some() || self.mark.is_some()) && !self.is_of(array)
    }

    /// The device node.
    pub fn device(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }

    /// Whether it was started.
    pub fn started(&self) -> bool {
        self.state != State::NotStarted
    }

    /// The leg on this device.
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }

    /// What the kernel shows of an array; none where it is gone, or an empty shell.
    pub(crate) fn read(block: &Path, name: &str) -> Option<Self> {
        let home = block.join(name);
        let md = home.join("md");
        let text = |attribute: &str| read(&md.join(attribute));
        let number = |text: Option<String>| text.and_then(|text| first(&text)?.parse::<u64>().ok());
        let state = match text("array_state")?.as_str() {
            "clear" => return None,
            "inactive" => State::NotStarted,
            "readonly" => State::ReadOnly,
            "broken" => State::Broken,
            // read-auto becomes writable with the first write.
            _ => State::ReadWrite,
        };
        let mark = text("metadata_version")
            .and_then(|text| Some(text.strip_prefix("external:")?.to_owned()));
        let entries = fs::read_dir(&md).ok()?;
        let mut members: Vec<Member> = entries
            .filter_map(|entry| {
                member(
                    block,
                    &md,
                    entry.ok()?.file_name().to_str()?,
                    mark.is_some(),
                )
            })
            .collect();
        members.sort_by(|a, b| a.name.cmp(&b.name));
        let action = text("sync_action").filter(|action| action != "idle" && action != "frozen");
        Some(Self {
            name: name.to_owned(),
            array: text("uuid")
                .and_then(|text| text.parse().ok())
                .filter(|uuid: &Uuid| !uuid.is_nil()),
            state,
            // Sectors of 512 bytes.
            size: number(read(&home.join("size"))).unwrap_or(0) * 512,
            component: number(text("component_size")).unwrap_or(0) * 1024,
            rate: number(text("sync_speed_max")).map(|kib| kib * 1024),
            members,
            sync: action.map(|action| Sync {
                action,
                thousandths: text("sync_completed").and_then(|text| thousandths(&text)),
            }),
            // The sector from which on legs may differ.
            resyncing: mark.is_none() && text("resync_start").is_some_and(|from| from != "none"),
            mark,
        })
    }
}

/// Of the entry `dev-NAME` of an array.
fn member(block: &Path, md: &Path, entry: &str, external: bool) -> Option<Member> {
    let name = entry.strip_prefix("dev-")?;
    let home = md.join(entry);
    let text = read(&home.join("state"))?;
    let is = |word: &str| text.split(',').any(|have| have == word);
    // md itself calls what was taken into an array for reading a spare, but reads from it up to there.
    let is_read = || {
        let number = read(&home.join("slot")).and_then(|slot| slot.parse::<u32>().ok());
        number.is_some() && read(&home.join("recovery_start")).is_some_and(|from| from == "none")
    };
    Some(Member {
        name: name.to_owned(),
        state: match () {
            () if is("faulty") => MemberState::Faulty,
            () if is("write_error") || has_bad_blocks(&home) => MemberState::Failing,
            () if external && is_read() => MemberState::InSync,
            () if !external && is("in_sync") => MemberState::InSync,
            () => MemberState::Behind,
        },
        gone: !block.join(name).exists(),
    })
}

fn has_bad_blocks(member: &Path) -> bool {
    read(&member.join("bad_blocks")).is_some_and(|list| !list.trim().is_empty())
}

/// `DONE / ALL`, in sectors; other words before it begins.
fn thousandths(text: &str) -> Option<u32> {
    let (done, all) = text.split_once(" / ")?;
    let (done, all): (u128, u128) = (done.parse().ok()?, all.parse().ok()?);
    (done * 1000).checked_div(all)?.min(1000).try_into().ok()
}

fn first(text: &str) -> Option<&str> {
    text.split_whitespace().next()
}

fn read(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim_end_matches('\n').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(files: &[(&str, &str)]) -> Option<Running> {
        let block = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = block.path().join("md1000").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{text}\n")).unwrap();
        }
        Running::read(block.path(), "md1000")
    }

    const MIRROR: [(&str, &str); 14] = [
        ("size", "1046528"),
        ("md/array_state", "active"),
        ("md/uuid", "00000000-0000-4000-8000-000000000007"),
        ("md/component_size", "523264"),
        ("md/sync_speed_max", "102400 (local)"),
        ("md/sync_action", "recover"),
        ("md/sync_completed", "261632 / 1046528"),
        ("md/resync_start", "none"),
        ("md/dev-loop1/state", "in_sync"),
        ("md/dev-loop1/bad_blocks", ""),
        ("md/dev-loop2/state", "in_sync"),
        ("md/dev-loop2/bad_blocks", "2048 8"),
        ("md/dev-nvme2n1/state", "faulty,write_error"),
        ("md/dev-loop9/state", "spare"),
    ];

    #[test]
    fn what_the_kernel_shows_is_read() {
        let found = array(&MIRROR).unwrap();
        assert_eq!(found.array.map(|u| u.as_u128() & 0xff), Some(7));
        assert_eq!(found.state, State::ReadWrite);
        assert_eq!(
            (found.size, found.component),
            (1_046_528 * 512, 523_264 << 10)
        );
        assert_eq!(found.rate, Some(100 << 20));
        let states: Vec<_> = found
            .members
            .iter()
            .map(|m| (m.name.as_str(), m.state))
            .collect();
        let expected = [
            ("loop1", MemberState::InSync),
            ("loop2", MemberState::Failing),
            ("loop9", MemberState::Behind),
            ("nvme2n1", MemberState::Faulty),
        ];
        assert_eq!(states, expected);
        assert!(!found.resyncing);
        let mut crashed = MIRROR;
        crashed[7].1 = "0";
        assert!(array(&crashed).unwrap().resyncing);
        let sync = found.sync.unwrap();
        assert_eq!(
            (sync.action.as_str(), sync.thousandths),
            ("recover", Some(250))
        );
    }

    #[test]
    fn an_array_for_reading_is_known_by_its_mark() {
        let uuid = Uuid::from_u128(0x0123_4567_89ab_4def_8123_4567_89ab_cdef);
        let metadata = format!("external:{}", mark(uuid));
        assert_eq!(metadata.len(), "external:".len() + 16, "what md keeps");
        let nil = "00000000-0000-0000-0000-000000000000";
        let found = array(&[
            ("md/array_state", "readonly"),
            ("md/metadata_version", &metadata),
            ("md/uuid", nil),
            ("md/dev-loop1/state", "in_sync"),
            ("md/dev-loop1/slot", "0"),
            ("md/dev-loop1/recovery_start", "none"),
            ("md/dev-nvme2n1/state", "blocked,spare"),
            ("md/dev-nvme2n1/slot", "1"),
            ("md/dev-nvme2n1/recovery_start", "none"),
            ("md/dev-nvme3n1/state", "blocked,in_sync"),
            ("md/dev-nvme3n1/slot", "none"),
            ("md/dev-nvme3n1/recovery_start", "none"),
            ("md/dev-nvme4n1/state", "spare"),
            ("md/dev-nvme4n1/slot", "2"),
            ("md/dev-nvme4n1/recovery_start", "0"),
            ("../nvme2n1/size", "8"),
        ]);
        let found = found.unwrap();
        assert!(found.is_of(uuid) && !found.is_anothers(uuid));
        let other = Uuid::from_u128(uuid.as_u128() + 1);
        assert!(!found.is_of(other) && found.is_anothers(other));
        let states: Vec<_> = found.members.iter().map(|m| (m.state, m.gone)).collect();
        use MemberState::{Behind, InSync};
        assert_eq!(
            states,
            [
                (InSync, true),
                (InSync, false),
                (Behind, true),
                (Behind, true)
            ]
        );
    }

    #[test]
    fn an_empty_shell_is_none_and_an_unstarted_one_has_no_uuid() {
        assert_eq!(array(&[("md/array_state", "clear")]), None);
        assert_eq!(array(&[("size", "0")]), None);
        let nil = "00000000-0000-0000-0000-000000000000";
        let found = array(&[("md/array_state", "inactive"), ("md/uuid", nil)]).unwrap();
        assert_eq!((found.array, found.started()), (None, false));
    }
}
