//! The lifecycle of a socket, as several hooks see it. Each hook may miss steps.
//!
//! Every hook that sees a step asks [`actions`] what the step means for the kept state. The first hook that sees a step
//! gets the work, the next one gets nothing to do.

use crate::state::{CLOSE, LISTEN, SYN_RECV, SYN_SENT, UNSEEN};

/// The actions of a hook for a step, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Actions {
    /// For the steps that all hooks missed.
    pub first: First,
    /// For this step.
    pub then: Then,
    /// The state before the step.
    pub before: u8,
}

/// The action of a hook for steps that all hooks missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// No step was missed.
    Nothing,
    /// Drop the kept life: it is that of an earlier socket, whose end no hook saw.
    Forget,
    /// Apply the transition to [`Actions::before`].
    CatchUp,
}

/// The action of a hook for a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Another hook has seen the step.
    Nothing,
    /// Begin a connection or a listener in the new state.
    Open,
    /// Begin to keep a socket in [`Actions::before`], whose beginning no hook saw, then as [`Self::Go`].
    AdoptAndGo,
    /// Apply the transition to the new state; [`CLOSE`] ends the life.
    Go,
}

/// The meaning of a kept life that has not ended when another one begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unended {
    /// Its end was missed: the state goes with its socket.
    Missed,
    /// It was the life of another socket: a state in the table may outlive its socket.
    OfEarlierSocket,
    /// The run skips ends.
    Skipped,
}

/// True if the kept state is that of a connection or a listener.
#[inline(always)]
pub const fn is_alive(known: u8) -> bool {
    known != UNSEEN && known != CLOSE
}

/// The actions for the step from `old` to `new` of a socket whose kept state is `known`, [`UNSEEN`] if none is kept.
#[inline(always)]
pub const fn actions(known: u8, old: u8, new: u8, unended: Unended) -> Actions {
    if new == old || new == known {
        return Actions { first: First::Nothing, then: Then::Nothing, before: old };
    }
    if opens(old, new) {
        // A socket that begins again has ended before.
        let first = match unended {
            Unended::Missed if is_alive(known) => First::CatchUp,
            Unended::OfEarlierSocket if is_alive(known) => First::Forget,
            _ => First::Nothing,
        };
        return Actions { first, then: Then::Open, before: CLOSE };
    }
    if !is_alive(known) {
        return Actions { first: First::Nothing, then: Then::AdoptAndGo, before: old };
    }
    let first = if known == old { First::Nothing } else { First::CatchUp };
    Actions { first, then: Then::Go, before: old }
}

/// True if the step from `old` to `new` begins a life.
#[inline(always)]
pub const fn opens(old: u8, new: u8) -> bool {
    // As one number: of two, the verifier would remember the values, and follow three paths from here.
    const fn step(old: u8, new: u8) -> u16 {
        (old as u16) << 8 | new as u16
    }
    const CONNECT: u16 = step(CLOSE, SYN_SENT);
    const LISTEN_CALL: u16 = step(CLOSE, LISTEN);
    const CHILD: u16 = step(LISTEN, SYN_RECV);
    matches!(step(old, new), CONNECT | LISTEN_CALL | CHILD)
}

