//! Reading kernel structures. Pointers here are typed by the verifier (`PTR_TO_BTF_ID`): a load
//! through one at an offset from the frozen globals is a plain instruction, and a fault reads 0.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::Global;
use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::helpers::generated::{bpf_skc_to_tcp_sock, bpf_skc_to_tcp_timewait_sock};
use conn_common::reset;
use conn_common::state::SYN_SENT;

use crate::config;

/// `AF_INET6`, `include/linux/socket.h`.
const AF_INET6: u16 = 10;
/// `SOCK_DONE` of `enum sock_flags`: set by `tcp_fin()` only, that is when the peer's FIN arrived.
const SOCK_DONE: u64 = 1 << 1;
/// `SOCK_LINGER`, of the same.
const SOCK_LINGER: u64 = 1 << 4;
/// `SHUTDOWN_MASK`: both directions.
const SHUTDOWN_MASK: u8 = 3;
/// `IPPROTO_TCP`, `include/uapi/linux/in.h`.
pub(crate) const TCP: u16 = 6;

/// Reads the field whose offset `global` holds.
#[inline(always)]
fn field<T>(base: *const c_void, global: &Global<u32>) -> T {
    // SAFETY: the verifier checks type and bounds of every such load, or refuses the program.
    unsafe { ptr::read_volatile(base.byte_add(global.load() as usize).cast::<T>()) }
}

/// A pointer to a kernel structure of type unknown to Rust.
pub(crate) type Pointer = *const c_void;

/// Follows the pointer field whose offset `global` holds.
#[inline(always)]
pub(crate) fn follow(base: Pointer, global: &Global<u32>) -> Pointer {
    field(base, global)
}

/// Reads a 16-bit field.
#[inline(always)]
pub(crate) fn read_u16(base: Pointer, global: &Global<u32>) -> u16 {
    field(base, global)
}

/// Reads a 32-bit field.
#[inline(always)]
pub(crate) fn read_u32(base: Pointer, global: &Global<u32>) -> u32 {
    field(base, global)
}

/// Reads a 64-bit field.
#[inline(always)]
pub(crate) fn read_u64(base: Pointer, global: &Global<u32>) -> u64 {
    field(base, global)
}

/// Reads 16 bytes as two words, into a buffer that is aligned to 8.
#[inline(always)]
pub(crate) fn read_16(base: Pointer, global: &Global<u32>) -> [u64; 2] {
    // SAFETY: as in `field`; both halves lie in the 16 bytes whose size the loader checked.
    unsafe {
        let at = base.byte_add(global.load() as usize).cast::<u64>();
        [ptr::read_volatile(at), ptr::read_volatile(at.add(1))]
    }
}

/// Reads 64 bits at the offset that `global` holds from any address; 0 if that faults.
#[inline(always)]
pub(crate) fn read_at(base: Pointer, global: &Global<u32>) -> u64 {
    // SAFETY: the helper fails instead of faulting.
    unsafe { bpf_probe_read_kernel((base as u64 + u64::from(global.load())) as *const u64) }.unwrap_or(0)
}

/// A full TCP socket (`struct tcp_sock`), never a request or time-wait mini-socket.
#[derive(Clone, Copy)]
pub(crate) struct Tcp(pub *mut c_void);

impl Tcp {
    /// The TCP socket behind `sk`; `None` if it is of another protocol (MPTCP's own sockets fire the
    /// same tracepoint) or not a full socket.
    #[inline(always)]
    pub(crate) fn of(sk: *mut c_void) -> Option<Self> {
        // SAFETY: the helper checks protocol and state itself (net/core/filter.c, bpf_skc_to_tcp_sock).
        let tcp = unsafe { bpf_skc_to_tcp_sock(sk) };
        if tcp.is_null() { None } else { Some(Self(tcp.cast())) }
    }

    /// Reads the fields that an adoption reads last, so that the CPU fetches all of them at the same time.
    #[inline(always)]
    pub(crate) fn prefetch(self) {
        let _ = self.is_held();
        let _ = read_u32(self.0, &config::INET_MC_INDEX);
    }

    /// True if the socket's family is IPv6 (its addresses may still be IPv4-mapped).
    #[inline(always)]
    pub(crate) fn is_v6(self) -> bool {
        field::<u16>(self.0, &config::SKC_FAMILY) == AF_INET6
    }

