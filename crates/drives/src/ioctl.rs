//! The only unsafe code of this crate: ioctls, each behind a safe function.
#![allow(
    unsafe_code,
    reason = "ioctls take raw pointers; every use says why it is sound"
)]

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use nvme_cli_sys::{nvme_admin_cmd, nvme_admin_opcode, nvme_ioctl_admin_cmd, nvme_ioctl_id};
use rustix::ioctl::{Getter, Setter, ioctl, opcode};

/// `BLKDISCARD`, `BLKZEROOUT`, `BLKPG`, `BLKGETSIZE64`: linux/fs.h and linux/blkpg.h. `LOOP_GET_STATUS64`: linux/loop.h.
const BLKDISCARD: u32 = opcode::none(0x12, 119);
const BLKZEROOUT: u32 = opcode::none(0x12, 127);
const BLKPG: u32 = opcode::none(0x12, 105);
const BLKGETSIZE64: u32 = opcode::read::<usize>(0x12, 114);
const LOOP_GET_STATUS64: u32 = 0x4C05;

/// An NVMe data page: identify structures and the SMART log's padding fit in it.
pub(crate) const NVME_PAGE: usize = 4096;

/// Size of a block device in bytes.
pub(crate) fn device_size(file: &File) -> io::Result<u64> {
    // SAFETY: the kernel writes one u64 for this opcode.
    let size = unsafe { ioctl(file, Getter::<BLKGETSIZE64, u64>::new())? };
    Ok(size)
}

/// Tells a block device that a range holds nothing. What it reads afterwards is the device's choice.
pub(crate) fn discard(file: &File, offset: u64, len: u64) -> io::Result<()> {
    // SAFETY: the kernel reads two u64, start and length in bytes.
    unsafe { ioctl(file, Setter::<BLKDISCARD, [u64; 2]>::new([offset, len]))? };
    Ok(())
}

/// Makes a range of a block device read as zeroes, by deallocation where the device guarantees zeroes for it.
pub(crate) fn zero_out(file: &File, offset: u64, len: u64) -> io::Result<()> {
    // SAFETY: the kernel reads two u64, start and length in bytes.
    unsafe { ioctl(file, Setter::<BLKZEROOUT, [u64; 2]>::new([offset, len]))? };
    Ok(())
}

/// `struct loop_info64` of linux/loop.h.
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// What a loop device lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LoopBacking {
    /// Device number of the file system with the backing file.
    pub(crate) device: u64,
    /// Inode of the backing file.
    pub(crate) inode: u64,
    /// Device number of the backing block device; 0 where it is a file.
    pub(crate) block_device: u64,
}

/// What a loop device lies on; ENXIO where nothing is attached.
pub(crate) fn loop_backing(file: &File) -> io::Result<LoopBacking> {
    // SAFETY: the kernel writes one struct loop_info64.
    let info = unsafe { ioctl(file, Getter::<LOOP_GET_STATUS64, LoopInfo>::new())? };
    Ok(LoopBacking {
        device: info.device,
        inode: info.inode,
        block_device: info.rdevice,
    })
}

/// What to tell the kernel about one partition of an open block device (linux/blkpg.h).
#[derive(Clone, Copy, Debug)]
pub(crate) enum PartitionChange {
    /// Make it known.
    Add {
        /// First byte.
        start: u64,
        /// Bytes.
        len: u64,
    },
    /// Forget it; EBUSY while it is open.
    Delete,
    /// Change its length, also while it is in use.
    Resize {
        /// First byte, as it is.
        start: u64,
        /// New length in bytes.
        len: u64,
    },
}

#[repr(C)]
struct BlkpgPartition {
    start: i64,
    length: i64,
    number: i32,
    device_name: [u8; 64],
    volume_name: [u8; 64],
}

#[repr(C)]
struct BlkpgArgument {
    operation: i32,
    flags: i32,
    data_length: i32,
    data: *mut c_void,
}

/// Changes what the kernel knows of one partition, without reading any table: it works in kernels that read no GPT, and while
/// other partitions of the drive are in use.
pub(crate) fn change_partition(
    file: &File,
    number: u32,
    change: PartitionChange,
) -> io::Result<()> {
    let (operation, start, len) = match change {
        PartitionChange::Add { start, len } => (1, start, len),
        PartitionChange::Delete => (2, 0, 0),
        PartitionChange::Resize { start, len } => (3, start, len),
    };
    let signed =
        |value: u64| i64::try_from(value).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let mut partition = BlkpgPartition {
        start: signed(start)?,
        length: signed(len)?,
        number: i32::try_from(number).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?,
        device_name: [0; 64],
        volume_name: [0; 64],
    };
    let argument = BlkpgArgument {
        operation,
        flags: 0,
        data_length: size_of::<BlkpgPartition>() as i32,
        data: (&raw mut partition).cast(),
    };
    // SAFETY: the kernel reads one struct blkpg_ioctl_arg, whose data points to a struct blkpg_partition that outlives the call.
    unsafe { ioctl(file, Setter::<BLKPG, BlkpgArgument>::new(argument))? };
    Ok(())
}

/// The namespace id of an NVMe block device.
pub(crate) fn nvme_namespace_id(file: &File) -> io::Result<u32> {
    // SAFETY: the ioctl takes no argument and returns the id.
    let id = unsafe { nvme_ioctl_id(file.as_raw_fd()) }?;
    u32::try_from(id).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}

/// Identify (NVMe base specification, opcode 06h): `cns` 0 is the namespace, 1 the controller.
pub(crate) fn nvme_identify(
    file: &File,
    namespace: u32,
    cns: u32,
) -> io::Result<Box<[u8; NVME_PAGE]>> {
    admin_read(
        file,
        nvme_admin_opcode::nvme_admin_identify as u8,
        namespace,
        cns,
        NVME_PAGE,
    )
}

/// The SMART / Health Information log (log page 02h, 512 bytes) of the whole controller.
pub(crate) fn nvme_smart_log(file: &File) -> io::Result<Box<[u8; NVME_PAGE]>> {
    const LEN: usize = 512;
    // Command dword 10: log page in bits 7:0, number of dwords less one in bits 31:16.
    let dword10 = 0x02 | ((LEN as u32 / 4 - 1) << 16);
    admin_read(
        file,
        nvme_admin_opcode::nvme_admin_get_log_page as u8,
        u32::MAX,
        dword10,
        LEN,
    )
}

fn admin_read(
    file: &File,
    opcode: u8,
    nsid: u32,
    cdw10: u32,
    len: usize,
) -> io::Result<Box<[u8; NVME_PAGE]>> {
    let mut page = Box::new([0; NVME_PAGE]);
    let mut command = nvme_admin_cmd {
        opcode,
        nsid,
        cdw10,
        addr: page.as_mut_ptr() as u64,
        data_len: len as u32,
        ..Default::default()
    };
    // SAFETY: the kernel reads and writes one struct nvme_admin_cmd, and writes at most data_len bytes, which are within the page
    // that outlives the call.
    let status = unsafe { nvme_ioctl_admin_cmd(file.as_raw_fd(), &raw mut command) }?;
    match status {
        0 => Ok(page),
        status => Err(io::Error::other(format!(
            "the drive answered NVMe status {status:#x}"
        ))),
    }
}
