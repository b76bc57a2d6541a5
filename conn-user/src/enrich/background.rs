//! Look-ups that may block, such as reading a file, on a thread of their own. A caller waits for a moment only, and
//! not at all while an earlier look-up hangs.

use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

/// How long a caller waits for an answer that is only shown. A file in memory takes a hundredth of that on an idle host.
pub(super) const MAX_WAIT: Duration = Duration::from_millis(20);
/// How many questions may wait; further ones are refused.
const MAX_QUEUED: usize = 1_024;

/// The thread, and the questions that it has not answered.
#[derive(Debug)]
pub(crate) struct Background<Q, A> {
    questions: Sender<Q>,
    answers: Receiver<A>,
    /// Answers that were received and not taken.
    received: Vec<A>,
    open: usize,
    max_wait: Duration,
}

impl<Q: Send + 'static, A: Send + 'static> Background<Q, A> {
    /// Starts a thread that answers questions by `look_up`. A caller waits at most `max_wait` for an answer. The thread ends with this handle; if it hangs, it ends
    /// with the process. `None` if the system starts no more threads.
    pub(crate) fn new(max_wait: Duration, look_up: impl Fn(Q) -> A + Send + 'static) -> Option<Self> {
        let (questions, asked) = mpsc::channel();
        let (answered, answers) = mpsc::channel();
        let job = move || {
            for question in asked {
                if answered.send(look_up(question)).is_err() {
                    break;
                }
            }
        };
        match thread::Builder::new().name("background".into()).spawn(job) {
            Ok(_) => Some(Self { questions, answers, received: Vec::new(), open: 0, max_wait }),
            Err(error) => {
                log::warn!(
                    "conntrace cannot start the thread that reads names of containers ({error}): they stay unknown"
                );
                None
            }
        }
    }

    /// Asks, and waits a moment for the answer. False if the question is refused, so that no answer will come.
    pub(crate) fn ask(&mut self, question: Q) -> bool {
        self.receive();
        if self.open >= MAX_QUEUED || self.questions.send(question).is_err() {
            return false;
        }
        self.open += 1;
        // A question behind a slow one is answered later.
        if self.open == 1
            && let Ok(answer) = self.answers.recv_timeout(self.max_wait)
        {
            self.received.push(answer);
            self.open = 0;
        }
        true
    }

    /// Takes the answers that have come.
    pub(crate) fn take_answers(&mut self) -> impl Iterator<Item = A> + '_ {
        self.receive();
        self.received.drain(..)
    }

    /// True while a question is not answered.
    #[cfg(test)]
    pub(super) const fn is_busy(&self) -> bool {
        self.open > 0
    }

    fn receive(&mut self) {
        if self.open > 0 {
            let before = self.received.len();
            self.received.extend(self.answers.try_iter());
            self.open -= self.received.len() - before;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quick_answer_is_there_at_once() {
        let mut background = Background::new(MAX_WAIT, |question: u32| question + 1).unwrap();
        // On a busy machine, some answers may take longer.
        let quick = (0..100).filter(|&question| {
            assert!(background.ask(question));
            background.take_answers().last() == Some(question + 1)
        });
        assert!(quick.count() > 0);
    }

    #[test]
    fn a_look_up_that_hangs_delays_no_caller() {
        let (release, held) = mpsc::channel::<()>();
        let mut background = Background::new(MAX_WAIT, move |question: usize| {
            // A file system that does not answer.
            let _ = held.recv();
            question
        })
        .unwrap();
        let accepted = (0..MAX_QUEUED + 5).filter(|&question| background.ask(question)).count();
        assert_eq!((accepted, background.take_answers().count()), (MAX_QUEUED, 0));
        // Once the file system answers, all accepted questions are answered, and new ones are accepted.
        drop(release);
        let mut answered = 0;
        while answered < MAX_QUEUED {
            answered += background.take_answers().count();
            thread::yield_now();
        }
        assert!(background.ask(7));
    }
}
