use conn_common::owner::SOCKET;

use super::*;
use crate::event::entry::tests::entry;

fn of(id: u32) -> Entry {
    Entry { id, ..entry() }
}

#[expect(clippy::unnecessary_wraps, reason = "as a life has it")]
fn owner(pid: u32) -> Option<Box<Owner>> {
    Some(Box::new(Owner { pid, source: SOCKET, ..Owner::NONE }))
}

impl Lives {
    fn key_of(&self, id: u32) -> u64 {
        self.key(&of(id))
    }

    /// A flow begins, with an owner.
    fn begin_of(&mut self, id: u32, now_ns: u64, pid: u32) {
        let key = self.key_of(id);
        self.begin(key, now_ns);
        self.name(key, owner(pid));
    }

    /// The beginning and the process of the flow that ends.
    fn end_of(&mut self, id: u32) -> Option<(u64, Option<u32>)> {
        let life = self.end(self.key_of(id))?;
        Some((life.began_ns, life.owner.map(|owner| owner.pid)))
    }

    fn owner_of(&self, id: u32) -> Option<u32> {
        self.owner(self.key_of(id)).map(|owner| owner.pid)
    }

    /// A whole read, in which all ends were read.
    fn read(&mut self, messages: impl FnOnce(&mut Self)) -> Vec<Life> {
        self.begin_read();
        messages(self);
        self.end_read(true)
    }

    fn dump(&mut self, now_ns: u64, ids: impl IntoIterator<Item = u32>) -> Vec<Life> {
        self.begin_dump(now_ns);
        ids.into_iter().for_each(|id| self.note(&of(id), false, || None));
        self.end_dump()
    }
}

/// Flows 1 and 2 existed before, of processes 41 and 42; 3 began while the first dump showed them, of process 43.
fn begun() -> Lives {
    let mut lives = Lives::default();
    lives.begin_read();
    lives.begin_dump(10);
    for id in 1..=3 {
        lives.note(&of(id), id == 1, || owner(40 + id));
    }
    lives.begin_of(3, 11, 43);
    assert!(lives.end_dump().is_empty() && lives.end_read(true).is_empty());
    lives.read(|_| {});
    lives.begin_read();
    lives
}

#[test]
fn flows_before_the_run_are_those_without_a_beginning() {
    let mut lives = begun();
    assert_eq!(lives.preexisting, 2);
    assert_eq!(lives.end_of(3), Some((11, Some(43))));
    let life = lives.end(lives.key_of(1)).unwrap();
    assert_eq!((life.preexisting, life.began_ns, life.owner), (true, 10, owner(41)));
    assert_eq!(lives.end_of(4), None);
    assert!(!lives.has(lives.key_of(3)) && lives.has(lives.key_of(2)));
}

#[test]
fn a_later_dump_ends_what_it_does_not_show() {
    let mut lives = begun();
    lives.begin_dump(20);
    // The dump was under way when 4 began, and has 3 and 2.
    lives.begin_of(4, 21, 44);
    for id in [3, 2] {
        lives.note(&of(id), true, || panic!("it is known"));
    }
    let ended = lives.end_dump();
    assert!(matches!(&ended[..], [life] if life.entry.as_ref().is_some_and(|entry| entry.id == 1)));
    assert_eq!(ended[0].owner, owner(41));
    assert_eq!((lives.preexisting, lives.ended_unseen, lives.silent()), (2, 1, 1));
    // No dump makes a flow preexisting later.
    assert!(lives.dump(30, [2, 4, 5]).is_empty());
    assert!(!lives.has(lives.key_of(3)) && !lives.has(lives.key_of(5)));
    assert_eq!((lives.preexisting, lives.ended_unseen), (2, 1));
}

#[test]
fn flows_that_end_or_begin_during_the_first_dump_count_once() {
    let mut lives = Lives::default();
    lives.begin_read();
    lives.begin_dump(10);
    // Flow 1 was there before, ended, and another one took its key. The dump shows 2 before its beginning is read.
    for id in [1, 2] {
        lives.note(&of(id), false, || None);
    }
    lives.end_read(true);
    lives.read(|lives| {
        lives.begin_of(1, 11, 41);
        lives.begin_of(2, 12, 42);
        assert_eq!(lives.end_of(1), None);
        // Nothing shows the beginning of flow 3.
        assert_eq!(lives.end_of(3), None);
    });
    assert!(lives.read(|_| {}).is_empty() && lives.end_dump().is_empty());
    assert_eq!((lives.preexisting, lives.ended_unseen), (2, 0));
    assert!(lives.has(lives.key_of(1)) && lives.has(lives.key_of(2)));
}

#[test]
fn flows_that_share_an_id_are_two() {
    let mut lives = begun();
    let mut other = of(9);
    other.original.source.set_port(1);
    let [key, other] = [lives.key_of(9), lives.key(&other)];
    lives.begin(key, 12);
    lives.begin(other, 13);
    assert_eq!(lives.end(other).map(|life| life.began_ns), Some(13));
    assert_eq!(lives.end(key).map(|life| life.began_ns), Some(12));
}

