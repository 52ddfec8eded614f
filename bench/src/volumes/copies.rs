//! Snapshots and clones of a volume that is in use.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::Path,
};

use super::{
    KINDS, Plan, Times, VOLUME,
    bed::{Bed, Drive},
    csi::{Access, From},
};
use crate::report::Row;

/// Bytes that the volume holds.
const HELD: u64 = 256 << 20;
/// Bytes that are written before each snapshot.
const NEW: u64 = 1 << 20;

pub async fn run(plan: Plan) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for kind in KINDS {
        let bed = Bed::start(Drive {
            kind,
            bytes: 8 * VOLUME,
            allocated: false,
        })
        .await?;
        let driver = &bed.driver;
        let origin = driver.publish("origin", VOLUME, Access::Files).await?;
        write(&origin.at.join("held"), HELD)?;
        let (mut snapshots, mut clones, mut copies) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..plan.copies {
            write(&origin.at.join("new"), NEW)?;
            let name = format!("snapshot-{number}");
            let (snapshot, taken) = driver.snapshot(&origin.id, &name).await?;
            snapshots.push(taken.time);
            for (from, times) in [
                (From::Snapshot(&snapshot), &mut clones),
                (From::Volume(&origin.id), &mut copies),
            ] {
                let name = format!("clone-{number}");
                let made = driver.create(&name, VOLUME, Access::Files, from).await?;
                times.push(made.1.time);
                driver.delete(&made.0.volume_id).await?;
                bed.until_gone(&made.0.volume_id).await?;
            }
            driver.delete_snapshot(&snapshot).await?;
            bed.until_snapshot_gone(&snapshot).await?;
        }
        driver.end(&origin).await?;
        bed.until_gone(&origin.id).await?;
        bed.stop().await?;
        for (what, times) in [
            ("snapshot of it", snapshots),
            ("clone of the snapshot", clones),
            ("clone of it", copies),
        ] {
            let what = format!("volume of 10 GiB in use, {}: {what}", kind.words());
            let times = Times::of(times);
            rows.push(times.goal(&what, 0.50, 200.0));
            rows.push(times.plain("  p50 / p99"));
        }
    }
    Ok(rows)
}

/// Writes a file of noise, durably.
fn write(path: &Path, len: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    io::copy(&mut File::open("/dev/urandom")?.take(len), &mut file)?;
    file.flush()?;
    file.sync_all()
}
