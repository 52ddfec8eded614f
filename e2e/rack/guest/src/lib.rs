//! What the rack's harness and its guests say to each other over a virtio-serial port.
//!
//! The guest says [`Answer::HELLO`] once it has come up; then the harness sends [`Request`]s, of which many may be under way,
//! and the guest answers each with an [`Answer`] that carries its number. Files are carried as input and output of `cat`.
//!
//! A message is its length (u32, without itself) and its fields; numbers are little-endian, bytes come after their length (u32).

/// Longest message that is taken, in bytes.
pub const LONGEST: usize = 256 << 20;

/// A shell script that the guest shall run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Number of the request, by which it is answered; not [`Answer::HELLO`]'s.
    pub number: u64,
    /// What `sh -c` runs.
    pub script: Vec<u8>,
    /// Its standard input.
    pub input: Vec<u8>,
}

/// What a script came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Number of the request.
    pub number: u64,
    /// Exit status; 128 and the signal's number where one ended it, as in a shell.
    pub status: i32,
    /// Its standard output.
    pub output: Vec<u8>,
    /// Its standard error.
    pub error: Vec<u8>,
}

impl Request {
    /// The message, with its length.
    pub fn encode(&self) -> Vec<u8> {
        message(|body| {
            body.extend(self.number.to_le_bytes());
            put(body, &self.script);
            put(body, &self.input);
        })
    }

    /// A request from a message without its length; none where it is no such message.
    pub fn decode(mut body: &[u8]) -> Option<Self> {
        let request = Self {
            number: u64::from_le_bytes(take(&mut body)?),
            script: bytes(&mut body)?,
            input: bytes(&mut body)?,
        };
        body.is_empty().then_some(request)
    }
}

impl Answer {
    /// Number of the message by which a guest says that it has come up.
    pub const HELLO: u64 = 0;

    /// The message, with its length.
    pub fn encode(&self) -> Vec<u8> {
        message(|body| {
            body.extend(self.number.to_le_bytes());
            body.extend(self.status.to_le_bytes());
            put(body, &self.output);
            put(body, &self.error);
        })
    }

    /// An answer from a message without its length; none where it is no such message.
    pub fn decode(mut body: &[u8]) -> Option<Self> {
        let answer = Self {
            number: u64::from_le_bytes(take(&mut body)?),
            status: i32::from_le_bytes(take(&mut body)?),
            output: bytes(&mut body)?,
            error: bytes(&mut body)?,
        };
        body.is_empty().then_some(answer)
    }
}

fn message(fill: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut whole = vec![0; 4];
    fill(&mut whole);
    let length = (whole.len() - 4) as u32;
    whole[..4].copy_from_slice(&length.to_le_bytes());
    whole
}

fn put(body: &mut Vec<u8>, field: &[u8]) {
    body.extend((field.len() as u32).to_le_bytes());
    body.extend(field);
}

fn take<const N: usize>(body: &mut &[u8]) -> Option<[u8; N]> {
    let (field, rest) = body.split_first_chunk()?;
    *body = rest;
    Some(*field)
}

fn bytes(body: &mut &[u8]) -> Option<Vec<u8>> {
    let length = u32::from_le_bytes(take(body)?) as usize;
    let (field, rest) = body.split_at_checked(length)?;
    *body = rest;
    Some(field.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_as_they_went_in_and_nothing_else_does() {
        let request = Request {
            number: 7,
            script: b"cat".into(),
            input: vec![0, 255, 10],
        };
        let sent = request.encode();
        assert_eq!(
            sent.len() as u32 - 4,
            u32::from_le_bytes(*sent.first_chunk().unwrap_or(&[0; 4]))
        );
        assert_eq!(Request::decode(&sent[4..]), Some(request));
        for cut in 4..sent.len() {
            assert_eq!(Request::decode(&sent[4..cut]), None);
        }
        let longer: Vec<u8> = [&sent[4..], b"x"].concat();
        assert_eq!(Request::decode(&longer), None);

        let answer = Answer {
            number: Answer::HELLO,
            status: -1,
            output: b"out".into(),
            error: Vec::new(),
        };
        assert_eq!(Answer::decode(&answer.encode()[4..]), Some(answer));
    }
}
