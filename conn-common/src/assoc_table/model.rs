//! The model test: several CPUs use one table, and each is preempted at any point between two of its accesses.
//!
//! A CPU is its program and the log of what its accesses returned. To take a step, [`Model::step`] runs the program
//! from its start, answers from the log, performs one access, and discards the rest. So every state is a plain value,
//! and [`Model::explore`] visits all states that any interleaving reaches.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;

use super::*;

/// A slot of the model: the key and a value of two words, which one access cannot write.
pub(super) type Slot = [u64; 3];

/// One access to the memory.
#[derive(Clone, Copy)]
pub(super) enum Access {
    Load { slot: usize, word: usize },
    Store { slot: usize, word: usize, new: u64 },
    CompareExchange { slot: usize, old: u64, new: u64 },
}

/// How the words of a table are accessed.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Mode {
    /// As in the kernel.
    Right,
    /// The slot has its key while its value is written or read.
    WithoutBusy,
    /// A load and a store take the place of compare-and-exchange.
    WithoutAtomics,
}

/// A program of a CPU, while it runs on the model.
pub(super) struct Cpu<'a> {
    memory: RefCell<&'a mut Vec<Slot>>,
    log: RefCell<&'a mut Vec<u64>>,
    at: Cell<usize>,
    /// True once the one access of this step is done.
    is_done: Cell<bool>,
    /// True once the program needed another access.
    pub(super) is_preempted: Cell<bool>,
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
    pub(super) fn table(&self, key: u64) -> AssocTable<&Self> {
        self.key.set(key);
        AssocTable(self)
    }

    pub(super) fn write(&self, slot: usize, value: u64) {
        self.access(Access::Store { slot, word: 1, new: value });
        self.access(Access::Store { slot, word: 2, new: value });
    }

    /// The value. A torn one does not count as read if it is only that of a discarded run.
    pub(super) fn read(&self, slot: usize) -> u64 {
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
pub(super) type Program = fn(&Cpu<'_>) -> Vec<u64>;

/// Everything that a step may change.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) memory: Vec<Slot>,
    logs: Vec<Vec<u64>>,
    /// The result of each CPU whose program has ended.
    pub(super) results: Vec<Option<Vec<u64>>>,
}

impl State {
    /// How many slots have this key.
    pub(super) fn count(&self, key: u64) -> usize {
        self.memory.iter().filter(|slot| slot[0] == key).count()
    }

    /// The values with this key.
    pub(super) fn values(&self, key: u64) -> Vec<u64> {
        self.memory.iter().filter(|slot| slot[0] == key).map(|slot| slot[1]).collect()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.results.iter().all(Option::is_some)
    }

    /// All results, in the order of the CPUs.
    pub(super) fn all_results(&self) -> Vec<u64> {
        self.results.iter().flatten().flatten().copied().collect()
    }
}

/// CPUs that run one program each on one table.
pub(super) struct Model {
    pub(super) words: Mode,
    pub(super) programs: Vec<Program>,
}

impl Model {
    pub(super) fn new(programs: &[Program]) -> Self {
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
    pub(super) fn explore(&self, keys: &[u64], check: impl Fn(&State)) -> usize {
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