    /// Local and remote IPv4 address, network order.
    #[inline(always)]
    pub(crate) fn v4(self) -> (u32, u32) {
        (field(self.0, &config::SKC_RCV_SADDR), field(self.0, &config::SKC_DADDR))
    }

    /// Local and remote IPv6 address, network order.
    #[inline(always)]
    pub(crate) fn v6(self) -> ([u64; 2], [u64; 2]) {
        (read_16(self.0, &config::SKC_V6_RCV_SADDR), read_16(self.0, &config::SKC_V6_DADDR))
    }

    /// The local port while the socket holds one, host order. 0 once it is given back, which
    /// `tcp_set_state()` does before the tracepoint fires.
    #[inline(always)]
    pub(crate) fn num(self) -> u16 {
        field(self.0, &config::SKC_NUM)
    }

    /// The local port as last written, host order: may be that of an earlier attempt.
    #[inline(always)]
    pub(crate) fn sport(self) -> u16 {
        u16::from_be(field(self.0, &config::INET_SPORT))
    }

    /// The remote port, host order.
    #[inline(always)]
    pub(crate) fn dport(self) -> u16 {
        u16::from_be(field(self.0, &config::SKC_DPORT))
    }

    /// The inode number of the socket that a process has: of a subflow, the one of its MPTCP socket, since MPTCP gives its
    /// own `struct socket` to all subflows (`mptcp_sock_graft()`). 0 while no process has the socket.
    #[inline(always)]
    pub(crate) fn inode(self) -> u64 {
        let socket = follow(self.0, &config::SK_SOCKET);
        if socket.is_null() || config::SOCKET_INODE.load() == 0 {
            return 0;
        }
        // `sock_alloc()` makes each socket together with its inode.
        read_at(socket, &config::SOCKET_INODE)
    }

    /// The user that the socket belongs to: of its file, when the file was made.
    #[inline(always)]
    pub(crate) fn uid(self) -> u32 {
        read_u32(self.0, &config::SK_UID)
    }

    /// TCP state.
    #[inline(always)]
    pub(crate) fn state(self) -> u8 {
        field(self.0, &config::SKC_STATE)
    }

    /// The time-wait mini-socket behind the socket; `None` for any other socket.
    #[inline(always)]
    pub(crate) fn time_wait(self) -> Option<TimeWait> {
        // SAFETY: the helper checks the state itself (net/core/filter.c).
        let mini = unsafe { bpf_skc_to_tcp_timewait_sock(self.0) };
        if mini.is_null() { None } else { Some(TimeWait(mini.cast())) }
    }

    /// Inode number of the network namespace.
    #[inline(always)]
    pub(crate) fn netns(self) -> u32 {
        read_u32(follow(self.0, &config::SKC_NET), &config::NET_INUM)
    }

    /// The index of the interface that the socket is bound to, in its namespace; 0 for none. The kernel binds each socket
    /// with a link-local peer (`tcp_v6_connect()`, `tcp_v6_init_req()`). Mini-sockets have the field, too.
    #[inline(always)]
    pub(crate) fn interface(self) -> u32 {
        read_u32(self.0, &config::SKC_BOUND_DEV_IF)
    }

    /// The mark of the packets that the socket sends (`SO_MARK`).
    #[inline(always)]
    pub(crate) fn mark(self) -> u32 {
        read_u32(self.0, &config::SK_MARK)
    }

    /// The socket's error, an errno number.
    #[inline(always)]
    pub(crate) fn error(self) -> u16 {
        read_u32(self.0, &config::SK_ERR) as u16
    }

    /// True while a process has the socket: from `connect()` or `accept()` (`sock_graft()`) until its last
    /// close (`sock_orphan()`, after the transition that `close()` makes).
    #[inline(always)]
    pub(crate) fn is_held(self) -> bool {
        !follow(self.0, &config::SK_SOCKET).is_null()
    }

    /// True if the socket may not wait in `FIN_WAIT2` without a process (`TCP_LINGER2` below 0).
    #[inline(always)]
    pub(crate) fn never_lingers(self) -> bool {
        read_u32(self.0, &config::TCP_LINGER2).cast_signed() < 0
    }

