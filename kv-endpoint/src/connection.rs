//! One client: its commands, one after the other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::command::{Command, Spec};
use crate::endpoint::Endpoint;
use crate::info::info;
use crate::resp::{Reply, refusal};
use crate::server::Misses;
use crate::session::{self, Session};
use crate::store::{Connection, Error, MAX_KEY, Store, Ttl};
use crate::wire::{End, Wire};
use crate::{glob, padding};

/// The longest argument that is kept in memory, in bytes; values are not.
const LONGEST: usize = 64 << 10;
/// The most that one command's arguments may take in memory together, in bytes.
const MOST: usize = 1 << 20;

/// One client's connection.
pub struct Peer<S: Store> {
    pub(crate) wire: Wire,
    pub(crate) endpoint: Arc<Endpoint<S>>,
    session: Session,
    /// Whether answers must have the length that the client expects; see [`padding`].
    pub(crate) fixed_width: bool,
}

/// Whether the connection goes on.
#[derive(PartialEq, Eq)]
enum Next {
    GoOn,
    Quit,
}

impl<S: Store> Peer<S> {
    /// A client that just connected.
    pub fn new(wire: Wire, endpoint: Arc<Endpoint<S>>, misses: Misses, peer: String) -> Self {
        let session = Session::new(&endpoint, peer);
        Self {
            wire,
            endpoint,
            session,
            fixed_width: misses == Misses::Padded,
        }
    }

    /// Serves the client until it leaves, or has to.
    pub async fn run(mut self) -> End {
        let end = loop {
            match self.turn().await {
                Ok(Next::GoOn) => {}
                Ok(Next::Quit) => break End::Closed,
                Err(end) => break end,
            }
        };
        let metrics = &self.endpoint.metrics;
        match &end {
            End::Protocol(error) => {
                metrics.protocol_errors.inc();
                refusal(format!("Protocol error: {error}"))
                    .write(self.session.protocol, self.wire.out());
            }
            End::Stalled(_) => {
                metrics.stalled.inc();
                return end;
            }
            End::Io(_) => return end,
            End::Closed => {}
        }
        // It may have gone already; nothing follows in either case.
        let _ = self.wire.flush().await;
        end
    }

    async fn turn(&mut self) -> Result<Next, End> {
        let count = self.wire.command().await?;
        let began = Instant::now();
        let Some(name) = self.word().await? else {
            self.wire.skip_arguments(count - 1).await?;
            self.wire.finish().await?;
            self.answer(refusal("unknown command: its name is too long"));
            return Ok(Next::GoOn);
        };
        self.fixed_width &= !self.wire.is_inline() && expects_fixed_width(&name, count);
        let spec = match self.admit(&name, count) {
            Ok(spec) => spec,
            Err(fault) => {
                self.wire.skip_arguments(count - 1).await?;
                self.wire.finish().await?;
                self.answer(fault);
                return Ok(Next::GoOn);
            }
        };
        let metrics = &self.endpoint.metrics;
        metrics.commands.with_label_values(&[spec.name]).inc();
        let seconds = metrics.seconds(spec.name);
        match spec.command {
            Command::Set | Command::Setex | Command::Psetex | Command::Setnx => {
                self.set(spec, count - 1).await?;
            }
            Command::Mset => self.mset(count - 1).await?,
            _ => {
                if let Some(words) = self.words(spec, count - 1).await? {
                    self.run_command(spec.command, &words).await?;
                }
            }
        }
        seconds.observe(began.elapsed().as_secs_f64());
        self.wire.gathered().await?;
        Ok(match spec.command {
            Command::Quit => Next::Quit,
            _ => Next::GoOn,
        })
    }

