//! Work that may block, such as reading a file, done in a thread of its own. Whoever asks for it waits for a
//! moment only, and not at all while something earlier hangs.

use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

/// How long work is waited for. A file that is in memory takes a hundredth of that.
const PATIENCE: Duration = Duration::from_millis(20);
/// How much may wait to be done: what comes on top while all hangs is refused.
const MOST: usize = 1_024;

/// The thread, and how much it owes.
#[derive(Debug)]
pub struct Aside<T> {
    ask: Sender<T>,
    done: Receiver<()>,
    owed: usize,
}

impl<T: Send + 'static> Aside<T> {
    /// A thread that does `work` with whatever it is given. It leaves the result in there, and ends with this
    /// handle; one that hangs ends with the process. `None` if there can be no more threads.
    pub fn new(work: impl Fn(T) + Send + 'static) -> Option<Self> {
        let (ask, asked) = mpsc::channel();
        let (tell, done) = mpsc::channel();
        let job = move || {
            for thing in asked {
                work(thing);
                if tell.send(()).is_err() {
                    break;
                }
            }
        };
        match thread::Builder::new().name("aside".into()).spawn(job) {
            Ok(_) => Some(Self { ask, done, owed: 0 }),
            Err(error) => {
                log::warn!("no thread for names of containers and processes ({error}): they stay unknown");
                None
            }
        }
    }

    /// Has it done, and waits a moment. False if it will never be done.
    pub fn ask(&mut self, thing: T) -> bool {
        self.owed -= self.done.try_iter().count();
        if self.owed >= MOST || self.ask.send(thing).is_err() {
            return false;
        }
        self.owed += 1;
        // Who is behind something slow comes later.
        if self.owed == 1 && self.done.recv_timeout(PATIENCE).is_ok() {
            self.owed = 0;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, OnceLock};

    use super::*;

    #[test]
    fn what_is_quick_is_there_at_once() {
        let mut aside = Aside::new(|answer: Arc<OnceLock<u32>>| answer.set(7).unwrap()).unwrap();
        // A busy machine may take longer for some.
        let quick = (0..100).filter(|_| {
            let answer = Arc::new(OnceLock::new());
            assert!(aside.ask(Arc::clone(&answer)));
            answer.get() == Some(&7)
        });
        assert!(quick.count() > 0);
    }

    #[test]
    fn what_hangs_is_not_waited_for() {
        let (release, held) = mpsc::channel::<()>();
        let mut aside = Aside::new(move |answer: Arc<OnceLock<u32>>| {
            // A file system that does not answer.
            let _ = held.recv();
            answer.set(7).unwrap();
        })
        .unwrap();
        let answers: Vec<_> = (0..MOST + 5).map(|_| Arc::new(OnceLock::new())).collect();
        let taken = answers.iter().filter(|answer| aside.ask(Arc::clone(answer))).count();
        assert_eq!(taken, MOST);
        assert!(answers.iter().all(|answer| answer.get().is_none()));
        // Once it answers, everything is made up for, and new work is done again.
        drop(release);
        assert_eq!(answers[..MOST].iter().map(|answer| *answer.wait()).sum::<u32>(), 7 * MOST as u32);
        let late = Arc::new(OnceLock::new());
        while !aside.ask(Arc::clone(&late)) {
            thread::yield_now();
        }
        assert_eq!(*late.wait(), 7);
    }
}
