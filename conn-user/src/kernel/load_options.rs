//! The options of the kernel programs for a run.

use conn_common::event::ATTEMPT;
use conn_common::filter::{ANY_DIRECTION, LISTENER_KINDS, LISTENERS, bit};
use conn_common::name::{
    self, LIST_CONNECTED, LIST_HALF_OPEN, LIST_TIME_WAIT, LIST_TRAFFIC, LIST_UNCONNECTED,
};
use conn_common::state::{CLOSE, FIN_WAIT2, SYN_RECV, TIME_WAIT};

use crate::filter::expression::Field;
use crate::filter::protocols::Protocols;
use crate::filter::{Filter, KernelPart};
use crate::host::accept_hook::AcceptHook;
use crate::host::plan::{HookSet, Plan};

/// The smallest ring that the kernel makes, in bytes, for runs without events.
const NO_RING: u32 = 4096;

/// True if the programs may use tables with busy slots. A busy slot needs an atomic instruction that arm64 compiles
/// since Linux 5.18 only; x86 compiles it in all kernels from 5.15 on.
pub(crate) const HAS_TABLES: bool = cfg!(target_arch = "x86_64");

/// Sizes that follow from the open files of the host, or from `--buffer-size`. A run that takes maps over has the sizes of
/// these maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HostSizes {
    /// Bytes of the ring.
    pub ring_bytes: u32,
    /// See [`Options::table_bits`].
    pub table_bits: u32,
    /// See [`Options::overflow_states`].
    pub overflow: u32,
    /// See [`Options::pending_owners`].
    pub pending: u32,
}

impl HostSizes {
    /// The sizes of a run that makes its own maps.
    pub(super) fn planned(plan: &Plan, options: &Options) -> Self {
        Self {
            ring_bytes: options.ring_bytes,
            table_bits: options.table_bits(plan.hooks, plan.open_files),
            overflow: options.overflow_states(plan.open_files),
            pending: options.pending_owners(plan.open_files),
        }
    }
}

/// What a run counts per remote address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteOptions {
    /// By address or by prefix, see [`conn_common::remote`].
    pub by: u8,
    /// The directions and service ports that count, as [`conn_common::remote::slot_bit`] has them; `None` for all.
    pub slots: Option<Vec<u64>>,
}

/// The options of a run.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "options that do not depend on each other")]
pub struct Options {
    /// Mask of the event kinds that go into the ring; 0 for none.
    pub kinds: u8,
    /// The protocols whose sockets iterators write.
    pub protocols: Protocols,
    /// The kernel's part of the filter.
    pub filter: KernelPart,
    /// Size of the ring in bytes, a power of two and a multiple of the page size.
    pub ring_bytes: u32,
    /// The programs write log lines.
    pub log: bool,
    /// Hooks to use instead of the planned ones.
    pub hooks: Option<HookSet>,
    /// Which owners the programs look for, see [`name::OWNERS`].
    pub owners: u8,
    /// The rows that the socket iterator writes beside open connections, see [`name::LISTED`].
    pub listed: u8,
    /// The programs count steps in the ledger.
    pub counts: bool,
    /// The programs count handshakes and lifetimes in histograms.
    pub durations: bool,
    /// The programs count per remote address, too.
    pub remotes: Option<RemoteOptions>,
    /// The run has flows of UDP, too, with room for this number of them: a power of two.
    pub flows: Option<u32>,
    /// Flows are counted per port.
    pub flow_counts: bool,
    /// The hook that sees accepts, instead of the best one of this host.
    pub accept_hook: Option<AcceptHook>,
}

impl Options {
    /// Nothing goes into the ring; iterators write the sockets that pass the filter.
    pub fn lists(filter: &Filter) -> Self {
        Self {
            kinds: 0,
            protocols: Protocols::TCP,
            filter: filter.kernel_part().clone(),
            ring_bytes: NO_RING,
            log: false,
            hooks: None,
            owners: name::NO_OWNERS,
            listed: 0,
            counts: false,
            durations: false,
            remotes: None,
            flows: None,
            flow_counts: false,
            accept_hook: None,
        }
    }

    /// The iterators write listeners and UDP sockets without a peer, or the connections of `filter` with the states that it
    /// asks for.
    pub fn for_sockets(filter: &Filter, protocols: Protocols, listening: bool) -> Self {
        if listening {
            // Listeners have no direction and no peer, so the kernel filters by the role alone.
            let filter_part = KernelPart { directions: LISTENERS, ..KernelPart::all() };
            return Self { filter: filter_part, listed: LIST_UNCONNECTED, protocols, ..Self::lists(filter) };
        }
        let asked = |state, bit| if filter.asks_for_state(state) { bit } else { 0 };
        // A TIME_WAIT socket, which no process holds, may also stand in FIN_WAIT2.
        let listed = asked(TIME_WAIT, LIST_TIME_WAIT)
            | asked(FIN_WAIT2, LIST_TIME_WAIT)
            | asked(SYN_RECV, LIST_HALF_OPEN)
            | asked(CLOSE, LIST_UNCONNECTED)
            | LIST_CONNECTED;
        let needs_traffic = filter.asks_for(|field| matches!(field, Field::Bytes | Field::Lifetime));
        let listed = listed | if needs_traffic { LIST_TRAFFIC } else { 0 };
        Self { protocols, listed, ..Self::lists(filter) }
    }

