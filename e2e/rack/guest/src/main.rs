//! Runs in a guest of the rack and does what the harness asks: see the library of this package.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use strand_rack_guest::{Answer, LONGEST, Request};

fn main() -> io::Result<()> {
    let mut port = open_port()?;
    let answers = Arc::new(Mutex::new(port.try_clone()?));
    say(
        &answers,
        &Answer {
            number: Answer::HELLO,
            status: 0,
            output: Vec::new(),
            error: Vec::new(),
        },
    )?;
    loop {
        let mut length = [0; 4];
        read_exactly(&mut port, &mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > LONGEST {
            return Err(io::Error::other(format!(
                "a request of {length} bytes is too long"
            )));
        }
        let mut body = vec![0; length];
        read_exactly(&mut port, &mut body)?;
        let Some(request) = Request::decode(&body) else {
            return Err(io::Error::other("what came is no request"));
        };
        let answers = Arc::clone(&answers);
        thread::spawn(move || {
            let answer = run(request);
            if let Err(error) = say(&answers, &answer) {
                eprintln!("an answer could not be given: {error}");
            }
        });
    }
}

/// The one virtio-serial port of this machine, waited for: its driver may still be looking at it.
fn open_port() -> io::Result<File> {
    loop {
        let port = fs::read_dir("/sys/class/virtio-ports")
            .ok()
            .and_then(|mut ports| ports.next())
            .transpose()?;
        if let Some(port) = port {
            let path = std::path::Path::new("/dev").join(port.file_name());
            return OpenOptions::new().read(true).write(true).open(path);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// A port whose other end is not there reads as ended, and goes on once it is.
fn read_exactly(port: &mut File, mut room: &mut [u8]) -> io::Result<()> {
    while !room.is_empty() {
        match port.read(room) {
            Ok(0) => thread::sleep(Duration::from_millis(20)),
            Ok(count) => room = &mut room[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn say(port: &Mutex<File>, answer: &Answer) -> io::Result<()> {
    let mut port = port.lock().unwrap_or_else(PoisonError::into_inner);
    port.write_all(&answer.encode())
}

fn run(request: Request) -> Answer {
    let number = request.number;
    attempt(request).unwrap_or_else(|error| Answer {
        number,
        status: 127,
        output: Vec::new(),
        error: format!("the script could not be run: {error}").into_bytes(),
    })
}

fn attempt(request: Request) -> io::Result<Answer> {
    let script = String::from_utf8_lossy(&request.script).into_owned();
    let mut child = Command::new("/bin/sh")
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let stdin = child.stdin.take();
    let feeding = thread::spawn(move || {
        if let Some(mut stdin) = stdin {
            // A script may end without having read everything.
            let _ = stdin.write_all(&request.input);
        }
    });
    let output = child.wait_with_output()?;
    let _ = feeding.join();
    let signal = || output.status.signal().map_or(127, |signal| 128 + signal);
    Ok(Answer {
        number: request.number,
        status: output.status.code().unwrap_or_else(signal),
        output: output.stdout,
        error: output.stderr,
    })
}
