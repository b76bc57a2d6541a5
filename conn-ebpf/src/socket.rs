//! A socket inside a hook: its address and the state that the programs keep of it.

use core::ffi::c_void;
use core::marker::PhantomData;

use conn_common::connection::Connection;
use conn_common::counter::NO_SOCKET;

use crate::counter::count;
use crate::kernel::Tcp;
use crate::storage::socket_state::{self, Kept};

/// A socket that a hook works on, with exclusive use of the kept state. It takes two registers, so functions of their
/// own take it by value.
pub(crate) struct Socket<'hook> {
    /// The address. Most steps need no more of the socket, and [`Socket::tcp`] takes a call.
    sk: *mut c_void,
    /// In a run that only counts, there is no more than [`conn_common::connection::COUNTED`] bytes, and the verifier
    /// refuses a program that reads further.
    state: *mut Connection,
    user: PhantomData<&'hook mut Connection>,
}

impl Socket<'_> {
    /// A socket whose state is in a scratch slot, and is not kept.
    #[inline(always)]
    pub(crate) fn with_scratch(sk: *mut c_void, state: *mut Connection) -> Self {
        Self { sk, state, user: PhantomData }
    }

    /// The same socket for a shorter time.
    #[inline(always)]
    pub(crate) fn reborrow(&mut self) -> Socket<'_> {
        Socket { sk: self.sk, state: self.state, user: PhantomData }
    }

    /// The address of the socket.
    #[inline(always)]
    pub(crate) const fn address(&self) -> *mut c_void {
        self.sk
    }

    /// The full TCP socket, to read its fields. `None`, which is counted, if it is none.
    #[inline(always)]
    pub(crate) fn tcp(&self) -> Option<Tcp> {
        full_socket(self.sk)
    }

    /// The kept state of the connection.
    #[inline(always)]
    pub(crate) fn connection(&mut self) -> &mut Connection {
        // SAFETY: a map value of a socket that is locked in every hook, and this handle is its only user. No field
        // behind the first `COUNTED` bytes is read in a run that only counts.
        unsafe { &mut *self.state }
    }

    /// The kept TCP state, [`conn_common::state::UNSEEN`] if none is kept.
    #[inline(always)]
    pub(crate) fn state(&self) -> u8 {
        // SAFETY: as in `connection`.
        unsafe { (*self.state).state }
    }
}

/// The full TCP socket at an address. `None`, which is counted, if it is none.
#[inline(always)]
pub(crate) fn full_socket(sk: *mut c_void) -> Option<Tcp> {
    let tcp = Tcp::of(sk);
    if tcp.is_none() {
        count(NO_SOCKET);
    }
    tcp
}

/// A hook's use of a socket, from the gate on. The kept state is given back at the end.
pub(crate) struct Entry {
    sk: *mut c_void,
    kept: Kept,
}

impl Entry {
    /// A socket whose state [`socket_state::enter`] returned.
    #[inline(always)]
    pub(crate) fn new(sk: *mut c_void, kept: Kept) -> Self {
        Self { sk, kept }
    }

    /// The socket.
    #[inline(always)]
    pub(crate) fn socket(&mut self) -> Socket<'_> {
        Socket { sk: self.sk, state: self.kept.state, user: PhantomData }
    }
}

impl Drop for Entry {
    #[inline(always)]
    fn drop(&mut self) {
        socket_state::leave(self.sk, &self.kept);
    }
}
