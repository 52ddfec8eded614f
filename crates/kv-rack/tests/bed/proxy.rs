//! A wire that can be frozen, cut and tampered with.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Bytes go through.
    Open,
    /// Connections stand, and no byte moves: what a powered-off peer or a pulled cable looks like.
    Frozen,
    /// Bytes go there, and none comes back: what a peer that reads nothing looks like from behind.
    Deaf,
    /// No connection.
    Cut,
}

pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    pub shared: Arc<Shared>,
    accepting: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
pub struct Shared {
    /// Bytes that came back from the peer behind the proxy.
    pub back: AtomicU64,
    /// A bit of the byte that comes back after so many more is flipped; 0: none.
    pub flip_back: AtomicU64,
    /// Likewise on the way there.
    pub flip_there: AtomicU64,
    /// Microseconds that every 64 KiB take; 0: no time.
    pub slow: AtomicU64,
}

impl Proxy {
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mode = watch::Sender::new(Mode::Open);
        let shared = Arc::new(Shared::default());
        let accepting = {
            let (mode, shared) = (mode.clone(), Arc::clone(&shared));
            tokio::spawn(async move {
                while let Ok((near, _)) = listener.accept().await {
                    let (watch, shared) = (mode.subscribe(), Arc::clone(&shared));
                    tokio::spawn(carry(near, target, watch, shared));
                }
            })
        };
        Self {
            address,
            mode,
            shared,
            accepting,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(
    near: TcpStream,
    target: SocketAddr,
    mut mode: watch::Receiver<Mode>,
    shared: Arc<Shared>,
) {
    if *mode.borrow() == Mode::Cut {
        return;
    }
    let Ok(far) = TcpStream::connect(target).await else {
        return;
    };
    near.set_nodelay(true).unwrap();
    far.set_nodelay(true).unwrap();
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let there = pump(
        near_in,
        far_out,
        mode.clone(),
        &shared.slow,
        |mode| mode == Mode::Frozen,
        |bytes| flip(&shared.flip_there, bytes),
    );
    let back = pump(
        far_in,
        near_out,
        mode.clone(),
        &shared.slow,
        |mode| matches!(mode, Mode::Frozen | Mode::Deaf),
        |bytes| {
            shared.back.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            flip(&shared.flip_back, bytes);
        },
    );
    tokio::select! {
        () = there => {}
        () = back => {}
        _ = mode.wait_for(|mode| *mode == Mode::Cut) => {}
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut mode: watch::Receiver<Mode>,
    slow: &AtomicU64,
    stops: impl Fn(Mode) -> bool,
    change: impl Fn(&mut [u8]),
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let slow = slow.load(Ordering::Relaxed);
        if slow > 0 {
            tokio::time::sleep(Duration::from_micros(slow)).await;
        }
        if mode.wait_for(|mode| !stops(*mode)).await.is_err() {
            return;
        }
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            _ = mode.wait_for(|mode| stops(*mode)) => continue,
        };
        let Ok(read @ 1..) = read else {
            return;
        };
        change(&mut buffer[..read]);
        if mode.wait_for(|mode| !stops(*mode)).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

fn flip(after: &AtomicU64, bytes: &mut [u8]) {
    let left = after.load(Ordering::Relaxed);
    if left == 0 {
        return;
    }
    match usize::try_from(left) {
        Ok(at) if at <= bytes.len() => {
            bytes[at - 1] ^= 1;
            after.store(0, Ordering::Relaxed);
        }
        _ => after.store(left - bytes.len() as u64, Ordering::Relaxed),
    }
}
