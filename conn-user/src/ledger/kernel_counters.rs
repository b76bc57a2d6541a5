//! The second audit: the kernel's own counters of each network namespace, beside the ledger. The counters cover connections
//! that have ended, too, and are proof of another kind than the walk over sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;

use conn_common::cause::Cause;
use conn_common::ledger::Cells as _;
use serde::Serialize;

use crate::host::namespace::{self, Found, Namespace};
use crate::ledger::reader::Ledger;

/// Counters of one namespace (`/proc/net/snmp`, `/proc/net/netstat`), or what they gained. A counter that the kernel lacks
/// is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct KernelCounters {
    /// SYNs of `connect()` that left (`ActiveOpens`).
    pub active_opens: u64,
    /// Children of listeners (`PassiveOpens`).
    pub passive_opens: u64,
    /// Handshakes that failed after a SYN, half-open requests that the peer reset included (`AttemptFails`).
    pub attempt_fails: u64,
    /// Connections that went from `ESTABLISHED` or `CLOSE_WAIT` to `CLOSE` (`EstabResets`).
    pub estab_resets: u64,
    /// Cookies that were sent (`SyncookiesSent`).
    pub syncookies_sent: u64,
    /// Cookies that came back right (`SyncookiesRecv`).
    pub syncookies_received: u64,
    /// Cookies that came back wrong (`SyncookiesFailed`).
    pub syncookies_failed: u64,
    /// SYNs and ACKs that found an accept queue full (`ListenOverflows`).
    pub listen_overflows: u64,
    /// SYNs and ACKs that listeners dropped for want of room (`ListenDrops`).
    pub listen_drops: u64,
}

impl KernelCounters {
    /// Parses both files.
    fn parse(text: &str) -> Self {
        let found = by_name(text);
        let get = |section, name| found.get(&(section, name)).copied().unwrap_or(0);
        Self {
            active_opens: get("Tcp", "ActiveOpens"),
            passive_opens: get("Tcp", "PassiveOpens"),
            attempt_fails: get("Tcp", "AttemptFails"),
            estab_resets: get("Tcp", "EstabResets"),
            syncookies_sent: get("TcpExt", "SyncookiesSent"),
            syncookies_received: get("TcpExt", "SyncookiesRecv"),
            syncookies_failed: get("TcpExt", "SyncookiesFailed"),
            listen_overflows: get("TcpExt", "ListenOverflows"),
            listen_drops: get("TcpExt", "ListenDrops"),
        }
    }

    /// Reads the counters of the namespace of the calling thread. `None` if `/proc` does not show them.
    fn here() -> Option<Self> {
        let read = |file| fs::read_to_string(format!("/proc/thread-self/net/{file}")).ok();
        Some(Self::parse(&(read("snmp")? + &read("netstat")?)))
    }

    /// What was gained since. `None` if a counter is smaller than before: the inode number belongs to another namespace.
    fn since(self, then: Self) -> Option<Self> {
        Some(Self {
            active_opens: self.active_opens.checked_sub(then.active_opens)?,
            passive_opens: self.passive_opens.checked_sub(then.passive_opens)?,
            attempt_fails: self.attempt_fails.checked_sub(then.attempt_fails)?,
            estab_resets: self.estab_resets.checked_sub(then.estab_resets)?,
            syncookies_sent: self.syncookies_sent.checked_sub(then.syncookies_sent)?,
            syncookies_received: self.syncookies_received.checked_sub(then.syncookies_received)?,
            syncookies_failed: self.syncookies_failed.checked_sub(then.syncookies_failed)?,
            listen_overflows: self.listen_overflows.checked_sub(then.listen_overflows)?,
            listen_drops: self.listen_drops.checked_sub(then.listen_drops)?,
        })
    }

    /// Connections that were opened, from either side.
    const fn opened(&self) -> u64 {
        self.active_opens + self.passive_opens
    }
}

/// Readings by inode number of the namespace.
type Readings = BTreeMap<u32, KernelCounters>;

/// Reads the counters of all these namespaces. A namespace that cannot be entered is left out.
pub(super) fn read(namespaces: &[Namespace]) -> Readings {
    namespace::in_each(namespaces, KernelCounters::here)
}

/// Counters by section and name, from pairs of lines: names, then values, each behind the name of the section.
pub(super) fn by_name(text: &str) -> BTreeMap<(&str, &str), u64> {
    let mut found = BTreeMap::new();
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let section = names.split(':').next().unwrap_or_default();
        let values = values.split_ascii_whitespace();
        for (name, value) in names.split_ascii_whitespace().zip(values).skip(1) {
            found.insert((section, name), value.parse().unwrap_or(0));
        }
    }
    found
}

