//! Looking at arrays and doing steps.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::OFlags;
use uuid::Uuid;

use crate::error::ArrayError;
use crate::host::{END, FIRST, Host};
use crate::plan::{Step, plan};
use crate::running::Running;
use crate::superblock::{LENGTH, OFFSET, Superblock};
use crate::wanted::{Content, Present, Seen, Wanted, kernel_name};

/// Rounds of looking and doing that anything needs at most: a leg that is out takes two, one that comes back two.
const ROUNDS: usize = 8;
/// What part of the rate is copied however busy the array is: the system's own lower limit, 1000 KiB/s, is days for a large leg.
const LEAST: u64 = 4;
/// Linux: somebody has it open, or I/O is under way.
pub(crate) const EBUSY: i32 = 16;

/// The arrays of this node. Blocks; what asks a leg that does not answer waits as long as that leg's driver does.
#[derive(Debug)]
pub struct Arrays {
    pub(crate) host: Host,
    /// Held while a number is chosen and taken.
    pub(crate) numbers: Mutex<()>,
}

impl Arrays {
    /// Writes what keeps the host's tools off.
    ///
    /// # Errors
    /// [`ArrayError::Io`].
    pub fn open(host: Host) -> Result<Self, ArrayError> {
        host.prepare()?;
        Ok(Self {
            host,
            numbers: Mutex::new(()),
        })
    }

    /// All arrays of ours that the kernel has, started or not.
    pub fn all(&self) -> Vec<Running> {
        let block = self.host.block();
        let names = self.names();
        names
            .iter()
            .filter_map(|name| Running::read(&block, name))
            .collect()
    }

    /// The array with this UUID, once it was started. Takes no lock of md's: it does not hang where a leg does.
    pub fn find(&self, array: Uuid) -> Option<Running> {
        let mut all = self.all().into_iter();
        all.find(|running| running.is_of(array) && running.started())
    }

    /// Looks at a volume's array and legs. Legs are read only while they are in no array that writes; one that cannot be read is as good as
    /// away.
    pub fn look(&self, wanted: &Wanted) -> Seen {
        let devices = wanted.legs.iter().filter_map(|leg| leg.device.as_deref());
        let names: Vec<String> = devices.map(kernel_name).collect();
        let is_it = |array: &Running| {
            array.is_of(wanted.array) || names.iter().any(|name| array.member(name).is_some())
        };
        let array = self.all().into_iter().find(is_it);
        let legs = wanted.legs.iter().map(|leg| {
            let device = leg.device.as_ref()?;
            let name = kernel_name(device);
            let written = array
                .as_ref()
                .is_some_and(|array| array.mark.is_none() && array.member(&name).is_some());
            let content = match written {
                true => None,
                false => match content(device) {
                    // It has gone since the caller looked, or does not answer. The others are seen to all the same.
                    Err(_) => return None,
                    Ok(read) => Some(read),
                },
            };
            Some(Present {
                size: self.number_of(&name, "size").unwrap_or(0) * 512,
                read_only: self.number_of(&name, "ro") == Some(1),
                content,
            })
        });
        let legs = legs.collect();
        Seen { array, legs }
    }

    /// Brings an array to what its volume says, and keeps it there; to be called whenever something may have changed. What was seen
    /// last has the array.
    ///
    /// # Errors
    /// [`ArrayError::Refused`] where nothing may be done; [`ArrayError::Busy`] where it has to be asked again.
    pub fn keep(&self, wanted: &Wanted) -> Result<Seen, ArrayError> {
        let mut rounds = 0;
        loop {
            let seen = self.look(wanted);
            let steps = plan(wanted, &seen)?;
            let next = match (steps.first(), &seen.array) {
                (None, Some(_)) => return Ok(seen),
                (next, _) => format!("{next:?}"),
            };
            if rounds == ROUNDS {
                return Err(ArrayError::Restless {
                    array: wanted.array,
                    rounds,
                    next,
                });
            }
            rounds += 1;
            for step in &steps {
                self.apply(wanted, &seen, step)?;
            }
        }
    }

