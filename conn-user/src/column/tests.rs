use std::collections::BTreeSet;

use super::*;

#[test]
fn names_are_unique_and_simple() {
    let ids: BTreeSet<&str> = Column::all().map(|column| column.id).collect();
    assert_eq!(ids.len(), Column::all().count());
    for column in Column::all() {
        assert!(column.id.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{column:?}");
        assert!(!column.title.is_empty() && !column.help.is_empty(), "{column:?}");
        assert!(column.kinds != 0, "{column:?}");
        assert_eq!(Column::named(column.id), Some(column));
    }
    assert!(!Column::native().any(|column| matches!(column.kind, Type::Duration | Type::Endpoint)));
}

#[test]
fn values_are_of_their_columns_type() {
    use crate::event::tests::*;
    let events = [
        new_out(),
        established(),
        closed(),
        failed(111, 1),
        preexisting(),
        reset(),
        link_local(),
        open(),
        listening(),
        attempt(),
        listen(),
        listener_closed(),
    ];
    let clock = WallClock::with_offset(0);
    for column in Column::all() {
        let mut known = false;
        for event in &events {
            let cell = column.of(event, &clock);
            known |= cell != Cell::Unknown;
            let fits = match (column.kind, cell) {
                (_, Cell::Unknown) => !column.unknown.is_empty() || !column.is_in(event.kind),
                (Type::Word(words), Cell::Word(word)) => words.contains(&word),
                (Type::Boolean, Cell::Boolean(_))
                | (Type::Integer, Cell::Number(_) | Cell::Bytes(_) | Cell::Service(_) | Cell::UnixNs(_))
                | (Type::Text, Cell::Name(_) | Cell::Container { .. } | Cell::Unit(_) | Cell::Errno(_))
                | (Type::Processes, Cell::Processes(_))
                | (Type::Address, Cell::Address { .. })
                | (Type::Endpoint, Cell::Endpoint { .. })
                | (Type::Time, Cell::Time(_) | Cell::Date(_))
                | (Type::Duration, Cell::Duration { .. }) => true,
                _ => false,
            };
            assert!(fits, "{column:?}: {cell:?} of {:?}", event.kind);
        }
        assert!(known, "{column:?} is never known");
    }
}

#[test]
fn words_fit_their_columns() {
    for column in Column::all() {
        if let Type::Word(words) = column.kind {
            // Only lists have listeners, and lists measure before they print. Tables widen for flows of other protocols.
            let rare = ["listen", "forward", "icmpv6", "udplite"];
            let usual = words.iter().filter(|word| !rare.contains(word));
            let longest = usual.map(|word| word.len()).max().unwrap();
            assert!(column.width.max(column.title.len()) >= longest, "{column:?}");
        }
    }
}
