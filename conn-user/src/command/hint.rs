//! Hints for people who expect what other tools show: one network namespace, all protocols, and listeners beside
//! connections.

use conn_common::state::LISTEN;

use crate::filter::Filter;
use crate::filter::expression::Field;
use crate::filter::protocols::Protocols;
use crate::host::namespace;
use crate::output::terminal;
use crate::stream::consumer::Consumer;
use crate::stream::notice::Notice;

/// Prints [`of_namespaces`].
pub(super) fn print(filter: &Filter, consumer: &mut dyn Consumer) {
    if let Some(notice) = of_namespaces(filter) {
        consumer.notice(&notice);
    }
}

/// A run shows all network namespaces. Programs, runs in the first namespace and filters of namespaces get no hint.
pub(super) fn of_namespaces(filter: &Filter) -> Option<Notice> {
    let is_wanted =
        terminal::is_stderr() && !filter.asks_for(|field| field == Field::Netns) && namespace::is_inner();
    is_wanted.then_some(Notice::AllNamespaces)
}

/// Prints that a stream shows TCP only, and which options show more. Programs get no hint.
pub(super) fn print_other_protocols(is_tcp_by_default: bool, consumer: &mut dyn Consumer) {
    if terminal::is_stderr() && is_tcp_by_default {
        consumer.notice(&Notice::OnlyTcp);
    }
}

/// Prints that a list or a count has connections only, if the states of the filter include `listening`. Programs get no
/// hint.
pub(super) fn print_without_listeners(filter: &Filter, protocols: Protocols, consumer: &mut dyn Consumer) {
    if terminal::is_stderr() && filter.asks_for_state(LISTEN) && !filter.is_of_listeners(protocols) {
        consumer.notice(&Notice::NoListeners);
    }
}
