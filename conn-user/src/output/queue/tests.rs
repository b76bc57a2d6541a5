use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::time::Instant;

use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::pipe;

use super::*;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A queue in front of a pipe that holds one page, and the reader of the pipe.
fn piped(capacity: usize) -> (QueueSink, QueueEnd, File) {
    let (reader, writer): (OwnedFd, OwnedFd) = pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    let sink = start(writer.into(), capacity).unwrap();
    let end = QueueEnd { shared: Arc::clone(&sink.shared), closed: None };
    (sink, end, reader.into())
}

/// Pushes an event whose line has 100 bytes.
fn push(sink: &mut QueueSink, number: usize) -> Result<Written, Error> {
    let mut line = format!("{number:0>99}\n").into_bytes();
    sink.push(&mut line, &mut vec![100])
}

fn never() -> std::future::Pending<()> {
    std::future::pending()
}

#[test]
fn lines_are_written_in_their_order() {
    let (mut sink, end, mut reader) = piped(1 << 20);
    let text = thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).map(|_| text).unwrap()
    });
    for number in 0..5_000 {
        assert_eq!(push(&mut sink, number).unwrap(), Written::All);
    }
    assert_eq!(runtime().block_on(end.finish(never())).unwrap(), (Written::All, 0));
    // The thread hangs on to the pipe, so the reader would wait for ever: end it by its own write.
    sink.shared.lock().chunks.clear();
    drop((sink, end));
    assert!(!text.is_finished() || text.join().is_ok());
}

#[test]
fn a_reader_that_does_not_read_leaves_an_exact_number_of_events() {
    let (mut sink, end, mut reader) = piped(10_000);
    let mut taken = 0;
    while sink.has_room(0) {
        push(&mut sink, taken).unwrap();
        taken += 1;
    }
    assert!(taken >= 100, "{taken}");
    let begin = Instant::now();
    let (written, unwritten) = runtime().block_on(end.finish(never())).unwrap();
    assert_eq!(written, Written::All);
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    // The bytes that the pipe has taken can be read from it.
    let mut page = [0; 8192];
    let length = reader.read(&mut page).unwrap();
    assert_eq!((length % 100, length / 100 + unwritten as usize), (0, taken));
}

#[test]
fn a_second_signal_ends_the_wait_at_once() {
    let (mut sink, end, _reader) = piped(1 << 20);
    for number in 0..1_000 {
        push(&mut sink, number).unwrap();
    }
    let begin = Instant::now();
    let (_, unwritten) = runtime().block_on(end.finish(async {})).unwrap();
    assert!(begin.elapsed() < MAX_WAIT && unwritten > 0, "{:?} {unwritten}", begin.elapsed());
}

#[test]
fn a_reader_that_left_ends_the_run_without_an_error() {
    let (mut sink, end, reader) = piped(1 << 20);
    drop(reader);
    push(&mut sink, 0).unwrap();
    runtime().block_on(end.ended()).unwrap();
    let (mut sink, end, reader) = piped(1 << 20);
    drop(reader);
    push(&mut sink, 0).unwrap();
    assert_eq!(runtime().block_on(end.finish(never())).unwrap(), (Written::Closed, 0));
}

#[test]
fn a_full_disk_is_an_error() {
    let full = || start(File::options().write(true).open("/dev/full").unwrap(), 1 << 20).unwrap();
    let mut sink = full();
    push(&mut sink, 0).unwrap();
    let end = QueueEnd { shared: Arc::clone(&sink.shared), closed: None };
    let error = runtime().block_on(end.ended()).unwrap_err();
    assert!(error.to_string().contains("standard output"), "{error}");
}

#[test]
fn pieces_end_with_lines() {
    assert_eq!(whole_lines(b"ab\ncd\nef", 20), 8);
    assert_eq!(whole_lines(b"ab\ncd\nef", 7), 6);
    assert_eq!(whole_lines(b"ab\ncd\nef", 5), 3);
    assert_eq!(whole_lines(b"abcdef\n", 4), 4);
}
