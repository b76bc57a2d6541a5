//! The account of one network namespace: what began and ended there, and what is tracked now.

use crate::event::entry::Failures;

/// The account, of all flows that are tracked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    /// The namespace, by inode number.
    pub netns: u32,
    /// Flows that began, before and after the table was counted.
    pub begun: [u64; 2],
    /// Flows whose end a message reported, likewise.
    pub ended: [u64; 2],
    /// Messages about beginnings and about ends that were lost. They are part of the numbers above.
    pub lost: [u64; 2],
    /// Flows from before the run.
    pub preexisting: u64,
    /// Flows from before the run whose end a dump found.
    pub ended_unseen: u64,
    /// Flows from before the run that the last dump shows alive. Each may have ended since, without a message.
    pub silent: u64,
    /// Entries of the table: what `conntrack -C` prints.
    pub tracked: u64,
    /// How many the table may have.
    pub max: u64,
    /// Failures in this run.
    pub failures: Failures,
    /// All messages from before were read. Else the numbers prove nothing.
    pub is_settled: bool,
}

/// The result of comparing an account with the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing moved, and the numbers agree.
    Holds,
    /// Flows began or ended while the table was counted, and the numbers lie between the bounds, or messages never end. The
    /// next dump finds the end of a flow from before the run, which no message reports.
    Moving,
    /// The numbers contradict each other by so many flows.
    Differs(u64),
}

impl Account {
    /// The same account, in which a flow from before the run whose end was reported by a lost message is no unseen end: the
    /// dump found its end, too. How many there are follows from the table, within these bounds.
    #[must_use]
    pub(crate) fn without_lost_ends(self) -> Self {
        let (most, least) = (self.ended_unseen, self.ended_unseen.saturating_sub(self.lost[1]));
        let ended = self.ended[1] + self.tracked;
        let by_table = (self.begun[1] + self.preexisting).saturating_sub(ended);
        Self { ended_unseen: by_table.clamp(least, most), ..self }
    }

    /// Compares `begun + preexisting = ended + ended unseen + tracked`. While flows begin and end, the table has what
    /// had begun before and may have ended since, or more.
    pub(crate) fn verdict(&self) -> Verdict {
        let [[begun, begun_later], [ended, ended_later]] = [self.begun, self.ended];
        let least = (begun + self.preexisting).saturating_sub(ended_later + self.ended_unseen);
        let most = (begun_later + self.preexisting).saturating_sub(ended + self.ended_unseen);
        match self.tracked {
            _ if !self.is_settled => Verdict::Moving,
            tracked if tracked < least.saturating_sub(self.silent) => Verdict::Differs(least - tracked),
            tracked if tracked > most => Verdict::Differs(tracked - most),
            tracked if tracked == least && least == most => Verdict::Holds,
            _ => Verdict::Moving,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(begun: [u64; 2], ended: [u64; 2], tracked: u64) -> Account {
        Account {
            netns: 1,
            begun,
            ended,
            lost: [0; 2],
            preexisting: 3,
            ended_unseen: 1,
            silent: 0,
            tracked,
            max: 100,
            failures: Failures::default(),
            is_settled: true,
        }
    }

    #[test]
    fn ends_that_were_lost_and_found_count_once() {
        let with = |lost, ended_unseen, tracked| {
            let account = Account { lost: [0, lost], ended_unseen, ..account([10, 10], [7, 7], tracked) };
            let account = account.without_lost_ends();
            (account.ended_unseen, account.verdict())
        };
        assert_eq!(with(0, 3, 3), (3, Verdict::Holds));
        // Two of the ends that the dump found are among the seven that messages reported.
        assert_eq!(with(2, 3, 5), (1, Verdict::Holds));
        assert_eq!(with(1, 3, 5), (2, Verdict::Differs(1)));
        assert_eq!(with(0, 3, 5), (3, Verdict::Differs(2)));
    }

    #[test]
    fn accounts_are_compared_to_the_unit_or_between_bounds() {
        assert_eq!(account([10, 10], [5, 5], 7).verdict(), Verdict::Holds);
        assert_eq!(account([10, 10], [5, 5], 6).verdict(), Verdict::Differs(1));
        assert_eq!(account([10, 10], [5, 5], 9).verdict(), Verdict::Differs(2));
        // Two flows from before the run may have ended between the dump and the count of the table.
        for (tracked, verdict) in
            [(7, Verdict::Holds), (6, Verdict::Moving), (5, Verdict::Moving), (4, Verdict::Differs(3))]
        {
            let account = Account { silent: 2, ..account([10, 10], [5, 5], tracked) };
            assert_eq!(account.verdict(), verdict, "{tracked}");
        }
        let unsettled = Account { is_settled: false, ..account([10, 10], [5, 5], 9) };
        assert_eq!(unsettled.verdict(), Verdict::Moving);
        for tracked in 5..=10 {
            let verdict = if (6..=9).contains(&tracked) { Verdict::Moving } else { Verdict::Differs(1) };
            assert_eq!(account([10, 12], [5, 6], tracked).verdict(), verdict, "{tracked}");
        }
    }
}
