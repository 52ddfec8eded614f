//! Commands about the connection itself, and what clients ask about the server before they begin.

use crate::command::{COMMANDS, Spec};
use crate::endpoint::Endpoint;
use crate::resp::{Protocol, Reply, refusal};
use crate::store::Store;

/// The version of Redis whose commands these are.
pub const REDIS_VERSION: &str = "7.2.4";

/// One client's connection.
#[derive(Clone, Debug, Default)]
pub struct Session {
    /// Its number.
    pub id: u64,
    /// Where it comes from.
    pub peer: String,
    /// What it speaks.
    pub protocol: Protocol,
    /// Whether it may do anything yet.
    pub admitted: bool,
    /// What it calls itself.
    pub name: Vec<u8>,
    library: Vec<u8>,
    library_version: Vec<u8>,
}

type Words<'a> = &'a [Vec<u8>];

fn syntax() -> Reply {
    refusal("syntax error")
}

fn printable(word: &[u8]) -> bool {
    word.iter().all(|b| (b'!'..=b'~').contains(b))
}

impl Session {
    /// The session of a client that just connected from `peer`.
    pub fn new<S: Store>(endpoint: &Endpoint<S>, peer: String) -> Self {
        Self {
            id: endpoint.number(),
            peer,
            admitted: endpoint.config.password.is_none(),
            ..Self::default()
        }
    }

    /// `AUTH [user] password`.
    pub fn auth<S: Store>(&mut self, endpoint: &Endpoint<S>, words: Words<'_>) -> Reply {
        let (user, password) = match words {
            [password] => (&b"default"[..], password),
            [user, password] => (&user[..], password),
            _ => return syntax(),
        };
        if endpoint.config.password.is_none() {
            return refusal("AUTH without need: this endpoint has no password configured");
        }
        if user == b"default" && endpoint.admits(password) {
            self.admitted = true;
            return Reply::Simple("OK");
        }
        Reply::Error("WRONGPASS invalid username-password pair (the user is default)".into())
    }

    /// `HELLO [2|3 [AUTH user password] [SETNAME name]]`.
    pub fn hello<S: Store>(&mut self, endpoint: &Endpoint<S>, words: Words<'_>) -> Reply {
        let mut next = self.clone();
        if let Some((version, mut rest)) = words.split_first() {
            next.protocol = match &version[..] {
                b"2" => Protocol::Two,
                b"3" => Protocol::Three,
                _ => return Reply::Error("NOPROTO unsupported protocol version".into()),
            };
            while let Some((option, more)) = rest.split_first() {
                rest = match (option.to_ascii_uppercase().as_slice(), more) {
                    (b"AUTH", [user, password, more @ ..]) => {
                        let reply = next.auth(endpoint, &[user.clone(), password.clone()]);
                        if reply != Reply::Simple("OK") {
                            return reply;
                        }
                        more
                    }
                    (b"SETNAME", [name, more @ ..]) => {
                        if !printable(name) {
                            return refusal("client names are printable and without spaces");
                        }
                        next.name.clone_from(name);
                        more
                    }
                    _ => return syntax(),
                };
            }
        }
        if !next.admitted {
            return Reply::Error(
                "NOAUTH HELLO needs AUTH here: HELLO 3 AUTH default password".into(),
            );
        }
        *self = next;
        let text = |word: &str| Reply::bulk(word);
        Reply::Map(vec![
            (text("server"), text("redis")),
            (text("version"), text(REDIS_VERSION)),
            (text("proto"), Reply::Integer(self.protocol.number())),
            (text("id"), Reply::Integer(self.id as i64)),
            (text("mode"), text("standalone")),
            (text("role"), text("master")),
            (text("modules"), Reply::Array(vec![])),
        ])
    }

    /// `CLIENT …`.
    pub fn client(&mut self, words: Words<'_>) -> Reply {
        let Some((what, rest)) = words.split_first() else {
            return syntax();
        };
        match (what.to_ascii_uppercase().as_slice(), rest) {
            (b"ID", []) => Reply::Integer(self.id as i64),
            (b"GETNAME", []) if self.name.is_empty() => Reply::Nil,
            (b"GETNAME", []) => Reply::bulk(&self.name),
            (b"SETNAME", [name]) if printable(name) => {
                self.name.clone_from(name);
                Reply::Simple("OK")
            }
            (b"SETNAME", [_]) => refusal("client names are printable and without spaces"),
            (b"SETINFO", [attribute, value]) => {
                let slot = match attribute.to_ascii_uppercase().as_slice() {
                    b"LIB-NAME" => &mut self.library,
                    b"LIB-VER" => &mut self.library_version,
                    _ => return refusal("CLIENT SETINFO knows LIB-NAME and LIB-VER"),
                };
                if !printable(value) {
                    return refusal("CLIENT SETINFO values are printable and without spaces");
                }
                slot.clone_from(value);
                Reply::Simple("OK")
            }
            (b"INFO", []) | (b"LIST", _) => Reply::Text(self.describe()),
            // Nothing here is evicted or touched on behalf of one connection.
            (b"NO-EVICT" | b"NO-TOUCH", [switch])
                if [&b"ON"[..], b"OFF"].contains(&switch.to_ascii_uppercase().as_slice()) =>
            {
                Reply::Simple("OK")
            }
            _ => refusal(format!(
                "CLIENT {} is not known here, or not with these arguments",
                what.escape_ascii()
            )),
        }
    }

