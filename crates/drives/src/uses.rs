//! Who uses a drive on this machine: mounts in every mount namespace, swap, devices on top, open descriptors, pods.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;
use strand_placement::verdict::Use;

use crate::config::Roots;
use crate::identity::{MediumKind, SeenDrive};
use crate::ioctl;
use crate::sysfs;

/// What is known under which names a drive may be used.
struct Target {
    /// Numbers and names of the block devices that lead to the drive: itself, its partitions, loop devices over either.
    devices: BTreeMap<u64, String>,
    /// Device and inode of the file that a stand-in is, or that the loop device lies on.
    file: Option<(u64, u64)>,
    /// Whether what cannot be looked at counts. A stand-in is its developer's own, who need not be root.
    strict: bool,
}

/// The uses found, and what could not be looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Uses {
    pub(crate) found: Vec<Use>,
    pub(crate) unseen: Vec<String>,
}

/// Looks for every use of a drive. `own` is the descriptor that the looker itself has open on it.
pub(crate) fn find(roots: &Roots, drive: &SeenDrive, own: &File) -> Uses {
    let mut uses = Uses::default();
    let mut target = Target::new(roots, drive);
    add_loops(roots, &mut target, &mut uses);
    add_holders(roots, &target, &mut uses);
    add_swaps(roots, &target, &mut uses);
    add_processes(roots, &target, own, &mut uses);
    add_kubelet_volumes(roots, &target, &mut uses);
    uses.found.sort();
    uses.found.dedup();
    uses
}

impl Target {
    fn new(roots: &Roots, drive: &SeenDrive) -> Target {
        let (device, file) = match drive.medium {
            MediumKind::Nvme { device } => (Some(device), None),
            MediumKind::Loop {
                device,
                backing_device,
                backing_inode,
            } => (Some(device), Some((backing_device, backing_inode))),
            MediumKind::File { device, inode } => (None, Some((device, inode))),
        };
        let mut target = Target {
            devices: BTreeMap::new(),
            file,
            strict: !drive.stand_in,
        };
        if let Some(device) = device {
            target.add_device(roots, device, sysfs::device_name(&drive.path));
        }
        target
    }

    fn add_device(&mut self, roots: &Roots, device: u64, name: String) {
        for partition in sysfs::partitions(&roots.sys, &name) {
            self.devices.insert(partition.device, partition.name);
        }
        self.devices.insert(device, name);
    }

    /// Whether a path leads to the drive.
    fn is_at(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|metadata| {
            if metadata.file_type().is_block_device() {
                self.devices.contains_key(&metadata.rdev())
            } else {
                self.file == Some((metadata.dev(), metadata.ino()))
            }
        })
    }

    /// Whether a `/dev` path names one of the devices, as some mount table writes it.
    fn is_named(&self, source: &str) -> bool {
        source
            .strip_prefix("/dev/")
            .is_some_and(|name| self.devices.values().any(|device| device == name))
    }
}

/// Loop devices over the drive's file or devices, and loop devices over those.
fn add_loops(roots: &Roots, target: &mut Target, uses: &mut Uses) {
    let mut candidates: Vec<String> = sysfs::names(&roots.sys.join("class/block"))
        .into_iter()
        .filter(|name| {
            roots
                .sys
                .join("class/block")
                .join(name)
                .join("loop/backing_file")
                .exists()
        })
        .collect();
    loop {
        let before = candidates.len();
        candidates.retain(|name| {
            let Some(device) = sysfs::device_number(&roots.sys, name) else {
                return false;
            };
            if target.devices.contains_key(&device) {
                return false;
            }
            let path = roots.dev.join(name);
            let backing = match File::open(&path).and_then(|file| ioctl::loop_backing(&file)) {
                Ok(backing) => backing,
                // Detached since it was listed.
                Err(error) if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => {
                    return false;
                }
                Err(error) => {
                    if target.strict && !(target.file.is_none() && lies_in_a_lost_file(roots, name))
                    {
                        uses.unseen
                            .push(format!("what {} lies on ({error})", path.display()));
                    }
                    return false;
                }
            };
            let over_file = target.file == Some((backing.device, backing.inode));
            let over_device =
                backing.block_device != 0 && target.devices.contains_key(&backing.block_device);
            if over_file || over_device {
                uses.found.push(Use::Held {
                    by: path.display().to_string(),
                });
                target.add_device(roots, device, name.clone());
            }
            !(over_file || over_device)
        });
        if candidates.len() == before {
            return;
        }
    }
}

/// Whether what a loop device lies on is a file of a file system that was shut down, as one is whose drive was pulled: it has not even
/// the file's number to tell, for as long as somebody has the loop device. To open a block device asks nothing of the file system that
/// its node lies in.
fn lies_in_a_lost_file(roots: &Roots, name: &str) -> bool {
    let told = roots
        .sys
        .join("class/block")
        .join(name)
        .join("loop/backing_file");
    let Ok(backing) = fs::read_to_string(told) else {
        return false;
    };
    let opened = File::options()
        .read(true)
        .custom_flags(
            OFlags::NONBLOCK
                .union(OFlags::NOFOLLOW)
                .bits()
                .cast_signed(),
        )
        .open(backing.trim_end_matches('\n'));
    opened.is_err_and(|error| error.raw_os_error() == Some(Errno::IO.raw_os_error()))
}

/// Devices that the kernel knows to lie on the drive: md, device-mapper, bcache.
fn add_holders(roots: &Roots, target: &Target, uses: &mut Uses) {
    for name in target.devices.values() {
        for holder in sysfs::names(&roots.sys.join("class/block").join(name).join("holders")) {
            uses.found.push(Use::Held {
                by: format!("/dev/{holder}"),
            });
        }
    }
}