#[test]
fn the_first_end_is_that_of_the_earlier_flow() {
    let mut lives = begun();
    lives.read(|lives| lives.begin_of(7, 12, 50));
    lives.begin_read();
    lives.begin_of(7, 13, 51);
    assert_eq!(lives.owner_of(7), None, "a change may be of either");
    assert!(lives.end_read(false).is_empty());
    lives.begin_read();
    assert_eq!(lives.end_of(7), Some((12, Some(50))));
    assert_eq!(lives.owner_of(7), None, "the end was read just now");
    lives.end_read(true);
    lives.begin_read();
    assert_eq!(lives.owner_of(7), Some(51));
    assert_eq!(lives.end_of(7), Some((13, Some(51))));
    assert_eq!(lives.end_of(7), None);
}

#[test]
fn beginnings_of_one_read_are_named_in_order() {
    let mut lives = begun();
    let key = lives.key_of(7);
    for now_ns in [12, 13, 14] {
        lives.begin(key, now_ns);
    }
    for pid in [50, 51, 52] {
        lives.name(key, owner(pid));
        assert_eq!(lives.end_of(7), Some((u64::from(pid) - 38, Some(pid))));
    }
}

#[test]
fn an_earlier_flow_without_an_end_is_gone_once_the_ends_were_read() {
    let mut lives = begun();
    lives.read(|lives| lives.begin_of(7, 12, 50));
    // Its end was lost.
    lives.read(|lives| {
        lives.lose(false);
        lives.begin_of(7, 13, 51);
    });
    lives.read(|lives| lives.begin_of(7, 14, 52));
    lives.begin_read();
    // Which of the two began after the loss, so the end of each of them is certain: both were read in order.
    assert_eq!(lives.end_of(7), None, "it began in the read with the loss");
    assert_eq!(lives.end_of(7), None, "the end before may have been its own");
    lives.read(|lives| lives.begin_of(7, 15, 53));
    lives.read(|_| {});
    assert_eq!(lives.end_of(7), Some((15, Some(53))));
}

#[test]
fn nothing_is_known_of_flows_beside_a_loss() {
    let mut lives = begun();
    lives.read(|lives| lives.begin_of(7, 12, 50));
    lives.read(|lives| {
        lives.lose(false);
        lives.begin_of(8, 13, 51);
    });
    lives.read(|lives| lives.begin_of(9, 14, 52));
    lives.begin_read();
    assert_eq!((lives.owner_of(7), lives.owner_of(8), lives.owner_of(9)), (None, None, Some(52)));
    assert_eq!((lives.end_of(7), lives.end_of(8), lives.end_of(9)), (None, None, Some((14, Some(52)))));
    // The beginning of an earlier flow may be among those that are lost.
    lives.lose(true);
    lives.end_read(true);
    lives.begin_read();
    lives.begin_of(10, 15, 53);
    assert_eq!(lives.end_of(10), None);
    lives.begin_of(11, 16, 54);
    lives.end_read(true);
    lives.read(|lives| assert_eq!(lives.owner_of(11), None));
    assert_eq!(lives.end_of(11), Some((16, Some(54))));
}

#[test]
fn a_flow_from_before_that_is_replaced_ends_once() {
    let mut lives = begun();
    lives.read(|lives| lives.begin_of(2, 12, 50));
    assert_eq!((lives.ended_unseen, lives.silent()), (0, 2));
    // The message about its end comes late, or is about the later one.
    lives.begin_read();
    assert_eq!(lives.end_of(2), None);
    assert!(lives.end_read(true).is_empty());
    assert_eq!((lives.ended_unseen, lives.silent()), (0, 2));
    // The later one is alive.
    assert_eq!(lives.dump(20, 1..=3).len(), 0);
    assert_eq!(lives.end_of(2), None);
    assert_eq!((lives.ended_unseen, lives.silent()), (0, 1));
}

#[test]
fn a_flow_from_before_that_is_replaced_ends_unseen_once() {
    let mut lives = begun();
    lives.read(|lives| {
        lives.begin_of(1, 12, 50);
        assert_eq!(lives.end_of(1), None);
    });
    // No message will come: the end was that of the later one.
    let ended = lives.dump(20, 2..=3);
    assert_eq!((ended.len(), ended[0].preexisting, ended[0].began_ns, lives.ended_unseen), (1, true, 10, 1));
    // No end at all was read.
    assert!(lives.read(|lives| lives.begin_of(2, 21, 51)).is_empty());
    let ended = lives.read(|_| {});
    assert_eq!((ended.len(), ended[0].owner.clone(), lives.ended_unseen), (1, owner(42), 2));
    assert_eq!(lives.end_of(2), Some((21, Some(51))));
}
