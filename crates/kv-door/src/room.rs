//! Room in a session's GET arena, for whoever reads a value once its length is known.

use std::sync::Arc;
use std::time::Duration;

use strand_kv_client::arena::{AgentArenas, GetSlot};
use strand_kv_client::frame::Code;
use strand_kv_client::slots::NoSlots;

use crate::Refused;

/// How long a get waits for the pod to release slots. Shorter than a client's patience.
const WAIT: Duration = Duration::from_secs(5);

/// The right to take slots of one session's GET arena for one value.
#[derive(Debug)]
pub struct Room<A> {
    arenas: Arc<AgentArenas<A>>,
    most: u64,
}

impl<A> Room<A> {
    pub(crate) fn new(arenas: &Arc<AgentArenas<A>>, most: u64) -> Self {
        Self {
            arenas: Arc::clone(arenas),
            most,
        }
    }

    /// Slots for a value of `length` bytes, after everyone in the session who asked before; waits for them,
    /// not for ever.
    pub async fn take(&self, length: u64) -> Result<GetSlot<A>, Refused> {
        let max = (self.arenas.memory().get_bytes() as u64).min(self.most);
        let too_large = || {
            Refused::new(
                Code::Length,
                format!(
                    "the value has {length} bytes, and this session reads at most {max}; ask for a larger arena"
                ),
            )
        };
        if length > max {
            return Err(too_large());
        }
        let bytes = usize::try_from(length).map_err(|_| too_large())?;
        match tokio::time::timeout(WAIT, self.arenas.take(bytes)).await {
            Ok(Ok(slot)) => Ok(slot),
            Ok(Err(NoSlots::TooLarge)) => Err(too_large()),
            Ok(Err(NoSlots::Closed)) => {
                Err(Refused::new(Code::Closing, "the session is at its end"))
            }
            Err(_) => Err(Refused::new(
                Code::Busy,
                format!(
                    "no {length} bytes of the GET arena became free in {} s; release blocks sooner or ask for a larger arena",
                    WAIT.as_secs()
                ),
            )),
        }
    }
}
