//! MPTCP: connections of another protocol, made of TCP connections (subflows). The process connects the first subflow, a
//! kernel thread connects later ones on behalf of the process.

use core::ffi::c_void;

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::helpers::bpf_probe_read_kernel;
use conn_common::counter::OWNER_FAILED;
use conn_common::name::NO_OWNERS;
use conn_common::owner::{CONNECT, Owner};
use conn_common::state::{CLOSE, SYN_SENT};

use crate::counter::count;
use crate::kernel::{Tcp, follow, read_16, read_u16, read_u64};
use crate::maps::MPTCP_OWNERS;
use crate::{config, owner};

/// `IPPROTO_MPTCP`, `include/uapi/linux/in.h`.
pub(crate) const PROTOCOL: u16 = 262;
/// The name of the protocol on top of a subflow (`subflow_ulp_ops`, `net/mptcp/subflow.c`).
const ULP: u64 = u64::from_ne_bytes(*b"mptcp\0\0\0");

/// A hook saw a socket of another protocol than TCP go from one state to another. `current` connects it, as with TCP.
#[inline(always)]
pub(crate) fn on_step(sk: *mut c_void, old: u8, new: u8) {
    if config::SUBFLOW_CONN.load() == 0
        || config::OWNERS.load() == NO_OWNERS
        || read_u16(sk, &config::SK_PROTOCOL) != PROTOCOL
    {
        return;
    }
    let key = sk as u64;
    if new == CLOSE {
        let _ = MPTCP_OWNERS.remove(&key);
    } else if old == CLOSE
        && new == SYN_SENT
        && MPTCP_OWNERS.insert(&key, &owner::current(CONNECT), BPF_ANY.into()).is_err()
    {
        count(OWNER_FAILED);
    }
}

/// Assigns the owner of the MPTCP connection to a subflow that a kernel thread connects.
#[inline(always)]
pub(crate) fn assign_owner(subflow: Tcp, owner: &mut Owner) {
    if config::SUBFLOW_CONN.load() == 0 {
        return;
    }
    let ulp = follow(subflow.0, &config::ICSK_ULP_OPS);
    if ulp.is_null() || read_16(ulp, &config::ULP_NAME)[0] != ULP {
        return;
    }
    let context = read_u64(subflow.0, &config::ICSK_ULP_DATA) + u64::from(config::SUBFLOW_CONN.load());
    // SAFETY: the helper fails instead of faulting.
    let Ok(connection) = (unsafe { bpf_probe_read_kernel(context as *const u64) }) else { return };
    if let Some(real) = MPTCP_OWNERS.get_ptr(&connection) {
        // SAFETY: a map value, replaced as a whole and never changed in place.
        *owner = unsafe { *real };
    }
}
