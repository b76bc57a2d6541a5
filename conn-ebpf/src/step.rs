//! A step of a socket, as a hook sees the step: applies the actions of the lifecycle to the socket.

use conn_common::connection::{HELD, TUPLE_KNOWN};
use conn_common::counter::{END_UNSEEN, STEP_REPAIRED};
use conn_common::lifecycle::{First, Then, Unended, actions};
use conn_common::state::{is_open, is_opening};

use crate::counter::count;
use crate::socket::Socket;
use crate::storage::socket_state;
use crate::verifier::opaque;
use crate::{filter, mode, transition};

impl Socket<'_> {
    /// A hook saw the socket go from `old` to `new`.
    #[inline(always)]
    pub(crate) fn on_step(&mut self, old: u8, new: u8) {
        let step = opaque(self.connection(), u16::from(old) << 8 | u16::from(new));
        let (old, new) = ((step >> 8) as u8, step as u8);
        let known = self.state();
        let unended = if mode::skips(known) {
            Unended::Skipped
        } else if socket_state::has_table() {
            Unended::OfEarlierSocket
        } else {
            Unended::Missed
        };
        let todo = actions(known, old, new, unended);
        match todo.first {
            First::Nothing => {}
            First::Forget => count(END_UNSEEN),
            First::CatchUp => {
                count(STEP_REPAIRED);
                let before = opaque(self.connection(), todo.before.into()) as u8;
                transition::catch_up(self.reborrow(), before);
            }
        }
        match todo.then {
            Then::Nothing => return,
            Then::Open => {
                let new = opaque(self.connection(), new.into()) as u8;
                transition::open(self.reborrow(), new);
                return;
            }
            Then::AdoptAndGo => {
                let before = opaque(self.connection(), todo.before.into()) as u8;
                transition::adopt(self.reborrow(), before);
            }
            Then::Go => {}
        }
        let new = opaque(self.connection(), new.into()) as u8;
        transition::apply(self.reborrow(), new);
    }

    /// The same as [`Socket::on_step`] for a step of which this run needs only a count, without a look at the socket:
    /// the step is between two open states, no step was missed before, and the socket has nothing more to say. False
    /// for any other step.
    #[inline(always)]
    pub(crate) fn count_step(&mut self, old: u8, new: u8) -> bool {
        let connection = self.connection();
        if !mode::only_counts() || connection.state != old || !is_open(old) || !is_open(new) {
            return false;
        }
        // A child may be accepted before its handshake is over (fast open). Such a child is still held at its next step:
        // `close()` makes a step before it lets go (`__tcp_close()`).
        if !connection.is(TUPLE_KNOWN) || !(connection.is(HELD) || is_opening(old)) {
            return false;
        }
        connection.state = new;
        // A run that only counts reads no clock.
        transition::record_step(connection, old, new, 0);
        true
    }

    /// True if the run wants none of the children of a listener.
    #[inline(always)]
    pub(crate) fn passes_over_children(&self) -> bool {
        filter::may_pass_over() && self.tcp().is_some_and(|tcp| filter::passes_over(|| [tcp.sport(), 0]))
    }
}
