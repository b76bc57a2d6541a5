//! One hash over all that shapes the maps which outlive a process, so that a later program knows whether it can go on
//! with them.
//!
//! [`RECORDS`] covers the records of this crate, at compile time. The user side adds what it knows at run time: maps,
//! options and offsets.

use crate::assoc_table::TableSlot;
use crate::attempt::PortAttempts;
use crate::connection::{Connection, Displaced};
use crate::event::EventRecord;
use crate::filter::Value;
use crate::flow::{Flow, FlowSocket};
use crate::histogram::{BUCKETS, Durations, Histogram};
use crate::ledger::{RepairKey, Slot, Totals};
use crate::listener::{ListenerKey, ListenerNote, MptcpNote};
use crate::name::Switches;
use crate::owner::Owner;
use crate::protocol::TCP;
use crate::remote::{RemoteCounts, RemoteKey};
use crate::small_slot::SmallSlot;
use crate::traffic::Traffic;
use crate::{counter, event, ledger, state};

/// A hash that is fed word by word: FNV-1a with 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayoutHash(u64);

impl LayoutHash {
    /// The hash of nothing.
    pub const EMPTY: Self = Self(0xcbf2_9ce4_8422_2325);

    /// With one more byte.
    #[must_use]
    const fn byte(self, byte: u8) -> Self {
        Self((self.0 ^ byte as u64).wrapping_mul(0x0000_0100_0000_01b3))
    }

    /// With one more number.
    #[must_use]
    pub const fn number(mut self, number: u64) -> Self {
        let bytes = number.to_le_bytes();
        let mut at = 0;
        while at < bytes.len() {
            self = self.byte(bytes[at]);
            at += 1;
        }
        self
    }

    /// With one more text. Its length is part of it, so that two texts are not the same as another two.
    #[must_use]
    pub const fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    /// The same for bytes.
    #[must_use]
    pub const fn bytes(self, bytes: &[u8]) -> Self {
        let mut hash = self.number(bytes.len() as u64);
        let mut at = 0;
        while at < bytes.len() {
            hash = hash.byte(bytes[at]);
            at += 1;
        }
        hash
    }

    /// The number to compare, and to name a directory with.
    pub const fn value(self) -> u64 {
        self.0
    }
}

/// Adds a record: its name and size, and the name and offset of each field.
macro_rules! record {
    ($hash:expr, $record:ident { $($field:ident)* }) => {{
        // A record that gets a field must get it here, too.
        const fn names_all_fields(record: &$record) {
            let $record { $($field: _),* } = record;
        }
        let _ = names_all_fields;
        let hash = $hash.text(stringify!($record)).number(size_of::<$record>() as u64);
        $(let hash = hash.text(stringify!($field)).number(core::mem::offset_of!($record, $field) as u64);)*
        hash
    }};
}

