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

/// The columns of a process, which others than its user and root may not see.
const PRIVATE: [&str; 19] = [
    "pid",
    "tid",
    "uid",
    "comm",
    "thread",
    "owner",
    "holders",
    "cgroup",
    "container",
    "container_name",
    "container_user",
    "pod",
    "pod_namespace",
    "unit",
    "user_unit",
    "slice",
    "user_slice",
    "processes",
    "cmdline",
];
/// The columns of a connection, which all users may see, as with ss.
const PUBLIC: [&str; 49] = [
    "event",
    "time",
    "time_ns",
    "id",
    "direction",
    "family",
    "protocol",
    "state",
    "old_state",
    "src",
    "sport",
    "dst",
    "dport",
    "src_name",
    "dst_name",
    "netns",
    "interface",
    "interface_index",
    "preexisting",
    "attempt_ns",
    "established_ns",
    "handshake_ns",
    "lifetime_ns",
    "age_ns",
    "at_least_ns",
    "failed",
    "reason",
    "reset",
    "error",
    "attempt",
    "bytes_sent",
    "bytes_received",
    "segments_sent",
    "segments_received",
    "retransmits",
    "srtt_us",
    "min_rtt_us",
    "idle_ns",
    "receive_queue",
    "send_queue",
    "half_open",
    "dropped",
    "local",
    "peer",
    "started",
    "handshake",
    "lifetime",
    "age",
    "idle",
];

#[test]
fn a_viewer_gets_no_column_of_others_processes() {
    use crate::event::enriched::Enriched;
    use crate::event::tests::*;
    use crate::filter::visible;
    let listed: BTreeSet<&str> = PRIVATE.into_iter().chain(PUBLIC).collect();
    let all: BTreeSet<&str> = Column::all().map(|column| column.id).collect();
    assert_eq!(listed, all, "each column is for all users, or for those who may see the process");
    let clock = WallClock::with_offset(0);
    let events =
        [new_out(), established(), closed(), failed(111, 1), preexisting(), open(), listening(), listen()];
    for enriched in events {
        let owner = enriched.connection.owner;
        let seen_by = |uid| {
            // What is looked up, is looked up by the owner that is left.
            let event = visible::event(&enriched, Some(uid)).into_owned();
            let is_own = event.connection.owner.is_known();
            if is_own {
                return Enriched { event, ..enriched.clone() };
            }
            let (src_name, dst_name) = (enriched.src_name.clone(), enriched.dst_name.clone());
            Enriched { src_name, dst_name, interface: enriched.interface.clone(), ..Enriched::from(event) }
        };
        let (own, others) = (seen_by(owner.uid), seen_by(owner.uid + 1));
        for column in Column::all() {
            let whole = column.of(&enriched, &clock);
            if PRIVATE.contains(&column.id) {
                assert!(matches!(column.of(&others, &clock), Cell::Unknown | Cell::Word("-")), "{column:?}");
                let is_kept = !owner.is_known() || column.of(&own, &clock) == whole;
                assert!(column.id == "holders" || is_kept, "{column:?}");
            } else {
                assert_eq!(column.of(&others, &clock), whole, "{column:?}");
            }
        }
    }
}
