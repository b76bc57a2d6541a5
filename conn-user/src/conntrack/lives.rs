//! The flows of one network namespace that are alive, as far as messages and dumps show them.
//!
//! A dump shows the flows that existed before the run. The end of such a flow may never be reported, so a later dump
//! without the flow ends it.

use std::collections::HashMap;

use crate::event::entry::Entry;

/// How many flows that began in this run are remembered. The lifetime of others is known only if the kernel stamps them.
const MAX_BEGUN: usize = 1 << 20;

/// A flow that is alive.
#[derive(Clone, Debug)]
pub(super) struct Life {
    /// When it began, nanoseconds of `CLOCK_BOOTTIME`; of a flow from before the run, when the first dump began.
    pub began_ns: u64,
    /// It existed before the run.
    pub preexisting: bool,
    /// What its end is shown with, if the run shows it and no message may come.
    pub entry: Option<Box<Entry>>,
    /// The number of the last dump that shows it.
    seen: u32,
}

/// The flows that are alive.
#[derive(Debug, Default)]
pub(super) struct Lives {
    by_id: HashMap<u32, Life>,
    /// Flows from before the run.
    pub preexisting: u64,
    /// Flows whose end no message reported.
    pub ended_unseen: u64,
    /// Flows from before the run whose id a later flow has, and the dump during which that one began. Beginnings and ends come
    /// through different sockets, so the message about such an end may be read later.
    replaced: HashMap<u32, (u32, Life)>,
    /// The number of the current or last dump; 0 before the first one.
    dump: u32,
    /// When that dump began, nanoseconds of `CLOCK_BOOTTIME`.
    dump_ns: u64,
    /// The first dump is complete, and so is the list of flows from before the run.
    is_settled: bool,
}

impl Lives {
    /// True once the flows from before the run are known.
    pub(super) const fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// How many flows from before the run are alive, as far as dumps and messages show, or have ended with or without a message.
    pub(super) fn silent(&self) -> u64 {
        (self.by_id.values().filter(|life| life.preexisting).count() + self.replaced.len()) as u64
    }

    /// True if the flow is known to be alive.
    pub(super) fn has(&self, id: u32) -> bool {
        self.by_id.contains_key(&id)
    }

    /// A flow began, at `now_ns`.
    pub(super) fn begin(&mut self, id: u32, now_ns: u64) {
        let life = Life { began_ns: now_ns, preexisting: false, entry: None, seen: self.dump };
        let is_room = self.by_id.len() < MAX_BEGUN;
        let before = match self.by_id.get_mut(&id) {
            Some(known) => Some(std::mem::replace(known, life)),
            None if is_room => self.by_id.insert(id, life),
            None => None,
        };
        match before {
            // Only another flow with the same tuples has the id.
            Some(before) if before.preexisting && self.is_settled => {
                self.replaced.insert(id, (self.dump, before));
            }
            // The dump has shown what began after the group was joined.
            Some(before) if before.preexisting => self.preexisting -= 1,
            _ => {}
        }
    }

    /// A flow ended. Returns what is known of it.
    pub(super) fn end(&mut self, id: u32) -> Option<Life> {
        // The earlier flow ended first.
        self.replaced.remove(&id).map(|(_, life)| life).or_else(|| self.by_id.remove(&id))
    }

    /// A dump begins, at `now_ns`.
    pub(super) fn begin_dump(&mut self, now_ns: u64) {
        self.dump = self.dump.wrapping_add(1);
        self.dump_ns = now_ns;
    }

    /// The dump shows a flow. `is_shown`: the run would show its end.
    pub(super) fn note(&mut self, entry: &Entry, is_shown: bool) {
        if let Some(life) = self.by_id.get_mut(&entry.id) {
            life.seen = self.dump;
            if let Some(known) = &mut life.entry {
                **known = *entry;
            }
        } else if !self.is_settled {
            self.preexisting += 1;
            let entry_at_end = is_shown.then(|| Box::new(*entry));
            let life =
                Life { began_ns: self.dump_ns, preexisting: true, entry: entry_at_end, seen: self.dump };
            self.by_id.insert(entry.id, life);
        }
    }

