//! Commands that carry values: each value goes from the socket into the room that the store gives, once its key and
//! length are known. Options follow the value, so what they say counts at the commit.

use std::collections::HashSet;

use tokio::task::JoinSet;

use crate::command::{Command, Spec};
use crate::connection::Peer;
use crate::endpoint::Endpoint;
use crate::keys::{Lifetime, check, lifetime};
use crate::resp::{Reply, refusal};
use crate::store::{Next, Put, PutOptions, Store, Upload};
use crate::wire::End;

/// Pairs of one `MSET` that are being stored while the next ones come in.
const UNDER_WAY: usize = 8;

/// What one `MSET` has under way.
#[derive(Default)]
struct UnderWay {
    puts: JoinSet<(Vec<u8>, Option<Reply>)>,
    /// Theirs, each once.
    keys: HashSet<Vec<u8>>,
}

impl UnderWay {
    /// Waits for one of them; why it was refused, if it was.
    async fn next(&mut self) -> Option<Reply> {
        match self.puts.join_next().await {
            Some(Ok((key, refused))) => {
                self.keys.remove(&key);
                refused
            }
            // One that did not come to its end, which is a fault of this program's; or none is left.
            Some(Err(error)) => {
                self.puts.abort_all();
                self.keys.clear();
                Some(refusal(error))
            }
            None => {
                self.keys.clear();
                None
            }
        }
    }
}

/// Where a value went.
enum Value<U> {
    /// Into its room, so many bytes.
    Received(U, usize),
    /// Nowhere: there was no room in time, or no agent.
    Dropped,
    /// Nowhere: it is refused.
    Refused(Reply),
}

impl<S: Store> Peer<S> {
    /// `SET key value [EX s | PX ms] [NX]`, `SETEX key s value`, `PSETEX key ms value`, `SETNX key value`; `count`
    /// arguments follow.
    pub(crate) async fn set(&mut self, spec: &Spec, count: usize) -> Result<(), End> {
        let key = check(self.word().await?);
        let mut options = Ok(PutOptions::default());
        let mut used = 2;
        if matches!(spec.command, Command::Setex | Command::Psetex) {
            let time = self.word().await?.unwrap_or_default();
            options = expiry(spec, &time, spec.command == Command::Psetex).map(|ttl| PutOptions {
                ttl: Some(ttl),
                only_if_absent: false,
            });
            used += 1;
        }
        // What is refused already takes no room.
        let wanted = match (&key, &options) {
            (Ok(key), Ok(_)) => Ok(key.as_slice()),
            (Err(reply), _) | (_, Err(reply)) => Err(reply.clone()),
        };
        let value = self.receive(wanted).await?;
        if spec.command == Command::Setnx {
            options = options.map(|o| PutOptions {
                only_if_absent: true,
                ..o
            });
        }
        if used < count {
            let mut words = Vec::new();
            for done in used..count {
                match self.word().await? {
                    // EX, a number, NX: no valid command has more.
                    Some(word) if words.len() < 3 => words.push(word),
                    _ => {
                        self.wire.skip_arguments(count - done - 1).await?;
                        words.clear();
                        options = Err(refusal("syntax error"));
                        break;
                    }
                }
            }
            options = options.and_then(|o| self::options(spec, o, &words));
        }
        self.wire.finish().await?;

        let put = match (value, options, key) {
            (Value::Refused(reply), _, _) | (_, Err(reply), _) | (_, _, Err(reply)) => Err(reply),
            (Value::Dropped, Ok(options), _) => Ok((self.dropped(), options)),
            (Value::Received(upload, length), Ok(options), Ok(key)) => {
                let put = commit(&self.endpoint, upload, length, &key, options);
                put.await.map(|put| (put, options))
            }
        };
        match put {
            Err(reply) => self.refuse(spec.command, &[], reply),
            Ok((put, options)) => {
                // Dropped or not, the client goes on as after an eviction; but who asked for "only if absent" may build
                // on the answer.
                let done = put == Put::Stored || (put == Put::Dropped && !options.only_if_absent);
                self.answer(match (spec.command, done) {
                    (Command::Setnx, done) => Reply::Integer(done.into()),
                    (_, true) => Reply::Simple("OK"),
                    (_, false) => Reply::Nil,
                });
            }
        }
        Ok(())
    }