/// The hash of all records that are in maps, and of the numbers that say what is in their cells.
pub const RECORDS: LayoutHash = {
    let hash = LayoutHash::EMPTY;
    let hash = record!(hash, EventRecord {
        time_ns error kind old_state cause reset version protocol traffic connection
    });
    let hash = record!(hash, Connection {
        netns sport dport family direction state flags last_sport scratch id attempt_ns established_ns src dst owner
    });
    let hash = record!(hash, Displaced { overflowed stateless });
    let hash = record!(hash, Owner { cgroup start_ns pid tid uid source flags holders comm thread });
    let hash = record!(hash, ListenerKey { netns port is_v6 interface reserved address });
    let hash = record!(hash, ListenerNote { listeners known sum is_mixed owner task key user flags });
    let hash = record!(hash, MptcpNote { owner user reserved });
    let hash = record!(hash, Traffic {
        bytes_sent bytes_received segments_sent segments_received retransmits srtt_us min_rtt_us receive_queue
        send_queue idle_jiffies
    });
    let hash = record!(hash, Slot { cells });
    let hash = record!(hash, SmallSlot { uses sums words });
    let hash = record!(hash, Totals { opened preexisting failed closed });
    let hash = record!(hash, RepairKey { netns port protocol direction state reserved });
    let hash = record!(hash, Durations { handshake lifetime });
    let hash = record!(hash, Histogram { counts });
    let hash = record!(hash, Switches { enabled });
    let hash = record!(hash, PortAttempts { begun direct refused });
    let hash = record!(hash, RemoteKey { address family direction reserved });
    let hash = record!(hash, RemoteCounts { attempts refused opened failed });
    let hash = record!(hash, Value { set known words });
    let hash = record!(hash, Flow {
        check last begun state packets bytes cookie end_ns ended cause index merged refused scratch connection
    });
    let hash = record!(hash, FlowSocket { cookie flows first closed_ns crowded reserved });
    let hash = hash.text("Place").number(size_of::<TableSlot<u64>>() as u64);
    // Counters that are added later use spare cells and change nothing.
    let hash = hash.text("counters").number(counter::CELLS as u64);
    let hash = hash.text("ledger").number(ledger::TRAFFIC_CELL as u64).number(ledger::ENDS_CELL as u64);
    let hash = hash.number(ledger::key(1, 1) as u64).number(ledger::slot_key(1, 1));
    let listener = Connection { dport: 1, direction: 1, flags: u8::MAX, ..Connection::UNSEEN };
    let hash = hash.number(ledger::slot_id(TCP, &listener) as u64);
    let hash = hash.text("buckets").number(BUCKETS as u64);
    states(hash).text("version").number(event::VERSION as u64)
};

/// Adds the cell of each state.
const fn states(mut hash: LayoutHash) -> LayoutHash {
    let mut state = 0;
    while state < 16 {
        hash = hash.number(state::slot(state) as u64);
        state += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_fnv_1a() {
        // From the authors' test vectors.
        assert_eq!(LayoutHash::EMPTY.byte(b'a').value(), 0xaf63_dc4c_8601_ec8c);
        let hash = b"foobar".iter().fold(LayoutHash::EMPTY, |hash, &byte| hash.byte(byte));
        assert_eq!(hash.value(), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn numbers_and_texts_change_the_hash_by_value_and_order() {
        let hash = |texts: &[&str]| texts.iter().fold(LayoutHash::EMPTY, |hash, text| hash.text(text));
        assert_ne!(hash(&["ab", "c"]), hash(&["a", "bc"]));
        assert_ne!(hash(&["a", "b"]), hash(&["b", "a"]));
        assert_ne!(LayoutHash::EMPTY.number(1).number(2), LayoutHash::EMPTY.number(2).number(1));
    }

    #[test]
    fn record_changes_the_hash_by_field_offset_and_size() {
        mod first {
            pub(crate) struct Pair {
                pub low: u32,
                pub high: u32,
            }
        }
        mod other_order {
            #[repr(C)]
            pub(crate) struct Pair {
                pub high: u32,
                pub low: u32,
            }
        }
        mod other_size {
            pub(crate) struct Pair {
                pub low: u32,
                pub high: u64,
            }
        }
        mod other_name {
            pub(crate) struct Pair {
                pub low: u32,
                pub top: u32,
            }
        }
        let hashes = [
            {
                use first::Pair;
                record!(LayoutHash::EMPTY, Pair { low high })
            },
            {
                use other_order::Pair;
                record!(LayoutHash::EMPTY, Pair { low high })
            },
            {
                use other_size::Pair;
                record!(LayoutHash::EMPTY, Pair { low high })
            },
            {
                use other_name::Pair;
                record!(LayoutHash::EMPTY, Pair { low top })
            },
        ];
        let different: std::collections::BTreeSet<_> = hashes.iter().map(|hash| hash.value()).collect();
        assert_eq!(different.len(), hashes.len());
        assert_ne!(RECORDS, LayoutHash::EMPTY);
    }
}
