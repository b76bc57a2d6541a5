//! Requests that wait for the collector: a bounded number of them, and of bytes. The oldest is dropped first, and its note is
//! given back.

use std::collections::VecDeque;

use bytes::Bytes;

/// How many requests wait at the most, the one that is sent included.
pub(crate) const MOST: usize = 16;
/// How many bytes they have together.
pub(crate) const MOST_BYTES: usize = 16 << 20;

/// The requests, the oldest first, each with a note of what it has.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    waiting: VecDeque<(Bytes, T)>,
    sending: Option<(Bytes, T)>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), sending: None }
    }
}

impl<T> Queue<T> {
    /// Adds the newest request. Returns the notes of older ones that were dropped for it.
    pub(crate) fn push(&mut self, request: Bytes, note: T) -> Vec<T> {
        let mut dropped = Vec::new();
        self.waiting.push_back((request, note));
        while self.len() > MOST || self.bytes() > MOST_BYTES {
            let Some((_, note)) = self.waiting.pop_front() else { break };
            dropped.push(note);
        }
        dropped
    }

    /// The oldest request, if none is sent.
    pub(crate) fn begin(&mut self) -> Option<Bytes> {
        if self.sending.is_none() {
            self.sending = self.waiting.pop_front();
            return self.sending.as_ref().map(|(request, _)| request.clone());
        }
        None
    }

    /// The request that was sent is to be sent again.
    pub(crate) fn again(&mut self) {
        self.waiting.extend(self.sending.take());
        self.waiting.rotate_right(1.min(self.waiting.len()));
    }

    /// The request that was sent is done: it has arrived, or the collector does not want it.
    pub(crate) fn done(&mut self) -> Option<T> {
        self.sending.take().map(|(_, note)| note)
    }

    /// How many requests there are.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len() + usize::from(self.sending.is_some())
    }

    /// The notes of all requests.
    pub(crate) fn notes(&self) -> impl Iterator<Item = &T> {
        self.waiting.iter().chain(&self.sending).map(|(_, note)| note)
    }

    fn bytes(&self) -> usize {
        self.waiting.iter().chain(&self.sending).map(|(request, _)| request.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_dropped_first() {
        let mut queue = Queue::default();
        let push = |queue: &mut Queue<u8>, number| queue.push(vec![number].into(), number);
        let dropped: Vec<_> = (0..20).flat_map(|number| push(&mut queue, number)).collect();
        assert_eq!((queue.len(), dropped), (MOST, vec![0, 1, 2, 3]));
        assert_eq!(queue.begin().unwrap()[0], 4);
        assert_eq!(queue.begin(), None);
        // What is sent is not dropped.
        assert_eq!(push(&mut queue, 20), [5]);
        queue.again();
        assert_eq!(queue.len(), MOST);
        assert_eq!(queue.begin().unwrap()[0], 4);
        assert_eq!(queue.done(), Some(4));
        assert_eq!(queue.begin().unwrap()[0], 6);
        assert_eq!(queue.done(), Some(6));
        assert_eq!((queue.len(), queue.notes().count()), (MOST - 2, MOST - 2));
    }

    #[test]
    fn bytes_are_bounded_too() {
        let mut queue = Queue::default();
        for number in 0..5 {
            queue.push(vec![0; MOST_BYTES / 3].into(), number);
        }
        assert_eq!(queue.notes().copied().collect::<Vec<_>>(), [2, 3, 4]);
        assert_eq!(queue.push(vec![0; MOST_BYTES + 1].into(), 5), [2, 3, 4, 5]);
        assert_eq!(queue.len(), 0);
    }
}