    /// The command called `name` with `count` arguments, if this client may have it run.
    fn admit(&self, name: &[u8], count: usize) -> Result<&'static Spec, Reply> {
        let Some(spec) = Spec::find(name) else {
            return Err(refusal(format!(
                "unknown command '{}'; COMMAND LIST tells which there are",
                name.escape_ascii()
            )));
        };
        if !spec.takes(count) {
            return Err(refusal(format!(
                "wrong number of arguments for '{}' command",
                spec.name
            )));
        }
        if !self.session.admitted && !spec.before_password() {
            return Err(Reply::Error(
                "NOAUTH this endpoint has a password: AUTH first".into(),
            ));
        }
        Ok(spec)
    }

    /// The next argument; none if it is too long to be kept, and thrown away.
    pub(crate) async fn word(&mut self) -> Result<Option<Vec<u8>>, End> {
        let length = self.wire.argument().await?;
        if length > LONGEST {
            self.wire.skip(length).await?;
            return Ok(None);
        }
        let mut word = vec![0; length];
        self.wire.fill(&mut word).await?;
        Ok(Some(word))
    }

    /// The rest of a command without values, `count` arguments. None: it was refused.
    async fn words(&mut self, spec: &Spec, count: usize) -> Result<Option<Vec<Vec<u8>>>, End> {
        let mut words = Vec::new();
        let mut held = 0;
        for done in 1..=count {
            let word = self.word().await?;
            held += word.as_ref().map_or(0, Vec::len) + size_of::<Vec<u8>>();
            match word {
                Some(word) if held <= MOST => words.push(word),
                _ => {
                    self.wire.skip_arguments(count - done).await?;
                    self.wire.finish().await?;
                    let reply = refusal(format!(
                        "arguments are too long: at most {LONGEST} bytes each and {MOST} a command"
                    ));
                    self.refuse(spec.command, &[], reply);
                    return Ok(None);
                }
            }
        }
        self.wire.finish().await?;
        Ok(Some(words))
    }

    async fn run_command(&mut self, command: Command, words: &[Vec<u8>]) -> Result<(), End> {
        let endpoint = self.endpoint.clone();
        let reply = match command {
            Command::Get => return self.get(&words[0]).await,
            Command::Mget => return self.mget(words).await,
            Command::Auth => self.session.auth(&endpoint, words),
            Command::Hello => self.session.hello(&endpoint, words),
            Command::Client => self.session.client(words),
            Command::Reset => self.session.reset(&endpoint),
            Command::Ping => session::ping(words),
            Command::Echo => Reply::bulk(&words[0]),
            Command::Select => session::select(words),
            Command::Config => session::config(&endpoint, words),
            Command::Commands => session::command(words),
            Command::Info => Reply::Text(info(&endpoint, words).await),
            Command::Quit => Reply::Simple("OK"),
            command => match keys(&endpoint, command, words).await {
                Ok(reply) => reply,
                Err(error) => refusal(error),
            },
        };
        if self.fixed_width && command == Command::Exists && reply == Reply::Integer(1) {
            endpoint.prepare(&words[0]).await;
        }
        match reply {
            Reply::Error(_) => self.refuse(command, &[], reply),
            reply => self.answer(reply),
        }
        Ok(())
    }

    async fn get(&mut self, key: &[u8]) -> Result<(), End> {
        match self.endpoint.store.get(key).await {
            Ok(Some(value)) => self.found(key, value.as_ref()).await,
            Ok(None) => {
                self.missed(key);
                Ok(())
            }
            Err(error) => {
                self.refuse(Command::Get, key, refusal(error));
                Ok(())
            }
        }
    }

    async fn mget(&mut self, keys: &[Vec<u8>]) -> Result<(), End> {
        self.wire
            .out()
            .extend_from_slice(format!("*{}\r\n", keys.len()).as_bytes());
        for key in keys {
            // One value after the other: what the arena must hold at once is one, however many are asked for.
            match self.endpoint.store.get(key).await {
                Ok(Some(value)) => self.found(key, value.as_ref()).await?,
                Ok(None) | Err(_) => self.missed(key),
            }
        }
        Ok(())
    }

    async fn found(&mut self, key: &[u8], value: &[u8]) -> Result<(), End> {
        self.learn(key, value.len());
        self.wire.value(value).await?;
        let metrics = &self.endpoint.metrics;
        metrics.hits.inc();
        metrics.bytes_read.inc_by(value.len() as u64);
        Ok(())
    }

    fn missed(&mut self, key: &[u8]) {
        let metrics = &self.endpoint.metrics;
        metrics.misses.inc();
        if matches!(self.endpoint.store.connection(), Connection::Down { .. }) {
            metrics.misses_agent_away.inc();
        }
        if self.endpoint.leases.broken(key) {
            metrics.misses_after_exists.inc();
        }
        match self.fixed_width {
            true => self.padded_miss(key),
            false => self.answer(Reply::Nil),
        }
    }

    fn padded_miss(&mut self, key: &[u8]) {
        let length = self.endpoint.expected(key);
        if length.is_none() {
            self.endpoint.metrics.misses_unknown_length.inc();
        }
        self.wire.out().extend_from_slice(&padding::miss(length));
    }

    /// This client's value of `key` has that length.
    pub(crate) fn learn(&self, key: &[u8], length: usize) {
        if self.fixed_width {
            self.endpoint.learn(key, length);
        }
    }

    /// Writes an answer.
    pub(crate) fn answer(&mut self, reply: Reply) {
        if matches!(reply, Reply::Error(_)) {
            self.endpoint.metrics.refused.inc();
        }
        reply.write(self.session.protocol, self.wire.out());
    }

    /// Writes an error, in the length that the client expects if it is one of those.
    pub(crate) fn refuse(&mut self, command: Command, key: &[u8], error: Reply) {
        if !self.fixed_width {
            return self.answer(error);
        }
        self.endpoint.metrics.refused.inc();
        tracing::warn!(client = %self.session.peer, ?command, ?error, "refused, in a line too short to say why");
        match command {
            Command::Get => self.padded_miss(key),
            Command::Set => self.wire.out().extend_from_slice(padding::REFUSED),
            Command::Exists | Command::Del => self.wire.out().extend_from_slice(padding::NONE),
            _ => error.write(self.session.protocol, self.wire.out()),
        }
    }
}

