//! Requests that wait for the collector: a bounded number of them, and of bytes. The oldest is dropped first, and counted.

use std::collections::VecDeque;

use bytes::Bytes;

/// How many requests wait at the most, the one that is sent included.
pub(crate) const MOST: usize = 16;
/// How many bytes they have together.
pub(crate) const MOST_BYTES: usize = 16 << 20;

/// The requests, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: VecDeque<Bytes>,
    sending: Option<Bytes>,
    /// How many were dropped.
    pub(crate) dropped: u64,
}

impl Queue {
    /// Adds the newest request. Returns how many older ones were dropped for it.
    pub(crate) fn push(&mut self, request: Bytes) -> u64 {
        let before = self.dropped;
        self.waiting.push_back(request);
        while self.len() > MOST || self.bytes() > MOST_BYTES {
            if self.waiting.pop_front().is_none() {
                break;
            }
            self.dropped += 1;
        }
        self.dropped - before
    }

    /// The oldest request, if none is sent.
    pub(crate) fn begin(&mut self) -> Option<Bytes> {
        if self.sending.is_none() {
            self.sending = self.waiting.pop_front();
            return self.sending.clone();
        }
        None
    }

    /// The request that was sent has arrived.
    pub(crate) fn arrived(&mut self) {
        self.sending = None;
    }

    /// The request that was sent is to be sent again.
    pub(crate) fn again(&mut self) {
        self.waiting.extend(self.sending.take());
        self.waiting.rotate_right(1.min(self.waiting.len()));
    }

    /// The collector does not want the request that was sent.
    pub(crate) fn refused(&mut self) {
        self.dropped += u64::from(self.sending.take().is_some());
    }

    /// How many requests there are.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len() + usize::from(self.sending.is_some())
    }

    fn bytes(&self) -> usize {
        self.waiting.iter().chain(&self.sending).map(Bytes::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_dropped_first() {
        let mut queue = Queue::default();
        for number in 0..20_u8 {
            queue.push(vec![number].into());
        }
        assert_eq!((queue.len(), queue.dropped), (MOST, 4));
        assert_eq!(queue.begin().unwrap()[0], 4);
        assert_eq!(queue.begin(), None);
        // What is sent is not dropped.
        queue.push(vec![20].into());
        queue.again();
        assert_eq!((queue.len(), queue.dropped), (MOST, 5));
        assert_eq!(queue.begin().unwrap()[0], 4);
        queue.arrived();
        assert_eq!(queue.begin().unwrap()[0], 6);
        queue.refused();
        assert_eq!((queue.len(), queue.dropped), (MOST - 2, 6));
    }

    #[test]
    fn bytes_are_bounded_too() {
        let mut queue = Queue::default();
        for _ in 0..5 {
            queue.push(vec![0; MOST_BYTES / 3].into());
        }
        assert_eq!((queue.len(), queue.dropped), (3, 2));
        queue.push(vec![0; MOST_BYTES + 1].into());
        assert_eq!((queue.len(), queue.dropped), (0, 6));
    }
}
