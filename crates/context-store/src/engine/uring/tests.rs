//! Transfers through a real ring.

use std::os::unix::fs::FileExt;

use tokio::sync::oneshot;

use super::*;
use crate::PAGE;

fn transfer(verb: Verb, offset: u64, pieces: Vec<Span>) -> (Io, oneshot::Receiver<io::Result<()>>) {
    let (told, answer) = oneshot::channel();
    let done = Box::new(move |result| drop(told.send(result)));
    let io = Io {
        verb,
        offset,
        pieces,
        done,
    };
    (io, answer)
}

fn engine(pages: u8) -> (Uring, Arc<File>) {
    let file = Arc::new(tempfile::tempfile().unwrap());
    for page in 0..pages {
        let at = u64::from(page) * PAGE as u64;
        file.write_all_at(&[page; PAGE], at).unwrap();
    }
    (Uring::new(Arc::clone(&file)).unwrap(), file)
}

#[tokio::test]
async fn what_a_thread_started_is_done_although_it_has_ended() {
    let (engine, _file) = engine(1);
    let engine = Arc::new(engine);
    // The kernel never flushes at once, but on threads that wait for the one that submitted.
    let (transfers, answers): (Vec<_>, Vec<_>) = (0..64)
        .map(|_| transfer(Verb::Flush, 0, Vec::new()))
        .unzip();
    let theirs = Arc::clone(&engine);
    let thread = std::thread::spawn(move || {
        for io in transfers {
            theirs.start(io);
        }
    });
    thread.join().unwrap();
    for answer in answers {
        answer.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn what_is_started_together_is_submitted_at_the_end() {
    let (engine, _file) = engine(8);
    let region = Region::anonymous(8 * PAGE).unwrap();
    let start = |page: usize| {
        let piece = region.span(page * PAGE, PAGE).unwrap();
        let (io, answer) = transfer(Verb::Read, (page * PAGE) as u64, vec![piece]);
        engine.start(io);
        answer
    };
    // SAFETY: nobody else uses this ring.
    let waiting = || unsafe { engine.ring.uring.submission_shared() }.len();
    let answers = together::together(|| {
        let mut answers = vec![start(0), start(1)];
        answers.push(together::together(|| start(2)));
        answers.push(start(3));
        // The inner end has submitted what the outer one had, too.
        assert_eq!(waiting(), 1);
        answers
    });
    assert_eq!(waiting(), 0);
    for answer in answers {
        answer.await.unwrap().unwrap();
    }
    drop(start(4));
    assert_eq!(waiting(), 0);
}

#[tokio::test]
async fn registered_pieces_of_two_regions_are_one_transfer() {
    let (engine, file) = engine(32);
    let regions = [(); 2].map(|()| Region::anonymous(64 * PAGE).unwrap());
    for region in &regions {
        engine.register(region).unwrap();
    }
    let pieces = || {
        let front = regions[0].span(PAGE, PAGE).unwrap();
        vec![front, regions[1].span(0, 20 * PAGE).unwrap()]
    };
    let entries = {
        let (io, _answer) = transfer(Verb::Read, 0, pieces());
        let vectors = Vectors(io.pieces.iter().map(vector).collect());
        entries(&io, &vectors, engine.ring.number).len()
    };
    assert_eq!(entries, 2);
    let (io, answer) = transfer(Verb::Read, PAGE as u64, pieces());
    engine.start(io);
    answer.await.unwrap().unwrap();
    pieces()[0].with_bytes(|bytes| assert_eq!(bytes[0], 1));
    pieces()[1].with_bytes(|bytes| assert_eq!((bytes[0], bytes[20 * PAGE - 1]), (2, 21)));
    let (io, answer) = transfer(Verb::Write, 40 * PAGE as u64, pieces());
    engine.start(io);
    answer.await.unwrap().unwrap();
    let mut written = [0; PAGE];
    file.read_exact_at(&mut written, 60 * PAGE as u64).unwrap();
    assert_eq!(written, [21; PAGE]);
    // The file ends within the second piece.
    let (io, answer) = transfer(Verb::Read, 50 * PAGE as u64, pieces());
    engine.start(io);
    let error = answer.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}
