//! The order of messages that came by several sockets.
//!
//! Each group keeps the kernel's order. Between groups, the kernel's time stamps order messages where there are some. Else a
//! flow's own messages are kept in order: its beginning, its changes, its end.

use std::collections::HashSet;

use crate::event::entry::{Change, Entry};

/// Orders a batch in which each group is in the order of the kernel. `key` is that of a flow. `is_alive` says whether a flow
/// with a key was there before the batch: its end then belongs to the flow before, not to one that the batch begins.
pub(super) fn sort(
    batch: &mut [(Change, Entry)],
    key: impl Fn(&Entry) -> u64,
    is_alive: impl Fn(u64) -> bool,
) {
    if batch.iter().all(|(_, entry)| entry.happened_unix_ns.is_some()) {
        batch.sort_by_key(|&(change, entry)| (entry.happened_unix_ns, change as u8));
        return;
    }
    let begun: HashSet<u64> =
        batch.iter().filter(|(change, _)| *change == Change::New).map(|(_, entry)| key(entry)).collect();
    let mut ended = HashSet::new();
    let mut ranks = Vec::with_capacity(batch.len());
    for &(change, entry) in &*batch {
        let is_of_old = match change {
            Change::New => false,
            Change::Update => !begun.contains(&key(&entry)),
            Change::Destroy => {
                let key = key(&entry);
                !begun.contains(&key) || (is_alive(key) && ended.insert(key))
            }
        };
        ranks.push(if is_of_old { change as u8 } else { change as u8 + Change::ALL.len() as u8 });
    }
    let mut order: Vec<usize> = (0..batch.len()).collect();
    order.sort_by_key(|&at| ranks[at]);
    let sorted: Vec<_> = order.into_iter().map(|at| batch[at]).collect();
    batch.copy_from_slice(&sorted);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::entry::tests::entry;

    fn of(change: Change, id: u32, happened_unix_ns: Option<u64>) -> (Change, Entry) {
        (change, Entry { id, happened_unix_ns, ..entry() })
    }

    fn sorted(messages: &[(Change, u32, Option<u64>)], alive: &[u32]) -> Vec<(Change, u32)> {
        let mut batch: Vec<_> = messages.iter().map(|&(change, id, ns)| of(change, id, ns)).collect();
        sort(&mut batch, |entry| entry.id.into(), |key| alive.iter().any(|&id| key == u64::from(id)));
        batch.into_iter().map(|(change, entry)| (change, entry.id)).collect()
    }

    #[test]
    fn flows_keep_their_order() {
        use Change::{Destroy, New, Update};
        // As read: ends first, beginnings last.
        let read =
            [(Destroy, 1, None), (Destroy, 2, None), (Update, 2, None), (Update, 3, None), (New, 2, None)];
        assert_eq!(sorted(&read, &[1, 3]), [(Update, 3), (Destroy, 1), (New, 2), (Update, 2), (Destroy, 2)]);
        // The end of a flow, and another flow with its id.
        let reused = [(Destroy, 7, None), (New, 7, None)];
        assert_eq!(sorted(&reused, &[7]), [(Destroy, 7), (New, 7)]);
        assert_eq!(sorted(&reused, &[]), [(New, 7), (Destroy, 7)]);
        let twice = [(Destroy, 7, None), (Destroy, 7, None), (New, 7, None)];
        assert_eq!(sorted(&twice, &[7]), [(Destroy, 7), (New, 7), (Destroy, 7)]);
    }

    #[test]
    fn time_stamps_come_first() {
        use Change::{Destroy, New};
        let read = [(Destroy, 7, Some(30)), (Destroy, 7, Some(10)), (New, 7, Some(20)), (New, 7, Some(30))];
        assert_eq!(sorted(&read, &[]), [(Destroy, 7), (New, 7), (New, 7), (Destroy, 7)]);
    }
}
