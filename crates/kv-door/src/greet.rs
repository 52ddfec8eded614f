//! The hello of a connection, and its refusal.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use strand_kv_client::MAX_KEY;
use strand_kv_client::arena::AgentArenas;
use strand_kv_client::frame::{Code, Hello, Limits, Refusal, Versions, Welcome};
use strand_kv_client::slots::SLOT;
use strand_kv_client::wire::{Broken, receive_hello, send_hello};
use tokio::net::UnixStream;

use crate::arenas::Lent;
use crate::door::Pod;
use crate::node::Counted;
use crate::session::IN_FLIGHT;
use crate::streams::{BEGUN, OPEN};
use crate::{Blocks, Refused};

/// How long a client may take over its part of the hello.
pub(crate) const HELLO: Duration = Duration::from_secs(5);

/// Why there is no session.
pub(crate) enum Turned {
    /// Refused, in words.
    Away(Refused),
    /// The client left.
    Gone,
}

pub(crate) type Welcomed<B> = (Arc<AgentArenas<<B as Blocks>::Arena>>, u64);

pub(crate) async fn welcome<B: Blocks>(
    pod: &Pod<B>,
    socket: &UnixStream,
) -> Result<Welcomed<B>, Turned> {
    let malformed = |words: String| Turned::Away(Refused::new(Code::Malformed, words));
    let (body, _descriptors) = receive_hello(socket).await.map_err(|broken| match broken {
        Broken::Malformed(why) => malformed(why.to_string()),
        Broken::Closed | Broken::Io(_) => Turned::Gone,
    })?;
    let hello = Hello::decode(&body).map_err(|why| malformed(why.to_string()))?;
    let version = hello.versions.best().ok_or_else(|| {
        let (ours, theirs) = (Versions::ours(), hello.versions);
        Turned::Away(Refused::new(
            Code::Version,
            format!(
                "this agent speaks versions {} to {} of the native protocol, the client {} to {}; upgrade the older one",
                ours.oldest, ours.newest, theirs.oldest, theirs.newest
            ),
        ))
    })?;
    let lent: Lent<B::Arena> = (pod.arenas.lend(&pod.node.blocks, &hello)).map_err(Turned::Away)?;
    let epoch = pod.node.next_epoch();
    let (arenas, hold, back) = lent.parts();
    let home = Arc::clone(&pod.arenas);
    let counted = Counted::new(&pod.node.tally, |tally| &tally.arenas);
    tokio::spawn(async move {
        back.to(&home).await;
        drop(counted);
    });
    let memory = arenas.memory();
    let welcome = Welcome {
        version: version.number(),
        epoch,
        limits: Limits {
            get_bytes: memory.get_bytes() as u64,
            put_bytes: memory.put_bytes() as u64,
            slot_bytes: SLOT as u32,
            key_bytes: MAX_KEY as u32,
            in_flight: IN_FLIGHT as u32,
            open: OPEN as u32,
            begun: BEGUN as u32,
        },
    };
    send_welcome(socket, &welcome, &arenas, hold)
        .await
        .map_err(|_| Turned::Gone)?;
    tracing::debug!(epoch, client = ?hello.name, "session opened");
    Ok((arenas, epoch))
}

async fn send_welcome<A>(
    socket: &UnixStream,
    welcome: &Welcome,
    arenas: &AgentArenas<A>,
    hold: OwnedFd,
) -> std::io::Result<()> {
    let [get, put] = arenas.memory().descriptors();
    send_hello(socket, &welcome.encode(), &[get, put, hold.as_fd()]).await
}

/// Says why there is no session. A client that does not listen is not waited for.
pub(crate) async fn refuse(socket: &UnixStream, refused: Refused) {
    let refusal = Refusal {
        code: refused.code.number(),
        versions: Versions::ours(),
        words: refused.words,
    };
    let _ = tokio::time::timeout(HELLO, send_hello(socket, &refusal.encode(), &[])).await;
}
