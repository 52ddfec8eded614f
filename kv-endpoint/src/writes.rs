//! Commands that carry values: each value goes from the socket into the room that the store gives, once its key and
//! length are known. Options follow the value, so what they say counts at the commit.

use crate::command::{Command, Spec};
use crate::connection::Peer;
use crate::keys::{Lifetime, check, lifetime};
use crate::resp::{Reply, refusal};
use crate::store::{Put, PutOptions, Store};
use crate::wire::End;

/// Where a value went.
enum Value<R> {
    /// Into its room.
    Received(R),
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
            (Value::Received(room), Ok(options), Ok(key)) => self
                .commit(room, &key, options)
                .await
                .map(|put| (put, options)),
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

    /// `MSET key value …`; each pair is stored as it comes.
    pub(crate) async fn mset(&mut self, count: usize) -> Result<(), End> {
        let mut fault = None;
        for _ in 0..count / 2 {
            let key = check(self.word().await?);
            let wanted = key.as_deref().map_err(Clone::clone);
            let stored = match (self.receive(wanted).await?, key) {
                (Value::Received(room), Ok(key)) => {
                    self.commit(room, &key, PutOptions::default()).await.err()
                }
                (Value::Dropped, _) => {
                    self.dropped();
                    None
                }
                (Value::Refused(reply), _) | (_, Err(reply)) => Some(reply),
            };
            fault = fault.or(stored);
        }
        self.wire.finish().await?;
        self.answer(fault.unwrap_or(Reply::Simple("OK")));
        Ok(())
    }

    /// Receives the value that comes next, that of the `wanted` key, or throws it away where there is none.
    async fn receive(&mut self, wanted: Result<&[u8], Reply>) -> Result<Value<S::Room>, End> {
        let length = self.wire.argument().await?;
        let value = match wanted {
            Err(reply) => Value::Refused(reply),
            Ok(key) => {
                self.learn(key, length);
                match self.endpoint.store.reserve(length).await {
                    Ok(Some(mut room)) => {
                        self.wire.fill(&mut room).await?;
                        return Ok(Value::Received(room));
                    }
                    Ok(None) => Value::Dropped,
                    Err(error) => Value::Refused(refusal(error)),
                }
            }
        };
        self.wire.skip(length).await?;
        Ok(value)
    }

    async fn commit(
        &mut self,
        room: S::Room,
        key: &[u8],
        options: PutOptions,
    ) -> Result<Put, Reply> {
        let length = room.len() as u64;
        let put = self.endpoint.store.commit(room, key, options).await;
        let metrics = &self.endpoint.metrics;
        match put {
            Ok(Put::Dropped) => Ok(self.dropped()),
            Ok(put) => {
                if put == Put::Stored {
                    metrics.stored.inc();
                    metrics.bytes_written.inc_by(length);
                }
                Ok(put)
            }
            Err(error) => Err(refusal(error)),
        }
    }

    fn dropped(&self) -> Put {
        self.endpoint.metrics.dropped.inc();
        Put::Dropped
    }
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