/// Whether a command looks exactly as clients send it that read a fixed number of bytes: nothing else, ever.
fn expects_fixed_width(name: &[u8], count: usize) -> bool {
    matches!(
        (name, count),
        (b"GET" | b"EXISTS" | b"DEL", 2) | (b"SET", 3) | (b"AUTH", 2 | 3)
    )
}

/// Commands of keys that carry no values.
async fn keys<S: Store>(
    endpoint: &Endpoint<S>,
    command: Command,
    words: &[Vec<u8>],
) -> Result<Reply, Error> {
    let store = &endpoint.store;
    let key = words.first().map_or(&[][..], Vec::as_slice);
    Ok(match command {
        Command::Exists | Command::Touch => {
            let there = store.exists(words).await?;
            let found = words.iter().zip(there).filter(|(_, there)| *there);
            Reply::Integer(
                found
                    .inspect(|(key, _)| endpoint.leases.granted(key))
                    .count() as i64,
            )
        }
        Command::Del | Command::Unlink => {
            let mut deleted = 0;
            for key in words {
                deleted += i64::from(store.delete(key).await?);
                endpoint.leases.deleted(key);
            }
            Reply::Integer(deleted)
        }
        Command::Strlen => Reply::Integer(store.length(key).await?.unwrap_or(0) as i64),
        Command::Type => Reply::Simple(match store.length(key).await? {
            Some(_) => "string",
            None => "none",
        }),
        Command::Ttl => Reply::Integer(match store.ttl(key).await? {
            Ttl::Absent => -2,
            Ttl::Forever => -1,
            // To the nearest second, as Redis does.
            Ttl::Left(left) => (left + Duration::from_millis(500)).as_secs() as i64,
        }),
        Command::Pttl => Reply::Integer(match store.ttl(key).await? {
            Ttl::Absent => -2,
            Ttl::Forever => -1,
            Ttl::Left(left) => left.as_millis() as i64,
        }),
        Command::Expire | Command::Pexpire => {
            let ttl = match (
                lifetime(&words[1], command == Command::Pexpire),
                &words[2..],
            ) {
                (Lifetime::NoNumber, _) => {
                    return Ok(refusal("value is not an integer or out of range"));
                }
                (_, [_, ..]) => return Ok(refusal("syntax error")),
                (Lifetime::Past, []) => Duration::ZERO,
                (Lifetime::Left(ttl), []) => ttl,
            };
            if ttl.is_zero() {
                endpoint.leases.deleted(key);
            }
            Reply::Integer(store.expire(key, Some(ttl)).await?.into())
        }
        Command::Persist => {
            let limited = matches!(store.ttl(key).await?, Ttl::Left(_));
            Reply::Integer((limited && store.expire(key, None).await?).into())
        }
        Command::Dbsize => Reply::Integer(store.stats().await?.blocks as i64),
        Command::Flushdb | Command::Flushall => {
            match words {
                [] => {}
                [mode]
                    if [&b"ASYNC"[..], b"SYNC"].contains(&mode.to_ascii_uppercase().as_slice()) => {
                }
                _ => return Ok(refusal("syntax error")),
            }
            store.flush().await?;
            endpoint.leases.clear();
            Reply::Simple("OK")
        }
        Command::Scan => scan(store, words).await?,
        // Run elsewhere.
        _ => refusal("syntax error"),
    })
}