/// True if the step from `old` to `new` begins or ends a listener.
#[inline(always)]
pub const fn is_of_listener(old: u8, new: u8) -> bool {
    new == LISTEN || (old == LISTEN && new == CLOSE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cause::Cause;
    use crate::ledger::{Cells as _, Slot};
    use crate::state::{CLOSE_WAIT, CLOSING, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, LAST_ACK};

    /// A socket whose steps land in a ledger slot, as in the kernel.
    struct Model<'a> {
        state: u8,
        slot: &'a mut Slot,
        repairs: u32,
        forgotten: u32,
        unended: Unended,
    }

    impl<'a> Model<'a> {
        fn new(slot: &'a mut Slot, unended: Unended) -> Self {
            Self { state: UNSEEN, slot, repairs: 0, forgotten: 0, unended }
        }

        /// A hook sees a step.
        fn see(&mut self, old: u8, new: u8) {
            let todo = actions(self.state, old, new, self.unended);
            match todo.first {
                First::Nothing => {}
                First::Forget => self.forgotten += 1,
                First::CatchUp => {
                    self.repairs += 1;
                    self.apply(todo.before);
                }
            }
            match todo.then {
                Then::Nothing => {}
                Then::Open => self.begin(new),
                Then::AdoptAndGo => {
                    // After the walk of the start, a socket without a state is one whose beginning was missed.
                    self.begin(todo.before);
                    self.apply(new);
                }
                Then::Go => self.apply(new),
            }
        }

        fn begin(&mut self, state: u8) {
            self.slot.count_opened(state);
            self.state = state;
        }

        fn apply(&mut self, state: u8) {
            if state == CLOSE {
                self.slot.count_end(self.state, Cause::ResetByPeer);
            } else {
                self.slot.count_step(self.state, state);
            }
            self.state = state;
        }
    }

    /// Whole lives as the kernel makes them: all end at CLOSE and begin at CLOSE, children at LISTEN.
    fn lives() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            Just(vec![CLOSE, SYN_SENT, CLOSE]),
            Just(vec![CLOSE, SYN_SENT, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE]),
            Just(vec![CLOSE, SYN_SENT, ESTABLISHED, CLOSE_WAIT, LAST_ACK, CLOSE]),
            Just(vec![CLOSE, SYN_SENT, ESTABLISHED, FIN_WAIT1, CLOSING, CLOSE]),
            Just(vec![CLOSE, SYN_SENT, ESTABLISHED, CLOSE]),
            Just(vec![CLOSE, SYN_SENT, SYN_RECV, ESTABLISHED, CLOSE_WAIT, CLOSE]),
            Just(vec![LISTEN, SYN_RECV, CLOSE]),
            Just(vec![LISTEN, SYN_RECV, ESTABLISHED, CLOSE_WAIT, LAST_ACK, CLOSE]),
            Just(vec![LISTEN, SYN_RECV, CLOSE_WAIT, LAST_ACK, CLOSE]),
            Just(vec![LISTEN, SYN_RECV, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE]),
            // One socket, connected again after a refusal and after AF_UNSPEC.
            Just(vec![CLOSE, SYN_SENT, CLOSE, SYN_SENT, ESTABLISHED, CLOSE]),
            Just(vec![CLOSE, SYN_SENT, ESTABLISHED, CLOSE, SYN_SENT, CLOSE]),
        ]
    }

    fn unended() -> impl Strategy<Value = Unended> {
        prop_oneof![Just(Unended::Missed), Just(Unended::OfEarlierSocket), Just(Unended::Skipped)]
    }

    /// The counts of the ledger that a life must give.
    fn truth(life: &[u8]) -> (u64, u64, u64, u64) {
        let (mut opened, mut established, mut failed, mut closed) = (0, 0, 0, 0);
        let mut was_established = false;
        for step in life.windows(2) {
            if opens(step[0], step[1]) {
                opened += 1;
                was_established = false;
            } else if step[1] == CLOSE {
                if was_established { closed += 1 } else { failed += 1 }
            } else if !crate::state::is_opening(step[1]) && !was_established {
                was_established = true;
                established += 1;
            }
        }
        (opened, established, failed, closed)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        /// Several hooks miss some steps each. If at least one hook sees each step, the ledger equals the truth.
        #[test]
        fn each_step_is_counted_once_by_any_set_of_hooks(
            lives in prop::collection::vec(lives(), 1..20),
            unended in unended(),
            seen in prop::collection::vec(1_u8..8, 200),
        ) {
            let mut slot = Slot::ZERO;
            let mut seen = seen.iter().cycle();
            let mut expected = (0, 0, 0, 0);
            for life in &lives {
                let mut socket = Model::new(&mut slot, unended);
                for step in life.windows(2) {
                    let mask = *seen.next().unwrap_or(&1);
                    for hook in 0..3 {
                        if mask & (1 << hook) != 0 {
                            socket.see(step[0], step[1]);
                        }
                    }
                }
                prop_assert_eq!((socket.repairs, socket.forgotten), (0, 0));
                let t = truth(life);
                expected = (expected.0 + t.0, expected.1 + t.1, expected.2 + t.2, expected.3 + t.3);
            }
            let got = (slot.opened(), slot.established(), slot.failed(), slot.closed());
            prop_assert_eq!(got, expected);
            prop_assert_eq!(slot.open(), 0);
        }

        /// The next step that a hook sees makes good what all hooks missed before. What was opened and what ended
        /// never differ.
        #[test]
        fn missed_steps_are_caught_up(
            life in lives(),
            seen in prop::collection::vec(any::<bool>(), 8),
        ) {
            let mut slot = Slot::ZERO;
            let mut socket = Model::new(&mut slot, Unended::Missed);
            let last = life.len() - 2;
            for (at, step) in life.windows(2).enumerate() {
                if at == last || seen[at % seen.len()] {
                    socket.see(step[0], step[1]);
                }
            }
            let ended = slot.failed() + slot.closed();
            prop_assert_eq!(slot.opened(), ended);
            prop_assert_eq!(slot.open(), 0);
            prop_assert!(slot.opened() >= 1);
        }

        /// A state that outlived its socket costs one end, which the audit finds, and nothing of the next life.
        #[test]
        fn state_of_an_earlier_socket_is_forgotten_once(earlier in lives(), seen in 1..6_usize, life in lives()) {
            let mut slot = Slot::ZERO;
            let mut socket = Model::new(&mut slot, Unended::OfEarlierSocket);
            let steps: Vec<_> = earlier.windows(2).collect();
            for step in &steps[..seen.min(steps.len() - 1)] {
                socket.see(step[0], step[1]);
            }
            let left = is_alive(socket.state) && socket.state != life[1];
            for step in life.windows(2) {
                socket.see(step[0], step[1]);
            }
            if left {
                prop_assert_eq!((socket.forgotten, socket.repairs), (1, 0));
                prop_assert_eq!(slot.open(), 1);
            }
            prop_assert!(slot.open() <= 1);
        }

        /// A step that a hook knows needs nothing. Only the end of the kept life can come before a beginning, and only
        /// a kept life can miss a step.
        #[test]
        fn actions_fit_the_kept_state(known in 0..13_u8, old in 1..13_u8, new in 1..13_u8, unended in unended()) {
            let todo = actions(known, old, new, unended);
            prop_assert_eq!(todo.then == Then::Nothing, new == old || new == known);
            prop_assert_eq!(todo.then == Then::Open, opens(old, new) && new != known);
            prop_assert!(todo.first == First::Nothing || is_alive(known) && todo.then != Then::AdoptAndGo);
            prop_assert!(todo.first != First::Forget || todo.then == Then::Open);
            prop_assert!(todo.first != First::CatchUp || todo.then != Then::Open || todo.before == CLOSE);
        }
    }
}
