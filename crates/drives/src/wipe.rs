//! Making a drive read blank.

use std::io;
use std::ops::ControlFlow;

use strand_placement::carve::Extent;

use crate::carve::chunks;
use crate::host::WipeProgress;
use crate::medium::Medium;

/// The part of a drive that is erased last, so that a wipe that was killed leaves what was at the drive's start to be recognised.
const HEAD: u64 = 16 << 20;

/// Erases a drive from `from` on, then its head; `Break` carries the bytes done when told to stop.
///
/// Each chunk is first TRIMmed, for the drive's sake, then zeroed, for what is read: the kernel zeroes by deallocation where the
/// drive guarantees zeroes for it, and writes them where not.
pub(crate) fn wipe(
    medium: &impl Medium,
    from: u64,
    progress: &mut dyn FnMut(WipeProgress) -> ControlFlow<()>,
) -> io::Result<ControlFlow<u64>> {
    let total = medium.size();
    let head = HEAD.min(total);
    // Progress counts the body first: bytes done begin at 0 and the body begins at `head`.
    let body = total - head;
    let from = from.min(body);
    let pieces = chunks(Extent {
        start: head + from,
        len: body - from,
    })
    .chain(chunks(Extent {
        start: 0,
        len: head,
    }));
    let mut done = from;
    for piece in pieces {
        medium.discard(piece.start, piece.len)?;
        medium.zero(piece.start, piece.len)?;
        medium.sync()?;
        done += piece.len;
        if progress(WipeProgress { done, total }).is_break() && done < total {
            return Ok(ControlFlow::Break(done));
        }
    }
    Ok(ControlFlow::Continue(()))
}
