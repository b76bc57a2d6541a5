//! A stream that equal requests share: the lines of one command go to every client from when it came. A slow client loses
//! lines of its own, and gets their number.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::event::lost::Lost;
use crate::host::clock::WallClock;
use crate::render::json;
use crate::serve::frame::Piece;
use crate::serve::front::answer::{Pieces, Whole};
use crate::serve::front::shared::{Client, Same, Shared};
use crate::serve::problem::Problem;

/// Bytes of lines that may wait for one client.
const MAX_WAITING: usize = 1 << 20;

/// Those who read a stream.
#[derive(Debug, Default)]
pub(super) struct Fanout(RefCell<State>);

#[derive(Debug, Default)]
struct State {
    readers: Vec<Rc<Queue>>,
    /// Those who wait for the head of the answer.
    waiting: Vec<oneshot::Sender<Result<(), Problem>>>,
    is_ready: bool,
    /// A reader has left.
    left: Rc<Notify>,
}

/// The lines that wait for one reader.
#[derive(Debug, Default)]
struct Queue {
    lines: RefCell<Lines>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Lines {
    chunks: VecDeque<Bytes>,
    bytes: usize,
    lost: Option<Lost>,
    is_over: bool,
}

/// A line, as far as its loss needs it. Times are nanoseconds of Unix time.
#[derive(Deserialize)]
struct Line {
    time_ns: u64,
    lost: Option<u64>,
    since_ns: Option<u64>,
}

/// Joins the stream of equal requests, or starts it. The receiver gets its lines.
///
/// # Errors
/// The stream does not begin.
pub(super) async fn join(
    shared: &Rc<Shared>,
    client: &Rc<Client>,
    same: Same,
) -> Result<mpsc::Receiver<Bytes>, Problem> {
    let known = shared.streams.borrow().get(&same).cloned();
    let fanout = known.unwrap_or_else(|| {
        let fanout = Rc::new(Fanout::default());
        shared.streams.borrow_mut().insert(same.clone(), Rc::clone(&fanout));
        tokio::task::spawn_local(pump(Rc::clone(shared), Rc::clone(client), same, Rc::clone(&fanout)));
        fanout
    });
    let reader = Reader::new(&fanout);
    let begun = {
        let mut state = fanout.0.borrow_mut();
        let (sender, begun) = oneshot::channel();
        (!state.is_ready).then(|| {
            state.waiting.push(sender);
            begun
        })
    };
    if let Some(begun) = begun {
        begun.await.map_err(|_| Problem::new(500, "the daemon ends", "ask again"))??;
    }
    let (sender, parts) = mpsc::channel(1);
    tokio::task::spawn_local(async move {
        loop {
            let chunk = tokio::select! {
                chunk = reader.queue.next() => chunk,
                () = sender.closed() => return,
            };
            let Some(chunk) = chunk else { return };
            if sender.send(chunk).await.is_err() {
                return;
            }
        }
    });
    Ok(parts)
}

/// A reader's place in a stream. Dropped, it is free.
struct Reader {
    fanout: Rc<Fanout>,
    queue: Rc<Queue>,
}

impl Reader {
    fn new(fanout: &Rc<Fanout>) -> Self {
        let queue = Rc::new(Queue::default());
        fanout.0.borrow_mut().readers.push(Rc::clone(&queue));
        Self { fanout: Rc::clone(fanout), queue }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.fanout.0.borrow_mut();
        state.readers.retain(|queue| !Rc::ptr_eq(queue, &self.queue));
        state.left.notify_one();
    }
}

/// Runs the command of a stream, as long as it has a reader.
async fn pump(shared: Rc<Shared>, client: Rc<Client>, same: Same, fanout: Rc<Fanout>) {
    let asked = shared.ask(same.0.clone(), &client);
    drop(client);
    let done = match Pieces::begin(asked).await {
        Ok(pieces) => fanout.run(pieces, &shared.lines_lost).await,
        Err(problem) => Err(problem),
    };
    // Later requests begin another stream.
    shared.streams.borrow_mut().remove(&same);
    fanout.end(&done);
}

impl Fanout {
    /// Passes lines on, until the command has ended or the last reader has left. Lines that readers lose are added to
    /// `lost`.
    async fn run(&self, mut pieces: Pieces, lost: &Cell<u64>) -> Result<(), Problem> {
        let (mut rest, mut before) = (BytesMut::new(), Whole::default());
        let left = Rc::clone(&self.0.borrow().left);
        loop {
            let piece = tokio::select! {
                piece = pieces.next() => piece,
                () = left.notified() => {
                    if self.0.borrow().readers.is_empty() {
                        // The command ends with its pieces.
                        return Ok(());
                    }
                    continue;
                }
            };
            match piece {
                None => return Ok(()),
                Some(Piece::Ready) => self.begin(),
                Some(Piece::Out(bytes)) => {
                    self.begin();
                    rest.extend_from_slice(&bytes);
                    let whole = rest.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
                    let lines = rest.split_to(whole).freeze();
                    if !lines.is_empty() {
                        let more: u64 = self.0.borrow().readers.iter().map(|queue| queue.push(&lines)).sum();
                        lost.set(lost.get() + more);
                    }
                }
                Some(Piece::Err(bytes)) if !self.0.borrow().is_ready => before.err.extend_from_slice(&bytes),
                Some(Piece::Err(_)) => {}
                Some(Piece::Exit(code)) => {
                    before.code = code;
                    return if self.0.borrow().is_ready {
                        Ok(())
                    } else {
                        before.failure().map_or(Ok(()), Err)
                    };
                }
            }
        }
    }

