//! Doing something for each of several things, as many at a time as there are processors.

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

/// Does `work` for all of them, begun in this order, and tells the results in no order.
///
/// # Errors
/// One of those of `work`; the worker that meets it begins no more.
pub fn each<T, R: Send, E: Send>(
    things: impl ExactSizeIterator<Item = T> + Send,
    work: impl Fn(T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let workers = thread::available_parallelism().map_or(1, NonZeroUsize::get).min(things.len());
    let things = Mutex::new(things);
    let next = || locked(&things).next();
    let worker = || std::iter::from_fn(next).map(&work).collect::<Result<Vec<R>, E>>();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        let mut results = Vec::new();
        for worker in workers {
            results.extend(worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(results)
    })
}

/// A lock that somebody panicked with ends in that panic anyway: whoever joins the thread goes on with it.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_done_once() {
        let mut done = each((0..100).collect::<Vec<_>>().into_iter(), Ok::<u32, ()>).unwrap();
        done.sort_unstable();
        assert_eq!(done, (0..100).collect::<Vec<_>>());
        assert_eq!(each(Vec::new().into_iter(), Ok::<u32, ()>), Ok(Vec::new()));
    }

    #[test]
    fn an_error_is_told() {
        let odd = |number: u32| if number == 7 { Err(number) } else { Ok(()) };
        assert_eq!(each((0..100).collect::<Vec<_>>().into_iter(), odd), Err(7));
    }
}