    /// The dump is complete, and every message that came before its end was taken. Returns the flows from before the run
    /// that have ended.
    pub(super) fn end_dump(&mut self) -> Vec<Life> {
        let (dump, dump_ns) = (self.dump, self.dump_ns);
        self.is_settled = true;
        let is_gone = |life: &Life| life.seen != dump && (life.preexisting || life.began_ns < dump_ns);
        let gone: Vec<Life> = self.by_id.extract_if(|_, life| is_gone(life)).map(|(_, life)| life).collect();
        let replaced = self.replaced.extract_if(|_, (replaced_in, _)| *replaced_in != dump);
        let replaced = replaced.map(|(_, (_, life))| life);
        let unseen: Vec<Life> = gone.into_iter().filter(|life| life.preexisting).chain(replaced).collect();
        self.ended_unseen += unseen.len() as u64;
        unseen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::entry::tests::entry;

    fn of(id: u32) -> Entry {
        Entry { id, ..entry() }
    }

    /// Flows 1 and 2 existed before; 3 began while the first dump showed them.
    fn begun() -> Lives {
        let mut lives = Lives::default();
        lives.begin_dump(10);
        for id in 1..=3 {
            lives.note(&of(id), id == 1);
        }
        lives.begin(3, 11);
        assert!(lives.end_dump().is_empty());
        lives
    }

    #[test]
    fn flows_before_the_run_are_those_without_a_beginning() {
        let mut lives = begun();
        assert_eq!(lives.preexisting, 2);
        assert!(lives.end(3).is_some_and(|life| !life.preexisting && life.began_ns == 11));
        assert!(lives.end(1).is_some_and(|life| life.preexisting && life.began_ns == 10));
        assert!(lives.end(4).is_none() && !lives.has(3) && lives.has(2));
    }

    #[test]
    fn a_later_dump_ends_what_it_does_not_show() {
        let mut lives = begun();
        lives.begin_dump(20);
        // The dump was under way when 4 began, and has 3 and 2.
        lives.begin(4, 21);
        for id in [3, 2] {
            lives.note(&of(id), true);
        }
        let ended = lives.end_dump();
        assert!(matches!(&ended[..], [life] if life.entry.as_ref().is_some_and(|entry| entry.id == 1)));
        assert_eq!((lives.preexisting, lives.ended_unseen, lives.silent()), (2, 1, 1));
        // No dump makes a flow preexisting later.
        lives.begin_dump(30);
        for id in [2, 4, 5] {
            lives.note(&of(id), true);
        }
        assert!(lives.end_dump().is_empty() && !lives.has(3) && !lives.has(5));
        assert_eq!((lives.preexisting, lives.ended_unseen), (2, 1));
    }

    #[test]
    fn another_flow_with_the_id_ends_the_one_before() {
        let mut lives = begun();
        lives.begin(2, 12);
        assert_eq!((lives.ended_unseen, lives.silent()), (0, 2));
        // The message about the end of the first one comes late, and is counted as such.
        assert!(lives.end(2).is_some_and(|life| life.preexisting));
        assert!(lives.has(2) && lives.silent() == 1);
        assert!(lives.end(2).is_some_and(|life| life.began_ns == 12));
    }

    #[test]
    fn the_end_of_a_replaced_flow_is_unseen_after_a_whole_dump() {
        let mut lives = begun();
        let dump = |lives: &mut Lives, at| {
            lives.begin_dump(at);
            for id in 1..=3 {
                lives.note(&of(id), false);
            }
        };
        dump(&mut lives, 20);
        lives.begin(2, 21);
        // The message may still wait.
        assert!(lives.end_dump().is_empty());
        dump(&mut lives, 30);
        assert_eq!((lives.end_dump().len(), lives.ended_unseen), (1, 1));
        assert!(lives.has(2));
        // Its own end was lost: no flow from before the run has the id any more.
        lives.begin(2, 31);
        assert_eq!((lives.ended_unseen, lives.silent()), (1, 1));
    }
}