/// The counters at the start, and how many connections the ledger had then.
#[derive(Clone, Debug, Default)]
pub(super) struct Start {
    counters: Readings,
    /// Bounds of the opened connections, by namespace: a reading before that of the counters, and one after.
    opened: BTreeMap<u32, (u64, u64)>,
    /// Namespaces that could not be entered then.
    hidden: BTreeSet<u32>,
}

/// The connections that the ledger has opened in a namespace.
fn opened(ledger: &Ledger, netns: u32) -> u64 {
    ledger.netns.get(&netns).map_or(0, |totals| totals.opened)
}

impl Start {
    /// The counters at the start, read between two readings of the ledger.
    pub(super) fn new(found: &Found, before: &Ledger, counters: Readings, after: &Ledger) -> Self {
        let bounds = |&netns: &u32| (netns, (opened(before, netns), opened(after, netns)));
        let opened = counters.keys().map(bounds).collect();
        let known = found.namespaces.iter().map(|namespace| namespace.inode);
        let unread = known.filter(|netns| !counters.contains_key(netns));
        let hidden = unread.chain(found.hidden.iter().copied()).collect();
        Self { counters, opened, hidden }
    }

    /// Compares what the kernel and the ledger gained. `before` and `after` are readings of the ledger around that of the
    /// counters.
    pub(super) fn compare(&self, before: &Ledger, now: &Readings, after: &Ledger) -> SecondAudit {
        let mut audit = SecondAudit::default();
        // A connection that sent no SYN is one of the ledger's, and none of the kernel's.
        let unsent = after.total().failed_by(Cause::Local);
        for (&netns, &counters) in now {
            // A namespace that was not there at the start began with zeros.
            let then = self.counters.get(&netns).copied().unwrap_or_default();
            let Some(gained) = counters.since(then).filter(|_| !self.hidden.contains(&netns)) else {
                audit.unknown.push(netns);
                continue;
            };
            let (low, high) = self.opened.get(&netns).copied().unwrap_or_default();
            let from = opened(before, netns).saturating_sub(high);
            let to = opened(after, netns).saturating_sub(low);
            let is_less = gained.opened() + unsent < from;
            if is_less && !self.counters.contains_key(&netns) {
                // The ledger may hold the connections of an earlier namespace with this inode number, too.
                audit.unknown.push(netns);
                continue;
            }
            let agrees = !is_less && gained.opened() <= to;
            audit.netns.push(NetnsCounters { netns, gained, ledger_from: from, ledger_to: to, agrees });
        }
        let missing =
            after.netns.keys().filter(|netns| opened(after, **netns) > 0 && !now.contains_key(netns));
        audit.unknown.extend(missing);
        audit
    }
}

/// What the kernel and the ledger counted in one namespace since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct NetnsCounters {
    /// Inode number of the namespace.
    pub netns: u32,
    /// What the kernel's counters gained.
    #[serde(flatten)]
    pub gained: KernelCounters,
    /// Connections that the ledger opened, at the least: connections may begin between the readings.
    pub ledger_from: u64,
    /// The same at the most.
    pub ledger_to: u64,
    /// The kernel's number lies between the two, less the connections that sent no SYN.
    pub agrees: bool,
}

/// The findings of the second audit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct SecondAudit {
    /// By namespace.
    pub netns: Vec<NetnsCounters>,
    /// Namespaces whose counters cannot be read or compared: gone, hidden now or at the start, or an inode number that was
    /// used again.
    pub unknown: Vec<u32>,
}

/// How many namespaces a line names.
const NAMED: usize = 5;

impl SecondAudit {
    /// Lines for people; none if no namespace was read.
    pub(super) fn lines(&self) -> Vec<String> {
        if self.netns.is_empty() {
            return Vec::new();
        }
        let sum = |of: fn(&KernelCounters) -> u64| self.netns.iter().map(|one| of(&one.gained)).sum::<u64>();
        let (active, passive) = (sum(|one| one.active_opens), sum(|one| one.passive_opens));
        let differing: Vec<&NetnsCounters> = self.netns.iter().filter(|one| !one.agrees).collect();
        let verdict = if differing.is_empty() { "agrees" } else { "DIFFERS" };
        let mut line = format!(
            "kernel's counters: {} opened = {active} ActiveOpens + {passive} PassiveOpens: {verdict}",
            active + passive
        );
        if !self.unknown.is_empty() {
            // Writing into a string does not fail.
            _ = write!(line, "; not compared: {} network namespaces", self.unknown.len());
        }
        let mut lines = vec![line];
        lines.extend(differing.iter().take(NAMED).map(|one| {
            format!(
                "kernel's counters: netns {}: {} to {} opened in the ledger, {} in the kernel",
                one.netns,
                one.ledger_from,
                one.ledger_to,
                one.gained.opened()
            )
        }));
        let flooded = self.netns.iter().filter(|one| {
            one.gained.syncookies_sent + one.gained.listen_overflows + one.gained.listen_drops > 0
        });
        lines.extend(flooded.take(NAMED).map(|one| {
            let gained = &one.gained;
            format!(
                "netns {}: cookies sent {}, came back {}, wrong {}; full accept queues met {}, dropped for want of room {}",
                one.netns,
                gained.syncookies_sent,
                gained.syncookies_received,
                gained.syncookies_failed,
                gained.listen_overflows,
                gained.listen_drops
            )
        }));
        lines
    }
}