    /// The iterators write the processes of Unix domain sockets.
    pub fn for_unix() -> Self {
        Self { listed: name::LIST_UNIX, protocols: Protocols::UNIX, ..Self::lists(&Filter::all()) }
    }

    /// Nothing goes into the ring; the ledger counts every connection, and iterators write every socket.
    pub fn counting() -> Self {
        Self { counts: true, ..Self::lists(&Filter::all()) }.visiting_listeners()
    }

    /// The same, where audits of a run that counts visit the queues of listeners, too.
    #[must_use]
    pub(crate) fn visiting_listeners(mut self) -> Self {
        if self.counts && self.filter.directions == ANY_DIRECTION {
            self.filter.directions |= LISTENERS;
        }
        self
    }

    /// The same, where the stream has the listeners that pass the filter, if the run wants events of them.
    #[must_use]
    pub(crate) fn showing_listeners(mut self, filter: &Filter) -> Self {
        if self.kinds & LISTENER_KINDS != 0 && filter.admits_listeners() {
            self.filter.directions |= LISTENERS;
        }
        self
    }

    /// The event kinds of sockets: of connections and listeners.
    pub(crate) const fn socket_kinds(&self) -> u8 {
        self.kinds & !bit(ATTEMPT)
    }

    /// True if the run wants an event of each attempt that has made no connection yet.
    pub(crate) const fn wants_attempts(&self) -> bool {
        self.kinds & bit(ATTEMPT) != 0
    }

    /// True if a later process may go on with the maps: those of a run that counts all connections, or those of a stream of
    /// connections and listeners.
    pub(super) fn may_be_pinned(&self) -> bool {
        let counts_all = self.counts && self.kinds == 0 && self.filter == Self::counting().filter;
        let only_streams = self.is_stream() && !self.counts && !self.durations && !self.wants_attempts();
        self.flows.is_none()
            && self.remotes.as_ref().is_none_or(|remotes| remotes.slots.is_none())
            && (counts_all || only_streams)
    }

    /// True if events go into the ring.
    pub(super) const fn is_stream(&self) -> bool {
        self.kinds != 0
    }

    /// True if the run needs neither events nor owners nor times nor addresses.
    pub(crate) fn only_counts(&self) -> bool {
        self.socket_kinds() == 0 && !self.durations && self.remotes.is_none()
    }

    /// The size of the table of socket states as a power of two, on a host with so many open files: 1.5 to 6 MB if
    /// the run only counts, else 2.4 to 19 MB. 0 if there is no table, and socket storage holds all states.
    pub(crate) fn table_bits(&self, hooks: HookSet, open_files: u32) -> u32 {
        // One hook must see each beginning, and one each end.
        let has_table = HAS_TABLES && hooks.sock_ops && hooks.destroy_sock;
        if has_table { self.state_bits(open_files) } else { 0 }
    }

    /// How many states the overflow map may hold, on a host with so many open files: twice as many as the table has
    /// slots. Empty, it takes 0.5 to 8 MiB. Full, it takes 9 to 68 MiB, and 14 to 56 MiB if the run only counts.
    pub(crate) fn overflow_states(&self, open_files: u32) -> u32 {
        match self.state_bits(open_files) {
            0 => 1,
            bits => 2 << bits,
        }
    }

    /// The states that the run keeps, as a power of two; 0 if it keeps none.
    fn state_bits(&self, open_files: u32) -> u32 {
        let bits = open_files.clamp(1, 1 << 20).next_power_of_two().ilog2();
        match self.only_counts() {
            false => bits.clamp(14, 17),
            true if self.counts => bits.clamp(16, 18),
            true => 0,
        }
    }

    /// The size of the map of pending owners, beside the table: an owner is pending until the next step of its
    /// socket. An accepted socket that is idle for hours keeps its entry so long. 4 to 64 MB.
    pub(crate) fn pending_owners(&self, open_files: u32) -> u32 {
        if self.owners == name::HOLDERS {
            open_files.saturating_mul(2).clamp(1 << 18, 1 << 22).next_power_of_two()
        } else {
            1
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::Filter;

    #[test]
    fn tables_have_room_for_the_open_files() {
        let all = HookSet { set_state: true, sock_ops: true, destroy_sock: true, ..HookSet::NONE };
        let counting = Options::counting();
        let events = Options { kinds: 1, owners: name::HOLDERS, ..Options::lists(&Filter::all()) };
        for (open_files, pending, states, counted) in
            [(0, 18, 14, 16), (100_000, 18, 17, 17), (300_000, 20, 17, 18), (u32::MAX, 22, 17, 18)]
        {
            assert_eq!(events.pending_owners(open_files), 1 << pending);
            assert_eq!(counting.pending_owners(open_files), 1);
            if HAS_TABLES {
                assert_eq!(events.table_bits(all, open_files), states);
                assert_eq!(counting.table_bits(all, open_files), counted);
            }
        }
        assert_eq!((events.overflow_states(0), counting.overflow_states(u32::MAX)), (1 << 15, 1 << 19));
        assert_eq!(Options::lists(&Filter::all()).overflow_states(0), 1);
        let blind = HookSet { sock_ops: false, ..all };
        assert_eq!(counting.table_bits(blind, 0), 0);
    }
}
