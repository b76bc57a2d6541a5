//! The audit of UDP flows: the packets that the programs counted, beside the kernel's own counters of each network namespace
//! (`/proc/net/snmp`, `/proc/net/snmp6`).
//!
//! The kernel counts a packet that was sent after the hook of packets, and a packet that was received when a process reads
//! it. So packets that wait for a process, or that no process ever read, are the programs' only.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use conn_common::flow::{RECEIVED, SENT};
use serde::Serialize;

use crate::host::namespace::{self, Found, Namespace};
use crate::kernel::flow_counts::Packets;
use crate::ledger::kernel_counters;

/// Counters of one namespace, IPv4 and IPv6 added up, or what they gained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct UdpCounters {
    /// Packets that were sent (`OutDatagrams`).
    pub out_datagrams: u64,
    /// Packets that found no room on their way out (`SndbufErrors`).
    pub send_errors: u64,
    /// Packets that processes read (`InDatagrams`).
    pub in_datagrams: u64,
    /// Packets that found a receive buffer full (`RcvbufErrors`, `MemErrors`).
    pub receive_errors: u64,
}

impl UdpCounters {
    /// Parses `snmp`, which has a line of names before one of values, and `snmp6`, which has a name and a value in each line.
    fn parse(snmp: &str, snmp6: &str) -> Self {
        let of_udp = kernel_counters::by_name(snmp).into_iter().filter(|((section, _), _)| *section == "Udp");
        let mut found: BTreeMap<&str, u64> = of_udp.map(|((_, name), value)| (name, value)).collect();
        for line in snmp6.lines() {
            let mut words = line.split_ascii_whitespace();
            if let Some(name) = words.next().and_then(|name| name.strip_prefix("Udp6"))
                && let Some(value) = words.next().and_then(|value| value.parse::<u64>().ok())
            {
                *found.entry(name).or_default() += value;
            }
        }
        let get = |name| found.get(name).copied().unwrap_or(0);
        Self {
            out_datagrams: get("OutDatagrams"),
            send_errors: get("SndbufErrors"),
            in_datagrams: get("InDatagrams"),
            receive_errors: get("RcvbufErrors") + get("MemErrors"),
        }
    }

    /// Reads the counters of the namespace of the calling thread. `None` if `/proc` does not show them.
    fn here() -> Option<Self> {
        let read = |file| fs::read_to_string(format!("/proc/thread-self/net/{file}"));
        // A kernel without IPv6 has no second file.
        Some(Self::parse(&read("snmp").ok()?, &read("snmp6").unwrap_or_default()))
    }

    /// What was gained since. `None` if a counter is smaller than before: the inode number belongs to another namespace.
    fn since(self, then: Self) -> Option<Self> {
        Some(Self {
            out_datagrams: self.out_datagrams.checked_sub(then.out_datagrams)?,
            send_errors: self.send_errors.checked_sub(then.send_errors)?,
            in_datagrams: self.in_datagrams.checked_sub(then.in_datagrams)?,
            receive_errors: self.receive_errors.checked_sub(then.receive_errors)?,
        })
    }
}

/// Counters by inode number of the namespace.
type Readings = BTreeMap<u32, UdpCounters>;

/// Reads the counters of all these namespaces. A namespace that cannot be entered is left out.
pub(super) fn read(namespaces: &[Namespace]) -> Readings {
    namespace::in_each(namespaces, UdpCounters::here)
}

/// The counters at the start, and whether packets wait for a process in the namespace.
pub(super) fn read_first(namespaces: &[Namespace]) -> BTreeMap<u32, (UdpCounters, bool)> {
    namespace::in_each(namespaces, || Some((UdpCounters::here()?, has_unread())))
}

/// True if a UDP socket of the namespace of the calling thread has packets that no process has read.
fn has_unread() -> bool {
    // The fifth word of a line is `tx_queue:rx_queue`, in hexadecimal.
    let waits = |line: &str| {
        let queues = line.split_ascii_whitespace().nth(4).and_then(|queues| queues.split_once(':'));
        queues.is_some_and(|(_, receive)| receive.bytes().any(|digit| digit != b'0'))
    };
    ["udp", "udp6"].iter().any(|file| {
        fs::read_to_string(format!("/proc/thread-self/net/{file}"))
            .is_ok_and(|text| text.lines().skip(1).any(waits))
    })
}

/// The counters at the start, and the packets that the programs had counted before and after.
#[derive(Clone, Debug, Default)]
pub(super) struct Start {
    counters: Readings,
    before: Packets,
    after: Packets,
    /// Namespaces that could not be entered then.
    hidden: BTreeSet<u32>,
    /// Namespaces in which packets waited for a process: the kernel counts them later.
    unread: BTreeSet<u32>,
}

