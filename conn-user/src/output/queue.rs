//! Standard output of a command that goes on for ever. A thread writes, so that a reader that does not read delays
//! neither signals nor the ring.
//!
//! A non-blocking descriptor would need no thread. But `O_NONBLOCK` belongs to the open file description, which other
//! processes share, and a terminal or a socket that poll(2) calls writable may still block.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write as _};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::error::Error;
use crate::output::async_fd::register;
use crate::output::stdout::{self, Sink, Written};

/// Lines of one piece of memory.
const CHUNK: usize = 1 << 16;
/// How many empty pieces of memory are kept.
const MAX_SPARE: usize = 8;
/// Bytes of one write(2) to what may block. A pipe takes as many at once or none (`PIPE_BUF`), so the number of lines
/// that were written is exact, and each of them is whole.
const PIECE: usize = 4096;
/// How long the end waits for a reader that takes nothing.
const MAX_WAIT: Duration = Duration::from_millis(700);

/// The state that the thread shares with the others.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// There are lines.
    filled: Condvar,
    /// Lines were written, or the thread has ended.
    progress: Notify,
    /// The thread has ended.
    ended: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Lines that wait.
    chunks: VecDeque<Vec<u8>>,
    /// Empty chunks.
    spare: Vec<Vec<u8>>,
    /// Bytes that were pushed, and bytes that were written.
    pushed: u64,
    written: u64,
    /// Where events end that were not written when the last lines came, in bytes that were pushed.
    ends: VecDeque<u64>,
    /// Why the thread has ended.
    end: Option<End>,
}

#[derive(Debug)]
enum End {
    ReaderGone,
    Failed(io::Error),
}

impl Shared {
    /// No code panics while it has the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of the queue that takes lines.
#[derive(Debug)]
pub(crate) struct QueueSink {
    shared: Arc<Shared>,
    capacity: u64,
    /// Bytes that waited when that was last looked at, and those that were pushed since.
    waiting: u64,
}

/// The end of the queue that waits.
#[derive(Debug)]
pub(crate) struct QueueEnd {
    shared: Arc<Shared>,
    closed: Option<AsyncFd<File>>,
}

/// Standard output behind a queue of `capacity` bytes. Needs a tokio runtime.
///
/// # Errors
/// Standard output is not open, or there are no more threads.
pub(crate) fn stdout(capacity: usize) -> Result<(QueueSink, QueueEnd), Error> {
    // Files cannot be polled; a file has no reader that could leave.
    let closed = register(stdout::open()?, Interest::ERROR).ok();
    let sink = start(stdout::open()?, capacity)?;
    let end = QueueEnd { shared: Arc::clone(&sink.shared), closed };
    Ok((sink, end))
}

fn start(file: File, capacity: usize) -> Result<QueueSink, Error> {
    let shared = Arc::new(Shared::default());
    let writer = Arc::clone(&shared);
    let piece = if file.metadata().is_ok_and(|file| file.is_file()) { usize::MAX } else { PIECE };
    let builder = thread::Builder::new().name("stdout".into());
    builder.spawn(move || write(&writer, file, piece)).map_err(stdout::context)?;
    Ok(QueueSink { shared, capacity: capacity as u64, waiting: 0 })
}

impl Sink for QueueSink {
    fn has_room(&mut self, waiting: usize) -> bool {
        let waiting = waiting as u64;
        if self.waiting + waiting >= self.capacity {
            let state = self.shared.lock();
            self.waiting = state.pushed - state.written;
        }
        self.waiting + waiting < self.capacity
    }

