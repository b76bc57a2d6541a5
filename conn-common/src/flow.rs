//! A UDP flow: the packets between one socket, one local and one peer address. It begins with its first packet, either way, and
//! ends when the socket closes or when no packet came for its idle time.

use crate::cause::Cause;
use crate::connection::Connection;

/// No packet of the peer's side has come yet. Behind the numbers of TCP: a filter of TCP states lets no flow pass.
pub const UNREPLIED: u8 = 13;
/// Packets went both ways.
pub const REPLIED: u8 = 14;
/// Packets went both ways, the last one more than two seconds after the first: a stream, as conntrack has it.
pub const ASSURED: u8 = 15;

/// After so many seconds a packet makes a stream of a flow that has a reply (`udp_packet()` of
/// `nf_conntrack_proto_udp.c`).
pub const STREAM_AFTER_S: u64 = 2;
/// The idle time of a flow that is no stream, in seconds, where the kernel has no `nf_conntrack_udp_timeout`.
pub const TIMEOUT_S: u32 = 30;
/// The idle time of a stream, in seconds, where the kernel has no `nf_conntrack_udp_timeout_stream`.
pub const STREAM_TIMEOUT_S: u32 = 120;

/// The counters of packets that the socket sent.
pub const SENT: usize = 0;
/// The counters of packets that the socket received.
pub const RECEIVED: usize = 1;

/// For so many milliseconds a slot of a flow that has ended stays: a program on another CPU may still add a packet.
pub const GRACE_MS: u64 = 100;

/// One flow: a slot of the table, see [`crate::flow_table`]. The first cache line is all that a usual packet writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Flow {
    /// The second hash of the flow's identity; the first one is the key of its slot.
    pub check: u64,
    /// The tick of the last packet.
    pub last: u64,
    /// The tick of the first packet.
    pub begun: u64,
    /// See [`state_word`]; 0 until NEW is written.
    pub state: u64,
    /// Packets, by [`SENT`] and [`RECEIVED`]. Each segment of a GSO or GRO packet counts.
    pub packets: [u64; 2],
    /// Payload bytes, likewise.
    pub bytes: [u64; 2],
    /// The socket's cookie.
    pub cookie: u64,
    /// When the flow ended, nanoseconds of `CLOCK_BOOTTIME`.
    pub end_ns: u64,
    /// The tick at which the end was noted; 0 while the flow is alive.
    pub ended: u64,
    /// The number of the [`crate::cause::Cause`] of the end.
    pub cause: u32,
    /// The index of the slot.
    pub index: u32,
    /// Segments beyond the first of GSO and GRO packets: the kernel's counters count such a packet once.
    pub merged: [u64; 2],
    /// Not 0 once the peer's host refused a packet (ICMP port unreachable), see [`end_cause`].
    pub refused: u32,
    /// Scratch space of the kernel programs without a meaning.
    pub scratch: u32,
    /// The flow as events show it.
    pub connection: Connection,
}

impl Flow {
    /// A slot that was never used.
    pub const EMPTY: Self = Self {
        check: 0,
        last: 0,
        begun: 0,
        state: 0,
        packets: [0; 2],
        bytes: [0; 2],
        cookie: 0,
        end_ns: 0,
        ended: 0,
        cause: 0,
        index: 0,
        merged: [0; 2],
        refused: 0,
        scratch: 0,
        connection: Connection::UNSEEN,
    };
}

const _: () = {
    assert!(size_of::<Flow>() == 256);
    assert!(core::mem::offset_of!(Flow, cookie) == 64);
    assert!(core::mem::offset_of!(Flow, connection) == 120);
};

/// The word of a state and a direction: programs change it by compare-and-exchange.
#[inline(always)]
pub const fn state_word(state: u8, direction: u8) -> u64 {
    state as u64 | (direction as u64) << 8
}

/// The state of a word; 0 before NEW.
#[inline(always)]
pub const fn state_of(word: u64) -> u8 {
    word as u8
}

/// The direction of a word.
#[inline(always)]
pub const fn direction_of(word: u64) -> u8 {
    (word >> 8) as u8
}

/// The cause of the end of a flow in `state`. A flow without a reply whose packet was refused failed, whatever else ended
/// it. A flow with a reply did not fail.
#[inline(always)]
pub const fn end_cause(end: Cause, state: u8, refused: u32) -> Cause {
    if refused != 0 && state == UNREPLIED { Cause::Refused } else { end }
}