/// `SCAN cursor [MATCH pattern] [COUNT n] [TYPE string]`.
async fn scan<S: Store>(store: &S, words: &[Vec<u8>]) -> Result<Reply, Error> {
    let number = |word: &[u8]| std::str::from_utf8(word).ok()?.parse::<u64>().ok();
    let Some(cursor) = number(&words[0]) else {
        return Ok(refusal("invalid cursor"));
    };
    let (mut pattern, mut limit, mut strings) = (None, 10, true);
    let mut rest = &words[1..];
    while let [option, value, more @ ..] = rest {
        match option.to_ascii_uppercase().as_slice() {
            b"MATCH" => pattern = Some(value),
            b"COUNT" => match number(value).filter(|n| *n > 0) {
                Some(n) => limit = n.min(1000) as u32,
                None => return Ok(refusal("value is not an integer or out of range")),
            },
            b"TYPE" => strings = value.eq_ignore_ascii_case(b"string"),
            _ => return Ok(refusal("syntax error")),
        }
        rest = more;
    }
    if !rest.is_empty() {
        return Ok(refusal("syntax error"));
    }
    let page = store.scan(cursor, limit).await?;
    let keys = page
        .keys
        .into_iter()
        .filter(|key| strings && pattern.is_none_or(|p| glob::matches(p, key)));
    Ok(Reply::Array(vec![
        Reply::bulk(page.cursor.to_string()),
        Reply::Array(keys.map(Reply::Bulk).collect()),
    ]))
}

/// A lifetime as a client gives it.
pub(crate) enum Lifetime {
    /// Not a number, or more than a hundred years.
    NoNumber,
    /// Zero or negative.
    Past,
    /// This long.
    Left(Duration),
}

/// Reads seconds, or milliseconds.
pub(crate) fn lifetime(word: &[u8], milliseconds: bool) -> Lifetime {
    const CENTURY: Duration = Duration::from_secs(3_155_760_000);
    let number = std::str::from_utf8(word)
        .ok()
        .and_then(|w| w.parse::<i64>().ok());
    let Some(number) = number else {
        return Lifetime::NoNumber;
    };
    let left = match u64::try_from(number) {
        Err(_) | Ok(0) => return Lifetime::Past,
        Ok(n) if milliseconds => Duration::from_millis(n),
        Ok(n) => Duration::from_secs(n),
    };
    match left <= CENTURY {
        true => Lifetime::Left(left),
        false => Lifetime::NoNumber,
    }
}

/// Whether `key` may be a key.
pub(crate) fn check(key: Option<Vec<u8>>) -> Result<Vec<u8>, Reply> {
    match key {
        Some(key) if (1..=MAX_KEY).contains(&key.len()) => Ok(key),
        Some(key) => Err(refusal(Error::KeyLength { length: key.len() })),
        None => Err(refusal(format!(
            "a key of more than {LONGEST} bytes: keys have 1 to {MAX_KEY} bytes"
        ))),
    }
}
