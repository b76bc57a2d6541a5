//! What holds for the three instances of a table, whatever the interleaving.

use std::collections::BTreeSet;

use super::model::{Cpu, Mode, Model, Program, State};
use super::*;

/// Two sockets whose first way is the same.
const A: u64 = 0x40;
const B: u64 = 0x80;
/// A third key, which takes ways from the start.
const OTHER: u64 = 0xc0;

/// Notes an owner as an accept does: replaces the one that is there.
fn put(cpu: &Cpu<'_>, key: u64, value: u64) -> bool {
    let table = cpu.table(key);
    if table.update(0, key, |slot| cpu.write(slot, value)) {
        return true;
    }
    let Some(slot) = table.acquire_busy(0) else { return false };
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
            let Some(slot) = table.acquire_busy(0) else { return vec![] };
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
