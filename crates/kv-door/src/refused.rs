//! Refusals on their way to a pod.

use strand_kv_client::frame::{Code, Reply};

/// Why something was not done: a code for the client, words for whoever reads its logs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{words}")]
pub struct Refused {
    /// What kind of refusal.
    pub code: Code,
    /// What happened, to what, and what to do.
    pub words: String,
}

impl Refused {
    /// A refusal in these words.
    pub fn new(code: Code, words: impl Into<String>) -> Self {
        let words = words.into();
        Self { code, words }
    }

    pub(crate) fn reply(self) -> Reply {
        Reply::Refused {
            code: self.code.number(),
            words: self.words,
        }
    }
}
