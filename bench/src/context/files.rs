//! `strand-bench serve-files`: a file a block on XFS, read with O_DIRECT and verified by nobody.

use anyhow::{Context, bail};
use std::{
    fs::{self, File},
    io::{self, BufRead, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{
    load::{Blocks, mixed},
    medium::run as command,
};

const PAGE: usize = 4096;

/// Serves until the input ends. Must have a mount namespace of its own: what it mounts goes with it.
pub fn run(device: &Path) -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let (device, at) = (device.to_string_lossy(), root.path().to_string_lossy());
    command("mkfs.xfs", &["-q", "-f", "-K", &device])?;
    command("mount", &["-t", "xfs", &device, &at])?;
    let served = serve(root.path());
    command("umount", &[&at])?;
    served
}

fn serve(root: &Path) -> anyhow::Result<()> {
    let mut blocks = Blocks { count: 0, len: 0 };
    for line in io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let answer = match words[..] {
            ["fill", count, len] => {
                for number in 0..blocks.count {
                    fs::remove_file(path(root, number))?;
                }
                blocks = Blocks {
                    count: count.parse()?,
                    len: len.parse()?,
                };
                fill(root, blocks)?;
                count.to_string()
            }
            ["get", depth, millis] => {
                let time = Duration::from_millis(millis.parse()?);
                get(root, blocks, depth.parse()?, time)?
            }
            _ => bail!("unknown command: {line}"),
        };
        println!("= {answer}");
        io::stdout().flush()?;
    }
    Ok(())
}

fn path(root: &Path, number: u64) -> PathBuf {
    root.join(format!("{number:016x}"))
}

fn direct() -> fs::OpenOptions {
    let mut options = File::options();
    options.custom_flags(rustix::fs::OFlags::DIRECT.bits() as i32);
    options
}

fn fill(root: &Path, blocks: Blocks) -> anyhow::Result<()> {
    let mut memory = vec![0; blocks.len + PAGE];
    for number in 0..blocks.count {
        let page = page_aligned(&mut memory, blocks.len);
        blocks.write(number, page);
        let mut file = direct()
            .write(true)
            .create_new(true)
            .open(path(root, number))?;
        file.write_all(page)?;
    }
    Ok(())
}

/// Random blocks by `depth` threads: how many, and nanoseconds.
fn get(root: &Path, blocks: Blocks, depth: u64, time: Duration) -> anyhow::Result<String> {
    let done = AtomicU64::new(0);
    let begun = Instant::now();
    thread::scope(|scope| {
        let reader = |seed: u64| {
            let mut random = mixed(seed);
            let mut memory = vec![0; blocks.len + PAGE];
            let into = page_aligned(&mut memory, blocks.len);
            while begun.elapsed() < time {
                random = mixed(random);
                let mut file = direct()
                    .read(true)
                    .open(path(root, random % blocks.count))?;
                file.read_exact(into)?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            io::Result::Ok(())
        };
        let threads: Vec<_> = (0..depth)
            .map(|seed| scope.spawn(move || reader(seed)))
            .collect();
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .ok()
                .context("a reader panicked")?
                .context("a block cannot be read")
        })
    })?;
    Ok(format!(
        "{} {}",
        done.into_inner(),
        begun.elapsed().as_nanos()
    ))
}

/// A part of `memory` that starts on a page boundary.
fn page_aligned(memory: &mut [u8], len: usize) -> &mut [u8] {
    let at = memory.as_ptr().align_offset(PAGE);
    &mut memory[at..at + len]
}
