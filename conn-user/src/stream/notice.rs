//! Reports of a run beside its events. A consumer decides where a notice goes: text goes to standard error.

use std::fmt;

use crate::enrich::existing::Absent;
use crate::stream::accounting::EventAccounting;
use crate::stream::flow_owners::Missed;

/// A notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// So many events found the ring full.
    Lost(u64),
    /// So many events were taken out of the ring by a process that was killed, and not delivered.
    Undelivered(u64),
    /// So many events were dropped, since standard output took nothing.
    Unwritten(u64),
    /// So many socket states and steps found no room in the tables of the programs.
    Overflowed {
        /// States of sockets.
        states: u64,
        /// Steps of the ledger.
        steps: u64,
    },
    /// So many losses were reported by the kernel without a number, since it had no memory for messages.
    Uncounted(u64),
    /// So many flows that pass through have no owner, since sockets were missed.
    Unnamed {
        /// Flows of TCP or UDP.
        flows: u64,
        /// What the programs could not report.
        missed: Missed,
    },
    /// No network namespace that the run watches tracks a flow now.
    NothingTracked,
    /// The fate of all events of the run.
    Accounting(EventAccounting),
    /// So many open connections may be older than the least age that was asked for.
    UndecidedAge(usize),
    /// A pattern of containers or units matches nothing that runs now.
    Absent(Absent),
    /// The run shows every network namespace, and was started in one that is not the first.
    AllNamespaces,
    /// The run shows TCP, since no option names a protocol.
    OnlyTcp,
    /// The states of the filter include `listening`, and the run shows connections only.
    NoListeners,
    /// Groups that were not printed, since larger ones were.
    SmallerGroups {
        /// How many groups.
        groups: usize,
        /// How many connections are in them.
        open: u64,
    },
    /// How many lines were printed, and of what.
    Shown {
        /// The number of lines.
        count: u64,
        /// The noun of conntrack's last line.
        noun: &'static str,
    },
    /// A report of several lines, with its line ends.
    Report(String),
}

impl fmt::Display for Notice {
    /// Writes the whole lines of the notice.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(count) => writeln!(
                f,
                "conntrace: {count} events were lost, because the buffer was full. Use a larger --buffer-size, or a filter"
            ),
            Self::Undelivered(count) => {
                writeln!(f, "conntrace: {count} events were lost, because they were on their way when the daemon ended")
            }
            Self::Unwritten(count) => writeln!(
                f,
                "conntrace: {count} events were not written, because the reader of standard output was too slow. Use \
                 a faster reader, or a filter"
            ),
            Self::Overflowed { states, steps } => writeln!(
                f,
                "conntrace: a table of the kernel programs is full: {states} states of sockets and {steps} steps of the \
                 ledger are kept where the programs work slower. Nothing is lost, but connections cost more"
            ),
            Self::Uncounted(count) => writeln!(
                f,
                "conntrace: the kernel had no memory for messages, so at least {count} more events were lost"
            ),
            Self::Unnamed { flows, missed: Missed { records, packets } } => writeln!(
                f,
                "conntrace: {flows} flows began without an owner, because not all sockets were known: {records} records of \
                 sockets found no room, and {packets} packets of UDP (--max-flows)"
            ),
            Self::NothingTracked => f.write_str(
                "conntrace: no network namespace tracks a flow now. Tracking begins with a rule that asks for it, such as \
                 masquerade or ct state; conntrace adds none\n",
            ),
            Self::Accounting(accounting) => writeln!(f, "conntrace: {accounting}"),
            Self::UndecidedAge(count) => writeln!(
                f,
                "conntrace: {count} other connections may be that old. The kernel keeps no start time, and their time \
                 stamps prove less"
            ),
            Self::AllNamespaces => f.write_str(
                "conntrace: this shows all network namespaces; --netns . shows only the one that conntrace runs in\n",
            ),
            Self::OnlyTcp => f.write_str("conntrace: this shows TCP; -p udp, -p all and --forwarded show more\n"),
            Self::NoListeners => {
                f.write_str("conntrace: these are connections only; --state listening alone selects listeners\n")
            }
            Self::SmallerGroups { groups, open } => {
                writeln!(f, "conntrace: not shown: {open} connections in {groups} smaller groups")
            }
            Self::Absent(absent) => writeln!(f, "conntrace: {absent}"),
            Self::Shown { count, noun } => {
                writeln!(f, "conntrace v{}: {count} {noun} have been shown.", env!("CARGO_PKG_VERSION"))
            }
            Self::Report(text) => f.write_str(text),
        }
    }
}
