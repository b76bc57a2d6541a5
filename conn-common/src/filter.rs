//! The filter that the kernel programs apply before an event reaches the ring. The decision is written once, over
//! [`Filter`]: the programs implement it by frozen globals and maps, tests by the same contents in memory.

use crate::connection::{Connection, LISTENER, OUT, UNDIRECTED};
use crate::event::{CLOSED, LISTEN};
use crate::owner::{COMM, Owner};

/// Both directions.
pub const ANY_DIRECTION: u8 = 0b11;
/// Listeners, in the mask of directions: they have none.
pub const LISTENERS: u8 = 1 << (UNDIRECTED | ROLE);
/// The bit of the role in the number of a bit of that mask, above the direction.
const ROLE: u8 = 1 << 2;
/// Both families.
pub const ANY_FAMILY: u8 = 0b11;
/// Every event kind of connections.
pub const ANY_KIND: u8 = 0b111;
/// The event kinds of listeners.
pub const LISTENER_KINDS: u8 = bit(LISTEN) | bit(CLOSED);
/// Every TCP state.
pub const ANY_STATE: u16 = 0xffff;

/// Words in a bitmap of all ports.
pub const PORT_WORDS: usize = 65_536 / 64;

/// One bit per port: 0 to 65,535.
pub type PortBits = [u64; PORT_WORDS];

/// The bit of a family (4 or 6) in the family mask.
#[inline(always)]
pub const fn family_bit(family: u8) -> u8 {
    if family == 6 { 0b10 } else { 0b01 }
}

/// The bit of a direction or an event kind in its mask.
#[inline(always)]
pub const fn bit(number: u8) -> u8 {
    1 << (number & 7)
}

/// The bit of a connection's direction in its mask, or [`LISTENERS`].
#[inline(always)]
pub const fn direction_bit(connection: &Connection) -> u8 {
    // Without a branch, which the verifier would follow both ways.
    const { assert!(LISTENER >> 5 == ROLE) };
    bit((connection.direction & 3) | (connection.flags & LISTENER) >> 5)
}

/// The bit of a TCP state in the mask of states.
#[inline(always)]
pub const fn state_bit(state: u8) -> u16 {
    1 << (state & 15)
}

/// Word and bit of `port` in a [`PortBits`].
#[inline(always)]
pub const fn port_place(port: u16) -> (usize, u64) {
    ((port >> 6) as usize, 1 << (port & 63))
}

/// The fields that a filter may have a set of values for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Set {
    /// Initiators' addresses; with [`ADDRESSES_BY_SIDE`] those of this host.
    Src,
    /// Responders' addresses; with [`ADDRESSES_BY_SIDE`] those of peers.
    Dst,
    /// Initiators' ports; with [`PORTS_BY_SIDE`] those of this host.
    Sport,
    /// Responders' ports; with [`PORTS_BY_SIDE`] those of peers.
    Dport,
    /// Network namespaces.
    Netns,
    /// Owners' processes.
    Pid,
    /// Owners' users.
    Uid,
    /// Owners' cgroups.
    Cgroup,
    /// Names of owners' processes.
    Comm,
    /// Marks of sockets: one value under a mask.
    Mark,
}

/// The effect of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// All values pass: there is no set.
    Any,
    /// Only members pass.
    Only,
    /// Members do not pass.
    Except,
}

/// Two bits for each [`Set`], and flags above them.
pub type Modes = u32;

/// The sets of ports are of this host and of the peer, not of the initiator and of the responder.
pub const PORTS_BY_SIDE: Modes = 1 << 31;
/// The same for addresses.
pub const ADDRESSES_BY_SIDE: Modes = 1 << 30;
/// One of the two sets of ports suffices; otherwise both must let a connection through.
pub const EITHER_PORT: Modes = 1 << 29;
/// The same for addresses.
pub const EITHER_ADDRESS: Modes = 1 << 28;
/// User space decides on marks: records carry them.
pub const SHOWS_MARK: Modes = 1 << 27;

const _: () = assert!((Set::Mark as u32 + 1) * 2 <= 27);

/// `modes` with the mode of one set.
pub const fn with_mode(modes: Modes, set: Set, mode: Mode) -> Modes {
    let shift = set as u32 * 2;
    modes & !(0b11 << shift) | (mode as u32) << shift
}

/// The mode of a set.
#[inline(always)]
pub const fn mode(modes: Modes, set: Set) -> Mode {
    match modes >> (set as u32 * 2) & 0b11 {
        0 => Mode::Any,
        1 => Mode::Only,
        _ => Mode::Except,
    }
}

/// A member of the sets that are kept by single values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Value {
    /// A [`Set`].
    pub set: u32,
    /// 1; 0 for an owner that is not known.
    pub known: u32,
    /// A number and 0, or the 16 bytes of a name, the first of them lowest.
    pub words: [u64; 2],
}

