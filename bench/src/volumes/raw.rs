//! A raw block volume against the very part of the storage partition that it lies on.

use anyhow::Context;
use std::path::{Path, PathBuf};

use super::{
    KINDS, Plan,
    bed::{Bed, Drive},
    csi::Access,
};
use crate::{
    context::{
        fio,
        medium::{self, Device, Kind},
        pairs::{Goal, Pairs, interleave},
        rows::{gigabytes, ratio},
    },
    report::Row,
};

const DEPTH: usize = 32;
const MIB: u64 = 1 << 20;
/// What fio does, and the least that a volume shall reach of it.
const JOBS: [(&str, u64, f64); 4] = [
    ("randread", 4 << 10, 0.90),
    ("randwrite", 4 << 10, 0.90),
    ("read", MIB, 0.95),
    ("write", MIB, 0.95),
];

pub async fn run(plan: Plan) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for kind in KINDS {
        let (bytes, volume) = match kind {
            Kind::Memory => (2048 * MIB, 1024 * MIB),
            Kind::Disk => (6144 * MIB, 2048 * MIB),
        };
        let bed = Bed::start(Drive {
            kind,
            bytes,
            allocated: true,
        })
        .await?;
        let published = bed.driver.publish("raw", volume, Access::Blocks).await?;
        medium::run(
            "fio",
            &[
                "--name=once",
                "--rw=write",
                "--bs=1M",
                "--ioengine=io_uring",
                "--iodepth=16",
                "--direct=1",
                "--minimal",
                &format!("--filename={}", published.at.display()),
            ],
        )?;
        let (device, file) = bed.leg(&published.id)?;
        let piece = piece(&file)?;
        let by_hand = ByHand::make(&file)?;
        for (pattern, block, goal) in JOBS {
            let ours = fio::Job {
                device: &published.at,
                pattern,
                block,
                depth: DEPTH,
                part: (piece.in_file, piece.len),
                time: plan.slot,
            };
            let partition = fio::Job {
                device: &device,
                part: (piece.on_device, piece.len),
                ..ours
            };
            let what = format!(
                "raw volume, {}, {pattern} {} KiB, depth {DEPTH}",
                kind.words(),
                block >> 10
            );
            rows.push(compare(plan, format!("{what} / partition"), partition, ours, goal).await?);
            if block == MIB {
                continue;
            }
            let len = by_hand.device.len().min(piece.len);
            let losetup = fio::Job {
                device: by_hand.device.path(),
                part: (0, len),
                ..ours
            };
            let ours = fio::Job {
                part: (piece.in_file, len),
                ..ours
            };
            rows.push(compare(plan, format!("{what} / losetup"), losetup, ours, goal).await?);
        }
        by_hand.end()?;
        bed.driver.end(&published).await?;
        bed.until_gone(&published.id).await?;
        bed.stop().await?;
    }
    Ok(rows)
}

async fn compare(
    plan: Plan,
    what: String,
    baseline: fio::Job<'_>,
    ours: fio::Job<'_>,
    goal: f64,
) -> anyhow::Result<Row> {
    let rounds = interleave(
        plan.rounds,
        async || fio::run(baseline).await,
        async || fio::run(ours).await,
    );
    let rates = Pairs::of(&rounds.await?, |figures| figures.rate);
    Ok(ratio(what, rates, Goal::AtLeast(goal), |rate| {
        match ours.block {
            MIB => gigabytes(rate),
            block => format!("{:.1}k/s", rate / block as f64 / 1e3),
        }
    }))
}

/// What `losetup` makes, without Strand, of a file beside the volume's on the same file system.
struct ByHand {
    device: Device,
    file: PathBuf,
}

impl ByHand {
    fn make(leg: &Path) -> anyhow::Result<Self> {
        const LEN: u64 = 256 * MIB;
        let legs = leg
            .ancestors()
            .nth(2)
            .context("a leg lies in no directory")?;
        let file = legs.with_file_name("by-hand");
        let path = file.to_string_lossy();
        medium::run("fallocate", &["--length", &LEN.to_string(), &path])?;
        let device = Device::over(&file, LEN)?;
        Ok(Self { device, file })
    }

    fn end(self) -> anyhow::Result<()> {
        drop(self.device);
        std::fs::remove_file(&self.file).with_context(|| self.file.display().to_string())
    }
}

/// A part of a file that lies in one piece on its device, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    in_file: u64,
    on_device: u64,
    len: u64,
}

/// The largest piece of a file.
fn piece(file: &Path) -> anyhow::Result<Piece> {
    let map = medium::run("xfs_bmap", &[&file.to_string_lossy()])?;
    let pieces = map.lines().filter_map(extent);
    let largest = pieces.max_by_key(|piece| piece.len);
    let mut largest = largest.with_context(|| format!("{} has no blocks", file.display()))?;
    largest.len = largest.len / MIB * MIB;
    Ok(largest)
}

/// Reads a line as `0: [0..2047]: 96..2143`, in units of 512 bytes. Source: xfs_bmap(8).
fn extent(line: &str) -> Option<Piece> {
    let (_, rest) = line.split_once(": [")?;
    let (in_file, on_device) = rest.split_once("]: ")?;
    let (from, to) = in_file.split_once("..")?;
    let (start, _) = on_device.split_once("..")?;
    let (from, to): (u64, u64) = (from.parse().ok()?, to.parse().ok()?);
    let start: u64 = start.parse().ok()?;
    Some(Piece {
        in_file: from * 512,
        on_device: start * 512,
        len: (to + 1 - from) * 512,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_files_map_is_read() {
        let piece = Piece {
            in_file: 4096,
            on_device: 49152,
            len: 1 << 20,
        };
        assert_eq!(extent("\t1: [8..2055]: 96..2143"), Some(piece));
        for other in ["/a/file:", "\t0: [0..7]: hole", ""] {
            assert_eq!(extent(other), None, "{other}");
        }
    }
}
