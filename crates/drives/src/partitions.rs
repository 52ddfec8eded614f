//! Partition devices: telling the kernel what the label says, and finding the way to each partition.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use strand_placement::carve::Layout;

use crate::config::Roots;
use crate::held::Held;
use crate::identity::Partition;
use crate::ioctl::{PartitionChange, change_partition};
use crate::sysfs;
use crate::table::numbered;

/// Makes the kernel know exactly the partitions of a layout (none: of no layout). On a plain file there is nothing to tell.
///
/// # Errors
/// EBUSY where a partition that must go or move is open.
pub(crate) fn settle(held: &Held<'_>, roots: &Roots, layout: Option<&Layout>) -> io::Result<()> {
    if !held.is_block_device()? {
        return Ok(());
    }
    let wanted: Vec<_> = layout.into_iter().flat_map(numbered).collect();
    let mut resized = Vec::new();
    let mut kept = Vec::new();
    for known in sysfs::partitions(&roots.sys, &sysfs::device_name(&held.drive.path)) {
        match wanted
            .iter()
            .find(|(number, _, extent)| *number == known.number && extent.start == known.start)
        {
            Some((number, _, extent)) => {
                kept.push(*number);
                if extent.len != known.len {
                    resized.push((*number, *extent));
                }
            }
            None => change_partition(&held.file, known.number, PartitionChange::Delete)?,
        }
    }
    for (number, extent) in resized {
        change_partition(
            &held.file,
            number,
            PartitionChange::Resize {
                start: extent.start,
                len: extent.len,
            },
        )?;
    }
    for (number, _, extent) in wanted
        .iter()
        .filter(|(number, _, _)| !kept.contains(number))
    {
        change_partition(
            &held.file,
            *number,
            PartitionChange::Add {
                start: extent.start,
                len: extent.len,
            },
        )?;
    }
    Ok(())
}

/// Opens a partition of a settled layout for reading and writing; where it begins in what is open.
pub(crate) fn open(
    held: &Held<'_>,
    roots: &Roots,
    number: u32,
    start: u64,
) -> io::Result<(File, u64)> {
    let options = || File::options().read(true).write(true).clone();
    if !held.is_block_device()? {
        // The same file, whatever its name leads to now.
        let path = format!("/proc/self/fd/{}", held.file.as_raw_fd());
        return Ok((options().open(path)?, start));
    }
    let known = sysfs::partitions(&roots.sys, &sysfs::device_name(&held.drive.path));
    let partition = known
        .iter()
        .find(|partition| partition.number == number && partition.start == start)
        .ok_or_else(|| io::Error::other("the kernel does not show the partition"))?;
    let file = options().open(roots.dev.join(&partition.name))?;
    if file.metadata()?.rdev() != partition.device {
        return Err(io::Error::other(format!(
            "{} is not the device that the kernel names so",
            partition.name
        )));
    }
    Ok((file, 0))
}

/// How to reach each partition of a settled layout.
pub(crate) fn addresses(
    held: &Held<'_>,
    roots: &Roots,
    layout: &Layout,
) -> io::Result<Vec<Partition>> {
    let is_device = held.is_block_device()?;
    let known = sysfs::partitions(&roots.sys, &sysfs::device_name(&held.drive.path));
    let address = |number: u32, start: u64| -> io::Result<(PathBuf, u64)> {
        if !is_device {
            return Ok((held.drive.path.clone(), start));
        }
        let partition = known
            .iter()
            .find(|partition| partition.number == number && partition.start == start);
        let name = &partition
            .ok_or_else(|| io::Error::other("the kernel does not show the partition"))?
            .name;
        Ok((roots.dev.join(name), 0))
    };
    numbered(layout)
        .map(|(number, role, extent)| {
            let (path, offset) = address(number, extent.start)?;
            Ok(Partition {
                role,
                extent,
                path,
                offset,
            })
        })
        .collect()
}
