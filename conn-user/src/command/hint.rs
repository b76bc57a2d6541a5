//! Hints for people who expect what other tools show: one network namespace, and listeners beside connections.

use conn_common::state::LISTEN;

use crate::filter::Filter;
use crate::filter::expression::Field;
use crate::host::namespace;
use crate::output::terminal;
use crate::stream::consumer::Consumer;
use crate::stream::notice::Notice;

/// Prints that all network namespaces are shown, and that a filter of states leaves listeners out. Programs get no hint,
/// nor do runs in the first namespace and filters of namespaces get the first one.
pub(super) fn print(filter: &Filter, consumer: &mut dyn Consumer) {
    if terminal::is_stderr() && !filter.asks_for(|field| field == Field::Netns) && namespace::is_inner() {
        consumer.notice(&Notice::AllNamespaces);
    }
    if terminal::is_stderr() && filter.asks_for_state(LISTEN) && !filter.is_of_listeners() {
        consumer.notice(&Notice::NoListeners);
    }
}
