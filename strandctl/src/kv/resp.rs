//! A connection to a pod's endpoint: as much of RESP2 as people's commands need
//! (<https://redis.io/docs/latest/develop/reference/protocol-spec/>).

use anyhow::{Context, Result, anyhow, bail, ensure};
use std::{fmt::Write as _, future::Future, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};

/// Longest that an answer may take: an endpoint itself waits half as long for its agent.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest value that is taken, as Redis has it.
const LONGEST: usize = 512 << 20;
/// Lookups in flight at once.
const LOOKUPS: usize = 256;

/// A connection to an endpoint.
#[derive(Debug)]
pub struct Resp {
    address: String,
    stream: BufReader<TcpStream>,
    out: Vec<u8>,
    value: Vec<u8>,
}

/// The first line of a reply that is no error.
enum Head {
    Simple,
    Integer(i64),
    Bulk(Option<usize>),
    Array(usize),
}

impl Resp {
    /// Connects, and shows itself as an ordinary client: only those get nil for what is not there.
    pub async fn connect(address: &str, password: Option<&str>) -> Result<Self> {
        let connected = within(address, async { Ok(TcpStream::connect(address).await?) });
        let stream = connected.await.with_context(|| {
            format!("no endpoint answers at {address}; is the pod up, and is that its address for Redis clients?")
        })?;
        stream.set_nodelay(true)?;
        let mut resp = Self {
            address: address.into(),
            stream: BufReader::with_capacity(64 << 10, stream),
            out: Vec::new(),
            value: Vec::new(),
        };
        let mut hello: Vec<&[u8]> = vec![b"HELLO", b"2"];
        if let Some(password) = password {
            hello.extend([&b"AUTH"[..], b"default", password.as_bytes()]);
        }
        resp.ask(&hello).await?;
        resp.skip().await?;
        Ok(resp)
    }

    /// Where it is connected to.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// How many of the keys, from the first on, are there without a gap. Those get a lease.
    pub async fn leading_run(&mut self, keys: &[Vec<u8>]) -> Result<usize> {
        let mut run = 0;
        for part in keys.chunks(LOOKUPS) {
            self.out.clear();
            for key in part {
                self.command(&[b"EXISTS", key]);
            }
            self.send("EXISTS").await?;
            let mut present = Vec::with_capacity(part.len());
            for _ in part {
                present.push(self.integer("EXISTS").await? == 1);
            }
            let found = present.iter().take_while(|there| **there).count();
            run += found;
            if found < part.len() {
                break;
            }
        }
        Ok(run)
    }

    /// Reads a value; it lies here until the next call.
    pub async fn get(&mut self, key: &[u8]) -> Result<Option<&[u8]>> {
        self.ask(&[b"GET", key]).await?;
        self.bulk("GET").await
    }