    /// Does one step that was planned from what was seen.
    ///
    /// # Errors
    /// [`ArrayError`], but for `Refused` and `Restless`.
    pub fn apply(&self, wanted: &Wanted, seen: &Seen, step: &Step) -> Result<(), ArrayError> {
        let array = || seen.array.as_ref().map_or("", |array| array.name.as_str());
        let node = || Path::new("/dev").join(array()).display().to_string();
        match step {
            Step::Create(legs) => self.create(wanted, legs),
            Step::Assemble(legs) => self.assemble(wanted, legs),
            Step::Read(reading) => self.read(wanted, reading),
            Step::TakeIn(part) => self.take_in(array(), part),
            Step::Fail(member) => self.fail(array(), member),
            Step::Remove(member) => self.member(array(), member, "remove"),
            Step::ReAdd(device) => self.mdadm(&[
                "--manage",
                &node(),
                "--re-add",
                &device.display().to_string(),
            ]),
            Step::Add(device) => {
                self.mdadm(&["--manage", &node(), "--add", &device.display().to_string()])
            }
            Step::Wipe(device) => self.mdadm(&["--zero-superblock", &device.display().to_string()]),
            Step::Grow(bytes) => {
                // New space reads as zeroes on every leg, which is in sync for either level.
                let size = format!("--size={}", bytes / 1024);
                self.mdadm(&["--grow", &node(), &size, "--assume-clean"])
            }
            Step::Limit(rate) => {
                // Beside a consumer that writes all the time, md copies no faster than the lower limit.
                let [least, most] =
                    [rate / LEAST, *rate].map(|rate| (rate / 1024).max(1).to_string());
                self.set(array(), "sync_speed_min", &least, "limiting")?;
                self.set(array(), "sync_speed_max", &most, "limiting")
            }
            Step::Stop => seen
                .array
                .iter()
                .try_for_each(|found| self.take_down(found)),
        }
    }

    /// Takes an array down, and what a tool that was killed has begun to put together of these devices; what was written to it is on its
    /// legs. Done already where there is nothing.
    ///
    /// # Errors
    /// [`ArrayError::Busy`] while somebody has its device open.
    pub fn stop(&self, array: Uuid, devices: &[PathBuf]) -> Result<(), ArrayError> {
        let names: Vec<String> = devices.iter().map(|device| kernel_name(device)).collect();
        let begun = |found: &Running| {
            !found.started() && names.iter().any(|name| found.member(name).is_some())
        };
        for found in self.all() {
            if found.is_of(array) || begun(&found) {
                self.take_down(&found)?;
            }
        }
        Ok(())
    }

    /// The kernel's names of our numbers, with an array or without.
    fn names(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.host.block()) else {
            return Vec::new();
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| is_ours(name)).collect();
        names.sort();
        names
    }

    /// Whether a number has no array. One that a tool which was killed has left so is taken again, and goes with its array: to ask the
    /// kernel to take it away would mean to open it, which makes a number that is just going anew.
    fn is_free(&self, name: &str) -> bool {
        Running::read(&self.host.block(), name).is_none()
    }

    /// The name of an array that is not there yet.
    pub(crate) fn free_number(&self) -> String {
        let mut names = (FIRST..END).map(|number| format!("md{number}"));
        let free = names.find(|name| self.is_free(name));
        free.unwrap_or_else(|| format!("md{FIRST}"))
    }

    pub(crate) fn member(
        &self,
        array: &str,
        member: &str,
        word: &'static str,
    ) -> Result<(), ArrayError> {
        self.set(
            array,
            &format!("dev-{member}/state"),
            word,
            "taking a leg out",
        )
    }

    /// Writes an attribute of an array; one that is gone was done already.
    pub(crate) fn set(
        &self,
        array: &str,
        attribute: &str,
        value: &str,
        what: &'static str,
    ) -> Result<(), ArrayError> {
        let path = self.host.block().join(array).join("md").join(attribute);
        let written = OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut file| file.write_all(value.as_bytes()));
        match written {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) if error.raw_os_error() == Some(EBUSY) => Err(ArrayError::Busy {
                array: array.to_owned(),
                what,
            }),
            other => other.map_err(ArrayError::io("writing", &path)),
        }
    }

    /// What the kernel says of a block device, which may be gone.
    fn number_of(&self, name: &str, attribute: &str) -> Option<u64> {
        let home = self.host.sys.join("class/block").join(name);
        let text = fs::read_to_string(home.join(attribute)).ok()?;
        text.trim().parse().ok()
    }
}

fn is_ours(name: &str) -> bool {
    let number = name
        .strip_prefix("md")
        .and_then(|number| number.parse().ok());
    number.is_some_and(|number| (FIRST..END).contains(&number))
}

/// What is at the start of a leg, past the page cache: the array that had it wrote around that.
fn content(device: &Path) -> io::Result<Content> {
    let aligned = 4096;
    let mut memory = vec![0; OFFSET + LENGTH + aligned];
    let start = memory.as_ptr().align_offset(aligned);
    let bytes = &mut memory[start..start + OFFSET + LENGTH];
    let read = |bytes: &mut [u8]| {
        let mut file: File = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::DIRECT.bits().cast_signed())
            .open(device)?;
        file.seek(SeekFrom::Start(0))?;
        file.read_exact(bytes)
    };
    read(bytes)?;
    Ok(match Superblock::read(&bytes[OFFSET..]) {
        Some(superblock) => Content::Member(superblock),
        None if bytes.iter().all(|byte| *byte == 0) => Content::Blank,
        None => Content::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_numbers_are_nobody_elses() {
        assert!(is_ours("md1000") && is_ours("md1999"));
        let others = ["md0", "md127", "md2000", "md1000p1", "sda"];
        assert!(others.iter().all(|name| !is_ours(name)));
    }
}