    /// `MSET key value …`; each pair is stored as it comes, while the next one is received.
    pub(crate) async fn mset(&mut self, count: usize) -> Result<(), End> {
        let mut fault = None;
        let mut under_way = UnderWay::default();
        for _ in 0..count / 2 {
            let key = check(self.word().await?);
            let wanted = key.as_deref().map_err(Clone::clone);
            match (self.receive(wanted).await?, key) {
                (Value::Received(upload, length), Ok(key)) => {
                    // Of a key that is named twice the last value counts.
                    while under_way.keys.contains(&key) {
                        fault = fault.or(under_way.next().await);
                    }
                    under_way.keys.insert(key.clone());
                    let endpoint = self.endpoint.clone();
                    under_way.puts.spawn(async move {
                        let options = PutOptions::default();
                        let put = commit(&endpoint, upload, length, &key, options).await;
                        (key, put.err())
                    });
                }
                (Value::Dropped, _) => {
                    self.dropped();
                }
                (Value::Refused(reply), _) | (_, Err(reply)) => fault = fault.or(Some(reply)),
            }
            while under_way.keys.len() >= UNDER_WAY {
                fault = fault.or(under_way.next().await);
            }
        }
        self.wire.finish().await?;
        while !under_way.keys.is_empty() {
            fault = fault.or(under_way.next().await);
        }
        self.answer(fault.unwrap_or(Reply::Simple("OK")));
        Ok(())
    }

    /// Receives the value that comes next, that of the `wanted` key, or throws it away where there is none.
    async fn receive(&mut self, wanted: Result<&[u8], Reply>) -> Result<Value<S::Upload>, End> {
        let length = self.wire.argument().await?;
        let value = match wanted {
            Err(reply) => Value::Refused(reply),
            Ok(key) => {
                self.learn(key, length);
                match self.endpoint.store.upload(key, length).await {
                    Ok(Some(mut upload)) => {
                        let mut filled = 0;
                        while let Next::Fill(room) = upload.next().await {
                            filled += room.len();
                            self.wire.fill(room).await?;
                        }
                        // Of one that is dropped on its way: nothing else of it is wanted.
                        if filled < length {
                            self.wire.skip(length - filled).await?;
                        }
                        return Ok(Value::Received(upload, length));
                    }
                    Ok(None) => Value::Dropped,
                    Err(error) => Value::Refused(refusal(error)),
                }
            }
        };
        self.wire.skip(length).await?;
        Ok(value)
    }

    fn dropped(&self) -> Put {
        self.endpoint.metrics.dropped.inc();
        Put::Dropped
    }
}

/// Stores what was received.
async fn commit<S: Store>(
    endpoint: &Endpoint<S>,
    upload: S::Upload,
    length: usize,
    key: &[u8],
    options: PutOptions,
) -> Result<Put, Reply> {
    let metrics = &endpoint.metrics;
    let put = upload.commit(key, options).await.map_err(refusal)?;
    match put {
        Put::Dropped => metrics.dropped.inc(),
        Put::Stored => {
            metrics.stored.inc();
            metrics.bytes_written.inc_by(length as u64);
        }
        Put::Present => {}
    }
    Ok(put)
}

/// What follows the value of `SET`.
fn options(spec: &Spec, mut options: PutOptions, words: &[Vec<u8>]) -> Result<PutOptions, Reply> {
    let mut rest = words;
    while let Some((option, more)) = rest.split_first() {
        rest = match (option.to_ascii_uppercase().as_slice(), more) {
            (b"NX", more) => {
                options.only_if_absent = true;
                more
            }
            (unit @ (b"EX" | b"PX"), [time, more @ ..]) if options.ttl.is_none() => {
                options.ttl = Some(expiry(spec, time, unit == b"PX")?);
                more
            }
            (b"XX" | b"GET" | b"KEEPTTL" | b"EXAT" | b"PXAT", _) => {
                return Err(refusal(format!(
                    "SET with {} is not supported here; EX, PX and NX are",
                    option.escape_ascii()
                )));
            }
            _ => return Err(refusal("syntax error")),
        };
    }
    Ok(options)
}

fn expiry(spec: &Spec, word: &[u8], milliseconds: bool) -> Result<std::time::Duration, Reply> {
    match lifetime(word, milliseconds) {
        Lifetime::Left(ttl) => Ok(ttl),
        Lifetime::Past => Err(refusal(format!(
            "invalid expire time in '{}' command",
            spec.name
        ))),
        Lifetime::NoNumber => Err(refusal("value is not an integer or out of range")),
    }
}