    /// True in repair mode: a checkpoint makes or takes away the socket.
    #[inline(always)]
    pub(crate) fn in_repair(self) -> bool {
        let bit = config::TCP_REPAIR.load();
        // SAFETY: as in `field`.
        let byte = unsafe { ptr::read_volatile(self.0.byte_add((bit / 8) as usize).cast::<u8>()) };
        byte & 1 << (bit % 8) != 0
    }

    /// True while a fast open has something to send: its SYN leaves with the first write, which may come long after
    /// `connect()` (`tcp_fastopen_defer_connect()`).
    #[inline(always)]
    pub(crate) fn opens_fast(self) -> bool {
        !follow(self.0, &config::TCP_FASTOPEN_REQ).is_null()
    }

    /// True once the peer's FIN arrived.
    #[inline(always)]
    pub(crate) fn peer_closed(self) -> bool {
        read_u64(self.0, &config::SKC_FLAGS) & SOCK_DONE != 0
    }

    /// The flags that show why we reset the connection, see `conn_common::reset`.
    #[inline(always)]
    pub(crate) fn reset_flags(self) -> u8 {
        let flag = |flag: u8, set: bool| if set { flag } else { 0 };
        let lingers = read_u64(self.0, &config::SKC_FLAGS) & SOCK_LINGER != 0;
        flag(reset::HOLDS, self.is_held())
            | flag(reset::SHUT, field::<u8>(self.0, &config::SK_SHUTDOWN) == SHUTDOWN_MASK)
            | flag(reset::LINGER_0, lingers && read_u64(self.0, &config::SK_LINGERTIME) == 0)
            | flag(reset::NEVER_LINGERS, self.never_lingers())
    }

    /// Segments sent and received.
    #[inline(always)]
    pub(crate) fn segments(self) -> (u32, u32) {
        (read_u32(self.0, &config::TCP_SEGS_OUT), read_u32(self.0, &config::TCP_SEGS_IN))
    }

    /// Smoothed and shortest round trip time, microseconds, 0 if never measured. The kernel keeps the
    /// first in eighths, and the second as the best of three samples, all ones before the first.
    #[inline(always)]
    pub(crate) fn round_trip(self) -> (u32, u32) {
        // SAFETY: as in `field`; the value stands behind the time of the sample (struct minmax_sample).
        let shortest = unsafe {
            ptr::read_volatile(self.0.byte_add(config::TCP_RTT_MIN.load() as usize + 4).cast::<u32>())
        };
        (read_u32(self.0, &config::TCP_SRTT_US) >> 3, if shortest == u32::MAX { 0 } else { shortest })
    }

    /// For how many jiffies no payload was sent (`tcp_event_data_sent()`) or received (`tcp_event_data_recv()`),
    /// seen from `now`. Both stamps are set when a connection is established.
    #[inline(always)]
    pub(crate) fn idle_for(self, now: u32) -> u32 {
        let sent = now.wrapping_sub(read_u32(self.0, &config::TCP_LSNDTIME));
        let received = now.wrapping_sub(read_u32(self.0, &config::ICSK_LRCVTIME));
        if sent < received { sent } else { received }
    }

    /// For how many jiffies the connection has been established at the least, seen from `now`. The kernel
    /// keeps no birthday, but stamps that are set when a connection is established and renewed later: the
    /// last sending (`tcp_finish_connect()`, `tcp_create_openreq_child()`) and the best round trips.
    #[inline(always)]
    pub(crate) fn established_for(self, now: u32) -> u32 {
        let mut longest = now.wrapping_sub(read_u32(self.0, &config::TCP_LSNDTIME));
        let samples = config::TCP_RTT_MIN.load() as usize;
        macro_rules! sample {
            ($($at:literal)*) => {$(
                // SAFETY: as in `field`, inside the 24 bytes of the three samples (struct minmax).
                let (time, value) = unsafe {
                    let sample = self.0.byte_add(samples + $at * 8).cast::<u32>();
                    (ptr::read_volatile(sample), ptr::read_volatile(sample.add(1)))
                };
                let since = now.wrapping_sub(time);
                if value != u32::MAX && since.cast_signed() > longest.cast_signed() {
                    longest = since;
                }
            )*};
        }
        sample!(0 1 2);
        if longest.cast_signed() < 0 { 0 } else { longest }
    }

