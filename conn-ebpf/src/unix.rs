//! A Unix domain socket of the kernel (`struct unix_sock`).

use core::ffi::c_void;

use conn_common::name::LIST_UNIX;

use crate::config;
use crate::kernel::{Tcp, read_u16};

/// `AF_UNIX`, `include/linux/socket.h`.
const UNIX: u16 = 1;

/// A Unix domain socket. The handle inside reads the fields that all sockets have (`struct sock_common`).
#[derive(Clone, Copy)]
pub(crate) struct Unix(pub Tcp);

impl Unix {
    /// The Unix domain socket behind `sk`; `None` if it is of another family.
    #[inline(always)]
    pub(crate) fn of(sk: *mut c_void) -> Option<Self> {
        if read_u16(sk, &config::SKC_FAMILY) == UNIX { Some(Self(Tcp(sk))) } else { None }
    }
}

/// True if the run lists Unix domain sockets, and no others.
#[inline(always)]
pub(crate) fn are_wanted() -> bool {
    config::LISTED.load() & LIST_UNIX != 0
}
