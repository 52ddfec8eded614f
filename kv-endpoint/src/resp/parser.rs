//! Reads commands item by item, so that a value's bytes never pass through here.

/// The longest argument that a client may announce, in bytes (as in Redis, `proto-max-bulk-len`).
pub const MAX_BULK: usize = 512 << 20;
/// The most arguments a command may have (as in Redis).
pub const MAX_ARGUMENTS: usize = 1 << 20;
/// The longest inline command or length line, in bytes (as in Redis).
pub const MAX_LINE: usize = 64 << 10;

/// What the next bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A command of so many arguments (1 at least) begins; the first is its name.
    Command(usize),
    /// An argument of so many bytes begins: the caller takes them from the input, then asks on.
    Argument(usize),
    /// The command is complete.
    End,
    /// A whole command on one line, as a person types it; never empty.
    Inline(Vec<Vec<u8>>),
}

/// How far a look into the input went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// An item; so many bytes of the input belong to it and are to be dropped.
    Item(usize, Item),
    /// Nothing to report: drop so many bytes (perhaps none) and ask again with more.
    More(usize),
}

/// The client does not speak the protocol: it is told so, and the connection is closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// The first line of an array is no number, or too large.
    #[error("an array of at most {MAX_ARGUMENTS} arguments was expected")]
    ArrayLength,
    /// An argument does not begin with `$`.
    #[error("'$' was expected before an argument, not '{}'", .0.escape_ascii())]
    NotBulk(u8),
    /// An argument's length is no number, negative, or too large.
    #[error("an argument's length of 0 to {MAX_BULK} was expected")]
    BulkLength,
    /// An argument is not followed by CR LF.
    #[error("an argument is not followed by CR LF")]
    Terminator,
    /// A line does not end.
    #[error("a line is longer than {MAX_LINE} bytes")]
    LineLength,
    /// A quote in an inline command is not closed.
    #[error("quotes in the line do not match")]
    Quotes,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Idle,
    /// So many arguments are still to begin.
    Arguments(usize),
    /// After an argument's bytes: CR LF, then so many more arguments.
    Terminator(usize),
}

/// Where one connection's input stands.
#[derive(Clone, Debug, Default)]
pub struct Parser(State);

impl Parser {
    /// Between two commands: nothing of the next one has been seen.
    pub fn idle(&self) -> bool {
        self.0 == State::Idle
    }

    /// Looks at `input`, which begins where the last item ended (after an [`Item::Argument`]: after its bytes).
    ///
    /// # Errors
    /// If this is not the protocol. What to do next cannot be known then: close the connection.
    pub fn next(&mut self, input: &[u8]) -> Result<Step, ProtocolError> {
        match self.0 {
            State::Idle => self.command(input),
            State::Arguments(0) => {
                self.0 = State::Idle;
                Ok(Step::Item(0, Item::End))
            }
            State::Arguments(left) => {
                match input.first() {
                    None => return Ok(Step::More(0)),
                    Some(b'$') => {}
                    Some(&other) => return Err(ProtocolError::NotBulk(other)),
                }
                let Some((line, used)) = line(input)? else {
                    return Ok(Step::More(0));
                };
                let length = number(&line[1..])
                    .and_then(|n| usize::try_from(n).ok())
                    .filter(|n| *n <= MAX_BULK)
                    .ok_or(ProtocolError::BulkLength)?;
                self.0 = State::Terminator(left - 1);
                Ok(Step::Item(used, Item::Argument(length)))
            }
            State::Terminator(left) => match input {
                [b'\r', b'\n', ..] => {
                    self.0 = State::Arguments(left);
                    Ok(match self.next(&input[2..])? {
                        Step::Item(used, item) => Step::Item(used + 2, item),
                        Step::More(used) => Step::More(used + 2),
                    })
                }
                [] | [b'\r'] => Ok(Step::More(0)),
                _ => Err(ProtocolError::Terminator),
            },
        }
    }

    fn command(&mut self, input: &[u8]) -> Result<Step, ProtocolError> {
        let mut used = 0;
        loop {
            let Some((line, length)) = line(&input[used..])? else {
                return Ok(Step::More(used));
            };
            used += length;
            if let Some(count) = line.strip_prefix(b"*") {
                let count = number(count).ok_or(ProtocolError::ArrayLength)?;
                if count > MAX_ARGUMENTS as i64 {
                    return Err(ProtocolError::ArrayLength);
                }
                // An empty or null array asks for nothing, and is not answered.
                if let Some(count) = usize::try_from(count).ok().filter(|n| *n > 0) {
                    self.0 = State::Arguments(count);
                    return Ok(Step::Item(used, Item::Command(count)));
                }
            } else {
                let words = words(line)?;
                if !words.is_empty() {
                    return Ok(Step::Item(used, Item::Inline(words)));
                }
            }
        }
    }
}

/// The first line without its end (LF, or CR LF), and the bytes it takes with it.
fn line(input: &[u8]) -> Result<Option<(&[u8], usize)>, ProtocolError> {
    let head = &input[..input.len().min(MAX_LINE)];
    match head.iter().position(|b| *b == b'\n') {
        Some(at) => {
            let line = &head[..at];
            Ok(Some((line.strip_suffix(b"\r").unwrap_or(line), at + 1)))
        }
        None if head.len() == MAX_LINE => Err(ProtocolError::LineLength),
        None => Ok(None),
    }
}

fn number(digits: &[u8]) -> Option<i64> {
    // At most as many as cannot overflow; `+` and spaces are not part of the protocol.
    if digits.len() > 18 || digits.first() == Some(&b'+') {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The words of an inline command: separated by white space; `"…"` with backslash escapes, `'…'` without (but `\'`).
fn words(line: &[u8]) -> Result<Vec<Vec<u8>>, ProtocolError> {
    let mut words = Vec::new();
    let mut rest = line.iter().copied().peekable();
    loop {
        while rest.next_if(u8::is_ascii_whitespace).is_some() {}
        let Some(&first) = rest.peek() else {
            return Ok(words);
        };
        let mut word = Vec::new();
        if first == b'"' || first == b'\'' {
            rest.next();
            loop {
                match rest.next().ok_or(ProtocolError::Quotes)? {
                    quote if quote == first => break,
                    b'\\' if first == b'"' => {
                        let escape = rest.next().ok_or(ProtocolError::Quotes)?;
                        word.push(unescape(escape, &mut rest));
                    }
                    b'\\' if rest.next_if_eq(&b'\'').is_some() => word.push(b'\''),
                    other => word.push(other),
                }
            }
            if rest.peek().is_some_and(|b| !b.is_ascii_whitespace()) {
                return Err(ProtocolError::Quotes);
            }
        } else {
            while let Some(byte) = rest.next_if(|b| !b.is_ascii_whitespace()) {
                word.push(byte);
            }
        }
        words.push(word);
    }
}

fn unescape(escape: u8, rest: &mut std::iter::Peekable<impl Iterator<Item = u8> + Clone>) -> u8 {
    match escape {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 8,
        b'a' => 7,
        b'x' => {
            let mut ahead = rest.clone();
            let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
            match (digit(ahead.next()), digit(ahead.next())) {
                (Some(high), Some(low)) => {
                    *rest = ahead;
                    (high * 16 + low) as u8
                }
                _ => b'x',
            }
        }
        other => other,
    }
}
