//! What mdadm is asked for.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::PoisonError;

use uuid::Uuid;

use crate::arrays::Arrays;
use crate::error::ArrayError;
use crate::running::{Running, State};
use crate::wanted::{Level, Wanted};

/// What mdadm says of an array that somebody has open.
const IN_USE: &str = "Perhaps a running process";

impl Arrays {
    /// Of an array that is read-only, the kernel takes `clear` also while somebody has it open (linux 6.12, `array_state_store` of
    /// drivers/md/md.c); what mdadm asks it for, it does not.
    pub(crate) fn take_down(&self, found: &Running) -> Result<(), ArrayError> {
        let what = "stopping";
        if found.state != State::ReadOnly {
            return self.set(&found.name, "array_state", "clear", what);
        }
        match self.mdadm(&["--stop", &found.device().display().to_string()]) {
            Err(ArrayError::Tool { said, .. }) if said.contains(IN_USE) => Err(ArrayError::Busy {
                array: found.name.clone(),
                what,
            }),
            stopped => stopped,
        }
    }

    pub(crate) fn create(&self, wanted: &Wanted, legs: &[PathBuf]) -> Result<(), ArrayError> {
        let _held = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        let node = format!("/dev/{}", self.free_number());
        let geometry = &wanted.geometry;
        let mut arguments = vec![
            "--create".to_owned(),
            node,
            format!("--level={}", wanted.level.name()),
            format!("--raid-devices={}", legs.len()),
            format!("--uuid={}", tool_uuid(wanted.array)),
            format!("--name={}", name(&wanted.name)),
            format!("--data-offset={}K", geometry.data_offset / 1024),
            "--metadata=1.2".into(),
            "--homehost=strand".into(),
            // Legs are blank, which is in sync for every level; and it shall not ask.
            "--assume-clean".into(),
            "--run".into(),
        ];
        if wanted.level.bitmap() {
            arguments.push(format!("--size={}K", geometry.data / 1024));
            arguments.push("--bitmap=internal".into());
            arguments.push(format!("--bitmap-chunk={}K", geometry.bitmap_chunk / 1024));
        }
        if wanted.level != Level::Mirror {
            arguments.push(format!("--chunk={}K", geometry.chunk / 1024));
        }
        arguments.extend(legs.iter().map(|leg| leg.display().to_string()));
        self.mdadm(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
            .map_err(|error| self.without_module(wanted.level.name(), error))
    }

    pub(crate) fn assemble(&self, wanted: &Wanted, legs: &[PathBuf]) -> Result<(), ArrayError> {
        let _held = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        let node = format!("/dev/{}", self.free_number());
        let mut arguments = vec![
            "--assemble".to_owned(),
            node,
            format!("--uuid={}", tool_uuid(wanted.array)),
            // Also with fewer legs than last time: these are all that the volume's record has as in. Without --force, mdadm and the
            // kernel still leave out what is stale, and do not start a dirty raid6 that lacks legs.
            "--run".into(),
        ];
        if wanted.read_only {
            arguments.push("--readonly".into());
        }
        arguments.extend(legs.iter().map(|leg| leg.display().to_string()));
        self.mdadm(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
            .map_err(|error| self.without_module(wanted.level.name(), error))
    }

    pub(crate) fn mdadm(&self, arguments: &[&str]) -> Result<(), ArrayError> {
        let mut command = Command::new("mdadm");
        // The mode comes first; managing an array and growing it go by no configuration.
        let (mode, rest) = arguments.split_at(1);
        command.args(mode);
        if !matches!(mode, ["--manage" | "--grow"]) {
            command.arg("--config").arg(self.host.config());
        }
        let output = command
            .args(rest)
            // Nodes are the kernel's, with udev or without.
            .env("MDADM_NO_UDEV", "1")
            .stdin(Stdio::null())
            .output()
            .map_err(ArrayError::NoTool)?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stderr, output.stdout].concat();
        Err(ArrayError::Tool {
            what: arguments.join(" "),
            said: format!(
                "{}: {}",
                output.status,
                String::from_utf8_lossy(&said).trim()
            ),
        })
    }

    /// What mdadm and the kernel say without a level's module does not name it.
    pub(crate) fn without_module(&self, level: &str, error: ArrayError) -> ArrayError {
        if !self.host.has_md() {
            return ArrayError::NoModule { module: "md_mod" };
        }
        let known = fs::read_to_string("/proc/mdstat").unwrap_or_default();
        match known.contains(&format!("[{level}]")) {
            true => error,
            false => ArrayError::NoModule {
                module: module(level),
            },
        }
    }
}

/// The kernel module that has a level.
fn module(level: &str) -> &'static str {
    match level {
        "raid0" => "raid0",
        "raid1" => "raid1",
        _ => "raid456",
    }
}

/// As mdadm reads it: the same bytes, in four words.
fn tool_uuid(uuid: Uuid) -> String {
    let text = uuid.simple().to_string();
    let words: Vec<&str> = [0, 8, 16, 24].map(|at| &text[at..at + 8]).into();
    words.join(":")
}

/// A name has 32 bytes at most, the host's and a colon included.
fn name(volume: &str) -> String {
    volume.chars().filter(char::is_ascii).take(24).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_mdadm_takes() {
        let uuid = Uuid::from_u128(0x0123_4567_89ab_4def_8123_4567_89ab_cdef);
        assert_eq!(tool_uuid(uuid), "01234567:89ab4def:81234567:89abcdef");
        assert!("strand:".len() + name(&"pvc-".repeat(20)).len() <= 32);
    }
}
