//! Cells, keys and sums of the ledger.

use super::*;
use crate::connection::{IN, LISTENER, OUT};
use crate::protocol::TCP;
use crate::state::{CLOSE, CLOSE_WAIT, ESTABLISHED, LISTEN, OPEN, SYN_SENT};

#[test]
fn every_cell_has_one_meaning() {
    let mut seen = std::collections::BTreeSet::new();
    for &to in &OPEN {
        assert!(seen.insert(opened_cell(to)), "opened {to}");
        assert!(seen.insert(preexisting_cell(to)), "preexisting {to}");
        for &from in &OPEN {
            assert!(seen.insert(step_cell(from, to)), "step {from} {to}");
        }
        for cause in Cause::ALL {
            assert!(seen.insert(end_cell(to, cause)), "ended {to} {cause:?}");
        }
    }
    assert!(!seen.contains(&None));
    let sums = TRAFFIC_CELL..TRAFFIC_CELL + COLUMNS;
    assert!(seen.iter().flatten().all(|cell| *cell < USED_CELLS && !sums.contains(cell)));
}

#[test]
fn states_that_are_not_open_have_no_cell() {
    assert_eq!(opened_cell(LISTEN), None);
    assert_eq!(step_cell(CLOSE, ESTABLISHED), None);
    assert_eq!(step_cell(ESTABLISHED, CLOSE), None);
}

#[test]
fn identity_holds_at_every_step() {
    let mut slot = Slot::ZERO;
    slot.count_opened(SYN_SENT);
    slot.count_preexisting(ESTABLISHED);
    assert_eq!((slot.open_in(SYN_SENT), slot.open_in(ESTABLISHED)), (1, 1));
    slot.count_step(SYN_SENT, ESTABLISHED);
    assert_eq!((slot.established(), slot.open_in(SYN_SENT), slot.open_in(ESTABLISHED)), (1, 0, 2));
    slot.count_step(ESTABLISHED, CLOSE_WAIT);
    slot.count_end(CLOSE_WAIT, Cause::ClosedByPeer);
    slot.count_opened(SYN_SENT);
    slot.count_end(SYN_SENT, Cause::Refused);
    assert_eq!((slot.opened(), slot.preexisting()), (2, 1));
    assert_eq!((slot.failed(), slot.failed_by(Cause::Refused), slot.closed(), slot.open()), (1, 1, 1, 1));
    assert_eq!((slot.closed_by(Cause::ClosedByPeer), slot.closed_by(Cause::Refused)), (1, 0));
    let passages = |state| (slot.entered(state), slot.left(state));
    assert_eq!((passages(SYN_SENT), passages(ESTABLISHED)), ((2, 2), (2, 1)));
    assert_eq!((passages(CLOSE_WAIT), passages(CLOSE)), ((1, 1), (0, 0)));
}

#[test]
fn keys_and_ids_round_trip() {
    for (shard, flags, direction, port) in [(0, 0, IN, 0), (7, 0x7f, OUT, 443), (63, LISTENER, 3, 65_535)] {
        let connection = Connection { flags, direction, dport: port, ..Connection::UNSEEN };
        let bits = slot_id(TCP, &connection);
        let id = SlotId { protocol: 0, is_listener: flags == LISTENER, direction, port };
        assert_eq!(SlotId::from_bits(key(shard, bits)), id);
        assert_eq!(from_slot_key(slot_key(u32::MAX, bits)), Some((u32::MAX, id)));
        assert_eq!(from_slot_key(slot_key(0, bits)), Some((0, id)));
    }
    assert_eq!(SlotId::from_bits(slot_id(17, &Connection::UNSEEN)).protocol, protocol::NO_INDEX);
    assert_eq!(from_slot_key(assoc_table::FREE), None);
}

#[test]
fn each_shard_has_its_own_ways() {
    let connection = Connection { direction: OUT, dport: 443, ..Connection::UNSEEN };
    let key = slot_key(4_026_531_840, slot_id(TCP, &connection));
    let shards = (0..8).map(|shard| way(shard, key) >> TABLE_BITS);
    assert!(shards.eq(0..8));
}
