//! The log on disk: one JSON line a change, so that state survives the death of the process.
//!
//! A line is written (not fsynced) before its change is seen by anybody: the page cache outlives `kill -9`, which is all
//! that is promised; a power cut may lose the last changes. A torn last line is cut off when the log is opened. When
//! most of the log is history, the living objects are written to a new file, which then takes the log's name.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::object::{Key, Object};

/// Compact when the log is larger than this and than four times what lives, in bytes.
const COMPACT_AT: u64 = 64 << 20;
/// How long a lock that is held is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Reading or writing failed.
    #[error("{action} {}: {source}; check that the directory exists, is writable and has space", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Another server holds the directory.
    #[error("{} is in use by another API server; stop it or choose another directory", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// A line that is not the last is not a log line.
    #[error("{} is damaged at line {line}: {why}; move it away to start empty", path.display())]
    Damaged {
        /// The log.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
}

/// One change, as read back.
#[derive(Debug)]
pub(crate) enum Line {
    /// The revision counter stood here when the log was compacted.
    Start { revision: u64 },
    Put {
        revision: u64,
        kind: String,
        object: Value,
    },
    Delete {
        revision: u64,
        kind: String,
        key: Key,
    },
}

/// The open log; it holds the directory's lock.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: File,
    length: u64,
    _lock: File,
}

impl Log {
    /// Locks `dir`, reads the log in it through `each`, and leaves it open for appending.
    pub(crate) fn open(dir: &Path, mut each: impl FnMut(Line)) -> Result<Self, LogError> {
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| LogError::Io {
                action,
                path,
                source,
            }
        };
        fs::create_dir_all(dir).map_err(failed("create", dir))?;
        let lock_path = dir.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(failed("open", &lock_path))?;
        lock_patiently(&lock, dir)?;

        let path = dir.join("log.jsonl");
        let open = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path);
        let mut file = open.map_err(failed("open", &path))?;
        let length = replay(&path, &mut file, &mut each)?;
        file.set_len(length)
            .map_err(failed("cut the torn end of", &path))?;
        file.seek(SeekFrom::Start(length))
            .map_err(failed("seek in", &path))?;
        Ok(Self {
            path,
            file,
            length,
            _lock: lock,
        })
    }

    pub(crate) fn put(&mut self, revision: u64, kind: &str, object: &Object) -> io::Result<()> {
        let mut line = put_line(revision, kind, object);
        line.push(b'\n');
        self.append(&line)
    }

    pub(crate) fn delete(&mut self, revision: u64, kind: &str, key: &Key) -> io::Result<()> {
        let line = serde_json::json!({"rev": revision, "kind": kind, "del": {"ns": &*key.namespace, "name": &*key.name}});
        self.append(format!("{line}\n").as_bytes())
    }

    /// Appends whole lines or nothing: what a failed write left behind is cut off again.
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all(line) {
            self.file.set_len(self.length)?;
            self.file.seek(SeekFrom::Start(self.length))?;
            return Err(error);
        }
        self.length += line.len() as u64;
        Ok(())
    }

    /// Whether most of a large log is history, when the living objects take `live` bytes.
    pub(crate) fn is_mostly_history(&self, live: u64) -> bool {
        self.length > COMPACT_AT && self.length / 4 > live
    }

    /// Replaces the log by the living objects; a crash leaves the old log or the new one.
    pub(crate) fn compact<'a>(
        &mut self,
        revision: u64,
        objects: impl Iterator<Item = (&'a str, &'a Object)>,
    ) -> io::Result<()> {
        let fresh = self.path.with_extension("new");
        let mut out = BufWriter::with_capacity(1 << 20, File::create(&fresh)?);
        writeln!(
            out,
            "{}",
            serde_json::json!({"rev": revision, "start": true})
        )?;
        for (kind, object) in objects {
            out.write_all(&put_line(object.revision, kind, object))?;
            out.write_all(b"\n")?;
        }
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        fs::rename(&fresh, &self.path)?;
        self.length = file.metadata()?.len();
        self.file = file;
        Ok(())
    }
}

/// A server that was just killed holds its lock until the kernel has taken it down.
fn lock_patiently(lock: &File, dir: &Path) -> Result<(), LogError> {
    let started = Instant::now();
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if started.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(LogError::Locked {
                    path: dir.to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => {
                return Err(LogError::Io {
                    action: "lock",
                    path: dir.to_owned(),
                    source,
                });
            }
        }
    }
}

fn put_line(revision: u64, kind: &str, object: &Object) -> Vec<u8> {
    let mut line = Vec::with_capacity(object.raw.len() + kind.len() + 48);
    // Kinds are `plural.group`: nothing in them needs escaping.
    line.extend_from_slice(format!("{{\"rev\":{revision},\"kind\":\"{kind}\",\"put\":").as_bytes());
    line.extend_from_slice(&object.raw);
    line.push(b'}');
    line
}

/// Feeds every whole line to `each` and returns how many bytes are whole.
fn replay(path: &Path, file: &mut File, each: &mut impl FnMut(Line)) -> Result<u64, LogError> {
    let io_failed = |source| LogError::Io {
        action: "read",
        path: path.to_owned(),
        source,
    };
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let (mut whole, mut number, mut text) = (0, 0, Vec::new());
    loop {
        text.clear();
        let read = reader.read_until(b'\n', &mut text).map_err(io_failed)?;
        number += 1;
        if read == 0 || text.last() != Some(&b'\n') {
            return Ok(whole);
        }
        match parse(&text) {
            Ok(line) => each(line),
            // A line that ends may still be torn when the file system wrote its pages out of order.
            Err(_) if reader.fill_buf().map_err(io_failed)?.is_empty() => return Ok(whole),
            Err(why) => {
                return Err(LogError::Damaged {
                    path: path.to_owned(),
                    line: number,
                    why,
                });
            }
        }
        whole += read as u64;
    }
}

fn parse(text: &[u8]) -> Result<Line, String> {
    let mut line: Value = serde_json::from_slice(text).map_err(|e| e.to_string())?;
    let revision = line["rev"].as_u64().ok_or("it has no revision")?;
    if line["start"] == true {
        return Ok(Line::Start { revision });
    }
    let kind = line["kind"].as_str().ok_or("it has no kind")?.to_owned();
    if line["put"].is_object() {
        return Ok(Line::Put {
            revision,
            kind,
            object: line["put"].take(),
        });
    }
    match (line["del"]["ns"].as_str(), line["del"]["name"].as_str()) {
        (Some(namespace), Some(name)) => Ok(Line::Delete {
            revision,
            kind,
            key: Key::new(namespace, name),
        }),
        _ => Err("it neither puts nor deletes".into()),
    }
}