/// What the programs keep of a socket with flows, in an array by the hash of the cookie. A socket whose entry another one has
/// is not kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FlowSocket {
    /// The socket's cookie; 0 for a free entry.
    pub cookie: u64,
    /// Flows that began.
    pub flows: u64,
    /// The slot of the first flow.
    pub first: u64,
    /// When the socket closed, nanoseconds of `CLOCK_BOOTTIME`, if it had several flows: the sweep ends them.
    pub closed_ns: u64,
    /// Not 0 once a socket found the entry taken. Never cleared.
    pub crowded: u64,
    /// Room for more.
    pub reserved: [u64; 3],
}

const _: () = assert!(size_of::<FlowSocket>() == 64);

/// Binary logarithm of the entries of [`FlowSocket`].
pub const SOCKET_BITS: u32 = 16;

/// The entry of a socket. Cookies are consecutive numbers (`gen_cookie_next()` of `linux/cookie.h`), so sockets that live at the
/// same time have different entries, and near ones.
#[inline(always)]
pub const fn socket_index(cookie: u64) -> u32 {
    cookie as u32 & ((1 << SOCKET_BITS) - 1)
}

/// The owner that a socket remembers, in socket storage.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct SocketOwner {
    /// Odd while a CPU writes the owner; each change adds 2.
    pub version: u64,
    /// The task that bound the socket, or the last one that replied through it.
    pub owner: crate::owner::Owner,
}

/// The two hashes of a flow's identity, from seeds that no other host knows: peers choose ports and addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowHash(pub [u64; 2]);

impl FlowHash {
    /// With one more word.
    #[inline(always)]
    #[must_use]
    pub const fn word(self, word: u64) -> Self {
        let Self([first, second]) = self;
        Self([mix(first ^ word, 0x9E37_79B9_7F4A_7C15), mix(second ^ word, 0xD6E8_FEB8_6659_FD93)])
    }

    /// The hashes, in which each bit depends on each bit of all words.
    #[inline(always)]
    pub const fn finish(self) -> [u64; 2] {
        let Self([first, second]) = self;
        [mix(first, 0xBF58_476D_1CE4_E5B9), mix(second, 0x94D0_49BB_1331_11EB)]
    }
}

/// Mixes a word. A product alone spreads bits upwards only: the shifts bring the upper ones down.
#[inline(always)]
const fn mix(word: u64, factor: u64) -> u64 {
    let product = (word ^ word >> 32).wrapping_mul(factor);
    product ^ product >> 29
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow_table::{BUCKET, buckets};

    #[test]
    fn flows_of_near_addresses_and_ports_spread_over_the_buckets() {
        const BITS: u32 = 10;
        let addresses = |number: u64| [number << 56, number << 48, number << 32, number << 40];
        for at in 0..4 {
            let mut load = [0_u32; 1 << BITS];
            for number in 0..2_048_u64 {
                let (low, high) = (number & 0xff, number >> 8);
                let words = [addresses(low)[at] ^ addresses(high)[(at + 1) % 4], number << (at * 4)];
                let hash = FlowHash([7, 8]).word(words[0]).word(words[1]).finish();
                // As the table does it: the first bucket, or the second if that is full.
                let [first, second] = buckets(hash, BITS).map(|bucket| bucket as usize);
                load[if load[first] < BUCKET { first } else { second }] += 1;
            }
            assert!(load.iter().all(|&flows| flows <= BUCKET), "{at}: {:?}", load.iter().max());
        }
    }

    #[test]
    fn hashes_depend_on_seed_word_and_order() {
        let hash = |seed: u64, words: &[u64]| {
            words.iter().fold(FlowHash([seed, !seed]), |hash, &word| hash.word(word)).finish()
        };
        let base = hash(1, &[5, 6]);
        for other in [hash(2, &[5, 6]), hash(1, &[6, 5]), hash(1, &[5, 7]), hash(1, &[5])] {
            assert!(base[0] != other[0] && base[1] != other[1]);
        }
    }

    #[test]
    fn only_a_flow_without_a_reply_is_refused() {
        for (state, refused, expected) in [
            (UNREPLIED, 0, [Cause::ClosedByUs, Cause::TimedOut]),
            (UNREPLIED, 1, [Cause::Refused; 2]),
            (REPLIED, 1, [Cause::ClosedByUs, Cause::TimedOut]),
            (ASSURED, 1, [Cause::ClosedByUs, Cause::TimedOut]),
        ] {
            let causes = [Cause::ClosedByUs, Cause::TimedOut].map(|end| end_cause(end, state, refused));
            assert_eq!(causes, expected, "{state} {refused}");
        }
    }

    #[test]
    fn state_words_keep_both_parts() {
        for (state, direction) in [(UNREPLIED, 0), (REPLIED, 1), (ASSURED, 1)] {
            let word = state_word(state, direction);
            assert_eq!((state_of(word), direction_of(word)), (state, direction));
        }
    }
}
