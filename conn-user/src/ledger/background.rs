//! A thread that works on request, one request at a time. Its caller may stop waiting and take the answer later.

use std::io;
use std::panic::resume_unwind;
use std::sync::mpsc;
use std::thread::{Builder, JoinHandle};

use tokio::sync::oneshot;

/// A thread whose work gives a `T`. Dropping it does not wait for the work under way, which ends with the process.
#[derive(Debug)]
pub(super) struct Background<T> {
    requests: Option<mpsc::Sender<oneshot::Sender<T>>>,
    /// The answer to the last request, until it is taken.
    pending: Option<oneshot::Receiver<T>>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Background<T> {
    /// Starts the thread.
    ///
    /// # Errors
    /// There can be no more threads.
    pub(super) fn start(name: &str, mut work: impl FnMut() -> T + Send + 'static) -> io::Result<Self> {
        let (requests, requested) = mpsc::channel::<oneshot::Sender<T>>();
        let thread = Builder::new().name(name.into()).spawn(move || {
            for answer in requested {
                // The caller may have left.
                let _ = answer.send(work());
            }
        })?;
        Ok(Self { requests: Some(requests), pending: None, thread: Some(thread) })
    }

    /// Requests work, which begins after the work under way. The answer to an earlier request is lost.
    pub(super) fn request(&mut self) {
        let (answer, pending) = oneshot::channel();
        if let Some(requests) = &self.requests {
            // Fails only if the thread has panicked; then `pending` is closed.
            let _ = requests.send(answer);
        }
        self.pending = Some(pending);
    }

    /// Whether there is an answer to wait for or to take.
    pub(super) const fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Waits for the answer; none if nothing was requested. Dropping the future keeps the answer for later.
    ///
    /// # Panics
    /// Goes on with a panic of the work.
    pub(super) async fn answer(&mut self) -> Option<T> {
        let answer = self.pending.as_mut()?.await;
        self.pending = None;
        Some(answer.unwrap_or_else(|_closed| self.resume_panic()))
    }

    /// Takes the answer if the work is done.
    ///
    /// # Panics
    /// Goes on with a panic of the work.
    pub(super) fn take_finished(&mut self) -> Option<T> {
        let answer = match self.pending.as_mut()?.try_recv() {
            Ok(answer) => answer,
            Err(oneshot::error::TryRecvError::Empty) => return None,
            Err(oneshot::error::TryRecvError::Closed) => self.resume_panic(),
        };
        self.pending = None;
        Some(answer)
    }

    /// An answer was dropped unsent, so the work has panicked.
    fn resume_panic(&mut self) -> ! {
        self.requests = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Err(panic)) => resume_unwind(panic),
            _ => unreachable!("only a panic leaves an answer unsent, and it is taken once"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
    }

    /// A thread that counts its answers, each after one message.
    fn gated() -> (mpsc::Sender<()>, Background<u32>) {
        let (gate, passes) = mpsc::channel();
        let mut answers = 0;
        let work = move || {
            let _ = passes.recv();
            answers += 1;
            answers
        };
        (gate, Background::start("gated", work).unwrap())
    }

    #[test]
    fn answer_is_kept_when_its_caller_stops_waiting() {
        let (gate, mut background) = gated();
        block_on(async {
            background.request();
            assert!(timeout(Duration::from_millis(5), background.answer()).await.is_err());
            assert!(background.is_pending() && background.take_finished().is_none());
            gate.send(()).unwrap();
            assert_eq!(background.answer().await, Some(1));
            assert!(!background.is_pending());
            assert_eq!(background.answer().await, None);
        });
    }

    #[test]
    fn newer_request_replaces_an_older_one() {
        let (gate, mut background) = gated();
        background.request();
        background.request();
        gate.send(()).unwrap();
        gate.send(()).unwrap();
        assert_eq!(block_on(background.answer()), Some(2));
    }

    #[test]
    fn panic_of_the_work_reaches_the_caller() {
        let mut background = Background::<()>::start("panics", || resume_unwind(Box::new(7))).unwrap();
        background.request();
        let panic = catch_unwind(AssertUnwindSafe(|| block_on(background.answer()))).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&7));
    }

    #[test]
    fn dropping_does_not_wait_for_the_work() {
        let (gate, mut background) = gated();
        background.request();
        drop(background);
        // The thread still waits for its message.
        gate.send(()).unwrap();
    }
}