    /// Of a listener: the half-open requests in its queue (`reqsk_queue_len()`); `None` if the kernel does not show it.
    #[inline(always)]
    pub(crate) fn half_open(self) -> Option<u32> {
        (config::ICSK_QLEN.load() != 0).then(|| read_u32(self.0, &config::ICSK_QLEN))
    }

    /// Packets that the socket dropped. A listener counts SYNs and last ACKs that its queues had no room for
    /// (`tcp_listendrop()`). `None` if the kernel does not show it.
    #[inline(always)]
    pub(crate) fn drops(self) -> Option<u32> {
        (config::SK_DROPS.load() != 0).then(|| read_u32(self.0, &config::SK_DROPS))
    }

    /// Bytes that wait to be read and to be acknowledged; for a listener, how many connections wait to
    /// be accepted and how many may. As `tcp_diag_get_info()` has them.
    #[inline(always)]
    pub(crate) fn queues(self, is_listener: bool) -> (u32, u32) {
        if is_listener {
            return (
                read_u32(self.0, &config::SK_ACK_BACKLOG),
                read_u32(self.0, &config::SK_MAX_ACK_BACKLOG),
            );
        }
        let difference = |ahead, behind| {
            let bytes = read_u32(self.0, ahead).wrapping_sub(read_u32(self.0, behind));
            if bytes.cast_signed() < 0 { 0 } else { bytes }
        };
        // Until the SYN of a fast open leaves, the kernel has not set `snd_una` (`tcp_connect_init()`).
        let is_deferred = self.state() == SYN_SENT && self.segments().0 == 0;
        (
            difference(&config::TCP_RCV_NXT, &config::TCP_COPIED_SEQ),
            if is_deferred { 0 } else { difference(&config::TCP_WRITE_SEQ, &config::TCP_SND_UNA) },
        )
    }

    /// Payload bytes sent, each once.
    #[inline(always)]
    pub(crate) fn bytes_sent(self) -> u64 {
        read_u64(self.0, &config::TCP_BYTES_SENT).wrapping_sub(read_u64(self.0, &config::TCP_BYTES_RETRANS))
    }

    /// Payload bytes received in order. The kernel counts the peer's FIN as a byte
    /// (`tcp_rcv_nxt_update()` is given the end of the segment), so that one is taken off.
    #[inline(always)]
    pub(crate) fn bytes_received(self) -> u64 {
        let received = read_u64(self.0, &config::TCP_BYTES_RECEIVED);
        received.saturating_sub(u64::from(self.peer_closed()))
    }

    /// Segments retransmitted.
    #[inline(always)]
    pub(crate) fn retransmits(self) -> u32 {
        read_u32(self.0, &config::TCP_TOTAL_RETRANS)
    }

    /// True if a SYN made this socket: `tcp_v4_syn_recv_sock()` and its IPv6 twin note the interface
    /// the SYN came in by (5.8 to 6.18), which a socket that connected does not have.
    #[inline(always)]
    pub(crate) fn is_child(self) -> bool {
        if read_u32(self.0, &config::INET_MC_INDEX) != 0 {
            return true;
        }
        self.is_v6() && read_u32(follow(self.0, &config::INET_PINET6), &config::PINFO_MCAST_OIF) != 0
    }
}

/// A time-wait mini-socket (`struct tcp_timewait_sock`).
#[derive(Clone, Copy)]
pub(crate) struct TimeWait(Pointer);

impl TimeWait {
    /// `TIME_WAIT`, or `FIN_WAIT2` while the peer's FIN is awaited.
    #[inline(always)]
    pub(crate) fn state(self) -> u8 {
        field(self.0, &config::TW_SUBSTATE)
    }

    /// True if `connect()` chose the local port, so this host opened the connection. `__inet_hash_connect()` marks such a
    /// port with -1 in `fastreuse`, and takes no port that `bind()` or `listen()` took (`inet_csk_get_port()`, 0 or
    /// more). Accepted connections share the port of their listener. False if the kernel does not show it.
    #[inline(always)]
    pub(crate) fn has_port_of_connect(self) -> bool {
        if config::TW_TB.load() == 0 || config::TB_FASTREUSE.load() == 0 {
            return false;
        }
        let bucket = follow(self.0, &config::TW_TB);
        !bucket.is_null() && field::<u8>(bucket, &config::TB_FASTREUSE).cast_signed() < 0
    }
}
