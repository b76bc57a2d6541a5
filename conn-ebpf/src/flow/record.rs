//! The record of a flow, filled when the flow begins.

use aya_ebpf::helpers::generated::{bpf_get_smp_processor_id, bpf_jiffies64, bpf_ktime_get_boot_ns};
use conn_common::connection::{Connection, IN, OUT, PREEXISTING, QUIC};
use conn_common::flow::{Flow, SENT, UNREPLIED, socket_index};
use conn_common::flow_table::{CLOSED, EXPIRED, OPEN, phase_of};
use conn_common::name::NO_OWNERS;
use conn_common::owner::{Owner, SEND};
use conn_common::quic;

use super::count;
use crate::config;
use crate::datagram::Datagram;
use crate::maps::{FLOW_HOLDERS, FLOW_SOCKETS};
use crate::owner::{self, socket_owner};
use crate::skb::Skb;
use crate::storage::flow_table::{flow_at, tag_at};
use crate::tuple::put;

/// Fills the slot of a flow that begins with a packet. The packet itself is not counted.
#[inline(never)]
pub(super) fn fill(skb: Skb, packet: &Datagram, flow: *mut Flow) -> u32 {
    let is_out = packet.way as usize == SENT;
    count::reused(flow);
    // SAFETY: a map value whose tag is BUSY, so that no other CPU uses it.
    unsafe {
        (*flow).check = packet.hashes[1];
        let tick = bpf_jiffies64();
        (*flow).last = tick;
        (*flow).begun = tick;
        (*flow).state = 0;
        (*flow).packets = [0; 2];
        (*flow).bytes = [0; 2];
        (*flow).cookie = packet.cookie;
        (*flow).end_ns = 0;
        (*flow).ended = 0;
        (*flow).cause = 0;
        (*flow).merged = [0; 2];
        (*flow).refused = 0;
        let connection = &mut (*flow).connection;
        let now = bpf_ktime_get_boot_ns();
        connection.id = Connection::id_at(now, bpf_get_smp_processor_id());
        connection.attempt_ns = now;
        connection.established_ns = 0;
        connection.netns = skb.netns();
        connection.family = packet.family;
        connection.state = UNREPLIED;
        connection.flags = 0;
        if is_out {
            connection.direction = OUT;
            (connection.sport, connection.dport) = (packet.local_port, packet.peer_port);
            put(&mut connection.src, packet.local);
            put(&mut connection.dst, packet.peer);
        } else {
            connection.direction = IN;
            (connection.sport, connection.dport) = (packet.peer_port, packet.local_port);
            put(&mut connection.src, packet.peer);
            put(&mut connection.dst, packet.local);
        }
        if config::WANTED_KINDS.load() != 0
            && skb.load(skb.len().wrapping_sub(packet.payload as u32)).is_some_and(quic::begins)
        {
            connection.set(QUIC);
        }
        let sk = skb.socket();
        // A run without owners does not look for holders.
        let holder =
            if config::OWNERS.load() == NO_OWNERS { None } else { FLOW_HOLDERS.get_ptr(&packet.cookie) };
        if !sk.is_null() {
            connection.set_interface((*sk).bound_dev_if);
            // The peer of a socket that was connected before the start.
            if holder.is_some() && u16::from_be((*sk).dst_port) == packet.peer_port {
                connection.set(PREEXISTING);
                connection.attempt_ns = 0;
            }
        }
        if config::OWNERS.load() == NO_OWNERS {
            return 0;
        }
        let owner = &raw mut connection.owner;
        if is_out {
            owner.write(owner::current(SEND));
            if !sk.is_null() {
                socket_owner::replace(sk.cast(), &*owner);
            }
        } else if (sk.is_null() || !socket_owner::read(sk.cast(), owner))
            && !read_first_sender(packet.cookie, owner)
        {
            owner.write(match holder {
                Some(holder) => holder.read(),
                None => Owner::NONE,
            });
        }
    }
    0
}

/// Reads the sender of a socket's first flow into `to`: for a socket that no process has bound. False if there is none.
#[inline(always)]
fn read_first_sender(cookie: u64, to: *mut Owner) -> bool {
    let Some(socket) = FLOW_SOCKETS.get_ptr(socket_index(cookie)) else { return false };
    // SAFETY: words of map values. A copy is used only if no other flow has had the slot meanwhile.
    unsafe {
        if (&raw const (*socket).cookie).read_volatile() != cookie {
            return false;
        }
        let index = (&raw const (*socket).first).read_volatile() as u32;
        let (Some(tag), Some(first)) = (tag_at(index), flow_at(index)) else { return false };
        let before = tag.read_volatile();
        to.write((&raw const (*first).connection.owner).read());
        matches!(phase_of(before), OPEN | CLOSED | EXPIRED)
            && (&raw const (*first).cookie).read_volatile() == cookie
            && (*to).source == SEND
            && tag.read_volatile() == before
    }
}
