//! Where events come from.

use std::ops::ControlFlow;

use conn_common::owner::Owner;
use conn_common::row::SocketRow;

use crate::error::Error;
use crate::event::Event;
use crate::event::lost::Lost;

/// One thing that a source gives.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Item<'a> {
    /// A record of the ring, see [`crate::event::decode::decode`].
    Record(&'a [u8]),
    /// An event that the kernel's part of the filter lets through.
    Event(&'a Event),
    /// An event of a flow that connection tracking reported. No filter has judged it.
    Flow(&'a Event),
    /// A socket that a walk found, and the processes that have it open, if they were looked for.
    Socket(&'a SocketRow, Option<&'a [Owner]>),
    /// A loss. It stands behind all records that came before it.
    Lost(Lost),
}

/// The result of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Batch {
    /// There were items, and there may be more.
    Items,
    /// There is nothing now, and something may come.
    Idle,
    /// Nothing will come.
    End,
}

/// Takes items, and breaks when it wants no more of the batch. A walk gives items from several threads, one at a time.
pub(crate) type Take<'a> = dyn FnMut(Item<'_>) -> ControlFlow<()> + Send + 'a;

/// Gives items in batches.
pub(crate) trait Source {
    /// Gives the next batch to `take`. Items that `take` does not want stay in the source.
    ///
    /// # Errors
    /// The source cannot be read any more.
    fn next_batch(&mut self, take: &mut Take<'_>) -> Result<Batch, Error>;
}

/// An item that is in memory.
#[cfg(test)]
#[derive(Clone, Debug)]
pub(crate) enum Recorded {
    /// A record of the ring.
    Record(Vec<u8>),
    /// A socket of a walk, and the processes that have it open.
    Socket(Box<SocketRow>, Vec<Owner>),
    /// A loss.
    Lost(Lost),
}

/// Items in memory, given in batches of the same length.
#[cfg(test)]
#[derive(Clone, Debug)]
pub(crate) struct RecordedSource {
    items: std::vec::IntoIter<Recorded>,
    batch: usize,
}

#[cfg(test)]
impl RecordedSource {
    /// A source of `items` that gives `batch` of them at a time.
    pub(crate) fn new(items: Vec<Recorded>, batch: usize) -> Self {
        Self { items: items.into_iter(), batch }
    }
}

#[cfg(test)]
impl Source for RecordedSource {
    fn next_batch(&mut self, take: &mut Take<'_>) -> Result<Batch, Error> {
        if self.items.len() == 0 {
            return Ok(Batch::End);
        }
        for item in self.items.by_ref().take(self.batch) {
            let taken = match &item {
                Recorded::Record(bytes) => take(Item::Record(bytes)),
                Recorded::Socket(row, holders) => {
                    take(Item::Socket(row, Some(&holders[..]).filter(|holders| !holders.is_empty())))
                }
                Recorded::Lost(lost) => take(Item::Lost(*lost)),
            };
            if taken.is_break() {
                break;
            }
        }
        Ok(Batch::Items)
    }
}
