//! The rack's processes: started, started again when they end, stopped, and never outliving `up`.

use anyhow::{Context, Result, bail};
use futures::future::join_all;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    ffi::OsString,
    fs::{self, File},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    process::{Child, Command},
    sync::mpsc::UnboundedSender,
    time::{Instant, sleep, timeout},
};

/// First pause before a process that ended is started again; doubled each time it ends soon.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A process that lived this long has not ended soon.
const LONG: Duration = Duration::from_secs(30);
/// How long a process may take to end when asked to; an agent waits 10 s for what it has begun.
const PATIENCE: Duration = Duration::from_secs(15);

/// How a process is started.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Name in messages and of its log.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Its output goes there, behind what is there already.
    pub log: PathBuf,
}

/// What happened to a process.
#[derive(Debug)]
pub enum News {
    /// It ended, though nobody asked it to.
    Ended {
        /// Its name.
        name: String,
        /// How it ended, with the end of its log.
        how: String,
        /// How often it has ended soon after its start, without a longer life between.
        times: u32,
    },
    /// It runs again.
    Restarted {
        /// Its name.
        name: String,
        /// Its process id.
        pid: u32,
    },
}

/// A process that is kept running.
#[derive(Debug)]
pub struct Kept {
    recipe: Recipe,
    process: Child,
    started: Instant,
}

impl Kept {
    /// Starts a process.
    pub fn start(recipe: Recipe) -> Result<Kept> {
        let process = spawn(&recipe)?;
        Ok(Kept {
            recipe,
            process,
            started: Instant::now(),
        })
    }

    /// Its process id; 0 if it has just ended.
    pub fn pid(&self) -> u32 {
        self.process.id().unwrap_or(0)
    }

    /// Starts the process again whenever it ends. Never returns.
    async fn keep(&mut self, news: UnboundedSender<News>) {
        let mut times = 0;
        loop {
            let ended = self.process.wait().await;
            // Who was killed would have lived: that says nothing of its next life.
            let killed =
                matches!(&ended, Ok(status) if status.signal() == Some(Signal::KILL.as_raw()));
            times = if self.started.elapsed() < LONG && !killed {
                times + 1
            } else {
                1
            };
            let name = self.recipe.name.clone();
            let how = manner(ended, &self.recipe.log);
            // Nobody listens any more only when the rack is going down.
            news.send(News::Ended {
                name: name.clone(),
                how,
                times,
            })
            .ok();
            loop {
                sleep(pause(times)).await;
                match spawn(&self.recipe) {
                    Ok(process) => self.process = process,
                    Err(error) => {
                        times += 1;
                        let how = format!("cannot be started again: {error:#}");
                        news.send(News::Ended {
                            name: name.clone(),
                            how,
                            times,
                        })
                        .ok();
                        continue;
                    }
                }
                break;
            }
            self.started = Instant::now();
            let pid = self.pid();
            news.send(News::Restarted { name, pid }).ok();
        }
    }

    /// Asks the process to end, and makes it end if it does not; whether it had to be made.
    async fn stop(&mut self) -> bool {
        let pid = self
            .process
            .id()
            .and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let Some(pid) = pid else {
            return false;
        };
        // It may have ended by itself in the meantime; then there is nothing to ask.
        kill_process(pid, Signal::TERM).ok();
        let in_time = timeout(PATIENCE, self.process.wait()).await.is_ok();
        if !in_time {
            self.process.kill().await.ok();
        }
        !in_time
    }
}

/// Keeps all of them running. Never returns.
pub async fn keep_all(children: &mut [Kept], news: UnboundedSender<News>) {
    join_all(children.iter_mut().map(|child| child.keep(news.clone()))).await;
}

/// Stops all of them together. Returns the names of those that did not end when asked to and
/// were killed.
pub async fn stop_all(children: &mut [Kept]) -> Vec<String> {
    let stopped = children.iter_mut().map(async |child| {
        let killed = child.stop().await;
        killed.then(|| child.recipe.name.clone())
    });
    join_all(stopped).await.into_iter().flatten().collect()
}

