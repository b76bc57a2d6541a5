//! The model test: several CPUs use one table, and each is preempted at any point between two of its accesses.
//!
//! A CPU is its program and the log of what its accesses returned. To take a step, [`Model::step`] runs the program
//! from its start, answers from the log, performs one access, and discards the rest. So every state is a plain value,
//! and [`Model::explore`] visits all states that any interleaving reaches.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashSet};

use super::*;

/// Two sockets whose first way is the same.
const A: u64 = 0x40;
const B: u64 = 0x80;
/// A third key, which takes ways from the start.
const OTHER: u64 = 0xc0;

/// A slot of the model: the key and a value of two words, which one access cannot write.
type Slot = [u64; 3];

/// One access to the memory.
#[derive(Clone, Copy)]
enum Access {
    Load { slot: usize, word: usize },
    Store { slot: usize, word: usize, new: u64 },
    CompareExchange { slot: usize, old: u64, new: u64 },
}

/// How the words of a table are accessed.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    /// As in the kernel.
    Right,
    /// The slot has its key while its value is written or read.
    WithoutBusy,
    /// A load and a store take the place of compare-and-exchange.
    WithoutAtomics,
}

/// A program of a CPU, while it runs on the model.
struct Cpu<'a> {
    memory: RefCell<&'a mut Vec<Slot>>,
    log: RefCell<&'a mut Vec<u64>>,
    at: Cell<usize>,
    /// True once the one access of this step is done.
    is_done: Cell<bool>,
    /// True once the program needed another access.
    is_preempted: Cell<bool>,
    words: Mode,
    /// The key of the operation, for [`Mode::WithoutBusy`].
    key: Cell<u64>,
}

impl Cpu<'_> {
    fn access(&self, access: Access) -> u64 {
        let at = self.at.replace(self.at.get() + 1);
        if let Some(&result) = self.log.borrow().get(at) {
            return result;
        }
        if self.is_done.replace(true) {
            self.is_preempted.set(true);
            // No key, and no success: the program ends soon, and its result is discarded.
            return if matches!(access, Access::Load { .. }) { u64::MAX } else { 0 };
        }
        let mut memory = self.memory.borrow_mut();
        let result = match access {
            Access::Load { slot, word } => memory[slot][word],
            Access::Store { slot, word, new } => {
                memory[slot][word] = new;
                0
            }
            Access::CompareExchange { slot, old, new } => {
                let is_old = memory[slot][0] == old;
                if is_old {
                    memory[slot][0] = new;
                }
                u64::from(is_old)
            }
        };
        self.log.borrow_mut().push(result);
        result
    }

    /// The table, for an operation on `key`.
    fn table(&self, key: u64) -> AssocTable<&Self> {
        self.key.set(key);
        AssocTable(self)
    }

    fn write(&self, slot: usize, value: u64) {
        self.access(Access::Store { slot, word: 1, new: value });
        self.access(Access::Store { slot, word: 2, new: value });
    }

    /// The value. A torn one does not count as read if it is only that of a discarded run.
    fn read(&self, slot: usize) -> u64 {
        let value = [1, 2].map(|word| self.access(Access::Load { slot, word }));
        assert!(self.is_preempted.get() || value[0] == value[1], "a value was read half written");
        value[0]
    }
}

impl Words for &Cpu<'_> {
    type Slot = usize;

    fn slot(&self, index: u32) -> Option<usize> {
        let index = index as usize;
        (index < self.memory.borrow().len()).then_some(index)
    }

    fn load(&self, slot: usize) -> u64 {
        self.access(Access::Load { slot, word: 0 })
    }

    fn compare_exchange(&self, slot: usize, mut old: u64, mut new: u64) -> bool {
        if self.words == Mode::WithoutBusy {
            let key = self.key.get();
            (old, new) = (if old == BUSY { key } else { old }, if new == BUSY { key } else { new });
        }
        if self.words == Mode::WithoutAtomics {
            let is_old = self.load(slot) == old;
            if is_old {
                self.store(slot, new);
            }
            return is_old;
        }
        self.access(Access::CompareExchange { slot, old, new }) != 0
    }

    fn store(&self, slot: usize, new: u64) {
        self.access(Access::Store { slot, word: 0, new });
    }
}

