//! The owners of listeners, by port: the provisional owner of connections that no task has accepted yet.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use conn_common::connection::Connection;
use conn_common::counter::OWNER_FAILED;
use conn_common::name::NO_OWNERS;
use conn_common::owner::{LISTENER, Owner, SHARED, UNKNOWN};

use crate::config;
use crate::counter::{add, count};
use crate::maps::{LISTENER_COUNTS, LISTENERS};

#[inline(always)]
const fn key(netns: u32, port: u16) -> u64 {
    (netns as u64) << 16 | port as u64
}

/// Records a listener that begins, or that an iterator found: then its owner is unknown.
#[inline(always)]
pub(crate) fn record_open(listener: &Connection) {
    if config::OWNERS.load() == NO_OWNERS {
        return;
    }
    let key = key(listener.netns, listener.dport);
    let _ = LISTENER_COUNTS.insert(&key, &0, BPF_NOEXIST.into());
    let Some(listeners) = LISTENER_COUNTS.get_ptr_mut(&key) else {
        count(OWNER_FAILED);
        return;
    };
    // SAFETY: a map value. Two processes that begin to listen at once may both find a 0 here: the name of the second one
    // wins then, as if it had come later.
    let first = unsafe { listeners.read_volatile() } == 0;
    add(listeners, 1);
    if listener.owner.source != UNKNOWN {
        let mut owner = listener.owner;
        owner.source = LISTENER;
        put(key, &owner, first);
    }
}

/// Notes a process that has a listener open, unless one is noted already.
#[inline(always)]
pub(crate) fn put_new(netns: u32, port: u16, owner: &Owner) {
    put(key(netns, port), owner, false);
}

#[inline(always)]
fn put(key: u64, owner: &Owner, first: bool) {
    let flags = if first { BPF_ANY } else { BPF_NOEXIST };
    if LISTENERS.insert(&key, owner, flags.into()).is_ok() {
        return;
    }
    let Some(other) = LISTENERS.get_ptr_mut(&key) else {
        count(OWNER_FAILED);
        return;
    };
    // SAFETY: a map value, of which only the flags are ever changed in place.
    unsafe {
        if (*other).pid != owner.pid {
            (&raw mut (*other).flags).write_volatile((*other).flags | SHARED);
        }
    }
}

/// Records the end of a listener.
#[inline(always)]
pub(crate) fn record_end(listener: &Connection) {
    if config::OWNERS.load() == NO_OWNERS {
        return;
    }
    let key = key(listener.netns, listener.dport);
    let Some(listeners) = LISTENER_COUNTS.get_ptr_mut(&key) else { return };
    // SAFETY: a map value.
    if unsafe { listeners.read_volatile() } <= 1 {
        let _ = LISTENERS.remove(&key);
        let _ = LISTENER_COUNTS.remove(&key);
    } else {
        add(listeners, u64::MAX);
    }
}

/// Assigns the owner of the listener to a child that no task has accepted.
#[inline(always)]
pub(crate) fn assign_owner(child: &mut Connection) {
    if config::OWNERS.load() == NO_OWNERS {
        return;
    }
    if let Some(owner) = LISTENERS.get_ptr(&key(child.netns, child.dport)) {
        // SAFETY: a map value of which only the flags change, and they are read here once.
        child.owner = unsafe { *owner };
        if child.owner.flags & SHARED != 0 {
            // Any of several processes may accept it.
            child.owner = Owner { source: LISTENER, flags: SHARED, ..Owner::NONE };
        }
    }
}
