//! Counting requests.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Mutex, PoisonError},
};

/// What one kind of request is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `apply`, `delete`, `deletecollection`, or `other` for
    /// requests that name no objects.
    pub verb: &'static str,
    /// `plural.group` (`plural` in the core group), with `/status` for the subresource; the path for `other`.
    pub resource: String,
    /// The HTTP code of the answer.
    pub code: u16,
}

/// How many requests of each kind have been answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests since the server started.
    pub requests: BTreeMap<Request, u64>,
    /// Objects stored, by `plural.group`.
    pub objects: BTreeMap<String, u64>,
    /// Watches open now.
    pub watchers: u64,
}

impl Stats {
    /// Requests that changed something or tried to: every verb but `get`, `list`, `watch` and `other`.
    #[must_use]
    pub fn writes(&self) -> u64 {
        let reading = ["get", "list", "watch", "other"];
        self.requests
            .iter()
            .filter(|(r, _)| !reading.contains(&r.verb))
            .map(|(_, n)| n)
            .sum()
    }

    /// The figures in Prometheus' text format.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        text.push_str(
            "# HELP strand_api_requests_total Requests answered by the embedded API server.\n",
        );
        text.push_str("# TYPE strand_api_requests_total counter\n");
        for (
            Request {
                verb,
                resource,
                code,
            },
            count,
        ) in &self.requests
        {
            let _ = writeln!(
                text,
                "strand_api_requests_total{{verb=\"{verb}\",resource=\"{resource}\",code=\"{code}\"}} {count}"
            );
        }
        text.push_str(
            "# HELP strand_api_objects Objects stored.\n# TYPE strand_api_objects gauge\n",
        );
        for (resource, count) in &self.objects {
            let _ = writeln!(
                text,
                "strand_api_objects{{resource=\"{resource}\"}} {count}"
            );
        }
        text.push_str(
            "# HELP strand_api_watchers Watches open now.\n# TYPE strand_api_watchers gauge\n",
        );
        let _ = writeln!(text, "strand_api_watchers {}", self.watchers);
        text
    }
}

/// The running count.
#[derive(Debug, Default)]
pub(crate) struct Counter(Mutex<BTreeMap<Request, u64>>);

impl Counter {
    pub(crate) fn count(&self, request: Request) {
        *self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(request)
            .or_default() += 1;
    }

    pub(crate) fn read(&self) -> BTreeMap<Request, u64> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
