use conn_common::cause::Cause;
use conn_common::connection::{Connection, IN, OUT};
use conn_common::ledger::{Slot, Totals};
use conn_common::state::{CLOSE_WAIT, ESTABLISHED, FIN_WAIT1, LISTEN, SYN_SENT};

use super::*;
use crate::ledger::counts::Counts;

/// Namespaces of the tests.
const HERE: u32 = 10;
const THERE: u32 = 11;

fn row(netns: u32, direction: u8, port: u16, state: u8) -> SocketRow {
    SocketRow {
        connection: Connection { netns, direction, dport: port, state, ..Connection::UNSEEN },
        ..SocketRow::EMPTY
    }
}

/// Adds a slot of `netns`, which is counted in the part of a namespace, or in that of several (`SHARED`).
fn add(ledger: &mut Ledger, counted: u32, netns: u32, direction: u8, port: u16, slot: &Slot) {
    ledger.ports.entry((direction, port)).or_insert(Counts::ZERO).add(slot);
    ledger.parts.entry((counted, direction, port)).or_default().add(&Passages::of(slot));
    ledger.netns.entry(netns).or_default().add(&Totals::of(slot));
    if counted == SHARED {
        ledger.sharing.insert(netns);
    }
}

fn found_in(state: u8) -> Slot {
    let mut slot = Slot::ZERO;
    slot.count_preexisting(state);
    slot
}

fn ledger(connections: &[(u32, u8, u16, u8)]) -> Ledger {
    let mut ledger = Ledger::default();
    for &(netns, direction, port, state) in connections {
        add(&mut ledger, netns, netns, direction, port, &found_in(state));
    }
    ledger
}

fn tally(rows: &[(u32, u8, u16, u8)]) -> SocketTally {
    let mut tally = SocketTally::default();
    for &(netns, direction, port, state) in rows {
        tally.count(&row(netns, direction, port, state));
    }
    tally
}

fn walked(netns: &[u32]) -> BTreeSet<u32> {
    netns.iter().copied().collect()
}

fn excesses(audit: &Audit) -> Vec<(u32, u16, u8, i64)> {
    audit.differences.iter().map(|one| (one.netns, one.port, one.state, one.excess())).collect()
}

#[test]
fn equal_numbers_hold() {
    let sockets = [
        (HERE, IN, 22, ESTABLISHED),
        (HERE, OUT, 443, CLOSE_WAIT),
        (HERE, OUT, 443, CLOSE_WAIT),
        (THERE, OUT, 443, ESTABLISHED),
    ];
    let ledger = ledger(&sockets);
    let audit = Audit::compare(&ledger, &ledger, &tally(&sockets), walked(&[HERE, THERE]));
    assert!(audit.holds() && audit.hidden.is_empty());
    assert_eq!((audit.compared, audit.moved, audit.kernel_open), (3, 0, 4));
}

#[test]
fn phantoms_and_unknown_sockets_differ() {
    let phantoms = ledger(&[(HERE, IN, 22, ESTABLISHED)]);
    let sockets = tally(&[(HERE, OUT, 80, ESTABLISHED), (HERE, IN, 80, LISTEN)]);
    let audit = Audit::compare(&phantoms, &phantoms, &sockets, walked(&[HERE]));
    assert_eq!(excesses(&audit), [(HERE, 22, ESTABLISHED, 1), (HERE, 80, ESTABLISHED, -1)]);
}

#[test]
fn equal_sums_over_namespaces_do_not_hide_a_difference() {
    let ledger = ledger(&[(HERE, IN, 22, ESTABLISHED)]);
    let sockets = tally(&[(THERE, IN, 22, ESTABLISHED)]);
    let audit = Audit::compare(&ledger, &ledger, &sockets, walked(&[HERE, THERE]));
    assert_eq!(excesses(&audit), [(HERE, 22, ESTABLISHED, 1), (THERE, 22, ESTABLISHED, -1)]);
}

#[test]
fn moving_parts_are_compared_between_bounds() {
    let mut before = Slot::ZERO;
    (0..3).for_each(|_| before.count_opened(ESTABLISHED));
    let mut after = before;
    after.count_opened(ESTABLISHED);
    after.count_step(ESTABLISHED, FIN_WAIT1);
    let reading = |slot: &Slot| {
        let mut ledger = Ledger::default();
        add(&mut ledger, HERE, HERE, IN, 22, slot);
        ledger
    };
    let (before, after) = (reading(&before), reading(&after));
    let found = |established, closing| {
        let rows = [vec![(HERE, IN, 22, ESTABLISHED); established], vec![(HERE, IN, 22, FIN_WAIT1); closing]];
        let audit = Audit::compare(&before, &after, &tally(&rows.concat()), walked(&[HERE]));
        assert_eq!((audit.compared, audit.moved), (0, 1));
        excesses(&audit)
    };
    // Two were established all the time, four at some moment.
    for established in 2..=4 {
        assert_eq!((found(established, 0), found(established, 1)), (vec![], vec![]));
    }
    assert_eq!(found(1, 1), [(HERE, 22, ESTABLISHED, 1)]);
    assert_eq!(found(6, 2), [(HERE, 22, ESTABLISHED, -2), (HERE, 22, FIN_WAIT1, -1)]);
}