const _: () = assert!(size_of::<Value>() == 24);

impl Value {
    /// A number.
    #[inline(always)]
    pub const fn number(set: Set, number: u64) -> Self {
        Self { set: set as u32, known: 1, words: [number, 0] }
    }

    /// A name.
    #[inline(always)]
    pub const fn name(set: Set, name: &[u8; COMM]) -> Self {
        let bits = u128::from_le_bytes(*name);
        let words = [bits as u64, (bits >> 64) as u64];
        Self { set: set as u32, known: 1, words: until_zero(words) }
    }

    /// An owner that is not known.
    #[inline(always)]
    pub const fn unknown(set: Set) -> Self {
        Self { set: set as u32, known: 0, words: [0; 2] }
    }

    /// The value of an owner.
    #[inline(always)]
    pub const fn of_owner(set: Set, owner: &Owner) -> Self {
        if !owner.is_known() {
            return Self::unknown(set);
        }
        match set {
            Set::Pid => Self::number(set, owner.pid as u64),
            Set::Uid => Self::number(set, owner.uid as u64),
            Set::Cgroup => Self::number(set, owner.cgroup),
            _ => Self::name(set, &owner.comm),
        }
    }
}

/// A name without the bytes behind its closing zero: older kernels leave the end of an earlier, longer name there.
#[inline(always)]
const fn until_zero([low, high]: [u64; 2]) -> [u64; 2] {
    let low_end = end(low);
    if low_end == u64::MAX { [low, high & end(high)] } else { [low & low_end, 0] }
}

/// All bits before the first byte that is zero.
#[inline(always)]
const fn end(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    // The highest bit of the first byte that is zero, and of some behind it.
    let zeros = word.wrapping_sub(ONES) & !word & (ONES << 7);
    if zeros == 0 { u64::MAX } else { ((zeros & zeros.wrapping_neg()) >> 7).wrapping_sub(1) }
}

/// An address as the tries have it: IPv4 behind `::ffff:0:0`.
#[inline(always)]
pub const fn address(family: u8, bytes: &[u8; 16]) -> [u8; 16] {
    if family == 6 {
        return *bytes;
    }
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, bytes[0], bytes[1], bytes[2], bytes[3]]
}

/// The contents of a filter.
pub trait Filter {
    /// Mask of wanted directions.
    fn directions(&self) -> u8;
    /// Mask of wanted families.
    fn families(&self) -> u8;
    /// Mask of wanted states.
    fn states(&self) -> u16;
    /// The modes of its sets.
    fn modes(&self) -> Modes;
    /// True if the set ([`Set::Sport`] or [`Set::Dport`]) has the port.
    fn has_port(&self, set: Set, port: u16) -> bool;
    /// True if a prefix of the set ([`Set::Src`] or [`Set::Dst`]) has the address.
    fn has_address(&self, set: Set, address: [u8; 16]) -> bool;
    /// True if the value's set has it.
    fn has_value(&self, value: &Value) -> bool;
    /// True if the mark is the wanted one under the wanted mask.
    fn has_mark(&self, mark: u32) -> bool;
}

/// True if the fields pass that never change: evaluated once, when the tuple is known.
#[inline(always)]
pub fn wants_tuple(filter: &impl Filter, connection: &Connection) -> bool {
    let modes = filter.modes();
    filter.directions() & direction_bit(connection) != 0
        && filter.families() & family_bit(connection.family) != 0
        && both(
            modes & EITHER_PORT != 0,
            || passes(mode(modes, Set::Dport), || filter.has_port(Set::Dport, ports(modes, connection)[1])),
            || passes(mode(modes, Set::Sport), || filter.has_port(Set::Sport, ports(modes, connection)[0])),
        )
        && passes(mode(modes, Set::Netns), || {
            filter.has_value(&Value::number(Set::Netns, connection.netns.into()))
        })
        && both(
            modes & EITHER_ADDRESS != 0,
            || passes(mode(modes, Set::Src), || filter.has_address(Set::Src, first(modes, connection))),
            || passes(mode(modes, Set::Dst), || filter.has_address(Set::Dst, second(modes, connection))),
        )
}

/// True if both tests hold; with `either`, if one of them does. The second runs only if it decides.
#[inline(always)]
fn both(either: bool, first: impl FnOnce() -> bool, second: impl FnOnce() -> bool) -> bool {
    if first() == either { either } else { second() }
}

/// All ones if the sets with the flag are by side and the responder is this host, else 0. Without a branch, which the
/// verifier would follow both ways.
#[inline(always)]
const fn turned(modes: Modes, by_side: Modes, connection: &Connection) -> u64 {
    const { assert!(OUT & 1 == 1 && UNDIRECTED & 1 == 1 && LISTENER >> 7 == 1) };
    let is_responder_ours = !connection.direction & 1 | connection.flags >> 7;
    let is_by_side = (modes & by_side != 0) as u64;
    (is_responder_ours as u64 & is_by_side).wrapping_neg()
}

