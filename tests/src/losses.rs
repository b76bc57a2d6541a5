//! Where losses stand in the output of a tracer whose ring is too small.

/// An eighth of a ring of 4 KiB holds two records. Two more may have a timestamp that is older than their place.
const UNREAD: usize = 4;

/// One line of the output. Times have one unit and one clock.
#[derive(Debug, Clone, Copy)]
pub enum Item {
    /// An event.
    Event {
        /// When it happened.
        time: u64,
    },
    /// A loss.
    Lost {
        /// How many events were lost.
        count: u64,
        /// None of them happened before this time.
        since: u64,
        /// None of them happened after this time.
        until: u64,
    },
}

/// Checks that each loss follows the events before it in time, and precedes those after it. Gives how many events were
/// shown and lost.
///
/// # Panics
/// A loss stands in another place, or two losses overlap.
pub fn check_positions(items: &[Item]) -> (u64, u64) {
    assert!(matches!(items.first(), Some(Item::Event { .. })), "a loss before the ring held anything");
    let (mut shown, mut lost, mut end) = (0, 0, 0);
    for (at, item) in items.iter().enumerate() {
        let Item::Lost { count, since, until } = *item else {
            shown += 1;
            continue;
        };
        lost += count;
        assert!(end <= since && since <= until, "intervals overlap: {end}, then {item:?}");
        end = until;
        let times = |items: &[Item]| -> Vec<u64> {
            let time = |item: &Item| if let Item::Event { time } = item { Some(*time) } else { None };
            items.iter().filter_map(time).collect()
        };
        let early = times(&items[..at]).into_iter().max().expect("an event");
        assert!(early <= until, "an event of {early} stands before {item:?}");
        let late = times(&items[at..]).into_iter().filter(|time| *time < since).count();
        assert!(late <= UNREAD, "{late} events that are older stand behind {item:?}");
    }
    (shown, lost)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Twenty events, one each unit of time, and a loss around the tenth.
    fn items(at: usize) -> Vec<Item> {
        let mut items: Vec<Item> = (0..20).map(|time| Item::Event { time }).collect();
        items.insert(at, Item::Lost { count: 7, since: 9, until: 11 });
        items
    }

    #[test]
    fn a_loss_among_its_events_is_accepted() {
        assert_eq!(check_positions(&items(10)), (20, 7));
    }

    #[test]
    #[should_panic(expected = "stands before")]
    fn a_loss_at_the_end_is_rejected() {
        check_positions(&items(20));
    }

    #[test]
    #[should_panic(expected = "stand behind")]
    fn a_loss_at_the_beginning_is_rejected() {
        check_positions(&items(1));
    }

    #[test]
    #[should_panic(expected = "overlap")]
    fn losses_that_overlap_are_rejected() {
        let mut items = items(10);
        items.insert(11, Item::Lost { count: 1, since: 10, until: 12 });
        check_positions(&items);
    }
}
