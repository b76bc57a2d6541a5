//! The owners of listeners: the provisional owner of connections that no task has accepted yet.
//!
//! Each listening socket has a note. No hook of a child gets the listener, so groups lead from port and address to a note.
//! Hooks with the lock of a listener put it into its groups and take it out. The iterator of open files has no such lock:
//! it only notes processes.

use core::borrow::Borrow as _;
use core::ffi::c_void;

use aya_ebpf::bindings::{BPF_ANY, BPF_EXIST, BPF_NOEXIST};
use aya_ebpf::btf_maps::HashMap;
use conn_common::connection::Connection;
use conn_common::counter::OWNER_FAILED;
use conn_common::listener::{CAPACITY, IN_ADDRESS_GROUP, IN_PORT_GROUP, ListenerKey, ListenerNote, SEEN};
use conn_common::name::NO_OWNERS;
use conn_common::owner::{LISTENER, Owner, SHARED, UNKNOWN};

use crate::counter::{add, count};
use crate::kernel::Tcp;
use crate::maps::{LISTENER_ADDRESSES, LISTENER_PORTS, LISTENERS};
use crate::owner::{self, user};
use crate::{config, filter};

/// A map of groups.
type Groups<K> = HashMap<K, ListenerNote, { CAPACITY as usize }, 1>;

/// Records a listener of the task that runs now.
#[inline(always)]
pub(crate) fn record_open(tcp: Tcp, listener: &Connection) {
    if config::OWNERS.load() != NO_OWNERS {
        note(tcp, &listener.owner, owner::current_process());
    }
}

/// Records a listener that an iterator found: its owner is unknown, unless the iterator of open files was faster.
#[inline(always)]
pub(crate) fn record_adopted(tcp: Tcp) {
    if config::OWNERS.load() != NO_OWNERS {
        note(tcp, &Owner::NONE, 0);
    }
}

/// Makes the note of a listener, or completes that of the iterator, and puts the listener into its groups. In its own
/// function, like the next three: only a listener needs them.
#[inline(never)]
fn note(tcp: Tcp, owner: &Owner, task: u64) -> u32 {
    // Listeners of other ports need no note. So no user fills the map of a run that watches some ports.
    if filter::passes_over(|| [tcp.num(); 2]) {
        return 0;
    }
    let sk = tcp.0 as u64;
    let mut note = ListenerNote { owner: *owner, task, key: key_of(tcp), ..alone(sk) };
    if owner.source != UNKNOWN {
        note.owner.source = LISTENER;
        note.flags = SEEN;
    }
    if let Some(known) = LISTENERS.get_ptr(&sk) {
        // SAFETY: a map value, replaced as a whole.
        let known = unsafe { &*known };
        if note.flags & SEEN == 0 {
            (note.owner, note.task) = (known.owner, known.task);
            note.flags = known.flags & SEEN;
        }
        note.user = known.user;
        // If no hook saw the end of an earlier socket at this address, its listener is still in the groups.
        leave(known);
    } else {
        note.user = user::of_socket(tcp.0);
        if !user::charge(note.user) {
            count(OWNER_FAILED);
            return 0;
        }
    }
    note.known = (note.owner.source != UNKNOWN).into();
    let _ = LISTENERS.insert(&sk, &note, BPF_ANY.into());
    let Some(kept) = LISTENERS.get_ptr_mut(&sk) else {
        user::release(note.user);
        count(OWNER_FAILED);
        return 0;
    };
    // SAFETY: a map value, replaced as a whole; only numbers and flags change in place.
    unsafe {
        if join_port(&*kept) {
            (*kept).flags |= IN_PORT_GROUP;
        }
        if join_address(&*kept) {
            (*kept).flags |= IN_ADDRESS_GROUP;
        }
    }
    0
}

/// The note of a socket of which nothing is known.
#[inline(always)]
const fn alone(sk: u64) -> ListenerNote {
    ListenerNote {
        listeners: 1,
        known: 0,
        sum: sk,
        is_mixed: 0,
        owner: Owner::NONE,
        task: 0,
        key: ListenerKey::NONE,
        user: 0,
        flags: 0,
    }
}

