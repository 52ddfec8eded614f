//! Putting arrays for reading together through sysfs (linux Documentation/admin-guide/md.rst): md is told everything, reads no superblock
//! and writes none.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::sync::PoisonError;

use crate::arrays::{Arrays, EBUSY};
use crate::error::ArrayError;
use crate::readers::{Part, Reading};
use crate::running::{MemberState, Running, mark};
use crate::wanted::{Wanted, kernel_name};

impl Arrays {
    /// Puts an array for reading together. It is marked before it holds anything, so that what is left of one that was broken off is found.
    pub(crate) fn read(&self, wanted: &Wanted, reading: &Reading) -> Result<(), ArrayError> {
        let _held = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        let name = self.free_number();
        self.make_number(&name)?;
        let put = |attribute: &str, value: &str| self.put(&name, attribute, value);
        put(
            "metadata_version",
            &format!("external:{}", mark(wanted.array)),
        )?;
        put("raid_disks", &reading.places.to_string())?;
        put("level", reading.level)?;
        put("layout", &reading.layout.to_string())?;
        put("chunk_size", &reading.chunk.to_string())?;
        if let Some(component) = reading.component {
            put("component_size", &kib(component))?;
        }
        for part in &reading.parts {
            let member = self.bind(&name, part)?;
            put(&format!("{member}/slot"), &part.slot.to_string())?;
        }
        if let Some(size) = reading.size {
            put("array_size", &kib(size))?;
        }
        // Nothing is to be made equal: all are.
        put("resync_start", "none")?;
        put("array_state", "readonly").map_err(|error| self.without_module(reading.level, error))
    }

    /// Takes a leg back into an array for reading. md reads from a leg up to where it says that it was copied to, but would take one that was
    /// not copied to out again, and begin with it from the start; what is blocked it leaves alone, and only writes wait for that.
    pub(crate) fn take_in(&self, array: &str, part: &Part) -> Result<(), ArrayError> {
        let member = self.bind(array, part)?;
        self.put(array, &format!("{member}/recovery_start"), "none")?;
        self.put(array, &format!("{member}/state"), "blocked")?;
        self.put(array, &format!("{member}/slot"), &part.slot.to_string())
    }

    /// Gives up a member. md answers that it is busy where more than it needs are gone, and has given it up all the same.
    pub(crate) fn fail(&self, array: &str, member: &str) -> Result<(), ArrayError> {
        let failed = self.member(array, member, "faulty");
        let is_out = || {
            let found = Running::read(&self.host.block(), array)?;
            Some(found.member(member)?.state == MemberState::Faulty)
        };
        match failed {
            Err(ArrayError::Busy { .. }) if is_out() == Some(true) => Ok(()),
            failed => failed,
        }
    }

    /// Adds a leg, without a place; what its entry is called.
    fn bind(&self, array: &str, part: &Part) -> Result<String, ArrayError> {
        let name = kernel_name(&part.device);
        let number = self.host.sys.join("class/block").join(&name).join("dev");
        let number = fs::read_to_string(&number).map_err(ArrayError::io("reading", &number))?;
        self.put(array, "new_dev", number.trim())?;
        let member = format!("dev-{name}");
        self.put(
            array,
            &format!("{member}/offset"),
            &(part.offset / 512).to_string(),
        )?;
        self.put(array, &format!("{member}/size"), &kib(part.data))?;
        Ok(member)
    }

    /// Has the kernel make a number that it does not have.
    fn make_number(&self, name: &str) -> Result<(), ArrayError> {
        if self.host.block().join(name).join("md").exists() {
            return Ok(());
        }
        let path = self.host.sys.join("module/md_mod/parameters/new_array");
        match write(&path, name) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(ArrayError::NoModule { module: "md_mod" })
            }
            made => made.map_err(ArrayError::io("writing", &path)),
        }
    }

    /// Writes an attribute of an array that has to be there.
    fn put(&self, array: &str, attribute: &str, value: &str) -> Result<(), ArrayError> {
        let path = self.host.block().join(array).join("md").join(attribute);
        match write(&path, value) {
            Err(error) if error.raw_os_error() == Some(EBUSY) => Err(ArrayError::Busy {
                array: array.to_owned(),
                what: "putting it together",
            }),
            put => put.map_err(ArrayError::io("writing", &path)),
        }
    }
}

/// The kernel takes sizes in KiB.
fn kib(bytes: u64) -> String {
    (bytes / 1024).to_string()
}

fn write(path: &Path, value: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.write_all(value.as_bytes())
}
