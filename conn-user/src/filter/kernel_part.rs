//! The part of a filter that the kernel decides: the contents of globals and maps.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::{Hash as _, Hasher as _};

use conn_common::connection::{IN, OUT};
use conn_common::filter::{
    ADDRESSES_BY_SIDE, ANY_DIRECTION, ANY_FAMILY, ANY_STATE, EITHER_ADDRESS, EITHER_PORT, Filter, Mode,
    Modes, PORT_WORDS, PORTS_BY_SIDE, PortBits, SHOWS_MARK, Set, Value, bit, family_bit, mode, port_place,
    state_bit, with_mode,
};

use crate::filter::expression::field::UNKNOWN;
use crate::filter::expression::{Field, Predicate, Test};
use crate::filter::value::prefix::{self, Block};
use crate::filter::value::ranges::Ranges;

/// The most prefixes of one set in a map.
const MAX_PREFIXES: usize = 1 << 20;
/// The most single values of one set.
const MAX_VALUES: u128 = 1 << 16;

/// The kernel's part of a filter.
#[derive(Clone, PartialEq, Eq)]
pub struct KernelPart {
    /// Mask of directions.
    pub directions: u8,
    /// Mask of families.
    pub families: u8,
    /// Mask of states.
    pub states: u16,
    /// The mode of each set: any, only, or except. Its flags say which ends the ports and addresses are of.
    pub modes: Modes,
    /// Service ports or the peer's ports, if the filter tests them.
    pub dports: Option<Box<PortBits>>,
    /// Source ports or this host's ports, if the filter tests them.
    pub sports: Option<Box<PortBits>>,
    /// Prefixes of initiators, or of this host.
    pub sources: Vec<Block>,
    /// Prefixes of responders, or of peers.
    pub destinations: Vec<Block>,
    /// The wanted mark.
    pub mark: u32,
    /// The bits of a mark that count.
    pub mark_mask: u32,
    /// Single values of the other sets.
    pub values: HashSet<Value>,
}

impl Default for KernelPart {
    fn default() -> Self {
        Self::all()
    }
}

impl fmt::Debug for KernelPart {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("KernelPart")
            .field("directions", &self.directions)
            .field("families", &self.families)
            .field("states", &self.states)
            .field("modes", &self.modes)
            .field("prefixes", &(self.sources.len() + self.destinations.len()))
            .field("values", &self.values.len())
            .finish_non_exhaustive()
    }
}

impl KernelPart {
    /// Every connection.
    pub fn all() -> Self {
        Self {
            directions: ANY_DIRECTION,
            families: ANY_FAMILY,
            states: ANY_STATE,
            modes: 0,
            dports: None,
            sports: None,
            sources: Vec::new(),
            destinations: Vec::new(),
            mark: 0,
            mark_mask: 0,
            values: HashSet::new(),
        }
    }

    /// A number that differs between filters. One build gives a filter the same number in each process.
    pub(crate) fn fingerprint(&self) -> u64 {
        let of = |part: &dyn Fn(&mut DefaultHasher)| {
            let mut hasher = DefaultHasher::new();
            part(&mut hasher);
            hasher.finish()
        };
        let sets = of(&|hasher| {
            (self.directions, self.families, self.states, self.mark, self.mark_mask).hash(hasher);
            format!("{:?} {:?} {:?}", self.modes, self.sources, self.destinations).hash(hasher);
            format!("{:?} {:?}", self.dports, self.sports).hash(hasher);
        });
        // A set has no order.
        self.values.iter().fold(sets, |all, value| all ^ of(&|hasher| value.hash(hasher)))
    }

    /// Takes over the test of a field, once. False if the kernel has no form for the set.
    pub(super) fn takes(&mut self, field: Field, set: &Ranges) -> bool {
        let number_mask =
            |bits: &dyn Fn(u128) -> u16| set.numbers().fold(0, |mask, number| mask | bits(number));
        match field {
            Field::State => self.states = number_mask(&|state| state_bit(state as u8)),
            Field::Direction => {
                let has = |direction: u8| if set.contains(direction.into()) { bit(direction) } else { 0 };
                self.directions = has(IN) | has(OUT);
            }
            Field::Family => {
                let has = |family: u8| if set.contains(family.into()) { family_bit(family) } else { 0 };
                self.families = has(4) | has(6);
            }
            Field::Service | Field::Dport => {
                if !self.takes_ends_of(field) {
                    return false;
                }
                self.dports = Some(ports(set));
                self.modes = with_mode(self.modes, Set::Dport, Mode::Only);
            }
            Field::ClientPort | Field::Sport => {
                if !self.takes_ends_of(field) {
                    return false;
                }
                self.sports = Some(ports(set));
                self.modes = with_mode(self.modes, Set::Sport, Mode::Only);
            }
            Field::Client | Field::Src => {
                let Some((mode, blocks)) = prefixes(set) else { return false };
                if !self.takes_ends_of(field) {
                    return false;
                }
                self.sources = blocks;
                self.modes = with_mode(self.modes, Set::Src, mode);
            }
            Field::Server | Field::Dst => {
                let Some((mode, blocks)) = prefixes(set) else { return false };
                if !self.takes_ends_of(field) {
                    return false;
                }
                self.destinations = blocks;
                self.modes = with_mode(self.modes, Set::Dst, mode);
            }
            // Programs of other protocols are not loaded. An empty set loads those of TCP.
            Field::Protocol => return !set.is_empty(),
            // Only the end of a connection, and user space, know these.
            Field::Failed | Field::Reason | Field::Error | Field::Lifetime | Field::Bytes => return false,
            Field::Netns => return self.takes_values(field, Set::Netns, set),
            Field::Pid => return self.takes_values(field, Set::Pid, set),
            Field::Uid => return self.takes_values(field, Set::Uid, set),
            Field::Cgroup => return self.takes_values(field, Set::Cgroup, set),
            Field::Comm => return self.takes_values(field, Set::Comm, set),
        }
        true
    }

