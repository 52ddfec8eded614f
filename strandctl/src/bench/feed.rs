//! The trace's requests, handed out in their order and at their time.

use anyhow::{Context, Result, bail};
use std::{
    fmt,
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
    str::FromStr,
    time::{Duration, Instant},
};
use strand_traces::{Cache, Infinite, Lru, Request, Requests, Totals};

/// How fast a trace is replayed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speed {
    /// As fast as it goes.
    Max,
    /// So many times as fast as it was recorded.
    Times(f64),
}

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let times = match text {
            "max" => return Ok(Self::Max),
            "trace" => Some(1.0),
            text => text.strip_prefix('x').and_then(|times| times.parse().ok()),
        };
        times
            .filter(|times: &f64| times.is_finite() && *times > 0.0)
            .map(Self::Times)
            .ok_or_else(|| "write trace, max, or x10 for ten times the trace's own speed".into())
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Max => f.write_str("max"),
            Self::Times(1.0) => f.write_str("trace"),
            Self::Times(times) => write!(f, "x{times}"),
        }
    }
}

/// What a trace is, read through once.
#[derive(Clone, Debug)]
pub struct Survey {
    /// Where it is.
    pub file: PathBuf,
    /// What a cache without end would make of it.
    pub endless: Totals,
    /// Different blocks in it.
    pub blocks: u64,
}

impl Survey {
    /// Reads the whole trace, so that a line that is wrong is known before anything is sent.
    pub fn of(file: &Path) -> Result<Self> {
        let mut cache = Infinite::default();
        let mut endless = Totals::default();
        for request in open(file)? {
            let request = request.with_context(|| file.display().to_string())?;
            endless.add(&request, cache.serve(&request.hash_ids));
        }
        if endless.blocks_asked == 0 {
            bail!(
                "{} asks for no block; make a trace with `strandctl bench trace`",
                file.display()
            );
        }
        Ok(Self {
            file: file.into(),
            endless,
            blocks: cache.blocks() as u64,
        })
    }
}

fn open(file: &Path) -> Result<Requests<BufReader<File>>> {
    let opened = File::open(file)
        .with_context(|| format!("the trace {} cannot be opened", file.display()))?;
    Ok(Requests::new(BufReader::with_capacity(1 << 20, opened)))
}

/// Hands out requests, and plays each through the reference meanwhile.
#[derive(Debug)]
pub struct Feed {
    requests: Requests<BufReader<File>>,
    file: PathBuf,
    speed: Speed,
    started: Instant,
    first_ms: Option<u64>,
    lru: Lru,
    /// What the reference made of the requests handed out.
    pub reference: Totals,
    /// How late a request was handed out at most, because all clients were busy.
    pub latest: Duration,
}

impl Feed {
    /// From the first request on, from now on; the reference has room for `capacity` blocks.
    pub fn new(survey: &Survey, speed: Speed, capacity: usize) -> Result<Self> {
        Ok(Self {
            requests: open(&survey.file)?,
            file: survey.file.clone(),
            speed,
            started: Instant::now(),
            first_ms: None,
            lru: Lru::new(capacity),
            reference: Totals::default(),
            latest: Duration::ZERO,
        })
    }

    /// The next request, once its time has come.
    pub async fn next(&mut self) -> Result<Option<Request>> {
        let Some(request) = self.requests.next() else {
            return Ok(None);
        };
        let request = request.with_context(|| self.file.display().to_string())?;
        let first = *self.first_ms.get_or_insert(request.timestamp_ms);
        if let Speed::Times(times) = self.speed {
            let after = (request.timestamp_ms - first) as f64 / 1000.0 / times;
            let due =
                self.started + Duration::try_from_secs_f64(after).unwrap_or(Duration::MAX / 4);
            match due.checked_duration_since(Instant::now()) {
                Some(early) => tokio::time::sleep(early).await,
                None => self.latest = self.latest.max(due.elapsed()),
            }
        }
        self.reference
            .add(&request, self.lru.serve(&request.hash_ids));
        Ok(Some(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_read_as_they_are_written() {
        for text in ["max", "trace", "x10", "x0.5"] {
            assert_eq!(text.parse::<Speed>().unwrap().to_string(), text);
        }
        for text in ["", "fast", "x", "x0", "x-1", "xnan", "xinf", "10"] {
            assert!(text.parse::<Speed>().is_err(), "{text}");
        }
    }
}
