//! QEMU's own control socket (QMP): JSON, a line a message.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

/// Longest that QEMU may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to one QEMU.
#[derive(Debug)]
pub struct Qmp {
    lines: Lines<BufReader<OwnedReadHalf>>,
    out: OwnedWriteHalf,
    events: Vec<Value>,
}

impl Qmp {
    /// Takes up an open connection: past the greeting, into the mode for commands.
    ///
    /// # Errors
    /// When what answers is not QEMU.
    pub async fn start(stream: UnixStream) -> Result<Self> {
        let (reader, out) = stream.into_split();
        let mut qmp = Self {
            lines: BufReader::new(reader).lines(),
            out,
            events: Vec::new(),
        };
        let greeting = qmp.message().await?;
        if greeting.get("QMP").is_none() {
            bail!("what listens is not QEMU; it said {greeting}");
        }
        qmp.execute("qmp_capabilities", json!({})).await?;
        Ok(qmp)
    }

    /// Runs a command and returns what it answers.
    ///
    /// # Errors
    /// QEMU's own words where it refuses.
    pub async fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let request = json!({"execute": command, "arguments": arguments});
        self.out
            .write_all(format!("{request}\n").as_bytes())
            .await
            .with_context(|| format!("QEMU cannot be asked to {command}"))?;
        let answered = async {
            loop {
                let mut message = self.message().await?;
                if message.get("event").is_some() {
                    self.events.push(message);
                } else if let Some(error) = message.get("error") {
                    bail!("{command} {arguments}: {}", error["desc"]);
                } else {
                    return Ok(message["return"].take());
                }
            }
        };
        match timeout(PATIENCE, answered).await {
            Ok(answer) => answer,
            Err(_) => bail!(
                "QEMU does not answer {command} within {} s",
                PATIENCE.as_secs()
            ),
        }
    }

    /// Waits until QEMU tells of an event of a device.
    ///
    /// # Errors
    /// When it does not within `bound`.
    pub async fn event(&mut self, name: &str, device: &str, bound: Duration) -> Result<()> {
        let is_it = |event: &Value| event["event"] == name && event["data"]["device"] == device;
        let waiting = async {
            loop {
                if let Some(at) = self.events.iter().position(is_it) {
                    self.events.remove(at);
                    return Ok(());
                }
                let message = self.message().await?;
                self.events.push(message);
            }
        };
        match timeout(bound, waiting).await {
            Ok(done) => done,
            Err(_) => bail!("no {name} of {device} within {} s", bound.as_secs()),
        }
    }

    async fn message(&mut self) -> Result<Value> {
        let line = self.lines.next_line().await.context("QEMU is gone")?;
        let line = line.context("QEMU has ended")?;
        serde_json::from_str(&line).with_context(|| format!("QEMU said {line}"))
    }
}

/// Connects to a socket that QEMU is about to make, for as long as `alive` says that it lives.
///
/// # Errors
/// When QEMU ends, or makes none in time.
pub async fn connect(path: &Path, mut alive: impl FnMut() -> Result<()>) -> Result<UnixStream> {
    let attempts = async {
        loop {
            alive()?;
            if let Ok(stream) = UnixStream::connect(path).await {
                return Ok(stream);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match timeout(PATIENCE, attempts).await {
        Ok(done) => done,
        Err(_) => bail!(
            "QEMU makes no {} within {} s",
            path.display(),
            PATIENCE.as_secs()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A QEMU that says these lines, each after having been asked so many times.
    async fn played(script: &[(usize, &str)]) -> (Result<Qmp>, tokio::task::JoinHandle<()>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let script: Vec<(usize, String)> = script
            .iter()
            .map(|(asked, line)| (*asked, format!("{line}\n")))
            .collect();
        let playing = tokio::spawn(async move {
            let (reader, mut out) = theirs.into_split();
            let mut asked = BufReader::new(reader).lines();
            for (questions, line) in script {
                for _ in 0..questions {
                    asked.next_line().await.unwrap().unwrap();
                }
                out.write_all(line.as_bytes()).await.unwrap();
            }
            // Until the other end is dropped.
            while let Ok(Some(_)) = asked.next_line().await {}
        });
        (Qmp::start(ours).await, playing)
    }

    const GREETING: (usize, &str) = (0, r#"{"QMP": {}}"#);
    const READY: (usize, &str) = (1, r#"{"return": {}}"#);

    #[tokio::test]
    async fn answers_are_told_from_events_and_events_are_kept() {
        let (qmp, _playing) = played(&[
            GREETING,
            READY,
            (1, r#"{"event": "DEVICE_DELETED", "data": {"device": "a"}}"#),
            (0, r#"{"return": {"running": true}}"#),
            (0, r#"{"event": "DEVICE_DELETED", "data": {"device": "b"}}"#),
        ])
        .await;
        let mut qmp = qmp.unwrap();
        let answer = qmp.execute("query-status", json!({})).await.unwrap();
        assert_eq!(answer["running"], true);
        let bound = Duration::from_secs(10);
        qmp.event("DEVICE_DELETED", "b", bound).await.unwrap();
        qmp.event("DEVICE_DELETED", "a", bound).await.unwrap();
        let again = qmp.event("DEVICE_DELETED", "a", Duration::from_millis(20));
        assert!(again.await.is_err());
    }

    #[tokio::test]
    async fn a_refusal_is_an_error_in_qemus_words() {
        let (qmp, _playing) = played(&[
            GREETING,
            READY,
            (
                1,
                r#"{"error": {"class": "GenericError", "desc": "no such device"}}"#,
            ),
        ])
        .await;
        let refused = qmp.unwrap().execute("device_del", json!({"id": "x"})).await;
        let words = refused.unwrap_err().to_string();
        assert!(
            words.contains("no such device") && words.contains("device_del"),
            "{words}"
        );
    }

    #[tokio::test]
    async fn whoever_does_not_greet_is_not_qemu() {
        let (qmp, _playing) = played(&[(0, r#"{"hello": 1}"#)]).await;
        assert!(qmp.unwrap_err().to_string().contains("not QEMU"));
    }
}
