//! Counts of flows per port, and of packets per network namespace, in a run that counts flows.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use conn_common::connection::PREEXISTING;
use conn_common::counter::NETNS_FAILED;
use conn_common::flow::{Flow, RECEIVED, REPLIED, SENT};
use conn_common::flow_counts::{self, CELLS, FlowTraffic};

use crate::config;
use crate::counter::{add, count};
use crate::datagram::Datagram;
use crate::maps::{FLOW_COUNTS, FLOW_NETNS};
use crate::skb::Skb;
use crate::storage::assoc_table::take;

/// True in a run that counts flows.
#[inline(always)]
fn is_on() -> bool {
    config::FLOWS_COUNTED.load() != 0
}

/// Adds to a cell of a direction and service port.
#[inline(always)]
fn add_to(index: u32, cell: usize, amount: u64) {
    if let Some(counts) = FLOW_COUNTS.get_ptr_mut(index) {
        // SAFETY: a cell of a map value: the number of a cell is less than their count.
        add(unsafe { counts.cast::<u64>().add(cell % CELLS) }, amount);
    }
}

/// The entry of a flow.
///
/// # Safety
/// The flow is a map value.
#[inline(always)]
unsafe fn index(flow: *mut Flow) -> u32 {
    // SAFETY: see above.
    let connection = unsafe { &(*flow).connection };
    flow_counts::index(connection.direction, connection.dport)
}

/// A flow begins.
#[inline(always)]
pub(super) fn begun(flow: *mut Flow) {
    if is_on() {
        // SAFETY: a map value.
        let (index, found) = unsafe { (index(flow), (*flow).connection.is(PREEXISTING)) };
        add_to(index, if found { flow_counts::PREEXISTING } else { flow_counts::BEGUN }, 1);
    }
}

/// A flow has another state.
#[inline(always)]
pub(super) fn stepped(flow: *mut Flow, state: u8) {
    if is_on() {
        let cell = if state == REPLIED { flow_counts::REPLIED } else { flow_counts::ASSURED };
        // SAFETY: a map value.
        add_to(unsafe { index(flow) }, cell, 1);
    }
}

/// A flow ends for the cause with this number, and its packets count.
#[inline(always)]
pub(super) fn ended(flow: *mut Flow, cause: u8) {
    if is_on() {
        // SAFETY: a map value.
        add_to(unsafe { index(flow) }, flow_counts::end_cell(cause), 1);
        add_traffic(flow);
    }
}

/// The slot of a flow that ended gets another flow: packets that were under way at the end count now.
#[inline(always)]
pub(super) fn reused(flow: *mut Flow) {
    if is_on() {
        add_traffic(flow);
    }
}

/// Takes the packets and bytes out of a slot, and counts them.
#[inline(never)]
fn add_traffic(flow: *mut Flow) -> u32 {
    // SAFETY: cells of a map value.
    unsafe {
        // A packet that is under way has added some of its numbers: each is taken when it is there.
        let mut traffic = FlowTraffic { packets: [0; 2], merged: [0; 2] };
        let index = index(flow);
        if (*flow).packets[SENT] | (*flow).bytes[SENT] != 0 {
            traffic.packets[SENT] = take(&raw mut (*flow).packets[0]);
            add_to(index, flow_counts::PACKETS_SENT, traffic.packets[SENT]);
            add_to(index, flow_counts::BYTES_SENT, take(&raw mut (*flow).bytes[0]));
        }
        if (*flow).packets[RECEIVED] | (*flow).bytes[RECEIVED] != 0 {
            traffic.packets[RECEIVED] = take(&raw mut (*flow).packets[1]);
            add_to(index, flow_counts::PACKETS_RECEIVED, traffic.packets[RECEIVED]);
            add_to(index, flow_counts::BYTES_RECEIVED, take(&raw mut (*flow).bytes[1]));
        }
        let has_merged = (*flow).merged[SENT] | (*flow).merged[RECEIVED] != 0;
        if has_merged {
            traffic.merged = [take(&raw mut (*flow).merged[0]), take(&raw mut (*flow).merged[1])];
        }
        if traffic.packets[SENT] | traffic.packets[RECEIVED] == 0 && !has_merged {
            return 0;
        }
        add_to_netns((*flow).connection.netns, &traffic);
    }
    0
}

/// A packet is counted in no flow.
#[inline(always)]
pub(super) fn untracked(skb: Skb, packet: &Datagram) {
    if is_on() {
        let (segments, merged) = (packet.segments.into(), u64::from(packet.segments) - 1);
        let traffic = if packet.way as usize == SENT {
            FlowTraffic { packets: [segments, 0], merged: [merged, 0] }
        } else {
            FlowTraffic { packets: [0, segments], merged: [0, merged] }
        };
        add_to_netns(skb.netns(), &traffic);
    }
}

/// Adds to the packets of a network namespace.
#[inline(always)]
fn add_to_netns(netns: u32, traffic: &FlowTraffic) {
    // SAFETY: no preconditions.
    let key = flow_counts::netns_key(netns, unsafe { bpf_get_smp_processor_id() });
    let known = FLOW_NETNS.get_ptr_mut(&key).or_else(|| {
        // Another CPU may insert it first.
        let _ = FLOW_NETNS.insert(&key, &FlowTraffic { packets: [0; 2], merged: [0; 2] }, BPF_NOEXIST.into());
        FLOW_NETNS.get_ptr_mut(&key)
    });
    let Some(sum) = known else {
        count(NETNS_FAILED);
        return;
    };
    // SAFETY: cells of a map value.
    unsafe {
        add(&raw mut (*sum).packets[0], traffic.packets[0]);
        add(&raw mut (*sum).packets[1], traffic.packets[1]);
        if traffic.merged[0] | traffic.merged[1] != 0 {
            add(&raw mut (*sum).merged[0], traffic.merged[0]);
            add(&raw mut (*sum).merged[1], traffic.merged[1]);
        }
    }
}

/// A packet found the receive buffer of a socket with this port full.
#[inline(always)]
pub(crate) fn dropped(port: u16) {
    add_to(flow_counts::index(conn_common::connection::IN, port), flow_counts::DROPPED, 1);
}
