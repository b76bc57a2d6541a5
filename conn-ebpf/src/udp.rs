//! A UDP socket of the kernel (`struct udp_sock`).

use core::ffi::c_void;

use aya_ebpf::Global;
use aya_ebpf::helpers::bpf_probe_read_kernel;
use conn_common::protocol::UDP;

use crate::config;
use crate::kernel::{Pointer, Tcp, follow, read_u16, read_u32};

/// `AF_INET`, `include/linux/socket.h`.
const INET: u16 = 2;
/// `AF_INET6`, of the same.
const INET6: u16 = 10;

/// A UDP socket. The handle inside reads the fields that all sockets with addresses have (`struct sock`).
#[derive(Clone, Copy)]
pub(crate) struct Udp(pub Tcp);

impl Udp {
    /// The UDP socket behind `sk`; `None` if it is of another family or protocol.
    #[inline(always)]
    pub(crate) fn of(sk: *mut c_void) -> Option<Self> {
        let is_udp = read_u16(sk, &config::SK_PROTOCOL) == u16::from(UDP)
            && matches!(read_u16(sk, &config::SKC_FAMILY), INET | INET6);
        if is_udp { Some(Self(Tcp(sk))) } else { None }
    }

    /// Bytes that wait for the process, and bytes that wait for the network, each with the kernel's own overhead, as
    /// `udp_rqueue_get()` and `sk_wmem_alloc_get()` have them.
    #[inline(always)]
    pub(crate) fn queues(self) -> (u32, u32) {
        let received = read_u32(self.0.0, &config::SK_RMEM_ALLOC);
        let queued = received.wrapping_sub(self.part(&config::UDP_FORWARD_DEFICIT));
        // A socket holds one reference to its own count.
        (queued, read_u32(self.0.0, &config::SK_WMEM_ALLOC).wrapping_sub(1))
    }

    /// Datagrams that the socket dropped, for lack of room or for their contents. Since 6.18 they are counted apart, in two
    /// counters that CPUs share (`struct numa_drop_counters`). `None` if the kernel does not show them.
    #[inline(always)]
    pub(crate) fn drops(self) -> Option<u32> {
        if config::SK_DROP_COUNTERS.load() != 0 {
            let counters = follow(self.0.0, &config::SK_DROP_COUNTERS);
            if !counters.is_null() {
                let of = |global| read(counters, global);
                return Some(of(&config::DROPS_FIRST).wrapping_add(of(&config::DROPS_SECOND)));
            }
        }
        self.0.drops()
    }

    /// A field behind `struct sock`, which the verifier does not see in a socket that comes from a file.
    #[inline(always)]
    fn part(self, global: &Global<u32>) -> u32 {
        if global.load() == 0 { 0 } else { read(self.0.0, global) }
    }
}

/// Reads a 32-bit field of a structure of any type; 0 if that fails.
#[inline(always)]
fn read(base: Pointer, global: &Global<u32>) -> u32 {
    // SAFETY: the helper fails instead of faulting.
    unsafe { bpf_probe_read_kernel(base.byte_add(global.load() as usize).cast::<u32>()) }.unwrap_or(0)
}
