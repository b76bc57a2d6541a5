use conn_common::cause::Cause;
use conn_common::connection::{IN, OUT};
use conn_common::ledger::Slot;
use conn_common::state::SYN_SENT;

use super::*;

const MINUTE: u64 = 60_000_000_000;

fn at(minute: u64) -> Moment {
    let boot_ns = 1_000 + minute * MINUTE;
    Moment { boot_ns, unix_ns: boot_ns.cast_signed() + 1_700_000_000_000_000_000 }
}

fn minutes(count: u64) -> Duration {
    Duration::from_nanos(count * MINUTE)
}

/// A host that opens connections and ends them.
#[derive(Default)]
struct Model {
    slots: BTreeMap<(u8, u16), Slot>,
    listeners: BTreeMap<u16, Listeners>,
    attempts: BTreeMap<u16, PortAttempts>,
}

impl Model {
    fn slot(&mut self, key: (u8, u16)) -> &mut Slot {
        self.slots.entry(key).or_insert(Slot::ZERO)
    }

    fn open(&mut self, key: (u8, u16), count: u32) {
        for _ in 0..count {
            self.slot(key).count_opened(SYN_SENT);
            self.slot(key).count_step(SYN_SENT, ESTABLISHED);
        }
    }

    fn close(&mut self, key: (u8, u16), count: u64) {
        self.slot(key).count_ends(ESTABLISHED, Cause::ClosedByUs, count);
    }

    fn fail(&mut self, key: (u8, u16), count: u64) {
        for _ in 0..count {
            self.slot(key).count_opened(SYN_SENT);
        }
        self.slot(key).count_ends(SYN_SENT, Cause::Refused, count);
    }

    fn ledger(&self) -> Ledger {
        Ledger {
            ports: self.slots.iter().map(|(key, slot)| (*key, Counts::of(slot))).collect(),
            listeners: self.listeners.clone(),
            attempts: self.attempts.clone(),
            ..Ledger::default()
        }
    }
}

/// Opened, preexisting, failed, closed and open.
fn numbers(ledger: &Ledger, key: (u8, u16)) -> [i64; 5] {
    let counts = ledger.ports.get(&key).cloned().unwrap_or_default();
    let sums = [counts.opened(), counts.preexisting(), counts.failed(), counts.closed()];
    let [opened, preexisting, failed, closed] = sums.map(u64::cast_signed);
    assert_eq!(opened + preexisting, failed + closed + counts.open());
    [opened, preexisting, failed, closed, counts.open()]
}

const SSH: (u8, u16) = (IN, 22);
const WEB: (u8, u16) = (OUT, 443);

#[test]
fn a_part_of_the_counts_is_exact() {
    let mut model = Model::default();
    model.open(SSH, 5);
    let mut history = History::new(&model.ledger(), at(0));
    model.open(SSH, 3);
    model.close(SSH, 1);
    history.note(&model.ledger(), at(1));
    history.note(&model.ledger(), at(2));
    model.fail(WEB, 4);
    model.close(SSH, 2);
    history.note(&model.ledger(), at(3));
    model.open(SSH, 1);

    let ledger = model.ledger();
    let since = |count| history.since(minutes(count), at(3), &ledger);
    let (from, all) = since(60);
    assert_eq!((from, numbers(&all, SSH), numbers(&all, WEB)), (at(0), [4, 5, 0, 3, 6], [4, 0, 4, 0, 0]));
    let (from, two) = since(2);
    assert_eq!((from, numbers(&two, SSH), numbers(&two, WEB)), (at(1), [1, 7, 0, 2, 6], [4, 0, 4, 0, 0]));
    let (from, none) = since(0);
    assert_eq!((from, numbers(&none, SSH), numbers(&none, WEB)), (at(3), [1, 5, 0, 0, 6], [0; 5]));
    assert!(!none.ports.contains_key(&WEB));
}

#[test]
fn listeners_and_attempts_are_differences_too() {
    let mut model = Model::default();
    let listeners = |opened, closed| Listeners { opened, preexisting: 1, closed, ..Listeners::default() };
    let attempts = |begun| PortAttempts { begun, direct: 1, refused: 2 * begun };
    model.listeners.insert(22, listeners(2, 1));
    model.listeners.insert(80, Listeners { preexisting: 1, closed: 1, ..Listeners::default() });
    model.attempts.insert(22, attempts(5));
    let history = History::new(&model.ledger(), at(0));
    model.listeners.insert(22, listeners(3, 3));
    model.attempts.insert(22, attempts(9));
    let (_, part) = history.since(minutes(1), at(1), &model.ledger());
    let one = part.listeners[&22];
    assert_eq!((one.opened, one.preexisting, one.closed, one.open()), (1, 2, 2, 1));
    assert_eq!(part.attempts[&22], PortAttempts { begun: 4, direct: 0, refused: 8 });
    assert!(!part.listeners.contains_key(&80));
}

#[test]
fn a_history_reaches_back_for_a_day() {
    let mut model = Model::default();
    let mut history = History::new(&model.ledger(), at(0));
    for minute in 1..=3_000 {
        model.fail(WEB, 1);
        history.note(&model.ledger(), at(minute));
    }
    let (from, day) = history.since(minutes(5_000), at(3_000), &model.ledger());
    assert_eq!((from, numbers(&day, WEB)[0], history.stretches.len()), (at(3_000 - 1_440), 1_440, 1_440));
}

#[test]
fn a_history_of_many_ports_gets_coarser_and_loses_no_count() {
    let mut model = Model::default();
    let mut history = History { most_cells: 1_000, ..History::new(&model.ledger(), at(0)) };
    for minute in 1..=50 {
        for port in 0..50 {
            model.fail((OUT, 1_000 + port), 1);
        }
        history.note(&model.ledger(), at(minute));
    }
    assert!(history.cells() <= 1_000 && history.stretches.len() > 2, "{}", history.stretches.len());
    let (from, all) = history.since(minutes(50), at(50), &model.ledger());
    assert_eq!(from, at(0));
    assert!((0..50).all(|port| numbers(&all, (OUT, 1_000 + port)) == [50, 0, 50, 0, 0]));
    // The last minutes are as fine as ever.
    let (from, last) = history.since(minutes(1), at(50), &model.ledger());
    assert_eq!((from, numbers(&last, (OUT, 1_000))[0]), (at(49), 1));
}

#[test]
fn points_add_up() {
    let mut model = Model::default();
    model.open(SSH, 2);
    let mut history = History::new(&model.ledger(), at(0));
    model.open(SSH, 3);
    history.note(&model.ledger(), at(1));
    model.close(SSH, 4);
    model.fail(WEB, 2);
    history.note(&model.ledger(), at(2));
    model.open(WEB, 1);
    let ports = [SSH, WEB];
    let points = history.points(at(0), at(3), &model.ledger(), &ports);
    let row = |point: &Point| (point.begin_ns, point.end_ns, point.opened, point.failed, point.open);
    let edge = |minute| at(minute).boot_ns;
    let expected = [(edge(0), edge(1), 3, 0, 5), (edge(1), edge(2), 2, 2, 1), (edge(2), edge(3), 1, 0, 2)];
    assert_eq!(points.iter().map(row).collect::<Vec<_>>(), expected);
    assert_eq!(history.points(at(1), at(3), &model.ledger(), &ports).len(), 2);
}
