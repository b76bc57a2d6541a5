//! The packet of a program on a cgroup. Its context is the `struct sk_buff` itself, whose other fields only helpers read.

use core::ffi::c_void;

use aya_ebpf::Global;
use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_sk_fullsock, bpf_skb_load_bytes};
use conn_common::protocol::UDP;

use crate::config;

/// `SOCK_DGRAM`.
const DATAGRAM: u32 = 2;

/// A packet with a socket.
#[derive(Clone, Copy)]
pub(crate) struct Skb(pub *mut __sk_buff);

impl Skb {
    /// The first byte of the network header, and the end of what can be read directly.
    #[inline(always)]
    pub(crate) fn data(self) -> (usize, usize) {
        // SAFETY: fields of the context.
        unsafe { ((*self.0).data as usize, (*self.0).data_end as usize) }
    }

    /// Bytes from the network header on.
    #[inline(always)]
    pub(crate) fn len(self) -> u32 {
        // SAFETY: a field of the context.
        unsafe { (*self.0).len }
    }

    /// Copies bytes from this offset on, which may be beyond [`Self::data`].
    #[inline(always)]
    pub(crate) fn load<const N: usize>(self, offset: u32) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        // SAFETY: the context, and a buffer of this size.
        let error = unsafe { bpf_skb_load_bytes(self.0.cast(), offset, bytes.as_mut_ptr().cast(), N as u32) };
        (error == 0).then_some(bytes)
    }

    /// Segments of a GSO or GRO packet; 1 for any other.
    #[inline(always)]
    pub(crate) fn segments(self) -> u32 {
        // SAFETY: a field of the context.
        match unsafe { (*self.0).gso_segs } {
            0 => 1,
            segments => segments,
        }
    }

    /// The mark of the packet.
    #[inline(always)]
    pub(crate) fn mark(self) -> u32 {
        // SAFETY: a field of the context.
        unsafe { (*self.0).mark }
    }

    /// The cookie of the socket; 0 without a socket.
    #[inline(always)]
    pub(crate) fn cookie(self) -> u64 {
        // SAFETY: the context.
        unsafe { bpf_get_socket_cookie(self.0.cast()) }
    }

    /// The socket, as helpers take it; NULL if there is none, or no full one.
    #[inline(always)]
    pub(crate) fn socket(self) -> *mut bpf_sock {
        // SAFETY: a field of the context, checked before the helper gets it.
        unsafe {
            let sk = (*self.0).__bindgen_anon_2.sk;
            if sk.is_null() { sk } else { bpf_sk_fullsock(sk) }
        }
    }

    /// True if the socket is of UDP. A raw socket may also send and receive UDP packets, and have the same protocol.
    #[inline(always)]
    pub(crate) fn is_of_udp_socket(self) -> bool {
        let sk = self.socket();
        // SAFETY: a full socket.
        !sk.is_null() && unsafe { (*sk).protocol == u32::from(UDP) && (*sk).type_ == DATAGRAM }
    }

    /// The offset of the transport header from the network header.
    #[inline(always)]
    pub(crate) fn transport_offset(self) -> Option<u16> {
        let network: u16 = read(self.0.cast(), &config::SKB_NETWORK_HEADER)?;
        let transport: u16 = read(self.0.cast(), &config::SKB_TRANSPORT_HEADER)?;
        Some(transport.wrapping_sub(network))
    }

    /// Inode number of the network namespace of the socket; 0 if it cannot be read.
    #[inline(always)]
    pub(crate) fn netns(self) -> u32 {
        let sk: Option<u64> = read(self.0.cast(), &config::SKB_SK);
        let net: Option<u64> = sk.and_then(|sk| read(sk as *const c_void, &config::SKC_NET));
        net.and_then(|net| read(net as *const c_void, &config::NET_INUM)).unwrap_or(0)
    }
}

/// Reads a field of a structure that the verifier does not know.
#[inline(always)]
fn read<T>(base: *const c_void, field: &Global<u32>) -> Option<T> {
    // SAFETY: the helper fails instead of faulting.
    unsafe { bpf_probe_read_kernel(base.byte_add(field.load() as usize).cast::<T>()) }.ok()
}