#[test]
fn a_difference_must_be_found_twice() {
    let one = |ledger, kernel, moved| Difference {
        netns: HERE,
        direction: IN,
        port: 22,
        state: ESTABLISHED,
        ledger,
        kernel,
        moved,
    };
    let both = |first, second| {
        let audit = |difference| Audit { differences: vec![difference], ..Audit::default() };
        audit(second).also_in(&audit(first))
    };
    assert_eq!(both(one(3, 1, false), one(3, 1, false)), [one(3, 1, false)]);
    assert_eq!(both(one(3, 1, false), one(4, 2, false)), []);
    // A moving part has at least the smaller excess.
    assert_eq!(both(one(9, 5, true), one(8, 6, true)), [one(8, 6, true)]);
    assert_eq!(both(one(9, 5, true), one(20, 10, false)), [one(9, 5, true)]);
    assert_eq!(both(one(9, 5, true), one(5, 9, true)), []);
}

#[test]
fn hidden_namespaces_are_left_out_alone() {
    let ledger =
        ledger(&[(HERE, IN, 22, ESTABLISHED), (THERE, IN, 22, ESTABLISHED), (THERE, OUT, 80, SYN_SENT)]);
    let sockets = tally(&[(HERE, IN, 22, CLOSE_WAIT), (THERE, IN, 22, ESTABLISHED)]);
    let audit = Audit::compare(&ledger, &ledger, &sockets, walked(&[HERE]));
    assert_eq!(audit.hidden, [Hidden { netns: THERE, open: 2, seen: 1 }]);
    assert_eq!(excesses(&audit), [(HERE, 22, ESTABLISHED, 1), (HERE, 22, CLOSE_WAIT, -1)]);
}

#[test]
fn hidden_namespaces_are_compared_if_all_their_sockets_are_seen() {
    let sockets = [(THERE, IN, 22, ESTABLISHED), (THERE, OUT, 22, ESTABLISHED)];
    let ledger = ledger(&sockets);
    let audit = Audit::compare(&ledger, &ledger, &tally(&sockets), walked(&[HERE]));
    assert_eq!((audit.hidden.len(), audit.compared, audit.holds()), (0, 2, true));
    // Sockets that are older than conntrace and were never adopted are no difference.
    let audit = Audit::compare(&Ledger::default(), &Ledger::default(), &tally(&sockets), walked(&[HERE]));
    assert_eq!((audit.hidden, audit.differences), (vec![Hidden { netns: THERE, open: 0, seen: 2 }], vec![]));
}

#[test]
fn shared_parts_are_compared_together_and_with_room_for_what_is_hidden() {
    let mut ledger = Ledger::default();
    for netns in [HERE, THERE] {
        add(&mut ledger, SHARED, netns, IN, 22, &found_in(ESTABLISHED));
    }
    let compare = |rows: &[_], netns: &[u32]| Audit::compare(&ledger, &ledger, &tally(rows), walked(netns));
    let (here, there) = ((HERE, IN, 22, ESTABLISHED), (THERE, IN, 22, ESTABLISHED));
    let audit = compare(&[here, there], &[HERE, THERE]);
    assert!(audit.holds() && audit.compared == 1);
    assert_eq!(audit.phantoms, BTreeMap::new());
    let audit = compare(&[here], &[HERE, THERE]);
    assert_eq!(excesses(&audit), [(SHARED, 22, ESTABLISHED, 1)]);
    assert_eq!(audit.phantoms, BTreeMap::from([(THERE, 1)]));
    // One of the two is hidden and may have the connection that is missing, but not two.
    let audit = compare(&[here], &[HERE]);
    assert_eq!((audit.holds(), audit.compared, audit.moved), (true, 0, 1));
    assert_eq!(audit.hidden, [Hidden { netns: THERE, open: 1, seen: 0 }]);
    assert_eq!(excesses(&compare(&[], &[HERE])), [(SHARED, 22, ESTABLISHED, 1)]);
    assert_eq!(excesses(&compare(&[here; 3], &[HERE])), [(SHARED, 22, ESTABLISHED, -1)]);
}

#[test]
fn steps_of_any_namespace_may_be_in_a_shared_part() {
    let mut began = Slot::ZERO;
    began.count_opened(SYN_SENT);
    // The step was counted on a CPU whose slot was taken. Such a step adds nothing to the totals of the namespace.
    let mut step = Slot::ZERO;
    step.count_step(SYN_SENT, ESTABLISHED);
    let mut ledger = Ledger::default();
    add(&mut ledger, HERE, HERE, OUT, 80, &began);
    ledger.parts.insert((SHARED, OUT, 80), Passages::of(&step));
    let sockets = tally(&[(HERE, OUT, 80, ESTABLISHED)]);
    let audit = Audit::compare(&ledger, &ledger, &sockets, walked(&[HERE]));
    assert_eq!((audit.compared, audit.differences), (1, vec![]));
    // The namespace is hidden, and so are all its connections in that part.
    let audit = Audit::compare(&ledger, &ledger, &SocketTally::default(), walked(&[]));
    assert_eq!((audit.hidden.len(), audit.differences), (1, vec![]));
}

#[test]
fn ends_that_were_counted_meanwhile_are_no_phantoms() {
    let before = ledger(&[(HERE, IN, 22, ESTABLISHED)]);
    let mut ended = found_in(ESTABLISHED);
    ended.count_end(ESTABLISHED, Cause::ClosedByUs);
    let mut after = Ledger::default();
    add(&mut after, HERE, HERE, IN, 22, &ended);
    for rows in [&[][..], &[(HERE, IN, 22, ESTABLISHED)]] {
        assert!(Audit::compare(&before, &after, &tally(rows), walked(&[HERE])).holds());
    }
}
