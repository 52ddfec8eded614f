//! What is told of every call: which, on what, how long, with what outcome. Requests themselves are never written anywhere:
//! they can hold secrets.

use std::future::Future;
use std::time::Instant;

use prometheus::{HistogramOpts, HistogramVec, Registry};
use tonic::{Code, Response, Status};

use crate::error::Error;

/// How much of an id of somebody else's making is written.
const SHOWN: usize = 128;

/// Metrics of all calls. Clones are the same.
#[derive(Clone, Debug)]
pub struct Calls {
    seconds: HistogramVec,
}

impl Calls {
    /// Metrics in `registry`.
    ///
    /// # Errors
    /// Where the registry has them already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let options = HistogramOpts::new(
            "strand_csi_call_seconds",
            "Duration of CSI calls, by method and gRPC code",
        )
        .buckets(vec![
            0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0,
        ]);
        let seconds = HistogramVec::new(options, &["method", "code"])?;
        registry.register(Box::new(seconds.clone()))?;
        Ok(Self { seconds })
    }

    /// Carries out a call about `id` and tells of it.
    ///
    /// # Errors
    /// The call's, as a status.
    pub async fn run<T>(
        &self,
        method: &'static str,
        id: &str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<Response<T>, Status> {
        let mut told = Told {
            calls: self,
            method,
            id: shown(id),
            start: Instant::now(),
            outcome: None,
        };
        let result = work.await;
        told.outcome = Some(match &result {
            Ok(_) => (Code::Ok, String::new()),
            Err(error) => (error.code(), error.to_string()),
        });
        drop(told);
        Ok(Response::new(result?))
    }
}

/// Tells when it goes: also of a call whose caller went away first.
struct Told<'a> {
    calls: &'a Calls,
    method: &'static str,
    id: String,
    start: Instant,
    outcome: Option<(Code, String)>,
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        let taken = self.start.elapsed();
        let (method, id, milliseconds) = (self.method, &self.id, taken.as_millis() as u64);
        let gone = (Code::Cancelled, "the caller went away".to_owned());
        let (code, words) = self.outcome.take().unwrap_or(gone);
        let labels = [method, &format!("{code:?}")];
        self.calls
            .seconds
            .with_label_values(&labels)
            .observe(taken.as_secs_f64());
        match code {
            Code::Ok if id.is_empty() => tracing::debug!(method, milliseconds, "done"),
            Code::Ok => tracing::info!(method, volume = id, milliseconds, "done"),
            _ => {
                tracing::warn!(method, volume = id, milliseconds, code = ?code, error = words, "not done");
            }
        }
    }
}

/// As much of an id as is written, without what could break a line.
fn shown(id: &str) -> String {
    id.chars()
        .take(SHOWN)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}
