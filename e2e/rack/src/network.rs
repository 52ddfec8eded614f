//! The network between the guests: QEMU's `-netdev stream` sockets, with a [`Switch`] in this process between them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::switch::Switch;

/// Frames that wait at a port; more are lost, as in a real switch.
const QUEUE: usize = 4096;

/// A frame and when it is due.
type Due = (Instant, Vec<u8>);

struct Shared {
    switch: Mutex<Switch>,
    /// Where each port's frames go while a guest is connected there.
    outlets: Mutex<Vec<Option<mpsc::Sender<Due>>>>,
}

/// The network, as long as it is kept.
pub struct Network {
    shared: Arc<Shared>,
    _ports: JoinSet<()>,
}

impl Network {
    /// A network with `ports` ports, whose sockets lie in `dir` (see [`socket`]).
    ///
    /// # Errors
    /// When a socket cannot be made.
    pub fn start(dir: &Path, ports: usize) -> Result<Self> {
        let shared = Arc::new(Shared {
            switch: Mutex::new(Switch::new(ports)),
            outlets: Mutex::new((0..ports).map(|_| None).collect()),
        });
        let mut tasks = JoinSet::new();
        for port in 0..ports {
            let path = socket(dir, port);
            let listener = UnixListener::bind(&path)
                .with_context(|| format!("cannot make {}", path.display()))?;
            tasks.spawn(serve(Arc::clone(&shared), port, listener));
        }
        Ok(Self {
            shared,
            _ports: tasks,
        })
    }

    /// Takes the link of a guest down or up, as the switch sees it; the guest itself sees its carrier stay.
    pub fn link(&self, guest: usize, up: bool) {
        self.switch().link(guest).down = !up;
    }

    /// Makes every frame to and from a guest take longer.
    pub fn delay(&self, guest: usize, delay: Duration) {
        self.switch().link(guest).delay = delay;
    }

    /// Loses some of a thousand frames to and from a guest.
    pub fn lose(&self, guest: usize, per_mille: u16) {
        self.switch().link(guest).lost_per_mille = per_mille;
    }

    /// Lets nothing pass between the guests of two sides.
    pub fn partition(&self, one: &[usize], other: &[usize]) {
        self.switch().cut(one, other);
    }

    /// Makes everything whole again.
    pub fn heal(&self) {
        self.switch().heal();
    }

    fn switch(&self) -> MutexGuard<'_, Switch> {
        lock(&self.shared.switch)
    }
}

/// Where QEMU connects the guest at a port.
pub fn socket(dir: &Path, port: usize) -> PathBuf {
    dir.join(format!("port-{port}"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One port: a guest that is started again connects again.
async fn serve(shared: Arc<Shared>, port: usize, listener: UnixListener) {
    while let Ok((stream, _)) = listener.accept().await {
        let (outlet, frames) = mpsc::channel(QUEUE);
        lock(&shared.outlets)[port] = Some(outlet);
        let (reader, writer) = UnixStream::into_split(stream);
        // Either ends when QEMU does.
        tokio::select! {
            _ = receive(&shared, port, reader) => {}
            _ = send(frames, writer) => {}
        }
        lock(&shared.outlets)[port] = None;
    }
}

/// QEMU puts each frame after its length, 4 bytes, the highest first.
async fn receive(shared: &Shared, port: usize, mut guest: OwnedReadHalf) -> io::Result<()> {
    loop {
        let mut frame = vec![0; guest.read_u32().await? as usize];
        guest.read_exact(&mut frame).await?;
        let now = Instant::now();
        let destinations = lock(&shared.switch).forward(port, &frame);
        let outlets = lock(&shared.outlets);
        for (to, delay) in destinations {
            if let Some(outlet) = &outlets[to] {
                // A full queue loses the frame.
                let _ = outlet.try_send((now + delay, frame.clone()));
            }
        }
    }
}

async fn send(mut frames: mpsc::Receiver<Due>, mut guest: OwnedWriteHalf) -> io::Result<()> {
    while let Some((due, frame)) = frames.recv().await {
        if due > Instant::now() {
            tokio::time::sleep_until(due).await;
        }
        let whole = [&(frame.len() as u32).to_be_bytes()[..], &frame].concat();
        guest.write_all(&whole).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    const PATIENCE: Duration = Duration::from_secs(10);

    async fn plug(dir: &Path, port: usize) -> UnixStream {
        UnixStream::connect(socket(dir, port)).await.unwrap()
    }

    async fn put(stream: &mut UnixStream, frame: &[u8]) {
        stream.write_u32(frame.len() as u32).await.unwrap();
        stream.write_all(frame).await.unwrap();
    }

    async fn get(stream: &mut UnixStream) -> Vec<u8> {
        let read = async {
            let mut frame = vec![0; stream.read_u32().await.unwrap() as usize];
            stream.read_exact(&mut frame).await.unwrap();
            frame
        };
        timeout(PATIENCE, read).await.unwrap()
    }

    /// Says `words` to all until the other end has heard them: a port is only served a moment after it was plugged in.
    async fn heard(from: &mut UnixStream, to: &mut UnixStream, words: &[u8]) {
        let frame = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], words].concat();
        let hearing = get(to);
        tokio::pin!(hearing);
        loop {
            put(from, &frame).await;
            tokio::select! {
                heard = &mut hearing => {
                    assert_eq!(heard, frame);
                    return;
                }
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
        }
    }

    #[tokio::test]
    async fn frames_pass_between_guests_also_after_one_was_started_again() {
        let dir = tempfile::tempdir().unwrap();
        let _network = Network::start(dir.path(), 2).unwrap();
        let mut first = plug(dir.path(), 0).await;
        let mut second = plug(dir.path(), 1).await;
        heard(&mut first, &mut second, b"once").await;
        drop(second);
        let mut second = plug(dir.path(), 1).await;
        heard(&mut first, &mut second, b"again").await;
    }

    #[tokio::test]
    async fn what_is_delayed_comes_in_order_and_late() {
        let dir = tempfile::tempdir().unwrap();
        let network = Network::start(dir.path(), 2).unwrap();
        let mut first = plug(dir.path(), 0).await;
        let mut second = plug(dir.path(), 1).await;
        heard(&mut first, &mut second, b"ready").await;

        let delay = Duration::from_millis(150);
        network.delay(0, delay);
        let sent = Instant::now();
        let numbered = |number: u8| [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], &[number]].concat();
        for number in 0..3 {
            put(&mut first, &numbered(number)).await;
        }
        let mut next = 0;
        while next < 3 {
            let frame = get(&mut second).await;
            // What was said to find out whether the port is served may still come.
            if frame.len() == 13 {
                assert_eq!(frame, numbered(next));
                next += 1;
            }
        }
        assert!(sent.elapsed() >= delay);
    }
}
