//! The model test: several CPUs see the first packet of one flow at once, and each is preempted at any point between two of
//! its accesses. As in [`crate::assoc_table`], a CPU is its program and the log of what its accesses returned.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::num::NonZero;

use super::*;

const KEY: u64 = key(0x1234_5678);

/// A slot of the model: its tag and its count of packets.
type Slot = [u64; 2];

#[derive(Clone, Copy)]
enum Access {
    Tag(u32),
    Exchange(u32, u64, u64),
    Count(u32),
    Take(u32),
    Add(u32, u64),
}

struct Cpu<'a> {
    memory: RefCell<&'a mut Vec<Slot>>,
    log: RefCell<&'a mut Vec<u64>>,
    at: Cell<usize>,
    is_done: Cell<bool>,
    is_preempted: Cell<bool>,
}

impl Cpu<'_> {
    fn access(&self, access: Access) -> u64 {
        let at = self.at.replace(self.at.get() + 1);
        if let Some(&result) = self.log.borrow().get(at) {
            return result;
        }
        if self.is_done.replace(true) {
            self.is_preempted.set(true);
            // No tag, and no success: the program ends soon, and its result is discarded.
            return 0;
        }
        let mut memory = self.memory.borrow_mut();
        let slot = |way: u32| way as usize;
        let result = match access {
            Access::Tag(way) => memory[slot(way)][0],
            Access::Exchange(way, old, new) => {
                let is_old = memory[slot(way)][0] == old;
                if is_old {
                    memory[slot(way)][0] = new;
                }
                u64::from(is_old)
            }
            Access::Count(way) => {
                memory[slot(way)][1] += 1;
                0
            }
            Access::Take(way) => std::mem::take(&mut memory[slot(way)][1]),
            Access::Add(way, count) => {
                memory[slot(way)][1] += count;
                0
            }
        };
        self.log.borrow_mut().push(result);
        result
    }
}