impl Start {
    /// The counters at the start, which [`read_first`] read between two readings of the packets.
    pub(super) fn new(
        found: &Found,
        before: Packets,
        first: BTreeMap<u32, (UdpCounters, bool)>,
        after: Packets,
    ) -> Self {
        let known = found.namespaces.iter().map(|namespace| namespace.inode);
        let hidden = known.filter(|netns| !first.contains_key(netns)).chain(found.hidden.iter().copied());
        let unread = first.iter().filter(|(_, (_, is_unread))| *is_unread).map(|(&netns, _)| netns);
        Self {
            hidden: hidden.collect(),
            unread: unread.collect(),
            counters: first.into_iter().map(|(netns, (counters, _))| (netns, counters)).collect(),
            before,
            after,
        }
    }

    /// Compares what the kernel and the programs gained. `before` and `after` are readings of the programs' packets around that
    /// of the counters.
    pub(super) fn compare(&self, before: &Packets, now: &Readings, after: &Packets) -> FlowAudit {
        let mut audit = FlowAudit::default();
        for (&netns, &counters) in now {
            let then = self.counters.get(&netns).copied().unwrap_or_default();
            let Some(gained) = counters.since(then).filter(|_| !self.hidden.contains(&netns)) else {
                audit.unknown.push(netns);
                continue;
            };
            let bounds = |way| {
                let of = |packets: &Packets| packets.get(&netns).map_or(0, |one| one.datagrams(way));
                let from = of(before).saturating_sub(of(&self.after));
                (from, of(after).saturating_sub(of(&self.before)))
            };
            let (sent, received) = (bounds(SENT), bounds(RECEIVED));
            let one = FlowNetns {
                netns,
                gained,
                sent_from: sent.0,
                sent_to: sent.1,
                received_from: received.0,
                received_to: received.1,
                agrees: gained.out_datagrams <= sent.1
                    && sent.0 <= gained.out_datagrams + gained.send_errors
                    && (self.unread.contains(&netns)
                        || gained.in_datagrams + gained.receive_errors <= received.1),
            };
            if !one.agrees && !self.counters.contains_key(&netns) {
                // The programs may have counted packets of an earlier namespace with this inode number, too.
                audit.unknown.push(netns);
                continue;
            }
            audit.netns.push(one);
        }
        let has_packets = |netns: &&u32| after[*netns].packets != [0; 2] && !now.contains_key(*netns);
        audit.unknown.extend(after.keys().filter(has_packets));
        audit
    }
}

/// What the kernel and the programs counted in one namespace since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct FlowNetns {
    /// Inode number of the namespace.
    pub netns: u32,
    /// What the kernel's counters gained.
    #[serde(flatten)]
    pub gained: UdpCounters,
    /// Packets that the programs saw leave, at the least: packets may leave between the readings.
    pub sent_from: u64,
    /// The same at the most.
    pub sent_to: u64,
    /// Packets that the programs saw arrive, at the least.
    pub received_from: u64,
    /// The same at the most.
    pub received_to: u64,
    /// The kernel's counters lie within these bounds.
    pub agrees: bool,
}

impl FlowNetns {
    /// Packets that arrived and that no process has read, and that found no buffer full. Some may have been thrown away with their
    /// socket.
    fn unread(&self) -> u64 {
        self.received_from.saturating_sub(self.gained.in_datagrams + self.gained.receive_errors)
    }
}

/// The findings of an audit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct FlowAudit {
    /// By namespace.
    pub netns: Vec<FlowNetns>,
    /// Namespaces whose counters cannot be read or compared: gone, hidden now or at the start, or an inode number that was
    /// used again.
    pub unknown: Vec<u32>,
}

/// How many namespaces a line names.
const NAMED: usize = 5;

impl FlowAudit {
    /// No namespace differs.
    pub(crate) fn holds(&self) -> bool {
        self.netns.iter().all(|one| one.agrees)
    }

    /// A part of a sentence: the counters and the verdict.
    pub(super) fn summary(&self) -> String {
        let sum = |of: fn(&FlowNetns) -> u64| self.netns.iter().map(of).sum::<u64>();
        let others = match self.unknown.len() {
            0 => String::new(),
            1 => "; 1 network namespace not compared".into(),
            many => format!("; {many} network namespaces not compared"),
        };
        format!(
            "the kernel counts {} sent, {} read, {} dropped, and {} are unread{others}",
            sum(|one| one.gained.out_datagrams),
            sum(|one| one.gained.in_datagrams),
            sum(|one| one.gained.receive_errors),
            sum(FlowNetns::unread),
        )
    }

