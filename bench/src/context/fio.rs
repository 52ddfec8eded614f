//! The drive alone: fio with io_uring and O_DIRECT.

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::Path, process::Stdio, time::Duration};
use tokio::process::Command;

/// What is asked of a device.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// The device.
    pub device: &'a Path,
    /// fio's name of the pattern: randread, write.
    pub pattern: &'a str,
    /// Bytes a transfer.
    pub block: u64,
    /// Transfers at once.
    pub depth: usize,
    /// First byte, and bytes, of the part that is used.
    pub part: (u64, u64),
    /// For how long.
    pub time: Duration,
}

/// What it did.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Figures {
    /// Bytes a second.
    pub rate: f64,
    /// Median and 99th percentile from submission to completion, in microseconds.
    pub p50: f64,
    /// The latter.
    pub p99: f64,
    /// Processor seconds of the process for 1e9 bytes.
    pub cpu_a_gb: f64,
}

#[derive(Deserialize)]
struct Output {
    jobs: Vec<Done>,
}

#[derive(Deserialize)]
struct Done {
    error: i32,
    read: Side,
    write: Side,
    usr_cpu: f64,
    sys_cpu: f64,
    job_runtime: f64,
}

#[derive(Deserialize)]
struct Side {
    io_bytes: f64,
    runtime: f64,
    lat_ns: Latency,
}

#[derive(Deserialize)]
struct Latency {
    #[serde(default)]
    percentile: BTreeMap<String, f64>,
}

/// Runs it.
pub async fn run(job: Job<'_>) -> anyhow::Result<Figures> {
    let output = Command::new("fio")
        .args(["--name=raw", "--ioengine=io_uring", "--direct=1"])
        .args([
            "--time_based",
            "--norandommap",
            "--randrepeat=0",
            "--output-format=json",
        ])
        .args(["--lat_percentiles=1", "--clat_percentiles=0"])
        // Of a file system that is there for the measurement alone.
        .arg("--allow_mounted_write=1")
        .arg(format!("--filename={}", job.device.display()))
        .arg(format!("--rw={}", job.pattern))
        .arg(format!("--bs={}", job.block))
        .arg(format!("--iodepth={}", job.depth))
        .arg(format!("--offset={}", job.part.0))
        .arg(format!("--size={}", job.part.1))
        .arg(format!("--runtime={}ms", job.time.as_millis()))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("cannot run fio; scripts/install-bench-tools installs it")?;
    if !output.status.success() {
        bail!("fio: {}", String::from_utf8_lossy(&output.stderr));
    }
    figures(&output.stdout, job.pattern)
}

/// Reads fio's answer.
fn figures(json: &[u8], pattern: &str) -> anyhow::Result<Figures> {
    let output: Output = serde_json::from_slice(json).context("fio's answer is not as expected")?;
    let done = output.jobs.first().context("fio ran no job")?;
    let side = if pattern.ends_with("read") {
        &done.read
    } else {
        &done.write
    };
    if side.io_bytes == 0.0 {
        bail!("fio did nothing: error {}", done.error);
    }
    let at = |percent: &str| {
        let nanos = side.lat_ns.percentile.get(percent);
        nanos.map_or(f64::NAN, |nanos| nanos / 1e3)
    };
    let cpu = (done.usr_cpu + done.sys_cpu) / 100.0 * done.job_runtime / 1e3;
    Ok(Figures {
        rate: side.io_bytes / side.runtime * 1e3,
        p50: at("50.000000"),
        p99: at("99.000000"),
        cpu_a_gb: cpu / (side.io_bytes / 1e9),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_fio_is_understood() -> anyhow::Result<()> {
        let side = r#"{"io_bytes": 3000000000, "runtime": 1500, "lat_ns": {"percentile": {"50.000000": 15000, "99.000000": 20000}}}"#;
        let none = r#"{"io_bytes": 0, "runtime": 0, "lat_ns": {}}"#;
        let json = format!(
            r#"{{"jobs": [{{"error": 0, "read": {side}, "write": {none}, "usr_cpu": 2.0, "sys_cpu": 8.0, "job_runtime": 1500}}]}}"#
        );
        let figures = figures(json.as_bytes(), "randread")?;
        assert_eq!(figures.rate, 2e9);
        assert_eq!((figures.p50, figures.p99), (15.0, 20.0));
        assert!((figures.cpu_a_gb - 0.05).abs() < 1e-9);
        Ok(())
    }
}