    /// Decides which ends the sets of ports or addresses are of: by role, or by side. False if they are of the others
    /// already.
    fn takes_ends_of(&mut self, field: Field) -> bool {
        let by_side = match field {
            Field::Sport | Field::Dport => PORTS_BY_SIDE,
            Field::Src | Field::Dst => ADDRESSES_BY_SIDE,
            Field::ClientPort | Field::Service => {
                return self.has_no_set(true) || self.modes & PORTS_BY_SIDE == 0;
            }
            _ => return self.has_no_set(false) || self.modes & ADDRESSES_BY_SIDE == 0,
        };
        let takes = self.modes & by_side != 0 || self.has_no_set(field.is_port());
        if takes {
            self.modes |= by_side;
        }
        takes
    }

    /// True if there is no set of ports, or of addresses.
    fn has_no_set(&self, of_ports: bool) -> bool {
        let sets = if of_ports { [Set::Sport, Set::Dport] } else { [Set::Src, Set::Dst] };
        sets.into_iter().all(|set| matches!(mode(self.modes, set), Mode::Any))
    }

    /// Takes over an `or` of the two ports, or of the two addresses, of a connection. False if the kernel has no form for
    /// it, or other sets in its place.
    pub(super) fn takes_either(&mut self, one: &Test, other: &Test) -> bool {
        let (ports, flag) = match (one.field, other.field) {
            (Field::Sport, Field::Dport) | (Field::ClientPort, Field::Service) => (true, EITHER_PORT),
            (Field::Src, Field::Dst) | (Field::Client, Field::Server) => (false, EITHER_ADDRESS),
            _ => return false,
        };
        let before = self.clone();
        if self.has_no_set(ports) && self.takes(one.field, &one.set) && self.takes(other.field, &other.set) {
            self.modes |= flag;
            return true;
        }
        *self = before;
        false
    }

    /// Takes over a predicate, or its negation. False if user space decides it.
    pub(super) fn takes_predicate(&mut self, predicate: &Predicate, holds: bool) -> bool {
        let Predicate::Mark { mark, mask } = *predicate else { return false };
        if !matches!(mode(self.modes, Set::Mark), Mode::Any) {
            return false;
        }
        (self.mark, self.mark_mask) = (mark, mask);
        self.modes = with_mode(self.modes, Set::Mark, if holds { Mode::Only } else { Mode::Except });
        true
    }

    /// Lets records carry marks, on which user space decides.
    pub(super) const fn show_marks(&mut self) {
        self.modes |= SHOWS_MARK;
    }

    /// Takes over the wanted values, or the unwanted ones, if either are few.
    fn takes_values(&mut self, field: Field, name: Set, set: &Ranges) -> bool {
        let rest = field.domain().without(set);
        let (mode, members) = match (set.len(), rest.len()) {
            (few, _) if few <= MAX_VALUES => (Mode::Only, set),
            (_, few) if few <= MAX_VALUES => (Mode::Except, &rest),
            _ => return false,
        };
        self.values.extend(members.numbers().map(|number| match name {
            _ if number == UNKNOWN => Value::unknown(name),
            Set::Comm => Value::name(name, &number.to_be_bytes()),
            // Only names and addresses have more than 64 bits, and an unknown value of any field was handled above.
            _ => Value::number(name, number as u64),
        }));
        self.modes = with_mode(self.modes, name, mode);
        true
    }
}

fn ports(set: &Ranges) -> Box<PortBits> {
    let mut bits = Box::new([0; PORT_WORDS]);
    for port in set.numbers() {
        // A port's domain ends at 65,535.
        let (word, bit) = port_place(port as u16);
        bits[word] |= bit;
    }
    bits
}

/// The wanted prefixes or the unwanted ones, whichever are fewer.
fn prefixes(set: &Ranges) -> Option<(Mode, Vec<Block>)> {
    let rest = Field::Client.domain().without(set);
    let some = |set: &Ranges| prefix::blocks(set).take(MAX_PREFIXES + 1).collect::<Vec<_>>();
    let (wanted, unwanted) = (some(set), some(&rest));
    let (mode, blocks) =
        if unwanted.len() < wanted.len() { (Mode::Except, unwanted) } else { (Mode::Only, wanted) };
    (blocks.len() <= MAX_PREFIXES).then_some((mode, blocks))
}

/// The kernel's decision, from the contents of its maps.
impl Filter for KernelPart {
    fn directions(&self) -> u8 {
        self.directions
    }

    fn families(&self) -> u8 {
        self.families
    }

    fn states(&self) -> u16 {
        self.states
    }

    fn modes(&self) -> Modes {
        self.modes
    }

    fn has_port(&self, set: Set, port: u16) -> bool {
        let (word, bit) = port_place(port);
        let bits = if set == Set::Dport { &self.dports } else { &self.sports };
        bits.as_ref().is_some_and(|bits| bits[word] & bit != 0)
    }

    fn has_address(&self, set: Set, address: [u8; 16]) -> bool {
        let number = u128::from_be_bytes(address);
        let blocks = if set == Set::Src { &self.sources } else { &self.destinations };
        blocks.iter().any(|&(first, length)| {
            let host = 128 - u32::from(length);
            number.checked_shr(host).unwrap_or(0) == first.checked_shr(host).unwrap_or(0)
        })
    }

    fn has_value(&self, value: &Value) -> bool {
        self.values.contains(value)
    }

    fn has_mark(&self, mark: u32) -> bool {
        mark & self.mark_mask == self.mark
    }
}
