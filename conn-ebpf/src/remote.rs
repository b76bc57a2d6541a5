//! Counts per remote address, in a run that asks for sources. Any other run has no instruction of this: callers compare a
//! global that they load anyway, and the verifier removes what follows. A run that counts remote addresses keeps whole
//! states, which have addresses.
//!
//! A total is added to before the table, and user space reads the table first. So the total is never behind, and the
//! difference is what has no entry.

use aya_ebpf::bindings::BPF_NOEXIST;
use conn_common::connection::{Connection, IN, OUT};
use conn_common::remote::{BY_PREFIX, RemoteCounts, RemoteKey, slot_bit};

use crate::config;
use crate::counter::add;
use crate::maps::{REMOTE_SLOTS, REMOTE_TOTALS, REMOTES, REMOTES_FULL};

/// `E2BIG`: a map has no room.
const NO_ROOM: i32 = -7;

/// The counts of an address that is new.
#[unsafe(no_mangle)]
static NO_REMOTE_COUNTS: RemoteCounts = RemoteCounts::ZERO;

/// A remote address.
#[derive(Clone, Copy)]
pub(crate) struct Remote {
    /// 4 or 6.
    pub family: u8,
    /// The address as two words in memory, network order. IPv4 has the first half of the first word.
    pub words: [u64; 2],
}

/// The places of the counts in [`RemoteCounts`].
const ATTEMPTS: usize = 0;
const REFUSED: usize = 1;
const OPENED: usize = 2;
const FAILED: usize = 3;

const _: () = assert!(
    core::mem::offset_of!(RemoteCounts, attempts) == 8 * ATTEMPTS
        && core::mem::offset_of!(RemoteCounts, refused) == 8 * REFUSED
        && core::mem::offset_of!(RemoteCounts, opened) == 8 * OPENED
        && core::mem::offset_of!(RemoteCounts, failed) == 8 * FAILED
);

/// A half-open request from `remote` begins on a port.
#[inline(always)]
pub(crate) fn record_attempt(remote: Remote, port: u16) {
    count::<ATTEMPTS>(remote.words[0], remote.words[1], what(remote.family, IN, port));
}

/// This host refuses a SYN from `remote` to a port.
#[inline(always)]
pub(crate) fn record_refused(remote: Remote, port: u16) {
    count::<REFUSED>(remote.words[0], remote.words[1], what(remote.family, IN, port));
}

/// A connection begins, and its tuple is known.
#[inline(always)]
pub(crate) fn record_opened(connection: &Connection) {
    record::<OPENED>(connection);
}

/// A connection ends that was never established.
#[inline(always)]
pub(crate) fn record_failed(connection: &Connection) {
    record::<FAILED>(connection);
}

#[inline(always)]
fn record<const CELL: usize>(connection: &Connection) {
    let address = if connection.direction == OUT { &connection.dst } else { &connection.src };
    let mut halves = [[0_u8; 8]; 2];
    halves[0].copy_from_slice(&address[..8]);
    halves[1].copy_from_slice(&address[8..]);
    let words = halves.map(u64::from_ne_bytes);
    count::<CELL>(words[0], words[1], what(connection.family, connection.direction, connection.dport));
}

/// Family, direction and service port in one word.
#[inline(always)]
fn what(family: u8, direction: u8, port: u16) -> u32 {
    u32::from(family) << 24 | u32::from(direction) << 16 | u32::from(port)
}

/// True if the run wants the remote addresses of this direction and service port.
#[inline(always)]
fn is_wanted(direction: u8, port: u16) -> bool {
    if config::REMOTES_OF_SLOTS.load() == 0 {
        return true;
    }
    let (word, bit) = slot_bit(direction, port);
    REMOTE_SLOTS.get(word).is_some_and(|word| word & bit != 0)
}

#[inline(always)]
fn add_to_total<const CELL: usize>() {
    if let Some(total) = REMOTE_TOTALS.get_ptr_mut(0) {
        // SAFETY: a cell of a map value, see the constants.
        add(unsafe { total.cast::<u64>().add(CELL) }, 1);
    }
}

/// Adds one to a count. In its own function, so that each program holds it once.
#[inline(never)]
fn count<const CELL: usize>(first: u64, second: u64, what: u32) -> u32 {
    let (family, direction, port) = ((what >> 24) as u8, (what >> 16) as u8, what as u16);
    if !is_wanted(direction, port) {
        return 0;
    }
    add_to_total::<CELL>();
    let mut words = [first, second];
    if config::REMOTES_BY.load() == BY_PREFIX {
        // The bytes of a /24 and of a /64 on a little-endian host.
        words = [if family == 4 { first & 0x00ff_ffff } else { first }, 0];
    }
    let mut address = [0; 16];
    address[..8].copy_from_slice(&words[0].to_ne_bytes());
    address[8..].copy_from_slice(&words[1].to_ne_bytes());
    let key = RemoteKey { address, family, direction, reserved: [0; 6] };
    if let Some(counts) = counts(&key) {
        // SAFETY: as above.
        add(unsafe { counts.cast::<u64>().add(CELL) }, 1);
    }
    0
}

/// The counts of an address, which are made if there are none. Nothing is ever deleted, so a table without room stays so.
#[inline(always)]
fn counts(key: &RemoteKey) -> Option<*mut RemoteCounts> {
    if let Some(counts) = REMOTES.get_ptr_mut(key) {
        return Some(counts);
    }
    let is_full = REMOTES_FULL.get_ptr_mut(0)?;
    // SAFETY: a map value. Volatile: other CPUs write it.
    if unsafe { is_full.read_volatile() } != 0 {
        return None;
    }
    // Another CPU may insert the same address first; then the second lookup finds it.
    if let Err(error) = REMOTES.insert(key, &NO_REMOTE_COUNTS, BPF_NOEXIST.into())
        && error == NO_ROOM
    {
        // SAFETY: as above.
        unsafe { is_full.write_volatile(1) };
    }
    REMOTES.get_ptr_mut(key)
}
