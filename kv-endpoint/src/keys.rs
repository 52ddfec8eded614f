//! Commands of keys that carry no values, and what keys and lifetimes may be.

use std::time::Duration;

use crate::command::Command;
use crate::connection::LONGEST;
use crate::endpoint::Endpoint;
use crate::glob;
use crate::resp::{Reply, refusal};
use crate::store::{Error, MAX_KEY, Store, Ttl};

/// Runs a command of keys.
///
/// # Errors
/// If the store cannot, and the client must know.
pub async fn run<S: Store>(
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
            let deleted = store.delete(words).await?;
            words.iter().for_each(|key| endpoint.leases.deleted(key));
            Reply::Integer(deleted as i64)
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
pub enum Lifetime {
    /// Not a number, or more than a hundred years.
    NoNumber,
    /// Zero or negative.
    Past,
    /// This long.
    Left(Duration),
}

/// Reads seconds, or milliseconds.
pub fn lifetime(word: &[u8], milliseconds: bool) -> Lifetime {
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
pub fn check(key: Option<Vec<u8>>) -> Result<Vec<u8>, Reply> {
    match key {
        Some(key) if (1..=MAX_KEY).contains(&key.len()) => Ok(key),
        Some(key) => Err(refusal(Error::KeyLength { length: key.len() })),
        None => Err(refusal(format!(
            "a key of more than {LONGEST} bytes: keys have 1 to {MAX_KEY} bytes"
        ))),
    }
}
