//! How many bytes a socket has to have before whoever waits for it is woken: `SO_RCVLOWAT`, socket(7).

#![allow(
    unsafe_code,
    reason = "no crate of the workspace has a safe call for this option (docs/decisions/0017)"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Sets it, to 1 at least. Sockets of TCP make room for as many bytes. Whether there are enough already is looked at
/// once more, so a wait that begins after this misses nothing.
pub(crate) fn set(socket: impl AsFd, bytes: usize) -> io::Result<()> {
    let bytes = libc::c_int::try_from(bytes.max(1)).unwrap_or(libc::c_int::MAX);
    // SAFETY: the descriptor is open while it is borrowed, and the kernel reads an int from where `bytes` lies.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw const bytes).cast(),
            size_of_val(&bytes) as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