#[cfg(test)]
mod tests {
    use conn_common::ledger::{Slot, Totals};
    use conn_common::state::SYN_SENT;

    use super::*;
    use crate::ledger::counts::Counts;

    fn ledger(opened: u64) -> Ledger {
        Ledger { netns: BTreeMap::from([(7, Totals { opened, ..Totals::ZERO })]), ..Ledger::default() }
    }

    fn counters(active_opens: u64, passive_opens: u64) -> Readings {
        Readings::from([(7, KernelCounters { active_opens, passive_opens, ..KernelCounters::default() })])
    }

    fn start(opened: u64, counters: Readings) -> Start {
        Start::new(&Found::default(), &ledger(opened), counters, &ledger(opened))
    }

    #[test]
    fn counters_are_found_by_section_and_name() {
        let text = "Ip: Forwarding DefaultTTL\nIp: 1 64\nTcp: MaxConn ActiveOpens PassiveOpens\nTcp: -1 12 34\n\
                    TcpExt: SyncookiesSent ListenDrops\nTcpExt: 5 6\n";
        let found = KernelCounters::parse(text);
        assert_eq!((found.active_opens, found.passive_opens, found.estab_resets), (12, 34, 0));
        assert_eq!((found.syncookies_sent, found.listen_drops), (5, 6));
        assert_eq!(KernelCounters::parse(""), KernelCounters::default());
    }

    #[test]
    fn gains_agree_to_the_unit_while_nothing_moves() {
        let start = start(3, counters(100, 50));
        let compare = |opened, active| start.compare(&ledger(opened), &counters(active, 52), &ledger(opened));
        let audit = compare(8, 103);
        assert_eq!(
            (audit.netns[0].agrees, audit.netns[0].ledger_from, audit.netns[0].ledger_to),
            (true, 5, 5)
        );
        assert!(!compare(9, 103).netns[0].agrees && !compare(7, 103).netns[0].agrees);
        insta::assert_snapshot!(compare(9, 103).lines().join("\n"), @"
        kernel's counters: 5 opened = 3 ActiveOpens + 2 PassiveOpens: DIFFERS
        kernel's counters: netns 7: 6 to 6 opened in the ledger, 5 in the kernel
        ");
    }

    #[test]
    fn gains_lie_between_the_readings_while_connections_begin() {
        let start = start(0, counters(0, 0));
        let compare = |kernel| start.compare(&ledger(10), &counters(kernel, 0), &ledger(20)).netns[0].agrees;
        assert_eq!([9, 10, 20, 21].map(compare), [false, true, true, false]);
    }

    #[test]
    fn connections_without_a_syn_are_none_of_the_kernels() {
        let mut unsent = Slot::ZERO;
        unsent.count_opened(SYN_SENT);
        unsent.count_end(SYN_SENT, Cause::Local);
        let after = Ledger { ports: BTreeMap::from([((1, 80), Counts::of(&unsent))]), ..ledger(6) };
        let audit = start(0, counters(0, 0)).compare(&ledger(6), &counters(5, 0), &after);
        assert!(audit.netns[0].agrees);
    }

    #[test]
    fn namespaces_that_are_gone_or_others_are_not_compared() {
        let began = start(0, counters(5, 5));
        assert_eq!(began.compare(&ledger(1), &Readings::new(), &ledger(1)).unknown, [7]);
        assert_eq!(began.compare(&ledger(1), &counters(1, 5), &ledger(1)).unknown, [7]);
        let hidden = Found { hidden: BTreeSet::from([7]), ..Found::default() };
        let start = Start::new(&hidden, &ledger(0), Readings::new(), &ledger(0));
        assert_eq!(start.compare(&ledger(1), &counters(1, 5), &ledger(1)).unknown, [7]);
        // A namespace that began after the start may have had a forerunner.
        let began = Start::new(&Found::default(), &ledger(0), Readings::new(), &ledger(0));
        assert_eq!(began.compare(&ledger(9), &counters(3, 5), &ledger(9)).unknown, [7]);
        assert!(began.compare(&ledger(8), &counters(3, 5), &ledger(8)).netns[0].agrees);
        assert!(!began.compare(&ledger(7), &counters(3, 5), &ledger(7)).netns[0].agrees);
        assert!(SecondAudit::default().lines().is_empty());
    }
}
