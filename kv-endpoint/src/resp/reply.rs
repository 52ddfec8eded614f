//! What a client is answered.

/// Which version of the protocol a connection speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// RESP2: every connection's first.
    #[default]
    Two,
    /// RESP3: after `HELLO 3`.
    Three,
}

impl Protocol {
    /// The number that `HELLO` takes and tells.
    pub fn number(self) -> i64 {
        match self {
            Self::Two => 2,
            Self::Three => 3,
        }
    }

    /// How "no such value" looks.
    pub fn nil(self) -> &'static [u8] {
        match self {
            Self::Two => b"$-1\r\n",
            Self::Three => b"_\r\n",
        }
    }
}

/// An answer that fits memory. Values are sent from the arena instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `+…`
    Simple(&'static str),
    /// `-…`: a code in capitals, a space, a sentence. Line ends become spaces.
    Error(String),
    /// `:…`
    Integer(i64),
    /// `$…`
    Bulk(Vec<u8>),
    /// Text for people: `=…` of type `txt`, or `$…` in RESP2.
    Text(String),
    /// `_`, or `$-1` in RESP2.
    Nil,
    /// `*…`
    Array(Vec<Reply>),
    /// `%…`, or a flat array in RESP2.
    Map(Vec<(Reply, Reply)>),
}

/// An error with the ordinary code.
pub fn refusal(sentence: impl std::fmt::Display) -> Reply {
    Reply::Error(format!("ERR {sentence}"))
}

impl Reply {
    /// A bulk string.
    pub fn bulk(bytes: impl AsRef<[u8]>) -> Self {
        Self::Bulk(bytes.as_ref().to_vec())
    }

    /// Appends the answer to `out`.
    pub fn write(&self, protocol: Protocol, out: &mut Vec<u8>) {
        match self {
            Self::Simple(word) => line(out, b'+', word.as_bytes()),
            Self::Error(sentence) => {
                let clean: Vec<u8> = sentence
                    .bytes()
                    .map(|b| if b == b'\r' || b == b'\n' { b' ' } else { b })
                    .collect();
                line(out, b'-', &clean);
            }
            Self::Integer(n) => header(out, b':', n),
            Self::Bulk(bytes) => {
                header(out, b'$', bytes.len());
                out.extend_from_slice(bytes);
                out.extend_from_slice(b"\r\n");
            }
            Self::Text(text) => match protocol {
                Protocol::Two => Self::bulk(text).write(protocol, out),
                Protocol::Three => {
                    header(out, b'=', text.len() + 4);
                    out.extend_from_slice(b"txt:");
                    out.extend_from_slice(text.as_bytes());
                    out.extend_from_slice(b"\r\n");
                }
            },
            Self::Nil => out.extend_from_slice(protocol.nil()),
            Self::Array(items) => {
                header(out, b'*', items.len());
                for item in items {
                    item.write(protocol, out);
                }
            }
            Self::Map(pairs) => {
                match protocol {
                    Protocol::Two => header(out, b'*', pairs.len() * 2),
                    Protocol::Three => header(out, b'%', pairs.len()),
                }
                for (key, value) in pairs {
                    key.write(protocol, out);
                    value.write(protocol, out);
                }
            }
        }
    }
}

fn header(out: &mut Vec<u8>, kind: u8, number: impl std::fmt::Display) {
    line(out, kind, number.to_string().as_bytes());
}

fn line(out: &mut Vec<u8>, kind: u8, text: &[u8]) {
    out.push(kind);
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}
