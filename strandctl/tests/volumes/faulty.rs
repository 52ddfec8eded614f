//! A drive that fails when it is told to: a file in a FUSE file system of the test's own, whose reads and writes go through or fail.
//!
//! Of FUSE it speaks what a block device over one file needs. Source: include/uapi/linux/fuse.h.

use rustix::fs::{FallocateFlags, fallocate};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;

const EIO: i32 = 5;
const ENOENT: i32 = 2;
const ENOSYS: i32 = 38;
/// Largest read or write.
const MOST: usize = 1 << 20;
/// Lengths of `fuse_in_header` and `fuse_out_header`.
const IN: usize = 40;
const OUT: usize = 16;
const NAME: &str = "faulty.img";
const ROOT: u64 = 1;
const FILE: u64 = 2;

/// The drive; unmounted and gone when this is.
pub struct FaultyDrive {
    dir: tempfile::TempDir,
    fails: Arc<AtomicBool>,
    serving: Option<JoinHandle<()>>,
}

impl FaultyDrive {
    pub fn new(size: u64) -> FaultyDrive {
        let mut dir = tempfile::Builder::new();
        let dir = dir.prefix("strand-faulty.").tempdir_in("/tmp").unwrap();
        let mut options = File::options();
        options.read(true).write(true);
        let bytes = options
            .clone()
            .create_new(true)
            .open(dir.path().join("bytes"))
            .unwrap();
        bytes.set_len(size).unwrap();
        fs::create_dir(dir.path().join("mount")).unwrap();
        let channel = options.open("/dev/fuse").expect("this test needs FUSE");
        let how = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0,allow_other",
            channel.as_raw_fd()
        );
        let flags = MountFlags::NODEV | MountFlags::NOSUID;
        mount(
            "strand-faulty",
            dir.path().join("mount"),
            "fuse",
            flags,
            CString::new(how).unwrap().as_c_str(),
        )
        .unwrap();
        let fails = Arc::new(AtomicBool::new(false));
        let mut server = Server {
            channel,
            bytes,
            size,
            fails: Arc::clone(&fails),
        };
        FaultyDrive {
            dir,
            fails,
            serving: Some(std::thread::spawn(move || server.serve())),
        }
    }

    /// The file that stands for the drive.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("mount").join(NAME)
    }

    /// From now on every read and write fails, or none does.
    pub fn fail(&self, fails: bool) {
        self.fails.store(fails, Relaxed);
    }
}

impl Drop for FaultyDrive {
    fn drop(&mut self) {
        self.fail(false);
        let at = self.dir.path().join("mount");
        // Also while something still has it open.
        if unmount(&at, UnmountFlags::empty()).is_err() {
            let _ = unmount(&at, UnmountFlags::DETACH);
        } else if let Some(serving) = self.serving.take() {
            let _ = serving.join();
        }
    }
}

struct Server {
    channel: File,
    bytes: File,
    size: u64,
    fails: Arc<AtomicBool>,
}

/// An answer: bytes, an error number, or none at all.
enum Answer {
    Bytes(Vec<u8>),
    Error(i32),
    None,
}

impl Server {
    /// Serves until it is unmounted.
    fn serve(&mut self) {
        let mut request = vec![0; MOST + 4096];
        while let Ok(len) = self.channel.read(&mut request) {
            let (head, body) = request[..len].split_at(IN);
            let (error, bytes) = match self.answer(u32_at(head, 4), u64_at(head, 16), body) {
                Answer::Bytes(bytes) => (0, bytes),
                Answer::Error(error) => (-error, Vec::new()),
                Answer::None => continue,
            };
            let len = (OUT + bytes.len()) as u32;
            let mut reply = Vec::with_capacity(len as usize);
            reply.extend(len.to_ne_bytes());
            reply.extend(error.to_ne_bytes());
            reply.extend(&head[8..16]);
            reply.extend(bytes);
            // Who was interrupted does not wait any more.
            let _ = self.channel.write_all(&reply);
        }
    }

    fn answer(&self, what: u32, node: u64, body: &[u8]) -> Answer {
        match what {
            // FORGET, INTERRUPT, BATCH_FORGET
            2 | 36 | 42 => Answer::None,
            // LOOKUP
            1 if body.strip_suffix(&[0]) == Some(NAME.as_bytes()) => {
                let head = words(&[FILE, 0, 3600, 3600, 0]);
                Answer::Bytes([head, self.attributes(FILE)].concat())
            }
            1 => Answer::Error(ENOENT),
            // GETATTR, SETATTR
            3 | 4 => Answer::Bytes([words(&[3600, 0]), self.attributes(node)].concat()),
            // OPEN, OPENDIR: nothing is cached (FOPEN_DIRECT_IO)
            14 | 27 => Answer::Bytes(words(&[0, 1])),
            // INIT: version 7.31, FUSE_BIG_WRITES and FUSE_MAX_PAGES
            26 => {
                let version = words(&[7 | 31 << 32]);
                let flags = words(&[MOST as u64 | (1 << 5 | 1 << 22) << 32]);
                let queue = words(&[16 | 12 << 16 | (MOST as u64) << 32]);
                let rest = words(&[1 | ((MOST / 4096) as u64) << 32, 0, 0, 0, 0]);
                Answer::Bytes([version, flags, queue, rest].concat())
            }
            // READ, WRITE, FSYNC, FALLOCATE
            15 | 16 | 20 | 43 if self.fails.load(Relaxed) => Answer::Error(EIO),
            15 | 16 | 43 => {
                let done = match what {
                    15 => self.read(body),
                    16 => self.write(body),
                    _ => self.allocate(body),
                };
                done.map_or_else(
                    |error| Answer::Error(error.raw_os_error().unwrap_or(EIO)),
                    Answer::Bytes,
                )
            }
            // RELEASE, FSYNC, FLUSH, RELEASEDIR, DESTROY
            18 | 20 | 25 | 29 | 38 => Answer::Bytes(Vec::new()),
            // STATFS
            17 => Answer::Bytes(words(&[0, 0, 0, 0, 0, 4096 | 255 << 32, 4096, 0, 0, 0])),
            _ => Answer::Error(ENOSYS),
        }
    }

    fn read(&self, body: &[u8]) -> std::io::Result<Vec<u8>> {
        let at = u64_at(body, 8);
        let left = self.size.saturating_sub(at);
        let mut bytes = vec![0; left.min(u32_at(body, 16).into()) as usize];
        self.bytes.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    }

    fn write(&self, body: &[u8]) -> std::io::Result<Vec<u8>> {
        let len = u32_at(body, 16);
        let bytes = &body[40..40 + len as usize];
        self.bytes.write_all_at(bytes, u64_at(body, 8))?;
        Ok(words(&[len.into()]))
    }

    fn allocate(&self, body: &[u8]) -> std::io::Result<Vec<u8>> {
        let mode = FallocateFlags::from_bits_retain(u32_at(body, 24));
        fallocate(&self.bytes, mode, u64_at(body, 8), u64_at(body, 16))?;
        Ok(Vec::new())
    }

    /// `struct fuse_attr`.
    fn attributes(&self, node: u64) -> Vec<u8> {
        let (mode, size) = match node {
            ROOT => (0o40755, 0),
            _ => (0o100600, self.size),
        };
        let links = 1;
        let numbers = [node, size, size / 512, 0, 0, 0, 0, mode << 32, links, 0];
        [words(&numbers), words(&[4096])].concat()
    }
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(*bytes[at..].first_chunk().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(*bytes[at..].first_chunk().unwrap())
}