    fn describe(&self) -> String {
        format!(
            "id={} addr={} name={} db=0 resp={} lib-name={} lib-ver={}\n",
            self.id,
            self.peer,
            self.name.escape_ascii(),
            self.protocol.number(),
            self.library.escape_ascii(),
            self.library_version.escape_ascii(),
        )
    }

    /// `RESET`: as if just connected.
    pub fn reset<S: Store>(&mut self, endpoint: &Endpoint<S>) -> Reply {
        *self = Self {
            id: self.id,
            peer: std::mem::take(&mut self.peer),
            admitted: endpoint.config.password.is_none(),
            ..Self::default()
        };
        Reply::Simple("RESET")
    }
}

/// `SELECT 0`.
pub fn select(words: Words<'_>) -> Reply {
    match words {
        [index] if index == b"0" => Reply::Simple("OK"),
        _ => refusal("DB index is out of range: a pod has one namespace, database 0"),
    }
}

/// `PING [message]`.
pub fn ping(words: Words<'_>) -> Reply {
    match words {
        [] => Reply::Simple("PONG"),
        [message] => Reply::bulk(message),
        _ => refusal("wrong number of arguments for 'ping' command"),
    }
}

/// `CONFIG GET pattern…`: what redis-benchmark wants to print. Nothing can be set.
pub fn config<S: Store>(endpoint: &Endpoint<S>, words: Words<'_>) -> Reply {
    let Some((what, patterns)) = words.split_first() else {
        return syntax();
    };
    if !what.eq_ignore_ascii_case(b"GET") || patterns.is_empty() {
        return refusal("CONFIG knows GET alone; flags of kv-endpoint set what can be set");
    }
    let settings = [
        ("appendonly", "no".to_owned()),
        ("databases", "1".to_owned()),
        ("maxclients", endpoint.config.max_connections.to_string()),
        ("maxmemory", "0".to_owned()),
        ("maxmemory-policy", "allkeys-lru".to_owned()),
        ("proto-max-bulk-len", crate::resp::MAX_BULK.to_string()),
        ("save", String::new()),
        ("timeout", "0".to_owned()),
    ];
    let asked = settings.into_iter().filter(|(name, _)| {
        patterns
            .iter()
            .any(|p| crate::glob::matches(&p.to_ascii_lowercase(), name.as_bytes()))
    });
    Reply::Map(
        asked
            .map(|(name, value)| (Reply::bulk(name), Reply::bulk(value)))
            .collect(),
    )
}

/// `COMMAND [COUNT | DOCS … | INFO name…]`.
pub fn command(words: Words<'_>) -> Reply {
    let describe = |spec: &Spec| {
        let (first, last, step) = spec.keys;
        Reply::Array(vec![
            Reply::bulk(spec.name),
            Reply::Integer(spec.arity),
            Reply::Array(spec.flags.iter().copied().map(Reply::Simple).collect()),
            Reply::Integer(first),
            Reply::Integer(last),
            Reply::Integer(step),
            // Categories, tips, key specifications, subcommands: clients want the places, and take them empty.
            Reply::Array(vec![]),
            Reply::Array(vec![]),
            Reply::Array(vec![]),
            Reply::Array(vec![]),
        ])
    };
    let Some((what, names)) = words.split_first() else {
        return Reply::Array(COMMANDS.iter().map(describe).collect());
    };
    match what.to_ascii_uppercase().as_slice() {
        b"COUNT" => Reply::Integer(COMMANDS.len() as i64),
        b"DOCS" => Reply::Map(vec![]),
        b"LIST" => Reply::Array(COMMANDS.iter().map(|s| Reply::bulk(s.name)).collect()),
        b"INFO" if names.is_empty() => Reply::Array(COMMANDS.iter().map(describe).collect()),
        b"INFO" => Reply::Array(
            names
                .iter()
                .map(|name| Spec::find(name).map_or(Reply::Nil, describe))
                .collect(),
        ),
        _ => refusal("COMMAND knows COUNT, DOCS, INFO and LIST"),
    }
}