    /// The head of the answer is due: the command traces.
    fn begin(&self) {
        let mut state = self.0.borrow_mut();
        state.is_ready = true;
        for one in state.waiting.drain(..) {
            // The client may have left.
            let _ = one.send(Ok(()));
        }
    }

    /// No more lines come.
    fn end(&self, done: &Result<(), Problem>) {
        let mut state = self.0.borrow_mut();
        for one in state.waiting.drain(..) {
            // The client may have left.
            let _ = one.send(done.clone());
        }
        for queue in &state.readers {
            queue.lines.borrow_mut().is_over = true;
            queue.more.notify_one();
        }
    }
}

impl Queue {
    /// Takes whole lines. Without room, they are lost. Returns how many are.
    fn push(&self, chunk: &Bytes) -> u64 {
        let mut lines = self.lines.borrow_mut();
        if lines.bytes + chunk.len() > MAX_WAITING && lines.bytes != 0 {
            return lines.lose(chunk);
        }
        lines.mark_lost();
        lines.bytes += chunk.len();
        lines.chunks.push_back(chunk.clone());
        self.more.notify_one();
        0
    }

    /// The next lines; none at the end.
    async fn next(&self) -> Option<Bytes> {
        loop {
            {
                let mut lines = self.lines.borrow_mut();
                if lines.chunks.is_empty() {
                    lines.mark_lost();
                }
                if let Some(chunk) = lines.chunks.pop_front() {
                    lines.bytes -= chunk.len();
                    return Some(chunk);
                }
                if lines.is_over {
                    return None;
                }
            }
            self.more.notified().await;
        }
    }
}

impl Lines {
    /// Counts lines as lost, and returns how many.
    fn lose(&mut self, chunk: &[u8]) -> u64 {
        let mut all = 0;
        for line in chunk.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            // Every line of the daemon's JSON has a time. A loss counts what it says.
            let line =
                serde_json::from_slice(line).unwrap_or(Line { time_ns: 0, lost: None, since_ns: None });
            let (count, since_ns, until_ns) =
                (line.lost.unwrap_or(1), line.since_ns.unwrap_or(line.time_ns), line.time_ns);
            let lost = self.lost.get_or_insert(Lost { count: 0, since_ns, until_ns, of: None });
            lost.count += count;
            lost.since_ns = lost.since_ns.min(since_ns);
            lost.until_ns = lost.until_ns.max(until_ns);
            all += count;
        }
        all
    }

    /// Marks the place of lost lines.
    fn mark_lost(&mut self) {
        if let Some(lost) = self.lost.take() {
            let (mut text, clock) = (Vec::new(), WallClock::with_offset(0));
            json::lost(&lost, &clock, &mut text);
            text.push(b'\n');
            self.bytes += text.len();
            self.chunks.push_back(text.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn line(time_ns: u64) -> String {
        format!(
            "{{\"event\":\"new\",\"time\":\"x\",\"time_ns\":{time_ns},\"pad\":\"{}\"}}\n",
            "x".repeat(1_000)
        )
    }

    #[test]
    fn a_slow_reader_loses_lines_of_its_own_and_gets_their_number() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (fast, slow) = (Queue::default(), Queue::default());
        let (mut read, mut counted, wanted) = (0, 0, 5_000);
        for time_ns in 1..=wanted {
            let chunk = if time_ns == wanted {
                // A loss that is lost counts what it says.
                Bytes::from(format!(
                    "{{\"event\":\"lost\",\"time_ns\":{time_ns},\"lost\":70,\"since_ns\":7,\"pad\":\"{}\"}}\n",
                    "x".repeat(2_000)
                ))
            } else {
                Bytes::from(line(time_ns))
            };
            assert_eq!(fast.push(&chunk), 0);
            counted += slow.push(&chunk);
            assert_eq!(runtime.block_on(fast.next()), Some(chunk));
            read += 1;
        }
        assert_eq!(read, wanted);
        slow.lines.borrow_mut().is_over = true;
        let mut lines = Vec::new();
        while let Some(chunk) = runtime.block_on(slow.next()) {
            let text = String::from_utf8(chunk.to_vec()).unwrap();
            lines.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
        }
        let lost = lines.pop().unwrap();
        assert_eq!(
            (&lost["event"], &lost["until_ns"], &lost["since_ns"]),
            (&"lost".into(), &wanted.into(), &7.into())
        );
        // All but the last line were events, and the last one was a loss of 70.
        assert_eq!(lines.len() as u64 + lost["lost"].as_u64().unwrap(), wanted - 1 + 70);
        assert_eq!(lost["lost"].as_u64(), Some(counted));
    }

    #[test]
    fn a_line_larger_than_all_room_is_taken_alone() {
        let queue = Queue::default();
        let large = Bytes::from(vec![b'x'; 2 * MAX_WAITING]);
        queue.push(&large);
        queue.push(&Bytes::from(line(1)));
        assert_eq!((queue.lines.borrow().chunks.len(), queue.lines.borrow().lost.unwrap().count), (1, 1));
    }
}