/// Finds one of the rack's programs beside this one.
pub fn beside_this(program: &str) -> Result<PathBuf> {
    let this = std::env::current_exe().context("cannot tell where strandctl lies")?;
    let path = this.with_file_name(program);
    if !path.is_file() {
        bail!(
            "{program} is missing: `strandctl up` runs the {program} that lies beside strandctl, at \
             {}; build it there with `cargo build --workspace`",
            path.display()
        );
    }
    Ok(path)
}

/// The child is killed when the thread that started it ends (PR_SET_PDEATHSIG, prctl(2)), so that
/// `kill -9` of `up` leaves nothing behind; setpriv asks for that before it becomes the program.
/// Callers are on the main thread or a worker of the runtime, which live as long as the process.
/// A process group of its own keeps a terminal's Ctrl-C away from it: `up` stops it in order.
fn spawn(recipe: &Recipe) -> Result<Child> {
    let open = || {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&recipe.log)?;
        Ok::<_, std::io::Error>((log.try_clone()?, log))
    };
    let (out, err) = open().with_context(|| format!("cannot write {}", recipe.log.display()))?;
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL"])
        .arg(&recipe.program)
        .args(&recipe.arguments)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| {
            format!(
                "cannot start {}: setpriv cannot be run; install it (Debian: the package util-linux)",
                recipe.name
            )
        })
}

fn pause(times: u32) -> Duration {
    let doublings = times.saturating_sub(1).min(16);
    (FIRST_PAUSE * 2_u32.pow(doublings)).min(LONGEST_PAUSE)
}

/// How a process ended. One that ended by itself may have written why; one that was killed has not.
fn manner(ended: std::io::Result<ExitStatus>, log: &Path) -> String {
    match ended {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("ended with status {code}{}", last_words(log)),
            (None, Some(signal)) => format!("was ended by signal {signal}"),
            (None, None) => "ended".into(),
        },
        Err(error) => format!("cannot be watched: {error}"),
    }
}

/// The last line of a log, as far as there is one.
fn last_words(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let tail = String::from_utf8_lossy(&text[text.len().saturating_sub(2048)..]).into_owned();
    let last = tail.lines().rev().find(|line| !line.trim().is_empty());
    last.map_or_else(String::new, |line| {
        format!("; its log ({}) ends: {}", log.display(), line.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc::unbounded_channel;

    fn shell(script: &str, dir: &Path) -> Recipe {
        Recipe {
            name: "child".into(),
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            log: dir.join("child.log"),
        }
    }

    #[tokio::test]
    async fn a_process_that_ends_is_started_again_and_says_why_it_ended() {
        let dir = tempfile::tempdir().unwrap();
        let script = format!(
            "echo out of tea; test -e {0}/again && exec sleep 60; : > {0}/again; exit 3",
            dir.path().display()
        );
        let mut children = [Kept::start(shell(&script, dir.path())).unwrap()];
        let first = children[0].pid();
        let (sender, mut news) = unbounded_channel();
        let restarted = tokio::select! {
            () = keep_all(&mut children, sender) => unreachable!(),
            pid = async {
                match news.recv().await {
                    Some(News::Ended { how, times: 1, .. }) => {
                        assert!(how.contains("status 3") && how.ends_with("out of tea"), "{how}");
                    }
                    other => panic!("{other:?}"),
                }
                match news.recv().await {
                    Some(News::Restarted { pid, .. }) => pid,
                    other => panic!("{other:?}"),
                }
            } => pid,
        };
        assert_ne!(restarted, first);
        assert_eq!(children[0].pid(), restarted);
        assert!(stop_all(&mut children).await.is_empty());
        assert!(!Path::new(&format!("/proc/{restarted}")).exists());
    }

    #[test]
    fn pauses_grow_and_end() {
        assert_eq!(pause(1), FIRST_PAUSE);
        assert_eq!(pause(3), FIRST_PAUSE * 4);
        assert_eq!(pause(u32::MAX), LONGEST_PAUSE);
    }
}
