//! The answers of `/v1/count` that the ledger of the daemon knows: by service port, direction and state. Others need a walk of
//! the sockets.

use conn_common::connection::Connection;
use conn_common::ledger::Cells as _;
use conn_common::state::{CLOSE, FIN_WAIT2, LISTEN, OPEN, SYN_RECV, TIME_WAIT};

use crate::filter::Filter;
use crate::filter::expression::Field;
use crate::filter::protocols::Protocols;
use crate::ledger::reader::Ledger;
use crate::render::number_table::TableFormat;
use crate::settings::CountSettings;

/// States of sockets that the ledger does not have, or of which the kernel has sockets of another kind, too.
const OF_SOCKETS: [u8; 5] = [LISTEN, CLOSE, SYN_RECV, FIN_WAIT2, TIME_WAIT];

/// True if the ledger knows the answer.
pub(crate) fn is_of_ledger(settings: &CountSettings) -> bool {
    let filter = &settings.filter;
    let is_known =
        |field| matches!(field, Field::Service | Field::Direction | Field::State | Field::Protocol);
    settings.forwarded.is_none()
        && settings.protocols == Protocols::TCP
        && settings.workload.is_empty()
        && settings.by.is_empty()
        && !filter.has_predicate()
        && !filter.asks_for(|field| !is_known(field))
        && !OF_SOCKETS.iter().any(|&state| filter.asks_for_state(state))
}

/// The answer, and the exit status of the command. None if the reading is not of one moment, or lacks the port of a
/// connection.
pub(crate) fn answer(settings: &CountSettings, ledger: &Ledger) -> Option<(String, u8)> {
    let open = open(&settings.filter, ledger)?;
    let text = match settings.format {
        TableFormat::Json => format!("{{\"open\":{open}}}\n"),
        TableFormat::Csv => format!("open\n{open}\n"),
        TableFormat::Table => format!("{open}\n"),
    };
    Some((text, u8::from(settings.exit_code && open == 0)))
}

fn open(filter: &Filter, ledger: &Ledger) -> Option<u64> {
    if ledger.unattributed.as_ref().is_some_and(|counts| counts.open() != 0) {
        return None;
    }
    let mut sum = 0;
    for (&(direction, dport), counts) in &ledger.ports {
        for state in OPEN {
            let connection = Connection { direction, dport, state, ..Connection::UNSEEN };
            if filter.matches(&connection) {
                sum += u64::try_from(counts.open_in(state)).ok()?;
            }
        }
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::lookup::fixed::FixedLookup;
    use crate::serve::endpoint::Endpoint;
    use crate::serve::peer::Rights;
    use crate::serve::query::Query;
    use crate::settings::Settings;

    fn is_fast(query: &str) -> bool {
        let query = Query::read(Endpoint::Count, query).unwrap();
        match query.settings(&FixedLookup::default(), Rights::All).unwrap() {
            Settings::Count(settings) => is_of_ledger(&settings),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_ledger_knows_ports_directions_and_states() {
        for query in
            ["", "dport=443", "dport=1-9&direction=in&state=established,syn-sent", "filter=service+%3D+:22"]
        {
            assert!(is_fast(query), "{query}");
        }
        for query in [
            "sport=443",
            "src=10.0.0.0/8",
            "comm=ssh",
            "container=web",
            "by=port",
            "protocol=udp",
            "forwarded",
            "netns=4026531840",
            "state=time-wait",
            "state=listening",
            "state=fin-wait-2",
            "family=ipv6",
            "filter=dport+%3D+:22",
        ] {
            assert!(!is_fast(query), "{query}");
        }
    }
}
