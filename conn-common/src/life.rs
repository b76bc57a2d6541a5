//! The life of a socket as several witnesses tell it, each of whom may have missed some of it.
//!
//! Every hook that sees a transition calls [`witness`]. What the socket remembers decides what is
//! new in it, so whoever comes first does the work and whoever comes second changes nothing.

use crate::state::{CLOSE, LISTEN, SYN_RECV, SYN_SENT, UNSEEN};

/// The side effects of a life. The kernel programs write them into the ledger and the ring, the
/// model test into plain counters.
pub trait Life {
    /// The state remembered of this socket, [`UNSEEN`] if nothing is.
    fn state(&self) -> u8;
    /// A connection or a listener begins in `state`.
    fn open(&mut self, state: u8);
    /// The socket is met in the middle of a life whose beginning nobody saw.
    fn adopt(&mut self, state: u8);
    /// The remembered life goes on to `state`; [`CLOSE`] ends it.
    fn go(&mut self, state: u8);
    /// The remembered state was not the one the witness started from: a step was missed, and is made good by going
    /// there now.
    fn catch_up(&mut self, state: u8);
}

/// True if going from `old` to `new` begins a life.
#[inline(always)]
pub const fn opens(old: u8, new: u8) -> bool {
    // As one number: of two, the verifier would remember which ones they were, and follow three paths from here.
    const fn step(old: u8, new: u8) -> u16 {
        (old as u16) << 8 | new as u16
    }
    const CONNECT: u16 = step(CLOSE, SYN_SENT);
    const LISTENS: u16 = step(CLOSE, LISTEN);
    const CHILD: u16 = step(LISTEN, SYN_RECV);
    matches!(step(old, new), CONNECT | LISTENS | CHILD)
}

/// True if going from `old` to `new` begins or ends a listener.
#[inline(always)]
pub const fn is_of_listener(old: u8, new: u8) -> bool {
    new == LISTEN || (old == LISTEN && new == CLOSE)
}

/// A witness saw the socket go from `old` to `new`.
#[inline(always)]
pub fn witness(life: &mut impl Life, old: u8, new: u8) {
    let known = life.state();
    if new == old || new == known {
        return;
    }
    let alive = known != UNSEEN && known != CLOSE;
    let begins = opens(old, new);
    // A socket that begins again has ended before; any other was in `old`.
    let before = if begins { CLOSE } else { old };
    if alive && known != before {
        life.catch_up(before);
    }
    if begins {
        life.open(new);
        return;
    }
    if !alive {
        life.adopt(old);
    }
    life.go(new);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cause::Cause;
    use crate::ledger::Slot;
    use crate::state::{CLOSE_WAIT, CLOSING, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, LAST_ACK};

    /// A socket whose steps land in a ledger slot, as in the kernel.
    struct Model<'a> {
        state: u8,
        slot: &'a mut Slot,
        repairs: u32,
    }

    impl Life for Model<'_> {
        fn state(&self) -> u8 {
            self.state
        }
        fn open(&mut self, state: u8) {
            self.slot.count_opened(state);
            self.state = state;
        }
        fn adopt(&mut self, state: u8) {
            // After the start snapshot an unseen socket is one whose beginning was missed.
            self.open(state);
        }
        fn go(&mut self, state: u8) {
            if state == CLOSE {
                self.slot.count_end(self.state, Cause::ResetByPeer);
            } else {
                self.slot.count_step(self.state, state);
            }
            self.state = state;
        }
        fn catch_up(&mut self, state: u8) {
            self.repairs += 1;
            self.go(state);
        }
    }

    /// Whole lives as the kernel walks them (all begin and end at CLOSE or, for children, at LISTEN).
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

    /// What the ledger must say of a life.
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

        /// Several witnesses, each of them blind for some transitions: as long as each transition
        /// was seen by one of them, the ledger equals the truth, whatever the interleaving.
        #[test]
        fn any_witnesses_give_the_same_ledger(
            lives in prop::collection::vec(lives(), 1..20),
            seen in prop::collection::vec(1_u8..8, 200),
        ) {
            let mut slot = Slot::ZERO;
            let mut seen = seen.iter().cycle();
            let mut expected = (0, 0, 0, 0);
            for life in &lives {
                let mut socket = Model { state: UNSEEN, slot: &mut slot, repairs: 0 };
                for step in life.windows(2) {
                    let mask = *seen.next().unwrap_or(&1);
                    for who in 0..3 {
                        if mask & (1 << who) != 0 {
                            witness(&mut socket, step[0], step[1]);
                        }
                    }
                }
                prop_assert_eq!(socket.repairs, 0);
                let t = truth(life);
                expected = (expected.0 + t.0, expected.1 + t.1, expected.2 + t.2, expected.3 + t.3);
            }
            let got = (slot.opened(), slot.established(), slot.failed(), slot.closed());
            prop_assert_eq!(got, expected);
            prop_assert_eq!(slot.open(), 0);
        }

        /// Steps that no witness saw are made good by the next one that somebody saw, as far as
        /// that next one can tell; what was opened and what ended never differ.
        #[test]
        fn missed_steps_are_made_good(
            life in lives(),
            seen in prop::collection::vec(any::<bool>(), 8),
        ) {
            let mut slot = Slot::ZERO;
            let mut socket = Model { state: UNSEEN, slot: &mut slot, repairs: 0 };
            let last = life.len() - 2;
            for (at, step) in life.windows(2).enumerate() {
                if at == last || seen[at % seen.len()] {
                    witness(&mut socket, step[0], step[1]);
                }
            }
            let ended = slot.failed() + slot.closed();
            prop_assert_eq!(slot.opened(), ended);
            prop_assert_eq!(slot.open(), 0);
            prop_assert!(slot.opened() >= 1);
        }
    }
}
