//! The gate: every hook that sees a step enters a socket here.

use core::ffi::c_void;

use conn_common::counter::STORAGE_FAILED;
use conn_common::lifecycle::is_of_listener;

use crate::counter::count;
use crate::kernel::Tcp;
use crate::maps::SWITCHES;
use crate::socket::{Entry, full_socket};
use crate::storage::socket_state;
use crate::{filter, mode, stateless};

/// A socket pointer, as the verifier types it in a hook.
pub(crate) trait Sk {
    /// The address.
    fn address(&self) -> *mut c_void;
    /// False if the kernel keeps no socket storage for it.
    fn may_be_stored(&self) -> bool;
}

/// A pointer of a tracing program or an iterator, whose fields can be read.
pub(crate) struct TracedSk(pub *mut c_void);

impl Sk for TracedSk {
    #[inline(always)]
    fn address(&self) -> *mut c_void {
        self.0
    }

    #[inline(always)]
    fn may_be_stored(&self) -> bool {
        socket_state::has_storage(self.0)
    }
}

/// A pointer of socket operations, whose fields only helpers read.
pub(crate) struct OpsSk(pub *mut c_void);

impl Sk for OpsSk {
    #[inline(always)]
    fn address(&self) -> *mut c_void {
        self.0
    }

    #[inline(always)]
    fn may_be_stored(&self) -> bool {
        true
    }
}

/// A step of a socket, as a hook sees it.
pub(crate) struct Step {
    /// The state before.
    pub old: u8,
    /// The state after.
    pub new: u8,
}

/// True once every program is attached. Before that no hook may keep a state: a transition between two attachments
/// would be lost for good.
#[inline(always)]
pub(crate) fn is_enabled() -> bool {
    SWITCHES.get(0).is_some_and(|switches| switches.enabled != 0)
}

/// The part of a hook beside other hooks that see the same steps, where there is no memory for a state.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Role {
    /// The hook sees every beginning. It also works on steps of sockets without a state, see [`crate::stateless`].
    First,
    /// The hook leaves them to the first one. In a namespace with such sockets it makes no state: of a socket without one,
    /// it does not know whether the beginning was counted.
    Other,
}

/// The socket that takes a step, with its state, which is made if there is none. `None` if the programs are not enabled,
/// if the run skips the step, if it wants nothing of the socket, or if there is no memory: then, which is counted,
/// `no_memory` is called. The step is asked for only if the run needs it.
#[inline(always)]
pub(crate) fn enter(
    sk: impl Sk,
    role: Role,
    step: impl Fn() -> Step,
    no_memory: impl FnOnce(),
) -> Option<Entry> {
    if mode::skips_step(&step) || !is_enabled() {
        return None;
    }
    enter_checked(sk, role, || is_of_listener(step().old, step().new), no_memory)
}

/// The same for a hook that has to know before whether the programs are enabled and the run skips the socket. A socket
/// that `is_kept` has a state whatever its ports are: the children of a listener ask for it.
#[inline(always)]
pub(crate) fn enter_checked(
    sk: impl Sk,
    role: Role,
    is_kept: impl FnOnce() -> bool,
    no_memory: impl FnOnce(),
) -> Option<Entry> {
    if filter::may_pass_over() && !is_kept() {
        let tcp = full_socket(sk.address())?;
        // The port as last written: `num` is 0 at an end.
        if filter::passes_over(|| [tcp.sport(), tcp.dport()]) {
            return None;
        }
    }
    let may_have_been_counted =
        || stateless::are_there() && Tcp::of(sk.address()).is_some_and(|tcp| stateless::are_in(tcp.netns()));
    let creates = || role == Role::First || !may_have_been_counted();
    let kept = socket_state::enter(sk.address(), || sk.may_be_stored(), creates);
    if kept.state.is_null() {
        count(STORAGE_FAILED);
        no_memory();
        return None;
    }
    Some(Entry::new(sk.address(), kept))
}