/// Notes a process that has a listener open, by the address of its socket. `user` is charged. The caller has no lock.
#[inline(never)]
pub(crate) fn put_holder(sk: u64, owner: &Owner, task: u64, uid: u32, user: u32) -> u32 {
    let mut note = ListenerNote { known: 1, owner: *owner, task, user, ..alone(sk) };
    note.owner.source = LISTENER;
    note.owner.holders = 1;
    let Some(known) = LISTENERS.get_ptr(&sk) else {
        // A hook or an iterator with the lock puts the listener into its groups.
        if !user::charge(user) {
            count(OWNER_FAILED);
        } else if LISTENERS.insert(&sk, &note, BPF_NOEXIST.into()).is_err() {
            user::release(user);
            count(OWNER_FAILED);
        }
        return 0;
    };
    // SAFETY: a map value, replaced as a whole.
    let known = unsafe { &*known };
    if known.flags & SEEN != 0 || known.owner.is_process_of(owner) {
        return 0;
    }
    let was_known = known.known != 0;
    (note.key, note.user, note.flags) = (known.key, known.user, known.flags);
    if was_known {
        (note.owner, note.task) = (known.owner, known.task);
        note.owner.merge_holder(owner, uid);
        note.owner.source = LISTENER;
        note.owner.flags |= SHARED;
    }
    let _ = LISTENERS.insert(&sk, &note, BPF_EXIST.into());
    let Some(kept) = LISTENERS.get_ptr(&sk) else { return 0 };
    // SAFETY: as above.
    let kept = unsafe { &*kept };
    if kept.flags & IN_PORT_GROUP != 0 {
        refresh_port(kept, was_known);
    }
    if kept.flags & IN_ADDRESS_GROUP != 0 {
        refresh_address(kept, was_known);
    }
    0
}

/// Gives a listener that was there before the start the owner that the iterator of open files found.
#[inline(always)]
pub(crate) fn complete_owner(sk: *mut c_void, owner: &mut Owner) {
    if owner.source != UNKNOWN {
        owner.source = LISTENER;
    } else if let Some(note) = LISTENERS.get_ptr(&(sk as u64)) {
        // SAFETY: a map value, replaced as a whole.
        *owner = unsafe { (*note).owner };
    }
}

/// Records the end of a listener.
#[inline(never)]
pub(crate) fn record_end(sk: *mut c_void) -> u32 {
    if config::OWNERS.load() == NO_OWNERS {
        return 0;
    }
    let sk = sk as u64;
    let Some(note) = LISTENERS.get_ptr(&sk) else { return 0 };
    // SAFETY: a map value, replaced as a whole.
    let note = unsafe { &*note };
    leave(note);
    user::release(note.user);
    let _ = LISTENERS.remove(&sk);
    0
}

#[inline(always)]
fn leave(note: &ListenerNote) {
    if note.flags & IN_PORT_GROUP != 0 {
        leave_port(note);
    }
    if note.flags & IN_ADDRESS_GROUP != 0 {
        leave_address(note);
    }
}

/// The same for the group of a port and that of an address, in functions that each program holds once. The note is a map
/// value, so no copy is on the stack.
macro_rules! groups {
    ($($groups:ident by $key:expr => $join:ident $leave:ident $refresh:ident;)*) => {$(
        #[inline(never)]
        fn $join(note: &ListenerNote) -> bool {
            join(&$groups, $key(note).borrow(), note)
        }

        #[inline(never)]
        fn $leave(note: &ListenerNote) -> u32 {
            part(&$groups, $key(note).borrow(), note)
        }

        #[inline(never)]
        fn $refresh(note: &ListenerNote, was_known: bool) -> u32 {
            refresh(&$groups, $key(note).borrow(), note, was_known)
        }
    )*};
}

#[inline(always)]
fn port(note: &ListenerNote) -> u64 {
    note.key.of_port()
}

#[inline(always)]
fn address(note: &ListenerNote) -> &ListenerKey {
    &note.key
}

groups! {
    LISTENER_PORTS by port => join_port leave_port refresh_port;
    LISTENER_ADDRESSES by address => join_address leave_address refresh_address;
}

/// Adds a listener to a group. False if there is no room.
#[inline(always)]
fn join<K>(groups: &Groups<K>, key: &K, note: &ListenerNote) -> bool {
    if groups.insert(key, note, BPF_NOEXIST.into()).is_ok() {
        return true;
    }
    let Some(group) = groups.get_ptr_mut(key) else {
        count(OWNER_FAILED);
        return false;
    };
    // SAFETY: a map value, in which only numbers and flags change in place.
    unsafe {
        add(&raw mut (*group).known, note.known);
        add(&raw mut (*group).listeners, 1);
        add(&raw mut (*group).sum, note.sum);
        if (*group).key != note.key {
            (&raw mut (*group).is_mixed).write_volatile(1);
        }
        if !(*group).owner.is_process_of(&note.owner) {
            share(group);
        }
    }
    true
}

