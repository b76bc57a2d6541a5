//! Work on several items at a time, as many as there are CPUs.

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

/// Does `work` for each item, begun in this order. Returns the results in no order.
///
/// # Errors
/// An error of `work`. The thread that meets it begins no more work.
pub(crate) fn each<T, R: Send, E: Send>(
    items: impl ExactSizeIterator<Item = T> + Send,
    work: impl Fn(T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let workers = thread::available_parallelism().map_or(1, NonZeroUsize::get).min(items.len());
    let items = Mutex::new(items);
    let next = || locked(&items).next();
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

/// Locks a mutex. A poisoned one is fine: the thread that joins the panicked one resumes its panic.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_item_is_done_once() {
        let mut done = each((0..100).collect::<Vec<_>>().into_iter(), Ok::<u32, ()>).unwrap();
        done.sort_unstable();
        assert_eq!(done, (0..100).collect::<Vec<_>>());
        assert_eq!(each(Vec::new().into_iter(), Ok::<u32, ()>), Ok(Vec::new()));
    }

    #[test]
    fn error_of_work_is_returned() {
        let odd = |number: u32| if number == 7 { Err(number) } else { Ok(()) };
        assert_eq!(each((0..100).collect::<Vec<_>>().into_iter(), odd), Err(7));
    }
}