fn add_swaps(roots: &Roots, target: &Target, uses: &mut Uses) {
    match fs::read_to_string(roots.proc.join("swaps")) {
        Ok(swaps) => {
            for line in swaps.lines().skip(1) {
                let device = unescape(line.split_whitespace().next().unwrap_or_default());
                if target.is_named(&device) || target.is_at(Path::new(&device)) {
                    uses.found.push(Use::Swap { device });
                }
            }
        }
        Err(error) => uses.unseen.push(format!("the swap devices ({error})")),
    }
}

/// Mounts and open descriptors, process by process: a mount may be in any mount namespace.
fn add_processes(roots: &Roots, target: &Target, own: &File, uses: &mut Uses) {
    let processes = match fs::read_dir(&roots.proc) {
        Ok(processes) => processes,
        Err(error) => return uses.unseen.push(format!("the processes ({error})")),
    };
    let me = fs::read_link(roots.proc.join("self")).ok();
    let is_process = |name: &OsString| {
        name.to_str()
            .is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let mut pending: Vec<OsString> = processes
        .flatten()
        .map(|process| process.file_name())
        .filter(is_process)
        .collect();
    let mut namespaces = BTreeSet::new();
    // A process that is about to end refuses to be looked into; by the second round it has ended.
    for _ in 0..2 {
        pending.retain(|process| {
            let directory = roots.proc.join(process);
            let own = (me.as_deref() == Some(Path::new(process))).then_some(own);
            let looked = add_mounts(&directory, target, &mut namespaces, uses)
                .and_then(|()| add_descriptors(&directory, target, own, uses));
            looked.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
        });
    }
    if !pending.is_empty() && target.strict {
        let count = pending.len();
        uses.unseen.push(format!(
            "what {count} processes have open (the agent needs root and the host's processes)"
        ));
    }
}

/// proc(5), mountinfo: fields 3 device, 4 root, 5 mount point; behind the separator the file system and its source.
fn add_mounts(
    process: &Path,
    target: &Target,
    namespaces: &mut BTreeSet<PathBuf>,
    uses: &mut Uses,
) -> io::Result<()> {
    if !namespaces.insert(fs::read_link(process.join("ns/mnt"))?) {
        return Ok(());
    }
    for line in fs::read_to_string(process.join("mountinfo"))?.lines() {
        let Some((mount, source)) = line.split_once(" - ") else {
            continue;
        };
        let fields: Vec<&str> = mount.split(' ').collect();
        let (&[_, _, device, root, at, ..], [kind, source, ..]) = (
            fields.as_slice(),
            &source.split(' ').collect::<Vec<_>>()[..],
        ) else {
            continue;
        };
        let source = unescape(source);
        let by_number = sysfs::parse_device(device).and_then(|number| target.devices.get(&number));
        // btrfs and others mount under an anonymous number. A device node bound somewhere shows as the node's path in devtmpfs.
        let by_source = target.is_named(&source).then_some(&source);
        let bound = (*kind == "devtmpfs" && root != "/" && target.is_named(&format!("/dev{root}")))
            .then_some(());
        if let Some(name) = by_number.or(by_source) {
            let device = format!("/dev/{}", name.trim_start_matches("/dev/"));
            uses.found.push(Use::Mounted {
                device,
                at: unescape(at),
            });
        } else if bound.is_some() {
            uses.found.push(Use::Mounted {
                device: format!("/dev{root}"),
                at: unescape(at),
            });
        }
    }
    Ok(())
}

fn add_descriptors(
    process: &Path,
    target: &Target,
    own: Option<&File>,
    uses: &mut Uses,
) -> io::Result<()> {
    for descriptor in fs::read_dir(process.join("fd"))?.flatten() {
        let number = descriptor.file_name();
        let is_own = own.is_some_and(|own| number.to_str() == Some(&own.as_raw_fd().to_string()));
        if !is_own && target.is_at(&descriptor.path()) {
            let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
            let pid = sysfs::device_name(process).parse().unwrap_or_default();
            uses.found.push(Use::Open {
                pid,
                process: name.trim().to_owned(),
            });
            break;
        }
    }
    Ok(())
}

/// Raw block volumes: device nodes, links and bound files under a `volumeDevices` directory of the kubelet, for pods
/// (`pods/<uid>/volumeDevices`) and for drivers (`plugins/…/volumeDevices`).
fn add_kubelet_volumes(roots: &Roots, target: &Target, uses: &mut Uses) {
    let mut pending = vec![
        (roots.kubelet.join("pods"), 2, false),
        (roots.kubelet.join("plugins"), 4, false),
    ];
    while let Some((directory, depth, inside)) = pending.pop() {
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && target.strict => {
                uses.unseen
                    .push(format!("{} ({error})", directory.display()));
                continue;
            }
            Err(_) => continue,
        };
        for entry in entries.flatten() {
            let path = entry.path();
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if inside && !is_directory && target.is_at(&path) {
                uses.found.push(Use::KubeletBlockVolume {
                    path: path.display().to_string(),
                });
            }
            let enters = entry.file_name() == "volumeDevices";
            // Volumes that are mounted below must not be walked through.
            let is_mount = matches!(
                entry.file_name().to_str(),
                Some("volumes" | "mount" | "mounts" | "globalmount")
            );
            if is_directory && (enters || depth > 1) && (inside || !is_mount) {
                pending.push((path, if enters { 5 } else { depth - 1 }, inside || enters));
            }
        }
    }
}

/// Undoes the octal escapes of the kernel's tables: `\040` is a space.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let octal = after
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
