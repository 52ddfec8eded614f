//! A pod that uses its endpoint and its volume without a pause, and tells what it saw.

use std::time::Duration;

use serde_json::{Value, json};
use strand_e2e::wait::{self, PATIENCE};

use crate::rack::{Pod, Rack, claim};

const CLIENT: &str = include_str!("client.py");

/// A pod whose client runs.
pub struct Running<'a> {
    rack: &'a Rack,
    namespace: String,
    name: String,
}

/// What it saw until now.
#[derive(Debug)]
pub struct Seen(Value);

impl Seen {
    pub fn count(&self, what: &str) -> u64 {
        self.0[what].as_u64().unwrap()
    }

    /// Of what it did, the longest.
    pub fn slowest(&self) -> Duration {
        Duration::from_secs_f64(self.0["slowest"].as_f64().unwrap())
    }

    /// Whoever uses the endpoint has not noticed anything but misses.
    pub fn is_unharmed(&self) {
        assert_eq!(self.0["errors"], json!([]), "{self:?}");
        assert_eq!(
            self.0["connections"].as_array().unwrap().len(),
            1,
            "{self:?}"
        );
        assert_eq!(self.count("wrong"), 0, "{self:?}");
    }
}

impl<'a> Running<'a> {
    /// Starts one on a node, with a volume of its own.
    pub fn start(rack: &'a Rack, namespace: &str, name: &str, node: &str) -> Self {
        rack.team(namespace);
        rack.apply(claim(namespace, name, "400Mi", json!({})));
        let pod = Pod::new(namespace, name)
            .on(node)
            .claim(name, "/data")
            .command(&["python3", "-c", CLIENT]);
        rack.apply(pod.object());
        rack.ready(namespace, name);
        let running = Self {
            rack,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        running.goes_on();
        running
    }

    pub fn seen(&self) -> Seen {
        Seen(
            serde_json::from_str(&self.rack.exec(&self.namespace, &self.name, "cat /tmp/seen"))
                .unwrap(),
        )
    }

    /// Waits until it hits again, and writes to its volume.
    pub fn goes_on(&self) {
        self.goes_on_within(PATIENCE);
    }

    /// The same, for at most `bound`.
    pub fn goes_on_within(&self, bound: Duration) {
        let mut before: Option<(u64, u64)> = None;
        wait::until("the client hits, and writes", bound, || {
            let text = self
                .rack
                .cluster
                .exec(&self.namespace, &self.name, &["cat", "/tmp/seen"]);
            let text = text.map_err(|error| format!("{error:#}"))?;
            let seen = Seen(serde_json::from_str(&text).map_err(|error| error.to_string())?);
            let now = (seen.count("hits"), seen.count("file"));
            let (hits, file) = *before.get_or_insert(now);
            if now.0 > hits + 20 && now.1 > file + 20 {
                Ok(())
            } else {
                Err(format!("{seen:?}"))
            }
        })
        .unwrap();
    }

    /// Waits until it writes to its volume again; what it hits does not matter.
    pub fn writes_on(&self) {
        let before = self.seen().count("file");
        wait::until("the client writes", PATIENCE, || {
            let now = self.seen();
            if now.count("file") > before + 20 {
                Ok(())
            } else {
                Err(format!("{now:?}"))
            }
        })
        .unwrap();
    }

    /// Ends it; its claim goes too.
    pub fn end(self) {
        self.rack
            .delete(&self.namespace, &format!("pod/{}", self.name));
        self.rack
            .delete(&self.namespace, &format!("pvc/{}", self.name));
    }
}
