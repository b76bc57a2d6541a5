//! The flows of one network namespace that are alive, as far as messages and dumps show them.
//!
//! Beginnings and ends come through different sockets. A flow may take the tuples and the id of one that has just ended, so
//! its beginning may be read before the end of the earlier one. The kernel reports both in their order, so the first end is
//! that of the earliest flow. The earlier flow waits until no such message can come any more: until the socket of ends was
//! found empty after the beginning was read.
//!
//! A dump shows the flows that existed before the run. The end of such a flow may never be reported, so a later dump
//! without the flow ends it.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};

use conn_common::owner::Owner;

use crate::event::entry::Entry;

/// How many flows are remembered. Beginning and owner of others are not known.
const MAX_LIVES: usize = 1 << 20;

/// What is known of a flow that is alive.
#[derive(Clone, Debug)]
pub(super) struct Life {
    /// When it began, nanoseconds of `CLOCK_BOOTTIME`; of a flow from before the run, when the first dump began.
    pub began_ns: u64,
    /// It existed before the run, so no message may report its end.
    pub preexisting: bool,
    /// What its end is shown with, if the run shows it and no message may come.
    pub entry: Option<Box<Entry>>,
    /// The process behind it, as its beginning showed it.
    pub owner: Option<Box<Owner>>,
    /// The event of its beginning has passed.
    is_named: bool,
    /// It is from before the run only if a message reports its end: the first dump may have shown the later flow with its key.
    is_dubious: bool,
    /// The number of the last dump that shows it.
    seen: u32,
    /// The number of the read that found it. 0 if another flow with the key may be the one that is alive.
    read: u32,
}

/// The flows that are alive.
#[derive(Debug, Default)]
pub(super) struct Lives {
    hasher: RandomState,
    by_key: HashMap<u64, Life>,
    /// Flows whose key a later flow has, the earliest first, each with the number of the read that found the later one.
    replaced: HashMap<u64, VecDeque<(u32, Life)>>,
    /// The owners of flows whose end this read found.
    ended: HashMap<u64, Option<Box<Owner>>>,
    /// Flows from before the run.
    pub preexisting: u64,
    /// Flows whose end no message reported.
    pub ended_unseen: u64,
    /// The number of the current read of messages, from 1.
    read: u32,
    /// The last read that found the socket of ends empty.
    empty_read: u32,
    /// The last read that found a loss.
    lossy_read: u32,
    /// A beginning was lost or found no room, so that a flow may be alive that is not here.
    misses: bool,
    /// The number of the current or last dump; 0 before the first one.
    dump: u32,
    /// When that dump began, nanoseconds of `CLOCK_BOOTTIME`.
    dump_ns: u64,
    /// The first dump is complete, and so is the list of flows from before the run.
    is_settled: bool,
}

impl Lives {
    /// The key of a flow. The kernel's id alone is a hash of 32 bits, which several flows of a large table share. Another flow
    /// with the same key has the same tuples.
    pub(super) fn key(&self, entry: &Entry) -> u64 {
        self.hasher.hash_one((entry.id, entry.zone, entry.original))
    }

    /// How many flows from before the run are alive, as far as dumps and messages show, or have ended with or without a message.
    pub(super) fn silent(&self) -> u64 {
        let replaced = self.replaced.values().flatten().map(|(_, life)| life);
        self.by_key.values().chain(replaced).filter(|life| life.preexisting).count() as u64
    }

    /// True if the flow is known to be alive.
    pub(super) fn has(&self, key: u64) -> bool {
        self.by_key.contains_key(&key)
    }

    /// Messages are read from now on: ends first, beginnings last.
    pub(super) fn begin_read(&mut self) {
        self.read += 1;
        self.ended.clear();
    }

    /// Messages about beginnings or ends were lost: what follows may be of other flows than those that are known by now.
    pub(super) const fn lose(&mut self, is_beginning: bool) {
        self.lossy_read = self.read;
        self.misses |= is_beginning;
    }

    /// A flow began, at `now_ns`.
    pub(super) fn begin(&mut self, key: u64, now_ns: u64) {
        let life = Life {
            began_ns: now_ns,
            preexisting: false,
            entry: None,
            owner: None,
            is_named: false,
            is_dubious: false,
            seen: self.dump,
            read: self.read,
        };
        let is_room = self.by_key.len() < MAX_LIVES;
        match self.by_key.get_mut(&key) {
            Some(known) => {
                let mut before = std::mem::replace(known, life);
                before.is_dubious = before.preexisting && !self.is_settled;
                self.replaced.entry(key).or_default().push_back((self.read, before));
            }
            None if is_room => _ = self.by_key.insert(key, life),
            None => self.misses = true,
        }
    }

    /// The event of a beginning passed, and showed this owner.
    pub(super) fn name(&mut self, key: u64, owner: Option<Box<Owner>>) {
        let replaced = self.replaced.get_mut(&key).into_iter().flatten().map(|(_, life)| life);
        if let Some(life) = replaced.chain(self.by_key.get_mut(&key)).find(|life| !life.is_named) {
            (life.is_named, life.owner) = (true, owner);
        }
    }

