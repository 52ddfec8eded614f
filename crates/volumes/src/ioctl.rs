//! The only unsafe code of this crate: ioctls, each behind a safe function.
#![allow(
    unsafe_code,
    reason = "ioctls take raw pointers; every use says why it is sound"
)]

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use rustix::ioctl::{Getter, Ioctl, IoctlOutput, NoArg, Opcode, Setter, Updater, ioctl, opcode};

/// linux/loop.h.
const LOOP_CLR_FD: Opcode = 0x4C01;
const LOOP_GET_STATUS64: Opcode = 0x4C05;
const LOOP_SET_CAPACITY: Opcode = 0x4C07;
const LOOP_CONFIGURE: Opcode = 0x4C0A;
const LOOP_CTL_GET_FREE: Opcode = 0x4C82;
/// linux/fs.h.
const FICLONERANGE: Opcode = opcode::write::<CloneRange>(0x94, 13);
const FITRIM: Opcode = opcode::read_write::<[u64; 3]>(b'X', 121);
const BLKGETSIZE64: Opcode = opcode::read::<usize>(0x12, 114);
const BLKROSET: Opcode = opcode::none(0x12, 93);
/// linux fs/xfs/libxfs/xfs_fs.h.
const XFS_IOC_FSGROWFSDATA: Opcode = opcode::write::<GrowData>(b'X', 110);

/// `LO_FLAGS_*` of linux/loop.h.
pub(crate) const READ_ONLY: u32 = 1;
pub(crate) const AUTOCLEAR: u32 = 4;
pub(crate) const DIRECT_IO: u32 = 16;

/// `struct loop_info64` of linux/loop.h.
#[repr(C)]
#[derive(Clone)]
pub(crate) struct LoopInfo {
    /// Device number of the file system with the backing file, and its inode there.
    pub(crate) device: u64,
    pub(crate) inode: u64,
    rdevice: u64,
    /// Where the loop begins in the file, and how much of it it shows (0: all), in bytes.
    pub(crate) offset: u64,
    pub(crate) size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    pub(crate) flags: u32,
    /// Free text.
    pub(crate) name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

impl LoopInfo {
    pub(crate) fn new(offset: u64, size_limit: u64, flags: u32, name: [u8; 64]) -> LoopInfo {
        LoopInfo {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset,
            size_limit,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags,
            name,
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        }
    }
}

/// `struct loop_config` of linux/loop.h.
#[repr(C)]
struct LoopConfig {
    file: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// `struct file_clone_range` of linux/fs.h.
#[repr(C)]
struct CloneRange {
    source: i64,
    source_offset: u64,
    /// 0: to the end.
    len: u64,
    offset: u64,
}

/// The most that inodes may take of a file system that holds few, large files: mkfs.xfs's `maxpct`.
pub(crate) const INODE_PERCENT: u32 = 5;

/// `struct xfs_growfs_data` of linux fs/xfs/libxfs/xfs_fs.h.
#[repr(C)]
struct GrowData {
    blocks: u64,
    inode_percent: u32,
}

/// An ioctl whose answer is its return value.
struct Returned<const OPCODE: Opcode>;

// SAFETY: used with LOOP_CTL_GET_FREE alone, which takes no argument and returns a number that is not negative.
unsafe impl<const OPCODE: Opcode> Ioctl for Returned<OPCODE> {
    type Output = u32;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        OPCODE
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::null_mut()
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> rustix::io::Result<u32> {
        Ok(out.unsigned_abs())
    }
}

/// The number of a loop device that is free now, by an open `/dev/loop-control`.
pub(crate) fn free_loop(control: &File) -> io::Result<u32> {
    // SAFETY: see Returned.
    Ok(unsafe { ioctl(control, Returned::<LOOP_CTL_GET_FREE>) }?)
}

/// Sets a loop device up in one step; EBUSY where somebody else did so.
pub(crate) fn configure_loop(
    device: &File,
    backing: &File,
    block_size: u32,
    info: LoopInfo,
) -> io::Result<()> {
    let config = LoopConfig {
        file: backing.as_raw_fd().unsigned_abs(),
        block_size,
        info,
        reserved: [0; 8],
    };
    // SAFETY: the kernel reads one struct loop_config.
    unsafe { ioctl(device, Setter::<LOOP_CONFIGURE, LoopConfig>::new(config)) }?;
    Ok(())
}

/// What a loop device lies on; ENXIO where nothing is attached.
pub(crate) fn loop_info(device: &File) -> io::Result<LoopInfo> {
    // SAFETY: the kernel writes one struct loop_info64.
    Ok(unsafe { ioctl(device, Getter::<LOOP_GET_STATUS64, LoopInfo>::new()) }?)
}

/// Takes a loop device away when its last opener closes it.
pub(crate) fn clear_loop(device: &File) -> io::Result<()> {
    // SAFETY: the ioctl takes no argument.
    Ok(unsafe { ioctl(device, NoArg::<LOOP_CLR_FD>::new()) }?)
}

/// Makes a loop device as large as its file is now.
pub(crate) fn resize_loop(device: &File) -> io::Result<()> {
    // SAFETY: the ioctl takes no argument.
    Ok(unsafe { ioctl(device, NoArg::<LOOP_SET_CAPACITY>::new()) }?)
}

/// Size of a block device in bytes.
pub(crate) fn device_size(device: &File) -> io::Result<u64> {
    // SAFETY: the kernel writes one u64.
    Ok(unsafe { ioctl(device, Getter::<BLKGETSIZE64, u64>::new()) }?)
}

/// Has the kernel refuse writes to a block device.
pub(crate) fn set_read_only(device: &File) -> io::Result<()> {
    // SAFETY: the kernel reads one int.
    Ok(unsafe { ioctl(device, Setter::<BLKROSET, i32>::new(1)) }?)
}

/// Has a file begin with what another one of its file system has from byte `skip` to its end, sharing its blocks; `skip` is a multiple of
/// the file system's block size.
pub(crate) fn share(file: &File, source: &File, skip: u64) -> io::Result<()> {
    let range = CloneRange {
        source: i64::from(source.as_raw_fd()),
        source_offset: skip,
        len: 0,
        offset: 0,
    };
    // SAFETY: the kernel reads one struct file_clone_range, whose descriptor is open until it returns.
    unsafe { ioctl(file, Setter::<FICLONERANGE, CloneRange>::new(range)) }?;
    Ok(())
}

/// Tells the drive below what is free in a range of its file system, in bytes; how much that was.
pub(crate) fn trim(directory: &File, start: u64, len: u64) -> io::Result<u64> {
    let mut range = [start, len, 0];
    // SAFETY: the kernel reads and writes one struct fstrim_range, three u64.
    unsafe { ioctl(directory, Updater::<FITRIM, [u64; 3]>::new(&mut range)) }?;
    Ok(range[1])
}

/// Makes a mounted XFS have `blocks` blocks.
pub(crate) fn grow_xfs(directory: &File, blocks: u64) -> io::Result<()> {
    let data = GrowData {
        blocks,
        inode_percent: INODE_PERCENT,
    };
    // SAFETY: the kernel reads one struct xfs_growfs_data.
    unsafe {
        ioctl(
            directory,
            Setter::<XFS_IOC_FSGROWFSDATA, GrowData>::new(data),
        )
    }?;
    Ok(())
}
