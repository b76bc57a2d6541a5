//! The user that notes of owners are charged to, so that no user's sockets take the room of others.

use core::ffi::c_void;

use aya_ebpf::bindings::BPF_NOEXIST;
use conn_common::listener::PER_USER;

use crate::config;
use crate::counter::add;
use crate::kernel::{Pointer, follow, read_u32};
use crate::maps::NOTES_OF_USERS;

/// The kernel's limit of nested user namespaces is 32 (`create_user_ns()`).
const MOST_LEVELS: u32 = 34;

/// The user of a socket, from the credentials of the process that made it. In a user namespace, it is the user of the
/// initial namespace that made the outermost one: user ids inside are a matter of that user.
#[inline(always)]
pub(crate) fn of_socket(sk: *mut c_void) -> u32 {
    let file = follow(follow(sk, &config::SK_SOCKET), &config::SOCKET_FILE);
    let cred = follow(file, &config::FILE_CRED);
    let mut namespace: Pointer = follow(cred, &config::CRED_USER_NS);
    if read_u32(namespace, &config::USER_NS_LEVEL) == 0 {
        return read_u32(cred, &config::CRED_UID);
    }
    let mut level = 0;
    while level < MOST_LEVELS && read_u32(namespace, &config::USER_NS_LEVEL) > 1 {
        namespace = follow(namespace, &config::USER_NS_PARENT);
        level += 1;
    }
    read_u32(namespace, &config::USER_NS_OWNER)
}

/// Charges one note to a user. False if the user has as many as one may have. Root has no limit.
#[inline(always)]
pub(crate) fn charge(user: u32) -> bool {
    if user == 0 {
        return true;
    }
    let _ = NOTES_OF_USERS.insert(&user, &0, BPF_NOEXIST.into());
    let Some(notes) = NOTES_OF_USERS.get_ptr_mut(&user) else { return false };
    // SAFETY: a map value. CPUs that charge at the same moment may exceed the limit by one each.
    if unsafe { notes.read_volatile() } >= PER_USER {
        return false;
    }
    add(notes, 1);
    true
}

/// Gives a note back.
#[inline(always)]
pub(crate) fn release(user: u32) {
    if user != 0
        && let Some(notes) = NOTES_OF_USERS.get_ptr_mut(&user)
    {
        add(notes, u64::MAX);
    }
}