    /// The owner of a flow that changed: that of the only flow that the message can be about.
    pub(super) fn owner(&self, key: u64) -> Option<Box<Owner>> {
        let replaced = self.replaced.get(&key).into_iter().flatten().map(|(_, life)| life);
        let alive = replaced.chain(self.by_key.get(&key));
        let mut owners = alive
            .map(|life| life.owner.as_ref().filter(|_| self.is_certain(life)))
            .chain(self.ended.get(&key).map(Option::as_ref));
        let first = owners.next()?;
        if owners.all(|other| other == first) { first.cloned() } else { None }
    }

    /// A flow ended. Returns what is known of it.
    pub(super) fn end(&mut self, key: u64) -> Option<Life> {
        // The earlier flow ended first.
        let life = if let Some(earlier) = self.replaced.get_mut(&key) {
            let (_, life) = earlier.pop_front()?;
            if earlier.is_empty() {
                self.replaced.remove(&key);
            }
            life
        } else if let Some(life) = self.by_key.remove(&key) {
            life
        } else {
            // It ended before the first dump came to it.
            self.preexisting += u64::from(!self.is_settled && !self.misses);
            return None;
        };
        // No message may report the end of a flow from before, so this may be the end of a later one.
        let is_it = self.is_certain(&life) && !(life.preexisting && self.has(key));
        self.ended.insert(key, life.owner.clone().filter(|_| is_it));
        if is_it {
            return Some(life);
        }
        self.doubt(key, life);
        None
    }

    /// The end of this flow was reported, or that of a later one with the key.
    fn doubt(&mut self, key: u64, life: Life) {
        for (_, later) in self.replaced.get_mut(&key).into_iter().flatten() {
            later.read = 0;
        }
        if let Some(latest) = self.by_key.get_mut(&key) {
            // If the later one has ended, then the one from before did so without a message.
            if life.preexisting {
                *latest = Life { seen: latest.seen, is_dubious: false, ..life };
            }
            latest.read = 0;
        }
    }

    /// True if the next end with the key is that of this flow, unless another flow with the key is known.
    const fn is_certain(&self, life: &Life) -> bool {
        let lacks = self.misses || !self.is_settled;
        // Once the ends were read after its beginning, no message about an earlier flow comes.
        life.read > self.lossy_read && (!lacks || life.read < self.empty_read)
    }

    /// All messages of a read were taken. `ends_are_read`: the socket of ends was empty. Returns the flows from before the run
    /// that have ended.
    pub(super) fn end_read(&mut self, ends_are_read: bool) -> Vec<Life> {
        if !ends_are_read {
            return Vec::new();
        }
        self.empty_read = self.read;
        let read = self.read;
        let (mut unseen, mut dubious) = (Vec::new(), 0);
        self.replaced.retain(|_, earlier| {
            // The end of one that began in the run was lost.
            while earlier.front().is_some_and(|&(replaced_in, _)| replaced_in < read)
                && let Some((_, life)) = earlier.pop_front()
            {
                if life.is_dubious {
                    dubious += 1;
                } else if life.preexisting {
                    unseen.push(life);
                }
            }
            !earlier.is_empty()
        });
        self.preexisting -= dubious;
        self.ended_unseen += unseen.len() as u64;
        unseen
    }

    /// A dump begins, at `now_ns`.
    pub(super) fn begin_dump(&mut self, now_ns: u64) {
        self.dump = self.dump.wrapping_add(1);
        self.dump_ns = now_ns;
    }

    /// The dump shows a flow. `is_shown`: the run would show its end. `owner` is asked for the owner of a flow from before the
    /// run.
    pub(super) fn note(&mut self, entry: &Entry, is_shown: bool, owner: impl FnOnce() -> Option<Box<Owner>>) {
        let key = self.key(entry);
        if let Some(life) = self.by_key.get_mut(&key) {
            life.seen = self.dump;
            if let Some(known) = &mut life.entry {
                **known = *entry;
            }
        } else if !self.is_settled {
            self.preexisting += 1;
            let life = Life {
                began_ns: self.dump_ns,
                preexisting: true,
                entry: is_shown.then(|| Box::new(*entry)),
                owner: owner(),
                is_named: true,
                is_dubious: false,
                seen: self.dump,
                read: self.read,
            };
            self.by_key.insert(key, life);
        }
    }

    /// The dump is complete, and every message that came before its end was taken. Returns the flows from before the run
    /// that have ended.
    pub(super) fn end_dump(&mut self) -> Vec<Life> {
        let (dump, dump_ns) = (self.dump, self.dump_ns);
        self.is_settled = true;
        let is_gone = |life: &Life| life.seen != dump && (life.preexisting || life.began_ns < dump_ns);
        let gone = self.by_key.extract_if(|_, life| is_gone(life)).map(|(_, life)| life);
        let unseen: Vec<Life> = gone.filter(|life| life.preexisting).collect();
        self.ended_unseen += unseen.len() as u64;
        unseen
    }
}

#[cfg(test)]
mod tests;