/// # Safety
/// The group is a map value.
#[inline(always)]
unsafe fn share(group: *mut ListenerNote) {
    // SAFETY: see above.
    unsafe { (&raw mut (*group).owner.flags).write_volatile((*group).owner.flags | SHARED) };
}

/// Takes a listener out of a group. If one is left, the group is its own again.
#[inline(always)]
fn part<K>(groups: &Groups<K>, key: &K, note: &ListenerNote) -> u32 {
    let Some(group) = groups.get_ptr_mut(key) else { return 0 };
    // SAFETY: a map value. Two listeners that end at the same moment may both find 2 here: then the group of the last
    // one stays shared until it ends.
    let left = unsafe {
        if (&raw const (*group).listeners).read_volatile() <= 1 {
            let _ = groups.remove(key);
            return 0;
        }
        add(&raw mut (*group).listeners, u64::MAX);
        add(&raw mut (*group).known, note.known.wrapping_neg());
        add(&raw mut (*group).sum, note.sum.wrapping_neg());
        if (&raw const (*group).listeners).read_volatile() != 1 {
            return 0;
        }
        (&raw const (*group).sum).read_volatile()
    };
    if let Some(note) = LISTENERS.get_ptr(&left) {
        // SAFETY: a map value, replaced as a whole.
        let _ = groups.insert(key, unsafe { &*note }, BPF_EXIST.into());
    }
    0
}

/// Gives a group the new owner of one of its listeners. Only the walk of the start does so.
#[inline(always)]
fn refresh<K>(groups: &Groups<K>, key: &K, note: &ListenerNote, was_known: bool) -> u32 {
    let Some(group) = groups.get_ptr_mut(key) else { return 0 };
    // SAFETY: a map value. The owner is read only once all owners are known.
    unsafe {
        if (&raw const (*group).listeners).read_volatile() == 1 {
            let _ = groups.insert(key, note, BPF_EXIST.into());
            return 0;
        }
        if note.owner.flags & SHARED != 0 {
            share(group);
        }
        if was_known {
            return 0;
        }
        if (*group).owner.source == UNKNOWN {
            let flags = (*group).owner.flags;
            (*group).owner = note.owner;
            (*group).owner.flags |= flags;
            (*group).task = note.task;
        } else if !(*group).owner.is_process_of(&note.owner) {
            share(group);
        }
        add(&raw mut (*group).known, 1);
    }
    0
}

/// Assigns the owner of the listener to a child that no task has accepted. In its own function: the verifier then follows
/// what comes after once.
#[inline(never)]
pub(crate) fn assign_owner(tcp: Tcp, child: &mut Connection) -> u32 {
    if config::OWNERS.load() == NO_OWNERS {
        return 0;
    }
    let mut key = key_of(tcp);
    (key.netns, key.port) = (child.netns, child.dport);
    let Some(mut group) = LISTENER_PORTS.get_ptr(&key.of_port()) else { return 0 };
    // SAFETY: a map value, replaced as a whole; only numbers and flags change in place.
    unsafe {
        if (*group).is_mixed != 0 {
            let at_address = LISTENER_ADDRESSES.get_ptr(&key).or_else(|| {
                key.address = [0; 2];
                LISTENER_ADDRESSES.get_ptr(&key)
            });
            let Some(at_address) = at_address else { return 0 };
            group = at_address;
        } else if !(*group).key.takes(&key) {
            return 0;
        }
        let owner = &(*group).owner;
        if owner.flags & SHARED != 0 || (*group).known != (*group).listeners {
            if owner.source != UNKNOWN {
                // Any of several processes may accept it.
                let holders = if (*group).listeners == 1 { owner.holders } else { 0 };
                child.owner = Owner { source: LISTENER, flags: SHARED, holders, ..Owner::NONE };
            }
        } else if owner::is_alive((*group).task, owner.start_ns) {
            child.owner = *owner;
        }
    }
    0
}

/// Where a socket is.
#[inline(always)]
fn key_of(tcp: Tcp) -> ListenerKey {
    let is_v6 = tcp.is_v6();
    let address = if is_v6 { tcp.v6().0 } else { [u64::from(tcp.v4().0), 0] };
    ListenerKey {
        netns: tcp.netns(),
        port: tcp.num(),
        is_v6: is_v6.into(),
        interface: tcp.interface(),
        reserved: 0,
        address,
    }
}
