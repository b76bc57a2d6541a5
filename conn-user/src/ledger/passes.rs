//! The passes of one audit: look, look again at a difference, adopt missed sockets, repair phantoms.

use crate::ledger::audit::{Audit, Difference};
use crate::ledger::reader::Ledger;

/// How many passes over the sockets confirm a difference, at most.
const MAX_PASSES: u32 = 3;

/// The readings of kernel and ledger that an audit needs.
pub(super) trait World {
    /// Why a pass fails.
    type Error;

    /// Compares the ledger with all sockets.
    fn look(&mut self) -> Result<(Ledger, Audit), Self::Error>;

    /// Makes the programs remember the sockets that they missed, and correct the states that they missed.
    fn adopt(&mut self) -> Result<(), Self::Error>;

    /// Counts confirmed phantoms of `audit` as ended from now on.
    fn repair(&mut self, confirmed: &[Difference], audit: &Audit) -> Result<(), Self::Error>;
}

/// Audits the ledger. A difference that two passes in a row find is repaired, and no longer in the returned ledger.
///
/// # Errors
/// An error of a pass.
pub(super) fn audit<W: World>(world: &mut W) -> Result<(Ledger, Audit), W::Error> {
    let (mut ledger, mut audit) = world.look()?;
    let mut adopted = false;
    for _ in 0..MAX_PASSES {
        if audit.holds() {
            break;
        }
        let (next_ledger, next) = world.look()?;
        // A socket between its table and the ledger differs in one pass only.
        let confirmed = next.also_in(&audit);
        (ledger, audit) = (next_ledger, next);
        if confirmed.is_empty() {
            break;
        }
        if !adopted && confirmed.iter().any(|difference| difference.excess() < 0) {
            // The ledger lacks steps that no hook saw. Adopting also corrects states, so it comes before the repair:
            // the excess in one state may be what the ledger lacks in another, and no end.
            world.adopt()?;
            adopted = true;
        } else {
            world.repair(&confirmed, &audit)?;
        }
        (ledger, audit) = world.look()?;
    }
    Ok((ledger, audit))
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use conn_common::connection::IN;
    use conn_common::state::{CLOSE_WAIT, ESTABLISHED};

    use super::*;

    /// Passes with given excesses, and a protocol of what the audit did.
    #[derive(Default)]
    struct Script {
        looks: VecDeque<Vec<(u8, i64)>>,
        done: Vec<String>,
    }

    impl Script {
        fn run(looks: &[&[(u8, i64)]]) -> (Vec<String>, Audit) {
            let looks = looks.iter().map(|look| look.to_vec()).collect();
            let mut script = Self { looks, done: Vec::new() };
            let Ok((_, audit)) = audit(&mut script);
            assert_eq!(script.looks.len(), 0, "the audit looked less often than expected: {:?}", script.done);
            (script.done, audit)
        }
    }

    impl World for Script {
        type Error = std::convert::Infallible;

        fn look(&mut self) -> Result<(Ledger, Audit), Self::Error> {
            let differences = self.looks.pop_front().expect("the audit looked more often than expected");
            let difference = |(state, excess)| Difference {
                netns: 1,
                moved: false,
                direction: IN,
                port: 22,
                state,
                ledger: 10 + excess,
                kernel: 10,
            };
            let differences = differences.into_iter().map(difference).collect();
            Ok((Ledger::default(), Audit { differences, ..Audit::default() }))
        }

        fn adopt(&mut self) -> Result<(), Self::Error> {
            self.done.push("adopt".into());
            Ok(())
        }

        fn repair(&mut self, confirmed: &[Difference], _: &Audit) -> Result<(), Self::Error> {
            let excesses: Vec<i64> = confirmed.iter().map(Difference::excess).collect();
            self.done.push(format!("repair {excesses:?}"));
            Ok(())
        }
    }

    #[test]
    fn equal_ledger_is_looked_at_once() {
        assert_eq!(Script::run(&[&[]]).0, [""; 0]);
    }

    #[test]
    fn difference_of_one_pass_is_not_repaired() {
        assert_eq!(Script::run(&[&[(ESTABLISHED, 1)], &[]]).0, [""; 0]);
        let (done, audit) = Script::run(&[&[(ESTABLISHED, 1)], &[(ESTABLISHED, 2)]]);
        assert_eq!((done.len(), audit.holds()), (0, false));
    }

    #[test]
    fn confirmed_phantoms_are_repaired() {
        let phantoms: &[(u8, i64)] = &[(ESTABLISHED, 2)];
        let (done, audit) = Script::run(&[phantoms, phantoms, &[]]);
        assert_eq!((done, audit.holds()), (vec!["repair [2]".to_owned()], true));
    }

    #[test]
    fn missed_sockets_are_adopted_before_the_repair() {
        let both: &[(u8, i64)] = &[(ESTABLISHED, 1), (CLOSE_WAIT, -1)];
        let rest: &[(u8, i64)] = &[(ESTABLISHED, 1)];
        assert_eq!(Script::run(&[both, both, &[]]).0, ["adopt"]);
        assert_eq!(Script::run(&[both, both, rest, rest, &[]]).0, ["adopt", "repair [1]"]);
    }

    #[test]
    fn passes_end_while_differences_remain() {
        let lack: &[(u8, i64)] = &[(ESTABLISHED, -1)];
        let (done, audit) = Script::run(&[lack; 7]);
        assert_eq!(done, ["adopt", "repair [-1]", "repair [-1]"]);
        assert!(!audit.holds());
    }
}
