//! What people see of a block, and of a namespace.

use super::session::{Described, Session};
use crate::text::{Style, Tone, count};
use anyhow::Result;
use serde::Serialize;
use std::{collections::HashMap, time::Duration};
use strand_api::ByteQuantity;
use strand_kv_client::Connection;

/// A block.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Block {
    /// Its key; bytes that are no text are replaced.
    pub key: String,
    /// Bytes of its value.
    pub length_bytes: u64,
    /// What is left of its life; none: no end is set.
    pub left_milliseconds: Option<u64>,
}

/// A namespace, as one door shows it. None: that door does not tell.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Namespace {
    /// The door.
    pub door: String,
    /// Why there is no agent behind it; none: there is one.
    pub agent_away: Option<String>,
    /// Blocks present.
    pub blocks: Option<u64>,
    /// Bytes of their values.
    pub bytes: Option<u64>,
    /// Reads that found their block since the endpoint began.
    pub hits: Option<u64>,
    /// Reads that did not.
    pub misses: Option<u64>,
    /// Writes stored since the endpoint began.
    pub stored: Option<u64>,
    /// Writes dropped.
    pub dropped: Option<u64>,
    /// Bytes of arena for values on their way to clients.
    pub arena_get_bytes: Option<u64>,
    /// Bytes of arena for values on their way from clients.
    pub arena_put_bytes: Option<u64>,
}

impl Block {
    /// A block with what is known of it.
    pub fn new(key: &[u8], described: Described) -> Self {
        let left = described.left;
        Self {
            key: String::from_utf8_lossy(key).into_owned(),
            length_bytes: described.length,
            left_milliseconds: left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// As text.
    pub fn text(&self, style: Style) -> String {
        let length = match self.length_bytes {
            small @ 0..1024 => size(small),
            bytes => format!("{} ({bytes} bytes)", size(bytes)),
        };
        let left = match self.left_milliseconds {
            None => "no end set".into(),
            Some(left) => format!("{} left", duration(Duration::from_millis(left))),
        };
        lines(
            style,
            &[
                ("Key", self.key.escape_debug().to_string()),
                ("Length", length),
                ("Life", left),
            ],
        )
    }
}

impl Namespace {
    /// What a door tells of its namespace.
    pub async fn of(session: &mut Session) -> Result<Self> {
        match session {
            Session::Resp(resp) => {
                let text = resp.info().await?;
                let mut facts = Self::from_info(resp.address(), &text);
                if facts.agent_away.is_none() {
                    facts.blocks = u64::try_from(resp.number(&[b"DBSIZE"]).await?).ok();
                }
                Ok(facts)
            }
            Session::Native(client) => {
                let stats = client.stats().await?;
                let mut facts = Self {
                    door: "native".into(),
                    blocks: Some(stats.blocks),
                    bytes: Some(stats.bytes),
                    ..Self::default()
                };
                if let Connection::Up {
                    get_bytes,
                    put_bytes,
                    ..
                } = client.connection()
                {
                    facts.arena_get_bytes = Some(get_bytes);
                    facts.arena_put_bytes = Some(put_bytes);
                }
                Ok(facts)
            }
        }
    }

    fn from_info(door: &str, text: &str) -> Self {
        let facts: HashMap<&str, &str> = text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .collect();
        let number = |name| facts.get(name).and_then(|value| value.parse().ok());
        let away = facts.get("agent") == Some(&"down");
        Self {
            door: door.into(),
            agent_away: away.then(|| {
                facts
                    .get("agent_down_reason")
                    .copied()
                    .unwrap_or("unknown why")
                    .into()
            }),
            blocks: None,
            bytes: number("used_memory").filter(|_| !away),
            hits: number("keyspace_hits"),
            misses: number("keyspace_misses"),
            stored: number("puts_stored"),
            dropped: number("puts_dropped"),
            arena_get_bytes: number("arena_get_bytes"),
            arena_put_bytes: number("arena_put_bytes"),
        }
    }

    /// As text.
    pub fn text(&self, style: Style) -> String {
        let mut rows = vec![("Door", self.door.clone())];
        rows.push((
            "Agent",
            match &self.agent_away {
                None => style.paint(Tone::Good, "up"),
                Some(why) => style.paint(Tone::Bad, &format!("away: {why}")),
            },
        ));
        if let (Some(blocks), Some(bytes)) = (self.blocks, self.bytes) {
            rows.push((
                "Holds",
                format!("{}, {}", count(blocks as usize, "block"), size(bytes)),
            ));
        }
        if let (Some(hits), Some(misses)) = (self.hits, self.misses) {
            let rate = match hits + misses {
                0 => String::new(),
                all => format!(": {:.1} % hit", 100.0 * hits as f64 / all as f64),
            };
            rows.push((
                "Reads",
                format!("{hits} hits, {misses} misses{rate} (since the endpoint began)"),
            ));
        }
        if let (Some(stored), Some(dropped)) = (self.stored, self.dropped) {
            rows.push(("Writes", format!("{stored} stored, {dropped} dropped")));
        }
        if let (Some(get), Some(put)) = (self.arena_get_bytes, self.arena_put_bytes) {
            rows.push((
                "Arena",
                format!("{} for reads, {} for writes", size(get), size(put)),
            ));
        }
        lines(style, &rows)
    }
}

fn lines(style: Style, rows: &[(&str, String)]) -> String {
    let line = |(name, value): &(&str, String)| {
        format!(
            "{} {value}\n",
            style.paint(Tone::Faint, &format!("{name:<7}"))
        )
    };
    rows.iter().map(line).collect()
}

/// `6 bytes`, `2Mi`.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        bytes => ByteQuantity(bytes).rounded(),
    }
}

