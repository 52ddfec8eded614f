//! Room for a value that fits the PUT arena.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::api::{Error, Put, PutOptions};
use crate::arena::WriteLease;
use crate::client::checked;
use crate::frame::Request;
use crate::link::Link;
use crate::outcome::stored;
use crate::session::Session;

/// Slots of the PUT arena, to be written and committed. Dropped without a commit, it gives them back. Its bytes are
/// whatever lay there before.
#[derive(Debug)]
pub struct Reservation {
    pub(crate) link: Arc<Link>,
    pub(crate) session: Arc<Session>,
    pub(crate) room: WriteLease,
}

impl Reservation {
    /// Makes the value shorter than what was reserved; a larger length changes nothing.
    pub fn truncate(&mut self, length: usize) {
        self.room.truncate(length);
    }

    /// Sends it. Where the agent goes away meanwhile it is sent once more, from the bytes still held.
    pub async fn commit(self, key: &[u8], options: PutOptions) -> Result<Put, Error> {
        let Self {
            link,
            session,
            room,
        } = self;
        let key = checked(key)?;
        let answer = link
            .put(session, room, |room| Request::Put {
                key: key.clone(),
                offset: room.offset() as u64,
                length: room.len() as u64,
                ttl_ms: options.ttl_ms(),
                only_if_absent: options.only_if_absent,
            })
            .await;
        stored(&link.counts, answer)
    }
}

impl Deref for Reservation {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.room
    }
}

impl DerefMut for Reservation {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.room
    }
}
