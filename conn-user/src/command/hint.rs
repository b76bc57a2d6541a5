//! A hint for people who expect one network namespace, as tools that read `/proc/net` and netlink show it.

use crate::filter::Filter;
use crate::filter::expression::Field;
use crate::host::namespace;
use crate::output::terminal;
use crate::stream::consumer::Consumer;
use crate::stream::notice::Notice;

/// Prints that all network namespaces are shown. Programs, runs in the first namespace and filters of namespaces get no
/// hint.
pub(super) fn print(filter: &Filter, consumer: &mut dyn Consumer) {
    if terminal::is_stderr() && !filter.asks_for(|field| field == Field::Netns) && namespace::is_inner() {
        consumer.notice(&Notice::AllNamespaces);
    }
}