    /// Writes a value of `length` bytes, which `fill` puts into place.
    pub async fn set(
        &mut self,
        key: &[u8],
        ttl: Option<Duration>,
        length: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<()> {
        let milliseconds = ttl.map(|ttl| ttl.as_millis().max(1).to_string());
        let words = if ttl.is_some() { 5 } else { 3 };
        self.out.clear();
        self.out
            .extend_from_slice(format!("*{words}\r\n").as_bytes());
        self.words(&[b"SET", key]);
        self.out
            .extend_from_slice(format!("${length}\r\n").as_bytes());
        let from = self.out.len();
        self.out.resize(from + length, 0);
        fill(&mut self.out[from..]);
        self.out.extend_from_slice(b"\r\n");
        if let Some(milliseconds) = &milliseconds {
            self.words(&[b"PX", milliseconds.as_bytes()]);
        }
        self.send("SET").await?;
        match self.head("SET").await? {
            Head::Simple => Ok(()),
            _ => bail!(self.nonsense("SET")),
        }
    }

    /// A command that is answered with a number.
    pub async fn number(&mut self, words: &[&[u8]]) -> Result<i64> {
        self.ask(words).await?;
        self.integer(&String::from_utf8_lossy(words[0])).await
    }

    /// All of `INFO`.
    pub async fn info(&mut self) -> Result<String> {
        self.ask(&[b"INFO"]).await?;
        let text = self.bulk("INFO").await?.unwrap_or_default();
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    fn words(&mut self, words: &[&[u8]]) {
        for word in words {
            self.out
                .extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            self.out.extend_from_slice(word);
            self.out.extend_from_slice(b"\r\n");
        }
    }

    fn command(&mut self, words: &[&[u8]]) {
        self.out
            .extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
        self.words(words);
    }

    async fn ask(&mut self, words: &[&[u8]]) -> Result<()> {
        self.out.clear();
        self.command(words);
        self.send(&String::from_utf8_lossy(words[0])).await
    }

    async fn send(&mut self, command: &str) -> Result<()> {
        let Self {
            address,
            stream,
            out,
            ..
        } = self;
        let sent = within(address, async {
            Ok(stream.get_mut().write_all(out).await?)
        });
        sent.await
            .with_context(|| format!("{address} takes no {command}"))
    }

    async fn head(&mut self, command: &str) -> Result<Head> {
        let mut line = String::new();
        let Self {
            address, stream, ..
        } = self;
        let read = within(address, async {
            Ok(stream.take(4096).read_line(&mut line).await?)
        });
        read.await
            .with_context(|| format!("no answer to {command}"))?;
        let Some(line) = line.strip_suffix("\r\n") else {
            bail!(
                "{address} closed the connection instead of answering {command}; look into the log of its endpoint"
            );
        };
        let (kind, rest) = line.split_at_checked(1).unwrap_or((line, ""));
        let length = |text: &str| text.parse().ok().filter(|length| *length <= LONGEST);
        let head = match kind {
            "+" => Some(Head::Simple),
            ":" => rest.parse().ok().map(Head::Integer),
            "$" if rest == "-1" => Some(Head::Bulk(None)),
            "$" => length(rest).map(|length| Head::Bulk(Some(length))),
            "*" => length(rest).map(Head::Array),
            "-" => bail!(refused(address, command, rest)),
            _ => None,
        };
        head.ok_or_else(|| self.nonsense(command))
    }

    async fn integer(&mut self, command: &str) -> Result<i64> {
        match self.head(command).await? {
            Head::Integer(number) => Ok(number),
            _ => bail!(self.nonsense(command)),
        }
    }

    async fn bulk(&mut self, command: &str) -> Result<Option<&[u8]>> {
        let length = match self.head(command).await? {
            Head::Bulk(Some(length)) => length,
            Head::Bulk(None) => return Ok(None),
            _ => bail!(self.nonsense(command)),
        };
        let Self {
            address,
            stream,
            value,
            ..
        } = self;
        value.resize(length + 2, 0);
        let read = within(address, async { Ok(stream.read_exact(value).await?) });
        read.await
            .with_context(|| format!("the answer to {command} breaks off"))?;
        ensure!(
            value.ends_with(b"\r\n"),
            "{address} does not end a value as RESP has it"
        );
        Ok(Some(&value[..length]))
    }

    /// Passes over a reply, whatever is nested in it.
    async fn skip(&mut self) -> Result<()> {
        let mut left = 1usize;
        while left > 0 {
            left -= 1;
            match self.head("HELLO").await? {
                Head::Simple | Head::Integer(_) | Head::Bulk(None) => {}
                Head::Array(count) => left = left.saturating_add(count),
                Head::Bulk(Some(length)) => {
                    let mut passed = vec![0; length + 2];
                    self.stream.read_exact(&mut passed).await?;
                }
            }
        }
        Ok(())
    }

    fn nonsense(&self, command: &str) -> anyhow::Error {
        anyhow!(
            "{} answers {command} with something else than RESP has for it; is it the address for Redis clients?",
            self.address
        )
    }
}

fn refused(address: &str, command: &str, words: &str) -> String {
    let mut message = format!("{address} refuses {command}: {words}");
    if ["NOAUTH", "WRONGPASS"]
        .iter()
        .any(|code| words.starts_with(code))
    {
        let _ = write!(message, "; give the pod's password with --password-file");
    }
    message
}

async fn within<T>(address: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    match timeout(PATIENCE, work).await {
        Ok(done) => done,
        Err(_) => bail!("{address} rests for {} s", PATIENCE.as_secs()),
    }
}