    fn push(&mut self, lines: &mut Vec<u8>, ends: &mut Vec<usize>) -> Result<Written, Error> {
        let mut state = self.shared.lock();
        match state.end.take() {
            Some(End::ReaderGone) => return Ok(Written::Closed),
            Some(End::Failed(error)) => return Err(stdout::context(error)),
            None => {}
        }
        let state = &mut *state;
        while state.ends.front().is_some_and(|&end| end <= state.written) {
            state.ends.pop_front();
        }
        state.ends.extend(ends.drain(..).map(|end| state.pushed + end as u64));
        state.pushed += lines.len() as u64;
        self.waiting = state.pushed - state.written;
        match state.chunks.back_mut() {
            // Few lines at a time must not keep a whole chunk each.
            Some(last) if last.len() + lines.len() <= CHUNK => last.append(lines),
            _ => {
                let spare = state.spare.pop().unwrap_or_default();
                state.chunks.push_back(std::mem::replace(lines, spare));
            }
        }
        self.shared.filled.notify_one();
        Ok(Written::All)
    }
}

impl QueueEnd {
    /// Waits until the reader of a pipe is gone, or writing failed; for ever if neither happens.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub(crate) async fn ended(&self) -> Result<(), Error> {
        let closed = async {
            match &self.closed {
                // An error condition is all that this descriptor is polled for.
                Some(closed) => drop(closed.ready(Interest::ERROR).await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = closed => Ok(()),
            () = self.shared.ended.notified() => match self.shared.lock().end.take() {
                Some(End::Failed(error)) => Err(stdout::context(error)),
                _ => Ok(()),
            },
        }
    }

    /// Waits until all lines are written, as long as the reader takes some and `hurry` does not end. Returns how many
    /// events were not written.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub(crate) async fn finish(&self, hurry: impl Future<Output = ()>) -> Result<(Written, u64), Error> {
        let mut hurry = std::pin::pin!(hurry);
        loop {
            {
                let mut state = self.shared.lock();
                match state.end.take() {
                    Some(End::ReaderGone) => return Ok((Written::Closed, 0)),
                    Some(End::Failed(error)) => return Err(stdout::context(error)),
                    None if state.written == state.pushed => return Ok((Written::All, 0)),
                    None => {}
                }
            }
            tokio::select! {
                () = self.shared.progress.notified() => {}
                () = sleep(MAX_WAIT) => break,
                () = &mut hurry => break,
            }
        }
        let state = self.shared.lock();
        let unwritten = state.ends.iter().filter(|&&end| end > state.written).count();
        Ok((Written::All, unwritten as u64))
    }
}

/// Writes what is pushed, until writing fails. The thread ends with the process: it may hang in a write(2).
fn write(shared: &Shared, mut file: File, piece: usize) {
    loop {
        let mut chunk = {
            let mut state = shared.lock();
            loop {
                match state.chunks.pop_front() {
                    Some(chunk) => break chunk,
                    None => state = shared.filled.wait(state).unwrap_or_else(PoisonError::into_inner),
                }
            }
        };
        let mut rest = &chunk[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(whole_lines(rest, piece));
            let written = file.write_all(now);
            let mut state = shared.lock();
            match written {
                Ok(()) => state.written += now.len() as u64,
                Err(error) => {
                    let is_gone = error.kind() == io::ErrorKind::BrokenPipe;
                    state.end = Some(if is_gone { End::ReaderGone } else { End::Failed(error) });
                    shared.progress.notify_one();
                    shared.ended.notify_one();
                    return;
                }
            }
            drop(state);
            shared.progress.notify_one();
            rest = later;
        }
        chunk.clear();
        let mut state = shared.lock();
        // One line may need more than a chunk.
        if state.spare.len() < MAX_SPARE && chunk.capacity() <= 2 * CHUNK {
            state.spare.push(chunk);
        }
    }
}

/// The length of the first lines that fit into a piece; of a part of the first line, if it does not fit.
fn whole_lines(text: &[u8], piece: usize) -> usize {
    let Some(head) = text.get(..piece) else { return text.len() };
    head.iter().rposition(|&byte| byte == b'\n').map_or(piece, |at| at + 1)
}

#[cfg(test)]
mod tests;
