//! Partition devices: telling the kernel what the label says, and finding the way to each partition.

use std::io;
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
