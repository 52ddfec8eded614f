//! The commands that there are.

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named like the commands")]
pub enum Command {
    Auth,
    Client,
    Commands,
    Config,
    Dbsize,
    Del,
    Echo,
    Exists,
    Expire,
    Flushall,
    Flushdb,
    Get,
    Hello,
    Info,
    Mget,
    Mset,
    Persist,
    Pexpire,
    Ping,
    Psetex,
    Pttl,
    Quit,
    Reset,
    Scan,
    Select,
    Set,
    Setex,
    Setnx,
    Strlen,
    Touch,
    Ttl,
    Type,
    Unlink,
}

/// What is known of a command without running it; the numbers are those that `COMMAND` tells
/// (<https://redis.io/docs/latest/commands/command/>).
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Which command.
    pub command: Command,
    /// Its name, in small letters.
    pub name: &'static str,
    /// Arguments with the name; negative: at least so many.
    pub arity: i64,
    /// Flags, in words.
    pub flags: &'static [&'static str],
    /// First key, last key (negative: from the end), step.
    pub keys: (i64, i64, i64),
}

const READ: &[&str] = &["readonly", "fast"];
const WRITE: &[&str] = &["write", "denyoom"];
const CHANGE: &[&str] = &["write", "fast"];
const SESSION: &[&str] = &["noscript", "loading", "stale", "fast"];
const OPEN: &[&str] = &["noscript", "loading", "stale", "fast", "no_auth"];

const fn spec(
    command: Command,
    name: &'static str,
    arity: i64,
    flags: &'static [&'static str],
    keys: (i64, i64, i64),
) -> Spec {
    Spec {
        command,
        name,
        arity,
        flags,
        keys,
    }
}

/// Every command, by name.
pub const COMMANDS: &[Spec] = &[
    spec(Command::Auth, "auth", -2, OPEN, (0, 0, 0)),
    spec(Command::Client, "client", -2, SESSION, (0, 0, 0)),
    spec(Command::Commands, "command", -1, SESSION, (0, 0, 0)),
    spec(Command::Config, "config", -2, SESSION, (0, 0, 0)),
    spec(Command::Dbsize, "dbsize", 1, READ, (0, 0, 0)),
    spec(Command::Del, "del", -2, CHANGE, (1, -1, 1)),
    spec(Command::Echo, "echo", 2, SESSION, (0, 0, 0)),
    spec(Command::Exists, "exists", -2, READ, (1, -1, 1)),
    spec(Command::Expire, "expire", -3, CHANGE, (1, 1, 1)),
    spec(Command::Flushall, "flushall", -1, CHANGE, (0, 0, 0)),
    spec(Command::Flushdb, "flushdb", -1, CHANGE, (0, 0, 0)),
    spec(Command::Get, "get", 2, READ, (1, 1, 1)),
    spec(Command::Hello, "hello", -1, OPEN, (0, 0, 0)),
    spec(Command::Info, "info", -1, SESSION, (0, 0, 0)),
    spec(Command::Mget, "mget", -2, READ, (1, -1, 1)),
    spec(Command::Mset, "mset", -3, WRITE, (1, -1, 2)),
    spec(Command::Persist, "persist", 2, CHANGE, (1, 1, 1)),
    spec(Command::Pexpire, "pexpire", -3, CHANGE, (1, 1, 1)),
    spec(Command::Ping, "ping", -1, SESSION, (0, 0, 0)),
    spec(Command::Psetex, "psetex", 4, WRITE, (1, 1, 1)),
    spec(Command::Pttl, "pttl", 2, READ, (1, 1, 1)),
    spec(Command::Quit, "quit", -1, OPEN, (0, 0, 0)),
    spec(Command::Reset, "reset", 1, OPEN, (0, 0, 0)),
    spec(Command::Scan, "scan", -2, READ, (0, 0, 0)),
    spec(Command::Select, "select", 2, SESSION, (0, 0, 0)),
    spec(Command::Set, "set", -3, WRITE, (1, 1, 1)),
    spec(Command::Setex, "setex", 4, WRITE, (1, 1, 1)),
    spec(Command::Setnx, "setnx", 3, WRITE, (1, 1, 1)),
    spec(Command::Strlen, "strlen", 2, READ, (1, 1, 1)),
    spec(Command::Touch, "touch", -2, READ, (1, -1, 1)),
    spec(Command::Ttl, "ttl", 2, READ, (1, 1, 1)),
    spec(Command::Type, "type", 2, READ, (1, 1, 1)),
    spec(Command::Unlink, "unlink", -2, CHANGE, (1, -1, 1)),
];

impl Spec {
    /// The command of that name, in whatever letters.
    pub fn find(name: &[u8]) -> Option<&'static Self> {
        COMMANDS
            .iter()
            .find(|spec| spec.name.as_bytes().eq_ignore_ascii_case(name))
    }

    /// Whether a command may have `count` arguments, its name included.
    pub fn takes(&self, count: usize) -> bool {
        let wanted = self.arity.unsigned_abs() as usize;
        let enough = if self.arity < 0 {
            count >= wanted
        } else {
            count == wanted
        };
        enough && (self.command != Command::Mset || count % 2 == 1)
    }

    /// Whether it is answered before a password was given.
    pub fn before_password(&self) -> bool {
        self.flags.contains(&"no_auth")
    }
}
