//! How the kernel programs are to run.

use conn_common::connection::LISTENER;
use conn_common::filter::bit;
use conn_common::name::{self, LIST_HALF_OPEN, LIST_TIME_WAIT};
use conn_common::state::{FIN_WAIT2, SYN_RECV, TIME_WAIT};

use crate::filter::{Filter, KernelPart};
use crate::host::accept_hook::AcceptHook;
use crate::host::plan::HookSet;

/// The smallest ring there is, for runs that use none.
const NO_RING: u32 = 4096;

/// True if there may be tables with places to take. Other processors' compilers did not know the instruction for that
/// when Linux 5.15 came: arm64's has it since 5.18.
pub(crate) const HAS_PLACES: bool = cfg!(target_arch = "x86_64");

/// What a run asks of them.
#[derive(Debug)]
pub struct Options {
    /// Mask of event kinds that go into the ring; 0 to only count.
    pub kinds: u8,
    /// Which connections, as far as the programs decide it.
    pub filter: KernelPart,
    /// Bytes of the ring, a power of two and a multiple of the page size.
    pub ring_bytes: u32,
    /// The programs' own log lines.
    pub log: bool,
    /// Hooks to use instead of the planned ones.
    pub hooks: Option<HookSet>,
    /// How much is asked about owners, see [`name::OWNERS`].
    pub owners: u8,
    /// What lists show beside what is counted, see [`name::LISTED`].
    pub listed: u8,
    /// Steps go into the ledger.
    pub counts: bool,
    /// Handshakes and lifetimes go into histograms.
    pub spans: bool,
    /// The hook that sees who accepts, instead of the best there is.
    pub accept_hook: Option<AcceptHook>,
}

impl Options {
    /// Nothing goes into the ring; iterators list what passes the filter.
    pub fn lists(filter: &Filter) -> Self {
        Self {
            kinds: 0,
            filter: filter.kernel_part().clone(),
            ring_bytes: NO_RING,
            log: false,
            hooks: None,
            owners: name::NO_OWNERS,
            listed: 0,
            counts: false,
            spans: false,
            accept_hook: None,
        }
    }

    /// The iterators write listeners, or the connections of `filter` with the states that it asks for.
    pub fn for_sockets(filter: &Filter, listening: bool) -> Self {
        if listening {
            // Listeners have no direction and no peer, so the kernel filters by the role alone.
            let filter_part = KernelPart { directions: bit(LISTENER), ..KernelPart::all() };
            return Self { filter: filter_part, ..Self::lists(filter) };
        }
        let asked = |state, bit| if filter.asks_for_state(state) { bit } else { 0 };
        // A TIME_WAIT socket, which no process holds, may also stand in FIN_WAIT2.
        let listed = asked(TIME_WAIT, LIST_TIME_WAIT)
            | asked(FIN_WAIT2, LIST_TIME_WAIT)
            | asked(SYN_RECV, LIST_HALF_OPEN);
        Self { listed, ..Self::lists(filter) }
    }

    /// Nothing goes into the ring; the ledger counts everything, and so do the lists that prove it.
    pub fn counting() -> Self {
        Self { counts: true, ..Self::lists(&Filter::all()) }
    }

    /// Nobody looks at events, owners or times.
    pub(crate) fn only_counts(&self) -> bool {
        self.kinds == 0 && !self.spans
    }

    /// How many bits count the places of the table of what sockets remember, on a host with so many open files: 1.5 to
    /// 6 MB where little is remembered, else 2.4 to 19 MB. 0 if there is none, and sockets remember in socket storage.
    pub(crate) fn place_bits(&self, hooks: HookSet, open_files: u32) -> u32 {
        // Somebody has to see each beginning, and somebody each end.
        let has_table = HAS_PLACES && hooks.sock_ops && hooks.destroy_sock;
        let bits = open_files.clamp(1, 1 << 20).next_power_of_two().ilog2();
        match (has_table, self.only_counts()) {
            (true, false) => bits.clamp(14, 17),
            (true, true) if self.counts => bits.clamp(16, 18),
            _ => 0,
        }
    }

    /// How many sockets there is room for, beside the places, whose owner was seen, until their next step takes it over.
    /// Whoever is accepted and then says nothing for hours takes room for so long. 4 to 64 MB.
    pub(crate) fn claims(&self, open_files: u32) -> u32 {
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
    fn there_is_room_for_what_the_host_has_open() {
        let all = HookSet { set_state: true, sock_ops: true, destroy_sock: true, ..HookSet::NONE };
        let counting = Options::counting();
        let events = Options { kinds: 1, owners: name::HOLDERS, ..Options::lists(&Filter::all()) };
        for (open_files, claims, places, counted) in
            [(0, 18, 14, 16), (100_000, 18, 17, 17), (300_000, 20, 17, 18), (u32::MAX, 22, 17, 18)]
        {
            assert_eq!(events.claims(open_files), 1 << claims);
            assert_eq!(counting.claims(open_files), 1);
            if HAS_PLACES {
                assert_eq!(events.place_bits(all, open_files), places);
                assert_eq!(counting.place_bits(all, open_files), counted);
            }
        }
        let blind = HookSet { sock_ops: false, ..all };
        assert_eq!(counting.place_bits(blind, 0), 0);
    }
}
