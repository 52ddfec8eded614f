//! Reading sysfs: block devices, their partitions, and NVMe controllers.

use std::fs;
use std::path::Path;

use rustix::fs::makedev;
use strand_fabric::Nqn;
use strand_placement::carve::Geometry;
use strand_placement::verdict::Transport;

use crate::config::Roots;
use crate::identity::{DriveKey, MediumKind, SeenDrive};

/// The block layer's unit in sysfs, whatever a device's block size is.
const SECTOR: u64 = 512;

/// A partition that the kernel knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KnownPartition {
    pub(crate) number: u32,
    pub(crate) name: String,
    pub(crate) device: u64,
    /// First byte.
    pub(crate) start: u64,
    /// Bytes.
    pub(crate) len: u64,
}

/// Names in a directory, sorted; none where it is not there.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// A file's text without the padding around it; none where it is missing or empty.
pub(crate) fn text(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

fn number(path: &Path) -> Option<u64> {
    text(path)?.parse().ok()
}

/// The kernel's name of a device node.
pub(crate) fn device_name(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// `major:minor` as one number.
pub(crate) fn parse_device(text: &str) -> Option<u64> {
    let (major, minor) = text.trim().split_once(':')?;
    Some(makedev(major.parse().ok()?, minor.parse().ok()?))
}

/// The number of a block device.
pub(crate) fn device_number(sys: &Path, name: &str) -> Option<u64> {
    parse_device(&text(&sys.join("class/block").join(name).join("dev"))?)
}

/// The partitions that the kernel knows of a block device, by number.
pub(crate) fn partitions(sys: &Path, name: &str) -> Vec<KnownPartition> {
    let device = sys.join("class/block").join(name);
    let partition = |child: String| {
        let directory = device.join(&child);
        Some(KnownPartition {
            number: u32::try_from(number(&directory.join("partition"))?).ok()?,
            device: parse_device(&text(&directory.join("dev"))?)?,
            start: number(&directory.join("start"))? * SECTOR,
            len: number(&directory.join("size"))? * SECTOR,
            name: child,
        })
    };
    let mut partitions: Vec<KnownPartition> =
        names(&device).into_iter().filter_map(partition).collect();
    partitions.sort_by_key(|partition| partition.number);
    partitions
}

/// The kernel's count of everything that changes a block device: writes and sectors written, discards and sectors discarded
/// (Documentation/block/stat.rst, fields 5, 7, 12, 14).
pub(crate) fn write_counters(sys: &Path, name: &str) -> Option<[u64; 4]> {
    let stat = text(&sys.join("class/block").join(name).join("stat"))?;
    let fields: Vec<u64> = stat
        .split_whitespace()
        .filter_map(|field| field.parse().ok())
        .collect();
    let field = |index: usize| fields.get(index).copied().unwrap_or(0);
    (fields.len() >= 7).then(|| [field(4), field(6), field(11), field(13)])
}

/// Whether the kernel refuses writes to a block device.
pub(crate) fn is_read_only(sys: &Path, name: &str) -> bool {
    number(&sys.join("class/block").join(name).join("ro")) == Some(1)
}

/// Sizes of a block device, in bytes. The optimal write size is the queue's, which the NVMe driver takes from the namespace's NOWS
/// (`optimal_io_size`) and NPWG (`minimum_io_size`); 0 where it says no more than the block size.
pub(crate) fn geometry(sys: &Path, name: &str) -> Option<Geometry> {
    let device = sys.join("class/block").join(name);
    let queue = |limit: &str| {
        number(&device.join("queue").join(limit)).and_then(|value| u32::try_from(value).ok())
    };
    let logical_block = queue("logical_block_size").unwrap_or(512);
    let optimal = [queue("optimal_io_size"), queue("minimum_io_size")];
    let optimal_write = optimal
        .into_iter()
        .flatten()
        .find(|size| *size > logical_block)
        .unwrap_or(0);
    Some(Geometry {
        size: number(&device.join("size"))? * SECTOR,
        logical_block,
        optimal_write,
    })
}

/// The NVMe namespaces of this machine. Hidden path devices of multipath (`nvme0c1n1`) and partitions are not drives, nor are legs of
/// volumes on other nodes, which come and go.
pub(crate) fn nvme_drives(roots: &Roots) -> Vec<SeenDrive> {
    names(&roots.sys.join("class/block"))
        .iter()
        .filter(|name| is_namespace(name) && !is_leg(roots, name))
        .filter_map(|name| nvme_drive(roots, name))
        .collect()
}

/// `nvme<controller or subsystem>n<namespace>`.
pub(crate) fn is_namespace(name: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    name.strip_prefix("nvme")
        .and_then(|rest| rest.split_once('n'))
        .is_some_and(|(owner, id)| digits(owner) && digits(id))
}

/// Whether a namespace is one that another node's agent exports.
fn is_leg(roots: &Roots, name: &str) -> bool {
    let owner = roots.sys.join("class/block").join(name).join("device");
    text(&owner.join("subsysnqn")).is_some_and(|nqn| nqn.parse::<Nqn>().is_ok())
}

fn nvme_drive(roots: &Roots, name: &str) -> Option<SeenDrive> {
    let block = roots.sys.join("class/block").join(name);
    // A controller's directory, or with native multipath the subsystem's, which links its controllers.
    let owner = block.join("device");
    let controller = match text(&owner.join("transport")) {
        Some(_) => owner.clone(),
        None => names(&owner)
            .iter()
            .find(|name| is_controller(name))
            .map_or_else(|| owner.clone(), |name| owner.join(name)),
    };
    let transport = match text(&controller.join("transport")).as_deref() {
        Some("pcie") => Transport::Pcie,
        Some(name @ ("tcp" | "rdma" | "fc" | "loop")) => Transport::Fabric { name: name.into() },
        other => Transport::Unknown {
            name: other.unwrap_or_default().into(),
        },
    };
    let numa_node = text(&controller.join("numa_node")).and_then(|node| node.parse().ok());
    let namespace =
        text(&block.join("nsid")).or_else(|| name.rsplit('n').next().map(str::to_owned));
    Some(SeenDrive {
        key: DriveKey {
            model: text(&owner.join("model"))?,
            serial: text(&owner.join("serial"))?,
            namespace: namespace?.parse().ok()?,
        },
        path: roots.dev.join(name),
        medium: MediumKind::Nvme {
            device: device_number(&roots.sys, name)?,
        },
        geometry: geometry(&roots.sys, name)?,
        pci_address: text(&controller.join("address")).filter(|_| transport == Transport::Pcie),
        transport,
        wwid: text(&block.join("wwid")),
        firmware: text(&owner.join("firmware_rev")),
        numa_node,
        stand_in: false,
    })
}

fn is_controller(name: &str) -> bool {
    name.strip_prefix("nvme")
        .is_some_and(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The controllers of the subsystem that a namespace belongs to; none where this kernel does not tell.
pub(crate) fn controllers(sys: &Path, name: &str) -> Vec<String> {
    let owner = sys.join("class/block").join(name).join("device");
    let in_directory = |directory: &Path| {
        names(directory)
            .into_iter()
            .filter(|name| is_controller(name))
            .collect::<Vec<_>>()
    };
    let listed = in_directory(&owner);
    if !listed.is_empty() {
        return listed;
    }
    let Some(controller) = fs::canonicalize(&owner).ok().map(|path| device_name(&path)) else {
        return Vec::new();
    };
    let subsystems = sys.join("class/nvme-subsystem");
    let siblings = names(&subsystems)
        .into_iter()
        .map(|subsystem| in_directory(&subsystems.join(subsystem)));
    siblings
        .into_iter()
        .find(|members| members.contains(&controller))
        .unwrap_or_default()
}