    /// A line for each of the first namespaces that differ.
    pub(super) fn differences(&self) -> Vec<String> {
        let line = |one: &FlowNetns| {
            let FlowNetns { netns, gained, sent_from, sent_to, received_from, received_to, .. } = *one;
            format!(
                "udp audit: netns {netns}: {sent_from} to {sent_to} packets sent by the programs' count, {} by the kernel's; \
                 {received_from} to {received_to} received, {} by the kernel's",
                gained.out_datagrams,
                gained.in_datagrams + gained.receive_errors
            )
        };
        self.netns.iter().filter(|one| !one.agrees).take(NAMED).map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use conn_common::flow_counts::FlowTraffic;

    use super::*;

    const SNMP: &str = "Ip: Forwarding DefaultTTL\nIp: 1 64\n\
        Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti MemErrors\n\
        Udp: 10 1 3 20 3 4 0 0 1\nUdpLite: InDatagrams\nUdpLite: 99\n";
    const SNMP6: &str =
        "Ip6InReceives 5\nUdp6InDatagrams 1\nUdp6OutDatagrams 2\nUdp6RcvbufErrors 7\nUdpLite6InDatagrams 9\n";

    #[test]
    fn both_families_add_up() {
        let counters = UdpCounters::parse(SNMP, SNMP6);
        let expected =
            UdpCounters { out_datagrams: 22, send_errors: 4, in_datagrams: 11, receive_errors: 11 };
        assert_eq!(counters, expected);
        assert_eq!(UdpCounters::parse("", ""), UdpCounters::default());
    }

    fn packets(sent: u64, received: u64) -> Packets {
        Packets::from([(7, FlowTraffic { packets: [sent, received], merged: [0; 2] })])
    }

    fn counters(out_datagrams: u64, in_datagrams: u64, receive_errors: u64) -> Readings {
        Readings::from([(
            7,
            UdpCounters { out_datagrams, in_datagrams, receive_errors, ..UdpCounters::default() },
        )])
    }

    fn start() -> Start {
        Start {
            counters: counters(100, 100, 0),
            before: packets(5, 5),
            after: packets(5, 5),
            ..Start::default()
        }
    }

    #[test]
    fn packets_agree_to_the_unit_while_nothing_moves() {
        let agrees = |sent, received| {
            let now = packets(sent, received);
            start().compare(&now, &counters(110, 107, 2), &now).netns[0].agrees
        };
        assert!(agrees(15, 14));
        // Packets that no process has read.
        assert!(agrees(15, 20));
        assert!(!agrees(14, 14) && !agrees(16, 14) && !agrees(15, 13));
        let now = packets(16, 13);
        let audit = start().compare(&now, &counters(110, 107, 2), &now);
        insta::assert_snapshot!(audit.differences().join("\n"), @"udp audit: netns 7: 11 to 11 packets sent by the programs' count, 10 by the kernel's; 8 to 8 received, 9 by the kernel's");
        let now = packets(15, 20);
        insta::assert_snapshot!(start().compare(&now, &counters(110, 107, 2), &now).summary(), @"the kernel counts 10 sent, 7 read, 2 dropped, and 6 are unread");
    }

    #[test]
    fn packets_lie_between_the_readings_while_they_move() {
        let agrees = |kernel| {
            start().compare(&packets(15, 5), &counters(kernel, 100, 0), &packets(25, 5)).netns[0].agrees
        };
        assert_eq!([109, 110, 120, 121].map(agrees), [false, true, true, false]);
    }

    #[test]
    fn packets_that_waited_at_the_start_may_be_read_later() {
        let waited = Start { unread: BTreeSet::from([7]), ..start() };
        let now = packets(5, 5);
        assert!(waited.compare(&now, &counters(100, 103, 0), &now).netns[0].agrees);
        assert!(!start().compare(&now, &counters(100, 103, 0), &now).netns[0].agrees);
    }

    #[test]
    fn namespaces_that_are_gone_or_others_are_not_compared() {
        assert_eq!(start().compare(&packets(9, 9), &Readings::new(), &packets(9, 9)).unknown, [7]);
        assert_eq!(start().compare(&packets(9, 9), &counters(1, 1, 0), &packets(9, 9)).unknown, [7]);
        let hidden = Start { hidden: BTreeSet::from([7]), ..Start::default() };
        assert_eq!(hidden.compare(&packets(9, 9), &counters(9, 9, 0), &packets(9, 9)).unknown, [7]);
        // A namespace that began after the start may have had a forerunner.
        let began = Start::default();
        assert_eq!(began.compare(&packets(9, 9), &counters(3, 3, 0), &packets(9, 9)).unknown, [7]);
        let audit = began.compare(&packets(9, 9), &counters(9, 9, 0), &packets(9, 9));
        assert!(audit.holds() && audit.netns.len() == 1 && audit.unknown.is_empty());
    }
}
