//! Which connections and events the run wants: decided here, before the ring.

use conn_common::connection::Connection;
use conn_common::filter::{PortBits, bit, family_bit, port_place};

use crate::config;

/// True if the connection passes the filters. Asked once, when its tuple is known.
#[inline(always)]
pub fn wants(connection: &Connection) -> bool {
    config::WANTED_DIRECTIONS.load() & bit(connection.direction) != 0
        && config::WANTED_FAMILIES.load() & family_bit(connection.family) != 0
        && (config::SERVICE_PORTS_ON.load() == 0 || has(&config::SERVICE_PORTS, connection.dport))
        && (config::SOURCE_PORTS_ON.load() == 0 || has(&config::SOURCE_PORTS, connection.sport))
}

/// True if the run wants events of this kind.
#[inline(always)]
pub fn wants_kind(kind: u8) -> bool {
    config::WANTED_KINDS.load() & bit(kind) != 0
}

#[inline(always)]
fn has(bits: &'static PortBits, port: u16) -> bool {
    let (word, bit) = port_place(port);
    // SAFETY: a port's word is always inside the bitmap; volatile because the loader replaces the
    // values after compilation.
    unsafe { core::ptr::read_volatile(bits.as_ptr().add(word)) & bit != 0 }
}
