//! A listening socket in a pod's directory.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, chmodat, fstat, openat, unlinkat};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 64;

/// Binds at `path`, in place of whatever an earlier agent left there, so that every user of the pod may connect.
///
/// The pod may be able to write the directory: nothing here follows a link that it could have put there.
pub(crate) fn listen_at(path: &Path) -> io::Result<UnixListener> {
    remove(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    let bound = openat(
        CWD,
        path,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    if FileType::from_raw_mode(fstat(&bound)?.st_mode) != FileType::Socket {
        return Err(io::Error::other("it was replaced while it was bound"));
    }
    // Through the descriptor, since a mode can be set on neither a path without following links nor an O_PATH.
    use std::os::fd::AsRawFd;
    let name = format!("/proc/self/fd/{}", bound.as_raw_fd());
    chmodat(CWD, name, Mode::from_raw_mode(0o666), AtFlags::empty())?;
    listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

/// Removes a socket; one that is not there is well.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match unlinkat(CWD, path, AtFlags::empty()) {
        Err(rustix::io::Errno::NOENT) => Ok(()),
        other => Ok(other?),
    }
}
