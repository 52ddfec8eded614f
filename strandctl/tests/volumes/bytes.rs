//! Bytes that can be told apart: what was written is known from a number alone.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

const BLOCK: usize = 4096;

/// Random numbers that are the same for the same seed (splitmix64).
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// The bytes of a number: a random block again and again, each with its place at its start.
pub fn of(seed: u64, len: usize) -> Vec<u8> {
    let mut numbers = Numbers(seed);
    let mut block: Vec<u8> = Vec::with_capacity(BLOCK);
    while block.len() < BLOCK {
        block.extend(numbers.next().to_le_bytes());
    }
    let mut bytes = block.repeat(len.div_ceil(BLOCK));
    for (place, block) in bytes.chunks_exact_mut(BLOCK).enumerate() {
        block[..8].copy_from_slice(&(seed ^ place as u64).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Writes the bytes of a number to a file or device, so that they are durable when this returns.
pub fn write(path: &Path, seed: u64, len: usize) -> std::io::Result<()> {
    let mut options = File::options();
    // A path that is a device is opened, a file of a mounted volume is made.
    let file = options.write(true).create(!path.exists()).open(path)?;
    file.write_all_at(&of(seed, len), 0)?;
    file.sync_all()
}

/// Reads them back, every one.
pub fn check(path: &Path, seed: u64, len: usize) {
    let mut found = vec![0; len];
    let read = File::open(path).and_then(|file| file.read_exact_at(&mut found, 0));
    read.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let wanted = of(seed, len);
    let blocks = found.chunks(BLOCK).zip(wanted.chunks(BLOCK));
    let wrong = blocks
        .into_iter()
        .position(|(found, wanted)| found != wanted);
    assert_eq!(
        wrong,
        None,
        "{}: the first wrong block of {len} bytes",
        path.display()
    );
}
