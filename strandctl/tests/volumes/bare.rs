//! A drive in the hands of an administrator who has nothing but docs/storage.md: what it says there is done, word by word.

use crate::bytes;
use crate::calls::{Calls, From, Kind};
use crate::rack::{Rack, entries, until};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const DOCS: &str = include_str!("../../../docs/storage.md");
const BYTES: usize = 8 << 20;

/// The command in the docs that starts so, with our paths in the place of the docs'. It stands on a line of its own or in backticks.
fn documented(start: &str, paths: &[(&str, &str)]) -> String {
    let at = DOCS
        .find(start)
        .unwrap_or_else(|| panic!("the docs have no {start:?}"));
    let rest = &DOCS[at..];
    let end = rest.find(['\n', '`', '#']).unwrap();
    let command = rest[..end].trim().to_owned();
    paths.iter().fold(command, |command, (theirs, ours)| {
        assert!(command.contains(theirs), "{command}: no {theirs}");
        command.replace(theirs, ours)
    })
}

/// Whether a command of the docs is carried out, and what it says.
fn run(command: &str) -> (bool, String) {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

/// Something that is mounted, until it is dropped.
pub struct Mounted(tempfile::TempDir);

impl Mounted {
    /// Carries out a command of the docs that mounts something at `place`.
    fn by(start: &str, place: &str, paths: &[(&str, &str)]) -> Result<Mounted, String> {
        let mounted = Mounted(tempfile::tempdir().unwrap());
        let at = mounted.path().to_str().unwrap().to_owned();
        let command = documented(start, &[paths, &[(place, &at)]].concat());
        match run(&command) {
            (true, _) => Ok(mounted),
            (false, said) => Err(format!("{command}: {said}")),
        }
    }

    /// The storage side of a drive that is a plain file, for writing too.
    pub fn side(drive: &Path) -> Mounted {
        let mounted = Mounted(tempfile::tempdir().unwrap());
        let (drive, at) = (drive.display(), mounted.path().display());
        let (done, said) = run(&format!("mount -o loop,offset=1048576 {drive} {at}"));
        assert!(done, "{said}");
        mounted
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Nothing is there where a mount was refused.
        let _ = Command::new("umount")
            .arg("--quiet")
            .arg(self.path())
            .output();
    }
}

/// The device of a storage partition in a file, until it is dropped.
struct Plugged(String);

impl Plugged {
    fn new(file: &Path) -> Plugged {
        let file = file.to_str().unwrap();
        let (done, said) = run(&documented("losetup", &[("drive.img", file)]));
        assert!(done, "{said}");
        Plugged(said.trim().to_owned())
    }
}

impl Drop for Plugged {
    fn drop(&mut self) {
        // Whatever comes of it, the test has ended.
        let _ = Command::new("losetup").args(["-d", &self.0]).output();
    }
}

/// The data of each volume's leg, and its mode, by what the records say.
fn legs(side: &Mounted) -> BTreeMap<String, (PathBuf, String)> {
    let at = side.path().to_str().unwrap();
    let (done, said) = run(&documented("cat /mnt/side", &[("/mnt/side", at)]));
    assert!(done, "{said}");
    let records = serde_json::Deserializer::from_str(&said).into_iter::<Value>();
    let leg = |record: Result<Value, _>| {
        let record: Value = record.unwrap();
        let word = |key: &str| record[key].as_str().unwrap().to_owned();
        let data = side.path().join("legs").join(word("name")).join("data");
        (word("volume"), (data, word("mode")))
    };
    records.map(leg).collect()
}

fn mount_leg(start: &str, data: &Path) -> Result<Mounted, String> {
    mount_with(start, "ro,loop", data)
}

/// The same, with other options than the command has.
fn mount_with(start: &str, options: &str, data: &Path) -> Result<Mounted, String> {
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let leg = data.parent().unwrap();
    let (side, name) = (
        text(leg.parent().unwrap().parent().unwrap()),
        text(leg.file_name().unwrap().as_ref()),
    );
    Mounted::by(
        start,
        "/mnt/volume",
        &[("/mnt/side", &side), ("NAME", &name), ("ro,loop", options)],
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bare_drive_gives_its_bytes_back_by_what_the_docs_say() {
    let mut rack = Rack::new();
    rack.up(&["--drives", "1", "--drive-size", "8Gi"]);
    let calls = Calls::to(&rack);
    let mut volumes = Vec::new();
    for (seed, kind) in [Kind::Xfs, Kind::Ext4, Kind::Block, Kind::Xfs, Kind::Ext4]
        .into_iter()
        .enumerate()
    {
        let name = format!("v{seed}");
        let volume = calls.create(&name, kind, 320, &[], From::Nothing);
        volumes.push(volume.await);
        bytes::write(&calls.mount(&volumes[seed]).await, seed as u64, BYTES).unwrap();
    }
    for volume in &volumes[..3] {
        calls.unmount(volume).await;
    }
    // What a power cut leaves: two are in use, and all that was written to them is flushed.
    let drive = entries(&rack.path("nodes/node-1/drives")).remove(0);
    let bare = rack.beside("drive.img");
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (done, said) = run(&format!(
        "cp --sparse=always {} {}",
        text(&drive),
        text(&bare)
    ));
    assert!(done, "{said}");
    for volume in &volumes[3..] {
        calls.unmount(volume).await;
    }
    rack.ends_with_nothing_left();

    let plugged = Plugged::new(&bare);
    let paths = [("/dev/nvme3n1p1", &*plugged.0)];
    let side = Mounted::by("mount -o ro /dev", "/mnt/side", &paths).unwrap();
    let found = legs(&side);
    assert_eq!(found.len(), 5);

    let only = "mount -o ro,loop /mnt/side";
    for (seed, volume) in volumes.iter().enumerate() {
        let (data, mode) = &found[&volume.id];
        assert_eq!(mode == "block", volume.kind == Kind::Block);
        if volume.kind == Kind::Block {
            bytes::check(data, seed as u64, BYTES);
            continue;
        }
        if seed < 3 {
            let mounted = mount_leg(only, data).unwrap();
            bytes::check(&mounted.path().join("file"), seed as u64, BYTES);
            continue;
        }
        let refused = mount_leg(only, data)
            .err()
            .expect("its log has to be replayed");
        assert!(refused.contains("mount"), "{refused}");
        // In a hurry: what is shown is not all.
        let options = match volume.kind {
            Kind::Xfs => documented("ro,loop,norecovery", &[]),
            _ => documented("ro,loop,noload", &[]),
        };
        drop(mount_with(only, &options, data).unwrap());
        let copy = rack.beside("copy");
        let leg = text(data.parent().unwrap().file_name().unwrap().as_ref());
        let paths = [
            ("/mnt/side", &*text(side.path())),
            ("NAME", &leg),
            ("/elsewhere/data", &text(&copy)),
        ];
        let (done, said) = run(&documented("cp --sparse=always", &paths));
        assert!(done, "{said}");
        let start = match volume.kind {
            Kind::Xfs => "mount -o loop,nouuid",
            _ => "mount -o loop /elsewhere",
        };
        let paths = [("/elsewhere/data", &*text(&copy))];
        let mounted = Mounted::by(start, "/mnt/volume", &paths).unwrap();
        bytes::check(&mounted.path().join("file"), seed as u64, BYTES);
        drop(mounted);
        fs::remove_file(copy).unwrap();
    }
    drop(side);
    drop(plugged);
    until("nothing is mounted", async || {
        rack.mounts().is_empty() && rack.loops().is_empty()
    })
    .await;
}
