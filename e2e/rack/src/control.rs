//! The harness's end of the channel into a guest; what is said on it is in `strand-rack-guest`.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use strand_rack_guest::{Answer, LONGEST, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// What a script came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Exit status; 128 and the signal's number where one ended it.
    pub status: i32,
    /// Standard output.
    pub output: Vec<u8>,
    /// Standard error.
    pub error: Vec<u8>,
}

impl Said {
    /// Standard output as text, without white space around it.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.output).trim().to_owned()
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = String::from_utf8_lossy(&self.error);
        write!(
            f,
            "status {}; output: {}; error: {}",
            self.status,
            self.text(),
            error.trim()
        )
    }
}

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Answer>>>>;

/// The channel into one guest, from its start to its end.
#[derive(Debug)]
pub struct Control {
    out: tokio::sync::Mutex<OwnedWriteHalf>,
    waiting: Waiting,
    next: Mutex<u64>,
    up: watch::Receiver<bool>,
    listening: JoinHandle<io::Result<()>>,
}

impl Drop for Control {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Control {
    /// Takes up the channel; the guest may still be booting.
    pub fn start(stream: UnixStream) -> Self {
        let (reader, out) = stream.into_split();
        let waiting = Waiting::default();
        let (came_up, up) = watch::channel(false);
        Self {
            out: out.into(),
            listening: tokio::spawn(listen(reader, Arc::clone(&waiting), came_up)),
            waiting,
            next: Mutex::new(Answer::HELLO + 1),
            up,
        }
    }

    /// Waits until the guest has come up.
    ///
    /// # Errors
    /// When it has not within `bound`, or has ended.
    pub async fn up(&self, bound: Duration) -> Result<()> {
        let mut up = self.up.clone();
        match timeout(bound, up.wait_for(|up| *up)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => bail!("the guest has ended before it came up"),
            Err(_) => bail!("the guest has not come up within {} s", bound.as_secs()),
        }
    }

    /// Runs a shell script with this input, and waits for its end.
    ///
    /// # Errors
    /// When the guest ends, or the script has not ended within `bound`; it may then still run.
    pub async fn run(&self, script: &str, input: &[u8], bound: Duration) -> Result<Said> {
        ensure!(
            input.len() + script.len() < LONGEST,
            "{} bytes are too many for the channel",
            input.len()
        );
        let number = {
            let mut next = lock(&self.next);
            *next += 1;
            *next - 1
        };
        let request = Request {
            number,
            script: script.as_bytes().to_vec(),
            input: input.to_vec(),
        };
        let (answer, answered) = oneshot::channel();
        lock(&self.waiting).insert(number, answer);
        let asked = async {
            self.out.lock().await.write_all(&request.encode()).await?;
            answered.await.context("the guest has ended")
        };
        match timeout(bound, asked).await {
            Ok(answer) => {
                let answer = answer.with_context(|| format!("`{script}`"))?;
                Ok(Said {
                    status: answer.status,
                    output: answer.output,
                    error: answer.error,
                })
            }
            Err(_) => {
                lock(&self.waiting).remove(&number);
                bail!("`{script}` has not ended within {} s", bound.as_secs())
            }
        }
    }
}

async fn listen(
    mut guest: OwnedReadHalf,
    waiting: Waiting,
    up: watch::Sender<bool>,
) -> io::Result<()> {
    let heard = async {
        loop {
            let length = guest.read_u32_le().await? as usize;
            if length > LONGEST {
                return Err(io::Error::other("what came is no message"));
            }
            let mut body = vec![0; length];
            guest.read_exact(&mut body).await?;
            let answer =
                Answer::decode(&body).ok_or_else(|| io::Error::other("what came is no answer"))?;
            if answer.number == Answer::HELLO {
                up.send_replace(true);
            } else if let Some(waiter) = lock(&waiting).remove(&answer.number) {
                // Who has stopped waiting needs no answer.
                let _ = waiter.send(answer);
            }
        }
    };
    let ended = heard.await;
    // Whoever still waits learns that there will be no answer.
    lock(&waiting).clear();
    ended
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn hello() -> Vec<u8> {
        let hello = Answer {
            number: Answer::HELLO,
            status: 0,
            output: Vec::new(),
            error: Vec::new(),
        };
        hello.encode()
    }

    async fn request(guest: &mut UnixStream) -> Request {
        let mut body = vec![0; guest.read_u32_le().await.unwrap() as usize];
        guest.read_exact(&mut body).await.unwrap();
        Request::decode(&body).unwrap()
    }

    #[tokio::test]
    async fn answers_find_their_questions_in_any_order() {
        let (ours, mut guest) = UnixStream::pair().unwrap();
        let control = Control::start(ours);
        guest.write_all(&hello()).await.unwrap();
        control.up(PATIENCE).await.unwrap();
        let played = async {
            let asked = [request(&mut guest).await, request(&mut guest).await];
            for request in asked.iter().rev() {
                let answer = Answer {
                    number: request.number,
                    status: 3,
                    output: request.input.clone(),
                    error: Vec::new(),
                };
                guest.write_all(&answer.encode()).await.unwrap();
            }
        };
        let (first, second, ()) = tokio::join!(
            control.run("a", b"one", PATIENCE),
            control.run("b", b"two", PATIENCE),
            played
        );
        assert_eq!(first.unwrap().text(), "one");
        let second = second.unwrap();
        assert_eq!((second.status, second.text()), (3, "two".into()));
    }

    #[tokio::test]
    async fn a_guest_that_ends_leaves_nobody_waiting() {
        let (ours, mut guest) = UnixStream::pair().unwrap();
        let control = Control::start(ours);
        let played = async {
            request(&mut guest).await;
            drop(guest);
        };
        let (said, ()) = tokio::join!(control.run("sleep 1000", b"", PATIENCE), played);
        let words = format!("{:#}", said.unwrap_err());
        assert!(words.contains("the guest has ended"), "{words}");
        assert!(control.up(PATIENCE).await.is_err());
    }
}