/// The two ports that the sets `Sport` and `Dport` test.
#[inline(always)]
const fn ports(modes: Modes, connection: &Connection) -> [u16; 2] {
    let Connection { sport, dport, .. } = *connection;
    let change = (sport ^ dport) & turned(modes, PORTS_BY_SIDE, connection) as u16;
    [sport ^ change, dport ^ change]
}

/// The address that the set `Src` tests.
#[inline(always)]
const fn first(modes: Modes, connection: &Connection) -> [u8; 16] {
    address(connection.family, &select(modes, connection, &connection.src, &connection.dst))
}

/// The address that the set `Dst` tests.
#[inline(always)]
const fn second(modes: Modes, connection: &Connection) -> [u8; 16] {
    address(connection.family, &select(modes, connection, &connection.dst, &connection.src))
}

#[inline(always)]
const fn select(modes: Modes, connection: &Connection, plain: &[u8; 16], other: &[u8; 16]) -> [u8; 16] {
    // In words of 64 bits: LLVM makes a call of a selection of 128.
    let mask = turned(modes, ADDRESSES_BY_SIDE, connection);
    let [plain_low, plain_high] = words(plain);
    let [other_low, other_high] = words(other);
    from_words([plain_low & !mask | other_low & mask, plain_high & !mask | other_high & mask])
}

/// The two halves of an address, in the order of memory.
#[inline(always)]
#[expect(clippy::many_single_char_names, reason = "sixteen bytes by position")]
const fn words(address: &[u8; 16]) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *address;
    [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes([i, j, k, l, m, n, o, p])]
}

#[inline(always)]
#[expect(clippy::many_single_char_names, reason = "sixteen bytes by position")]
const fn from_words([low, high]: [u64; 2]) -> [u8; 16] {
    let [a, b, c, d, e, f, g, h] = low.to_ne_bytes();
    let [i, j, k, l, m, n, o, p] = high.to_ne_bytes();
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}

/// True if the socket's mark passes: evaluated for each event, since a mark may change.
#[inline(always)]
pub fn wants_mark(filter: &impl Filter, mark: impl FnOnce() -> u32) -> bool {
    passes(mode(filter.modes(), Set::Mark), || filter.has_mark(mark()))
}

/// True if the state passes.
#[inline(always)]
pub fn wants_state(filter: &impl Filter, state: u8) -> bool {
    filter.states() & state_bit(state) != 0
}

/// True if the owner passes: evaluated for each event, since an accept comes after the first one.
#[inline(always)]
pub fn wants_owner(filter: &impl Filter, owner: &Owner) -> bool {
    let modes = filter.modes();
    let has = |set| passes(mode(modes, set), || filter.has_value(&Value::of_owner(set, owner)));
    has(Set::Pid) && has(Set::Uid) && has(Set::Cgroup) && has(Set::Comm)
}

/// True if a set with this mode lets a value through.
#[inline(always)]
pub fn passes(mode: Mode, is_member: impl FnOnce() -> bool) -> bool {
    match mode {
        Mode::Any => true,
        Mode::Only => is_member(),
        Mode::Except => !is_member(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn modes_do_not_touch_each_other() {
        let modes = with_mode(with_mode(0, Set::Comm, Mode::Except), Set::Src, Mode::Only);
        assert_eq!((mode(modes, Set::Comm), mode(modes, Set::Src)), (Mode::Except, Mode::Only));
        assert_eq!((mode(modes, Set::Dst), mode(modes, Set::Cgroup)), (Mode::Any, Mode::Any));
        assert_eq!(mode(with_mode(modes, Set::Comm, Mode::Any), Set::Comm), Mode::Any);
    }

    #[test]
    fn addresses_share_one_order() {
        let mut bytes = [7; 16];
        assert_eq!(address(6, &bytes), bytes);
        bytes[..4].copy_from_slice(&[10, 1, 2, 3]);
        assert_eq!(address(4, &bytes)[10..], [0xff, 0xff, 10, 1, 2, 3]);
    }

    proptest! {
        #[test]
        fn names_end_at_their_zero(name in prop::array::uniform16(prop_oneof![Just(0_u8), Just(1), Just(0x80), any::<u8>()])) {
            let mut plain = [0; COMM];
            let end = name.iter().position(|&byte| byte == 0).unwrap_or(COMM);
            plain[..end].copy_from_slice(&name[..end]);
            let words = Value::name(Set::Comm, &name).words;
            let mut seen = [0; COMM];
            seen[..8].copy_from_slice(&words[0].to_le_bytes());
            seen[8..].copy_from_slice(&words[1].to_le_bytes());
            prop_assert_eq!(seen, plain);
        }
    }
}
