//! A socket as the witnesses know it: by its address and what it remembers.

use core::ffi::c_void;

use conn_common::connection::{Connection, HELD, TUPLE_KNOWN};
use conn_common::counter::{END_UNSEEN, STEP_REPAIRED, STORAGE_FAILED};
use conn_common::life::{self, Life};
use conn_common::state::{CLOSE, UNSEEN, is_open, is_opening};

use crate::counter::count;
use crate::storage::socket_state;
use crate::verifier::opaque;
use crate::{filter, mode, transition};

/// A socket and what it remembers.
pub struct Socket {
    /// Its address. Most steps need no more of it, and to look at it takes a call ([`transition::tcp`]).
    sk: *mut c_void,
    /// In a run that only counts there is no more of it than [`conn_common::connection::COUNTED`] bytes, and the
    /// verifier refuses a program that looks further.
    memory: *mut Connection,
}

impl Socket {
    /// The socket with its memory, which is made if there is none. `None` if the run can want nothing of such a
    /// socket. Who listens, or did, is always remembered: others are born of it. `may_be_stored` as in [`socket_state::enter`].
    #[inline(always)]
    pub fn remembered(
        sk: *mut c_void,
        is_listener: bool,
        may_be_stored: impl FnOnce() -> bool,
    ) -> Option<Self> {
        if filter::may_pass_over() && !is_listener {
            let tcp = transition::tcp(sk)?;
            // The port as last written: at an end the other way to read it gives 0.
            if filter::passes_over(|| [tcp.sport(), tcp.dport()]) {
                return None;
            }
        }
        let memory = socket_state::enter(sk, may_be_stored);
        if memory.is_null() {
            count(STORAGE_FAILED);
            return None;
        }
        Some(Self { sk, memory })
    }

    /// True if the run wants none of the children of a listener.
    #[inline(always)]
    pub fn passes_over_children(&self) -> bool {
        filter::may_pass_over()
            && transition::tcp(self.sk).is_some_and(|tcp| filter::passes_over(|| [tcp.sport(), 0]))
    }

    #[inline(always)]
    fn connection(&mut self) -> &mut Connection {
        transition::connection(self.memory)
    }

    /// The same as [`Socket::goes`] for a step of which this run wants nothing but a count, and which takes no look at
    /// the socket: between two open states, nothing missed before, no more to be learnt. False if it is none of these.
    #[inline(always)]
    pub fn passes(&mut self, old: u8, new: u8) -> bool {
        let connection = self.connection();
        if !mode::only_counts() || connection.state != old || !is_open(old) || !is_open(new) {
            return false;
        }
        // A child may be accepted before its handshake is over (fast open). Then it is still held at its next step, of which
        // `close()` would make one before it lets go (`__tcp_close()`).
        if !connection.is(TUPLE_KNOWN) || !(connection.is(HELD) || is_opening(old)) {
            return false;
        }
        connection.state = new;
        // A run that only counts reads no clock.
        transition::steps(connection, old, new, 0);
        true
    }

    /// A witness saw the socket go from `old` to `new`.
    #[inline(always)]
    pub fn goes(&mut self, old: u8, new: u8) {
        if life::opens(old, new) {
            let known = self.state();
            if mode::skips(known) {
                // Its end was skipped, not missed.
                self.connection().state = CLOSE;
            } else if socket_state::has_table() && known != UNSEEN && known != CLOSE && known != new {
                // Nobody saw the end of the socket that was here before, nor what it had sent. The audit finds it.
                self.connection().state = CLOSE;
                count(END_UNSEEN);
            }
        }
        let step = opaque(self.connection(), u16::from(old) << 8 | u16::from(new));
        life::witness(self, (step >> 8) as u8, step as u8);
    }

    /// `connect()` has chosen the source port.
    #[inline(always)]
    pub fn connects(&mut self) {
        transition::connects(self.sk, self.memory);
    }

    /// `listen()` succeeded.
    #[inline(always)]
    pub fn listens(&mut self) {
        transition::listens(self.sk, self.memory);
    }
}

impl Drop for Socket {
    #[inline(always)]
    fn drop(&mut self) {
        socket_state::leave(self.sk, self.memory);
    }
}

impl Life for Socket {
    #[inline(always)]
    fn state(&self) -> u8 {
        // SAFETY: as in `connection`.
        unsafe { (*self.memory).state }
    }

    #[inline(always)]
    fn open(&mut self, state: u8) {
        let state = opaque(self.connection(), state.into()) as u8;
        transition::open(self.sk, self.memory, state);
    }

    #[inline(always)]
    fn adopt(&mut self, state: u8) {
        let state = opaque(self.connection(), state.into()) as u8;
        transition::adopt(self.sk, self.memory, state);
    }

    #[inline(always)]
    fn go(&mut self, state: u8) {
        let state = opaque(self.connection(), state.into()) as u8;
        transition::go(self.sk, self.memory, state);
    }

    #[inline(always)]
    fn catch_up(&mut self, state: u8) {
        count(STEP_REPAIRED);
        let state = opaque(self.connection(), state.into()) as u8;
        transition::catch_up(self.sk, self.memory, state);
    }
}
