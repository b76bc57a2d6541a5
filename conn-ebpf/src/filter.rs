//! The filter of the run: which connections and events go into the ring.

use aya_ebpf::btf_maps::lpm_trie::Key;
use conn_common::connection::Connection;
use conn_common::filter::{
    EITHER_PORT, Filter, Mode, Modes, PORTS_BY_SIDE, PortBits, SHOWS_MARK, Set, Value, mode as set_mode,
    passes, port_place, wants_mark, wants_owner, wants_state, wants_tuple,
};

use crate::kernel::Tcp;
use crate::maps::{DESTINATIONS, SOURCES, VALUES};
use crate::{config, mode};

/// Bits of an address.
const ADDRESS: u32 = 128;

/// The filter of this run. The verifier knows the globals, and removes the sets that are not used.
struct Run;

impl Filter for Run {
    #[inline(always)]
    fn directions(&self) -> u8 {
        config::WANTED_DIRECTIONS.load()
    }

    #[inline(always)]
    fn families(&self) -> u8 {
        config::WANTED_FAMILIES.load()
    }

    #[inline(always)]
    fn states(&self) -> u16 {
        config::WANTED_STATES.load()
    }

    #[inline(always)]
    fn modes(&self) -> Modes {
        config::SET_MODES.load()
    }

    #[inline(always)]
    fn has_port(&self, set: Set, port: u16) -> bool {
        let bits: &'static PortBits =
            if set == Set::Dport { &config::SERVICE_PORTS } else { &config::SOURCE_PORTS };
        let (word, bit) = port_place(port);
        // SAFETY: a port's word is always inside the bitmap; volatile because the loader replaces the
        // values after compilation.
        unsafe { core::ptr::read_volatile(bits.as_ptr().add(word)) & bit != 0 }
    }

    #[inline(always)]
    fn has_address(&self, set: Set, address: [u8; 16]) -> bool {
        let key = Key::new(ADDRESS, address);
        if set == Set::Src { SOURCES.get(&key).is_some() } else { DESTINATIONS.get(&key).is_some() }
    }

    #[inline(always)]
    fn has_value(&self, value: &Value) -> bool {
        VALUES.get_ptr(value).is_some()
    }

    #[inline(always)]
    fn has_mark(&self, mark: u32) -> bool {
        mark & config::MARK_MASK.load() == config::WANTED_MARK.load()
    }
}

/// True if the connection passes the filters: evaluated once, when the tuple is known. In its own function, like the
/// next, so that each program holds it once.
#[inline(never)]
pub(crate) fn wants(connection: &Connection) -> bool {
    wants_tuple(&Run, connection)
}

/// True if the connection passes with the state and the owner of now: evaluated for each event.
#[inline(never)]
pub(crate) fn wants_now(connection: &Connection) -> bool {
    wants_state(&Run, connection.state) && wants_owner(&Run, &connection.owner)
}

/// True if the socket's mark passes: evaluated for each event.
#[inline(always)]
pub(crate) fn wants_mark_of(tcp: Tcp) -> bool {
    wants_mark(&Run, || tcp.mark())
}

/// The same for a mark that is known.
#[inline(always)]
pub(crate) fn wants_mark_number(mark: u32) -> bool {
    wants_mark(&Run, || mark)
}

/// True if user space decides on marks.
#[inline(always)]
pub(crate) fn shows_mark() -> bool {
    Run.modes() & SHOWS_MARK != 0
}

/// True if the run wants sockets in this state listed.
#[inline(always)]
pub(crate) fn lists(state: u8) -> bool {
    wants_state(&Run, state)
}

/// True if the ports of a socket alone may show that the run wants nothing of it. A run with a ledger wants all sockets.
/// If no hook sees connects, a socket gets its source port unseen. Ports of this host and of the peer do not suffice: each
/// is known at another step.
#[inline(always)]
pub(crate) fn may_pass_over() -> bool {
    !mode::has_ledger()
        && config::CONNECT_IS_SEEN.load() != 0
        && Run.modes() & (PORTS_BY_SIDE | EITHER_PORT) == 0
        && !matches!(set_mode(Run.modes(), Set::Dport), Mode::Any)
}

/// True if neither of these ports is a service port that the run wants: the socket then needs no state, whichever side
/// opened the connection. Reads the ports only if the run may pass over a socket.
#[inline(always)]
pub(crate) fn passes_over(ports: impl FnOnce() -> [u16; 2]) -> bool {
    let wants = |port| passes(set_mode(Run.modes(), Set::Dport), || Run.has_port(Set::Dport, port));
    may_pass_over() && !ports().into_iter().any(wants)
}