/// In the two largest units: `2 d 3 h`, `9 min 58 s`, `12.3 s`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    let (large, small) = match seconds {
        0..60 => return format!("{:.1} s", time.as_secs_f64()),
        60..3_600 => ((seconds / 60, "min"), (seconds % 60, "s")),
        3_600..86_400 => ((seconds / 3_600, "h"), (seconds % 3_600 / 60, "min")),
        _ => ((seconds / 86_400, "d"), (seconds % 86_400 / 3_600, "h")),
    };
    format!("{} {} {} {}", large.0, large.1, small.0, small.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::compare;

    #[test]
    fn a_block_in_words() {
        let block = |length, left| {
            let described = Described { length, left };
            Block::new(b"chat\xff17", described).text(Style::PLAIN)
        };
        compare(
            "kv-stat-key.txt",
            &[
                block(2 << 20, None),
                block(28, Some(Duration::from_millis(598_400))),
                block(1_500, Some(Duration::from_secs(200_000))),
            ]
            .join("\n"),
        );
    }

    #[test]
    fn a_namespace_in_words() {
        let info = "# Memory\r\nused_memory:5368709120\r\n# Stats\r\nkeyspace_hits:912\r\nkeyspace_misses:88\r\n# Strand\r\n\
                    agent:up\r\narena_get_bytes:67108864\r\narena_put_bytes:33554432\r\nputs_stored:1200\r\nputs_dropped:3\r\n";
        let up = Namespace {
            blocks: Some(2560),
            ..Namespace::from_info("127.0.0.1:6379", info)
        };
        let info = "used_memory:0\r\nkeyspace_hits:0\r\nkeyspace_misses:0\r\nagent:down\r\n\
                    agent_down_reason:/run/strand/kv/door.sock: no such file\r\nputs_stored:0\r\nputs_dropped:0\r\n";
        let away = Namespace::from_info("127.0.0.1:6379", info);
        compare(
            "kv-stat.txt",
            &[up.text(Style::PLAIN), away.text(Style::PLAIN)].join("\n"),
        );
    }
}
