//! Claims on a socket by tasks that accepted it or have it open: noted without the socket's lock, taken
//! over by the next hook that has it.

use aya_ebpf::bindings::BPF_ANY;
use conn_common::connection::{Connection, IN};
use conn_common::counter::OWNER_FAILED;
use conn_common::name::{HOLDERS, NO_OWNERS};
use conn_common::owner::{ACCEPT, CONNECT, Owner, UNKNOWN};

use crate::config;
use crate::counter::count;
use crate::kernel::Tcp;
use crate::listener;
use crate::maps::CLAIMS;

/// Notes that `owner` has the socket at this address.
#[inline(always)]
pub fn note(socket: u64, owner: &Owner, flags: u64) -> bool {
    CLAIMS.insert(&socket, owner, flags).is_ok()
}

/// Notes who accepted the socket, in place of whoever was noted before.
#[inline(always)]
pub fn accepted(socket: u64, owner: &Owner) {
    if !note(socket, owner, BPF_ANY.into()) {
        count(OWNER_FAILED);
    }
}

/// A new life begins at this address: what was noted of an earlier one does not hold any more.
#[inline(always)]
pub fn forget(tcp: Tcp) {
    if config::OWNERS.load() == HOLDERS {
        let _ = CLAIMS.remove(&(tcp.0 as u64));
    }
}

/// Gives a connection the best owner there is by now. The caller has the socket's lock.
#[inline(always)]
pub fn settle(tcp: Tcp, connection: &mut Connection, was_held: bool) {
    if config::OWNERS.load() == NO_OWNERS {
        return;
    }
    let source = connection.owner.source;
    if source == CONNECT || source == ACCEPT {
        return;
    }
    if config::OWNERS.load() == HOLDERS {
        let socket = tcp.0 as u64;
        if let Some(owner) = CLAIMS.get_ptr(&socket) {
            // SAFETY: a map value, replaced as a whole and never changed in place.
            connection.owner = unsafe { *owner };
            let _ = CLAIMS.remove(&socket);
            return;
        }
    }
    // Whoever accepted it before anybody looked is not known to be who listens now.
    if connection.direction == IN && source == UNKNOWN && !was_held {
        listener::owns(connection);
    }
}