/// The program of a CPU. Returns the values it took out, or the slots it got, as each test defines.
type Program = fn(&Cpu<'_>) -> Vec<u64>;

/// Everything that a step may change.
#[derive(Clone, PartialEq, Eq, Hash)]
struct State {
    memory: Vec<Slot>,
    logs: Vec<Vec<u64>>,
    /// The result of each CPU whose program has ended.
    results: Vec<Option<Vec<u64>>>,
}

impl State {
    /// How many slots have this key.
    fn count(&self, key: u64) -> usize {
        self.memory.iter().filter(|slot| slot[0] == key).count()
    }

    /// The values with this key.
    fn values(&self, key: u64) -> Vec<u64> {
        self.memory.iter().filter(|slot| slot[0] == key).map(|slot| slot[1]).collect()
    }

    fn has_ended(&self) -> bool {
        self.results.iter().all(Option::is_some)
    }

    /// All results, in the order of the CPUs.
    fn all_results(&self) -> Vec<u64> {
        self.results.iter().flatten().flatten().copied().collect()
    }
}

/// CPUs that run one program each on one table.
struct Model {
    words: Mode,
    programs: Vec<Program>,
}

impl Model {
    fn new(programs: &[Program]) -> Self {
        Self { words: Mode::Right, programs: programs.to_vec() }
    }

    /// The state after one more access of a CPU.
    fn step(&self, before: &State, cpu: usize) -> State {
        let mut state = before.clone();
        let running = Cpu {
            memory: RefCell::new(&mut state.memory),
            log: RefCell::new(&mut state.logs[cpu]),
            at: Cell::new(0),
            is_done: Cell::new(false),
            is_preempted: Cell::new(false),
            words: self.words,
            key: Cell::new(0),
        };
        let result = self.programs[cpu](&running);
        if !running.is_preempted.get() {
            state.results[cpu] = Some(result);
        }
        state
    }

    /// Holds `check` against every state that any interleaving reaches from a table with these keys, and returns how
    /// many there are.
    fn explore(&self, keys: &[u64], check: impl Fn(&State)) -> usize {
        let start = State {
            memory: keys.iter().map(|&key| [key, 0, 0]).collect(),
            logs: vec![vec![]; self.programs.len()],
            results: vec![None; self.programs.len()],
        };
        let mut seen = HashSet::from([start.clone()]);
        let mut ahead = vec![start];
        while let Some(state) = ahead.pop() {
            check(&state);
            for cpu in 0..self.programs.len() {
                if state.results[cpu].is_none() {
                    let next = self.step(&state, cpu);
                    if seen.insert(next.clone()) {
                        ahead.push(next);
                    }
                }
            }
        }
        seen.len()
    }
}

/// Notes an owner as an accept does: replaces the one that is there.
fn put(cpu: &Cpu<'_>, key: u64, value: u64) -> bool {
    let table = cpu.table(key);
    if table.update(0, key, |slot| cpu.write(slot, value)) {
        return true;
    }
    let Some(slot) = table.reserve(0) else { return false };
    cpu.write(slot, value);
    table.publish(slot, key);
    true
}

/// Takes the owner of `key`, as a step of the socket does.
fn take(cpu: &Cpu<'_>, key: u64) -> Vec<u64> {
    let mut value = vec![];
    cpu.table(key).take(0, key, |slot| value.push(cpu.read(slot)));
    value
}

/// The whole use of a socket's slot under the lock of that socket.
fn live(cpu: &Cpu<'_>, key: u64) -> Vec<u64> {
    let table = cpu.table(key);
    assert!(table.find(0, key).is_none() || cpu.is_preempted.get());
    let Some(slot) = table.acquire(0, key) else { return vec![] };
    cpu.write(slot, key);
    let found = table.find(0, key);
    assert!(found == Some(slot) || cpu.is_preempted.get(), "an entry was lost");
    assert!(cpu.read(slot) == key || cpu.is_preempted.get(), "two sockets have one slot");
    table.release(0, key);
    vec![key]
}

/// The shortest use of a socket's slot.
fn acquire_and_release(cpu: &Cpu<'_>) -> Vec<u64> {
    let table = cpu.table(OTHER);
    let slot = table.acquire(0, OTHER);
    table.release(0, OTHER);
    slot.map(|_| OTHER).into_iter().collect()
}

#[test]
fn sockets_never_share_a_slot() {
    let (a, b, c): (Program, Program, Program) =
        (|cpu| live(cpu, A), |cpu| live(cpu, B), acquire_and_release);
    let cases: [(&[Program], _); 4] = [
        (&[a, b], [FREE; 4]),
        (&[a, b], [7, FREE, 8, FREE]),
        (&[a, b], [7, 8, 9, FREE]),
        (&[a, b, c], [FREE, 7, 8, 9]),
    ];
    for (programs, keys) in cases {
        let free = keys.iter().filter(|&&key| key == FREE).count();
        let states = Model::new(programs).explore(&keys, |state| {
            for key in [A, B, OTHER] {
                assert!(state.count(key) <= 1, "a twin");
            }
            if state.has_ended() {
                assert_eq!(state.count(FREE), free, "a slot was not freed");
                assert!(!state.all_results().is_empty(), "a free slot was not found");
            }
        });
        assert!(states > 100, "{states}");
    }
}

/// One accept, the step that takes the owner over, and another socket's accept.
const ACCEPTS: [Program; 3] = [
    |cpu| {
        put(cpu, A, 11);
        vec![]
    },
    |cpu| {
        let mut taken = take(cpu, A);
        taken.extend(take(cpu, A));
        taken
    },
    |cpu| {
        put(cpu, B, 22);
        take(cpu, B)
    },
];

fn check_accepts(state: &State) {
    assert!(state.count(A) <= 1 && state.count(B) <= 1, "a twin");
    if state.has_ended() {
        let mut all = [state.all_results(), state.values(A), state.values(B)].concat();
        all.sort_unstable();
        assert_eq!(all, [11, 22], "an entry was lost or taken twice");
        assert_eq!(state.count(BUSY), 0);
    }
}

#[test]
fn pending_owners_are_whole_and_taken_once() {
    for keys in [vec![FREE; 4], vec![OTHER, FREE, FREE, OTHER]] {
        let states = Model::new(&ACCEPTS).explore(&keys, check_accepts);
        assert!(states > 1_000, "{states}");
    }
}

#[test]
fn replaced_owner_is_whole() {
    let replace: Program = |cpu| {
        put(cpu, A, 11);
        put(cpu, A, 12);
        vec![]
    };
    Model::new(&[replace, |cpu| take(cpu, A), |cpu| take(cpu, A)]).explore(&[FREE; 4], |state| {
        if state.has_ended() {
            let all = [state.all_results(), state.values(A)].concat();
            let values: BTreeSet<_> = all.iter().collect();
            assert!(values.contains(&12) && values.len() == all.len(), "lost or taken twice: {all:?}");
        }
    });
}

#[test]
fn accept_survives_a_walk_of_the_same_moment() {
    let walk: Program = |cpu| {
        let table = cpu.table(A);
        if table.find(0, A).is_none() {
            let Some(slot) = table.reserve(0) else { return vec![] };
            cpu.write(slot, 33);
            table.publish(slot, A);
        }
        vec![]
    };
    let step: Program = |cpu| [take(cpu, A), take(cpu, A)].concat();
    Model::new(&[ACCEPTS[0], walk, step]).explore(&[FREE; 4], |state| {
        assert!(state.count(A) <= 2, "more entries than writers");
        if state.has_ended() {
            let all = [state.all_results(), state.values(A)].concat();
            assert_eq!(all.iter().filter(|&&value| value == 11).count(), 1, "the accept was lost: {all:?}");
        }
    });
}

#[test]
fn release_frees_all_ways() {
    let release: Program = |cpu| {
        cpu.table(A).release(0, A);
        vec![]
    };
    Model::new(&[release, |cpu| take(cpu, A)]).explore(&[A, OTHER, A, FREE], |state| {
        if state.has_ended() {
            assert_eq!((state.count(A), state.count(BUSY), state.count(OTHER)), (0, 0, 1));
        }
    });
}

#[test]
fn ledger_slot_has_one_key_for_good() {
    let mine: Program = |cpu| cpu.table(A).acquire_at(0, A).map(|_| A).into_iter().collect();
    let other: Program = |cpu| cpu.table(B).acquire_at(0, B).map(|_| B).into_iter().collect();
    let twice: Program =
        |cpu| [A, A].iter().filter_map(|&key| cpu.table(key).acquire_at(0, key).map(|_| key)).collect();
    Model::new(&[mine, other, twice]).explore(&[FREE], |state| {
        let winner = state.memory[0][0];
        assert!(state.all_results().iter().all(|&key| key == winner), "two keys have one slot");
        if state.has_ended() {
            assert_eq!(
                state.all_results().len(),
                if winner == A { 3 } else { 1 },
                "a key missed its own slot"
            );
        }
    });
}

#[test]
fn scratch_slots_have_one_borrower() {
    let borrow: Program = |cpu| {
        let table = cpu.table(BUSY);
        let Some(slot) = (0..2).find_map(|index| table.borrow(index)) else { return vec![] };
        cpu.write(slot, slot as u64 + 5);
        assert!(cpu.read(slot) == slot as u64 + 5 || cpu.is_preempted.get());
        table.give_back(slot);
        vec![1]
    };
    Model::new(&[borrow, borrow, borrow]).explore(&[FREE; 2], |state| {
        if state.has_ended() {
            assert_eq!(state.count(FREE), 2);
            assert!(state.all_results().len() >= 2, "a slot was free and not found");
        }
    });
}

#[test]
#[should_panic(expected = "a value was read half written")]
fn model_finds_a_table_without_busy() {
    Model { words: Mode::WithoutBusy, ..Model::new(&ACCEPTS) }.explore(&[FREE; 4], |_| {});
}

#[test]
#[should_panic(expected = "an entry was lost")]
fn model_finds_a_table_without_atomics() {
    Model { words: Mode::WithoutAtomics, ..Model::new(&ACCEPTS) }.explore(&[FREE; 4], |state| {
        if state.has_ended() {
            check_accepts(state);
        }
    });
}

#[test]
fn neighbours_have_different_first_ways() {
    for bits in [8, 16] {
        let indices: BTreeSet<_> = (0..64).map(|number| first_way(number, bits)).collect();
        assert!(indices.len() > 56, "{bits}: {indices:?}");
        assert!(indices.iter().all(|&index| index < 1 << bits));
    }
}

#[test]
fn ways_are_neighbours() {
    for first in [0, 5, 1 << 14 | 2, (1 << 17) - 1] {
        let ways: BTreeSet<_> = (0..WAYS).map(|number| way(first, number)).collect();
        assert!(ways.contains(&first));
        assert_eq!(ways, (first / WAYS * WAYS..).take(WAYS as usize).collect());
    }
}