impl Slots for Cpu<'_> {
    fn tag(&self, way: u32) -> u64 {
        // Ways without a part in the model are free.
        if (way as usize) < self.memory.borrow().len() { self.access(Access::Tag(way)) } else { FREE }
    }

    fn exchange(&self, way: u32, old: u64, new: u64) -> bool {
        self.access(Access::Exchange(way, old, new)) != 0
    }

    fn count(&self, way: u32) {
        self.access(Access::Count(way));
    }

    fn move_counts(&self, from: u32, to: u32) {
        let count = self.access(Access::Take(from));
        self.access(Access::Add(to, count));
    }

    fn ways_with(&self, key: u64) -> u32 {
        (0..WAYS).map(|way| has_key(self.tag(way), key)).sum()
    }

    fn try_open(&self, mine: u32, key: u64) -> u32 {
        try_open(self, mine, key)
    }

    fn contend(&self, mine: u32, key: u64) -> bool {
        contend(self, mine, key)
    }

    fn gather(&self, mine: u32, key: u64) {
        gather(self, mine, key);
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct State {
    memory: Vec<Slot>,
    logs: Vec<Vec<u64>>,
    results: Vec<Option<bool>>,
}

/// A CPU finds a free slot, fills it and settles.
fn begin(cpu: &Cpu<'_>, last: u32) -> bool {
    let free = (0..=last).find(|&way| cpu.tag(way) == FREE && cpu.exchange(way, FREE, BUSY));
    let Some(mine) = free else { return false };
    cpu.exchange(mine, BUSY, KEY | TENTATIVE);
    settle(cpu, mine, KEY)
}

/// A CPU takes a slot and opens it without a look at the others, as a plain table would.
fn begin_blindly(cpu: &Cpu<'_>, last: u32) -> bool {
    let free = (0..=last).find(|&way| cpu.tag(way) == FREE && cpu.exchange(way, FREE, BUSY));
    let Some(mine) = free else { return false };
    cpu.exchange(mine, BUSY, KEY | OPEN);
    cpu.count(mine);
    true
}

/// Frees another flow's slot, so that a later CPU gets a lower way.
fn free_first(cpu: &Cpu<'_>, _: u32) -> bool {
    cpu.exchange(0, key(1 << 20) | CLOSED, FREE);
    false
}

type Program = fn(&Cpu<'_>, u32) -> bool;

fn start(tags: &[u64], cpus: usize) -> State {
    State {
        memory: tags.iter().map(|&tag| [tag, 0]).collect(),
        logs: vec![vec![]; cpus],
        results: vec![None; cpus],
    }
}

/// The state after one more access of a CPU.
fn step(state: &State, cpu: usize, program: Program) -> State {
    let mut next = state.clone();
    let last = next.memory.len() as u32 - 1;
    let running = Cpu {
        memory: RefCell::new(&mut next.memory),
        log: RefCell::new(&mut next.logs[cpu]),
        at: Cell::new(0),
        is_done: Cell::new(false),
        is_preempted: Cell::new(false),
    };
    let result = program(&running, last);
    if !running.is_preempted.get() {
        next.results[cpu] = Some(result);
    }
    next
}

/// Visits all states that any interleaving of the programs reaches.
fn explore(tags: &[u64], programs: &[Program], check: impl Fn(&State)) -> usize {
    let start = start(tags, programs.len());
    let mut seen = HashSet::from([start.clone()]);
    let mut ahead = vec![start];
    while let Some(state) = ahead.pop() {
        check(&state);
        for (cpu, program) in programs.iter().enumerate() {
            if state.results[cpu].is_some() {
                continue;
            }
            let next = step(&state, cpu, *program);
            if seen.insert(next.clone()) {
                ahead.push(next);
            }
        }
    }
    seen.len()
}

fn open_slots(state: &State) -> Vec<&Slot> {
    state.memory.iter().filter(|slot| slot[0] == KEY | OPEN).collect()
}

/// Checks a state of CPUs that send so many packets of one flow.
fn check(state: &State, packets: u64) {
    let open = open_slots(state);
    assert!(open.len() <= 1, "twins");
    if state.results.iter().all(Option::is_some) {
        assert_eq!(open.len(), 1, "no slot opened");
        assert_eq!(state.results.iter().filter(|won| **won == Some(true)).count(), 1);
        assert_eq!(open[0][1], packets, "a packet is not counted where the flow is");
        assert!(state.memory.iter().all(|slot| slot[0] == KEY | OPEN || slot[1] == 0));
    }
}

/// Flows without an end, by random hashes.
#[test]
fn two_thirds_of_the_table_have_room_for_each_flow() {
    const BITS: u32 = 14;
    let mut used = vec![0; 1 << BITS];
    // splitmix64
    let mut seed = 7_u64;
    let mut hash = || {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (seed ^ seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    };
    for flow in 0..((2 * BUCKET) << BITS) / 3 {
        let buckets = buckets([hash(), hash()], BITS).map(|bucket| bucket as usize);
        let chosen = usize::from(first_way(buckets.map(|bucket| used[bucket])) != 0);
        let room = [chosen, 1 - chosen].into_iter().find(|&at| used[buckets[at]] < BUCKET);
        let at = room.unwrap_or_else(|| panic!("no room for flow {flow}"));
        used[buckets[at]] += 1;
    }
}

#[test]
fn a_way_is_used_until_its_flow_ends() {
    let key = key(0x1234_5678_9abc_def0);
    assert_eq!((is_used(FREE), is_used(BUSY)), (0, 1));
    for (phase, used) in [(TENTATIVE, 1), (OPEN, 1), (RESIGNED, 0), (CLOSED, 0), (EXPIRED, 0)] {
        assert_eq!(is_used(key | phase), used, "{phase}");
        assert!(used == 0 || !is_over(key | phase));
    }
}

#[test]
fn a_key_is_the_keys_of_all_its_phases_alone() {
    let key = key(0x1234_5678_9abc_def0);
    for phase in [TENTATIVE, OPEN, RESIGNED, CLOSED, EXPIRED] {
        assert_eq!(has_key(key | phase, key), 1, "{phase}");
    }
    for other in [FREE, BUSY, super::key(0), key ^ 8 | OPEN, key ^ 1 << 62 | OPEN] {
        assert_eq!(has_key(other, key), 0, "{other:x}");
    }
}

#[test]
fn two_cpus_begin_one_flow() {
    assert!(explore(&[FREE, FREE], &[begin, begin], |state| check(state, 2)) > 100);
}

/// Holds [`check`] against random interleavings: three CPUs have too many to visit all.
fn walk(tags: &[u64], programs: &[Program], packets: u64) {
    let mut seed = 1_u64;
    for _ in 0..20_000 {
        let mut state = start(tags, programs.len());
        while let Some(running) = NonZero::new(state.results.iter().filter(|result| result.is_none()).count())
        {
            // Marsaglia's xorshift.
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let chosen = (seed >> 32) as usize % running;
            let cpu = (0..programs.len()).filter(|&cpu| state.results[cpu].is_none()).nth(chosen);
            let cpu = cpu.expect("fewer than are running");
            state = step(&state, cpu, programs[cpu]);
            check(&state, packets);
        }
    }
}

#[test]
fn three_cpus_begin_one_flow() {
    walk(&[FREE, FREE, FREE], &[begin, begin, begin], 3);
}

#[test]
fn cpus_begin_one_flow_while_a_lower_way_becomes_free() {
    let taken = key(1 << 20) | CLOSED;
    walk(&[taken, FREE, FREE], &[begin, begin, free_first], 2);
    walk(&[taken, FREE, FREE, FREE], &[begin, begin, begin, free_first], 3);
}

#[test]
fn blind_table_makes_twins() {
    let has_twins = Cell::new(false);
    explore(&[FREE, FREE], &[begin_blindly, begin_blindly], |state| {
        has_twins.set(has_twins.get() || open_slots(state).len() > 1);
    });
    assert!(has_twins.get(), "the model finds no twins");
}

#[test]
fn buckets_of_a_flow_differ() {
    for hash in 0..1_000_u64 {
        let [first, second] = buckets([hash << 8, (hash * 7) << 8], 4);
        assert!(first != second && first < 16 && second < 16);
    }
    assert_eq!((key(7), key_of(key(99) | OPEN), phase_of(key(99) | OPEN)), (1 << 63, key(99), OPEN));
}
