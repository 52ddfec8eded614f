//! What answers come to, and what is counted of them.

use crate::api::{Error, Put};
use crate::count::{Count, Counts};
use crate::frame::{self, Code, Reply};
use crate::link::Unanswered;
use crate::session::{Answer, Block};

/// What an answer to a get says, counted.
pub(crate) fn found(counts: &Counts, answer: Result<Answer, Unanswered>) -> Result<Found, Error> {
    let why: Option<fn(&Counts) -> &Count> = match answer {
        Ok(Answer::Block(block)) => {
            counts.hits.one();
            return Ok(Found::Whole(block));
        }
        Ok(Answer::Reply(Reply::Larger)) => return Ok(Found::Larger),
        Ok(Answer::Reply(Reply::Miss)) => None,
        Ok(other) => match Refusal::of("get", other) {
            Refusal::Passing => Some(|counts| &counts.misses_busy),
            Refusal::Lasting(error) => return Err(error),
        },
        Err(Unanswered::Down(_)) => Some(|counts| &counts.misses_down),
        Err(Unanswered::Late) => Some(|counts| &counts.misses_busy),
    };
    missed(counts, why);
    Ok(Found::Nothing)
}

/// Counts a miss, and why.
pub(crate) fn missed(counts: &Counts, why: Option<fn(&Counts) -> &Count>) {
    counts.misses.one();
    if let Some(why) = why {
        why(counts).one();
    }
}

/// What an answer to a put says, counted.
pub(crate) fn stored(counts: &Counts, answer: Result<Answer, Unanswered>) -> Result<Put, Error> {
    match answer {
        Ok(Answer::Reply(Reply::Put(frame::Put::Stored))) => {
            counts.puts.one();
            return Ok(Put::Stored);
        }
        Ok(Answer::Reply(Reply::Put(frame::Put::Present))) => return Ok(Put::Present),
        Ok(answer @ Answer::Reply(Reply::Refused { .. })) => {
            if let Refusal::Lasting(error) = Refusal::of("put", answer) {
                return Err(error);
            }
        }
        Ok(_) | Err(Unanswered::Late) => {}
        Err(Unanswered::Down(_)) => counts.dropped_down.one(),
    }
    counts.dropped.one();
    Ok(Put::Dropped)
}

/// What a get found.
pub(crate) enum Found {
    Whole(Block),
    /// A value that is to be opened.
    Larger,
    Nothing,
}

/// A refusal that passes (busy, closing, a store in trouble) is a miss or a dropped put; one that lasts is the
/// caller's to know.
pub(crate) enum Refusal {
    Passing,
    Lasting(Error),
}

impl Refusal {
    pub(crate) fn of(call: &'static str, answer: Answer) -> Self {
        let passing = [Code::Busy, Code::Store, Code::Closing, Code::Gone].map(Code::number);
        match answer {
            Answer::Reply(Reply::Refused { code, .. }) if passing.contains(&code) => Self::Passing,
            Answer::Reply(other) => Self::Lasting(unexpected(call, &other)),
            _ => Self::Lasting(unexpected(call, &Reply::Miss)),
        }
    }
}

pub(crate) fn unexpected(call: &'static str, reply: &Reply) -> Error {
    match reply {
        Reply::Refused { code, words } => Error::Refused {
            call,
            code: *code,
            words: words.clone(),
        },
        other => Error::Refused {
            call,
            code: Code::Malformed.number(),
            words: format!("it answered with {other:?}; client and agent do not fit"),
        },
    }
}
