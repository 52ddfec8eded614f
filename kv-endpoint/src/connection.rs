//! One client: its commands, one after the other.

use std::sync::Arc;
use std::time::Instant;

use crate::ahead::{Ahead, MOST as AHEAD};
use crate::command::{Command, Spec};
use crate::endpoint::Endpoint;
use crate::info::info;
use crate::resp::{Reply, refusal};
use crate::server::Misses;
use crate::session::{self, Session};
use crate::store::{Connection, Store, Value};
use crate::wire::{End, Wire};
use crate::{keys, padding};

/// The longest argument that is kept in memory, in bytes; values are not.
pub(crate) const LONGEST: usize = 64 << 10;
/// The most that one command's arguments may take in memory together, in bytes.
const MOST: usize = 1 << 20;

/// One client's connection.
pub struct Peer<S: Store> {
    pub(crate) wire: Wire,
    pub(crate) endpoint: Arc<Endpoint<S>>,
    session: Session,
    /// Whether answers must have the length that the client expects; see [`padding`].
    pub(crate) fixed_width: bool,
    ahead: Ahead<S>,
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
            ahead: Ahead::new(endpoint.clone()),
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
            End::Lost(_) => {
                metrics.late_failures.inc();
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
        if spec.command != Command::Get {
            self.ahead.forget();
        }
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
            command => match keys::run(&endpoint, command, words).await {
                Ok(reply) => reply,
                Err(error) => refusal(error),
            },
        };
        let found = command == Command::Exists && reply == Reply::Integer(1);
        let reply = match found && self.fixed_width && !endpoint.prepare(&words[0]).await {
            true => Reply::Integer(0),
            false => reply,
        };
        match reply {
            Reply::Error(_) => self.refuse(command, &[], reply),
            reply => self.answer(reply),
        }
        Ok(())
    }

    async fn get(&mut self, key: &[u8]) -> Result<(), End> {
        let next = self.wire.gets_ahead(AHEAD);
        match self.ahead.fetch(key, &next).await {
            Ok(Some(value)) => self.found(key, value).await,
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
        for (at, key) in keys.iter().enumerate() {
            match self.ahead.fetch(key, &keys[at + 1..]).await {
                Ok(Some(value)) => self.found(key, value).await?,
                Ok(None) | Err(_) => self.missed(key),
            }
        }
        Ok(())
    }

    async fn found(&mut self, key: &[u8], mut value: S::Value) -> Result<(), End> {
        let length = value.length();
        // Nothing of it has been sent: a value that is lost by now is a miss.
        let Ok(Some(first)) = self.ahead.giving_way(value.next()).await else {
            self.missed(key);
            return Ok(());
        };
        self.learn(key, usize::try_from(length).unwrap_or(usize::MAX));
        if first.as_ref().len() as u64 == length {
            self.wire.value(first.as_ref()).await?;
        } else {
            self.endpoint.metrics.streamed_out.inc();
            self.wire.begin_value(length);
            self.wire.part(first.as_ref()).await?;
            drop(first);
            while let Some(part) = self.ahead.giving_way(value.next()).await? {
                self.wire.part(part.as_ref()).await?;
            }
            self.wire.end_value();
        }
        let metrics = &self.endpoint.metrics;
        metrics.hits.inc();
        metrics.bytes_read.inc_by(length);
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
