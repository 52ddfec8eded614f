//! Where peers connect: one port for all pools of a node.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::frame::{Hello, VERSION};
use crate::greet::{self, Estranged};
use crate::rack::Rack;
use crate::seal::{Opener, Sealer};

/// How long a hello may take.
const HELLO: Duration = Duration::from_secs(5);

/// Connections that may be at their hello at once: whoever reaches the port can open them.
const HELLOS: usize = 256;

/// The pause after a connection that could not be accepted (no descriptors left).
const PAUSE: Duration = Duration::from_millis(100);

/// A node's port for peers. Dropped, it closes, and with it all connections.
#[derive(Debug)]
pub struct Peers {
    racks: Arc<Mutex<HashMap<String, Rack>>>,
    address: SocketAddr,
    accepting: tokio::task::JoinHandle<()>,
}

impl Peers {
    /// Serves peers that connect here; needs a tokio runtime.
    ///
    /// # Errors
    /// The kernel's, where the listener has no address.
    pub fn listen(listener: TcpListener) -> std::io::Result<Self> {
        let racks: Arc<Mutex<HashMap<String, Rack>>> = Arc::default();
        Ok(Self {
            address: listener.local_addr()?,
            accepting: tokio::spawn(accept(listener, Arc::clone(&racks))),
            racks,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves a pool's peers, in place of an earlier rack of that pool.
    pub fn add(&self, rack: &Rack) {
        let pool = rack.options().pool_id.clone();
        lock(&self.racks).insert(pool, rack.clone());
    }

    /// Serves a pool's peers no longer. Connections that stand go on until the rack is dropped or the port is.
    pub fn remove(&self, pool_id: &str) {
        lock(&self.racks).remove(pool_id);
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, racks: Arc<Mutex<HashMap<String, Rack>>>) {
    let hellos = Arc::new(Semaphore::new(HELLOS));
    let mut visits = JoinSet::new();
    loop {
        while visits.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((socket, from)) => {
                let Ok(permit) = Arc::clone(&hellos).try_acquire_owned() else {
                    continue;
                };
                let racks = Arc::clone(&racks);
                visits.spawn(async move {
                    let met = timeout(HELLO, meet(socket, &racks)).await;
                    drop(permit);
                    match met {
                        Ok(Ok((rack, hello, socket, ends))) => {
                            let guest = rack.host().guests.arrive(&hello.node, hello.link);
                            let host = Arc::clone(rack.host());
                            drop(rack);
                            host.serve(guest, hello.lane, socket, ends).await;
                        }
                        Ok(Err(error)) => {
                            tracing::warn!(%from, %error, "a connection to the port for peers was refused");
                        }
                        Err(_) => tracing::debug!(%from, "a connection said no hello"),
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a peer's connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

type Met = (Rack, Hello, TcpStream, (Sealer, Opener));

async fn meet(
    mut socket: TcpStream,
    racks: &Mutex<HashMap<String, Rack>>,
) -> Result<Met, Estranged> {
    socket.set_nodelay(true)?;
    let (said, hello) = greet::hear(&mut socket).await?;
    let Some(version) = hello.version() else {
        let words = format!(
            "this agent speaks version {VERSION} between agents, the other one {} to {}; upgrade the older one",
            hello.oldest, hello.newest
        );
        greet::refuse(&mut socket, words.clone()).await;
        return Err(Estranged::Refused(words));
    };
    let rack = lock(racks).get(&hello.pool).cloned();
    let Some(rack) = rack else {
        let words = format!(
            "pool {} is none of this agent's; look at the pool map",
            hello.pool.escape_debug()
        );
        greet::refuse(&mut socket, words.clone()).await;
        return Err(Estranged::Refused(words));
    };
    let ends = greet::answer(&mut socket, &rack.options().key, &said, version).await?;
    Ok((rack, hello, socket, ends))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
