//! Which network namespaces track flows, for `--forwarded`, and how full their tables are.

use std::fmt::Write as _;

use super::Fact;
use crate::conntrack::table::TableFacts;
use crate::host::namespace;

/// How many namespaces are named.
const MOST: usize = 10;
/// A rule that switches tracking on in the namespace in which it is added.
const RULE: &str = "nft 'add table inet track; add chain inet track f { type filter hook forward priority 0; }; \
                    add rule inet track f ct state new'";

/// One fact: the tables that have entries, and what it takes where there are none.
pub(super) fn fact() -> Fact {
    Fact { name: "tracked flows", value: describe() }
}

fn describe() -> String {
    if TableFacts::probe().is_none() {
        return "no: connection tracking is not loaded (modprobe nf_conntrack_netlink)".into();
    }
    let found = namespace::all().namespaces;
    let tables = namespace::in_each(&found, TableFacts::probe);
    let (tracking, idle): (Vec<_>, Vec<_>) = tables.iter().partition(|(_, facts)| facts.count > 0);
    let mut text = String::new();
    for (netns, facts) in tracking.iter().take(MOST) {
        let TableFacts { count, max, accounting, timestamps } = facts;
        let on = |is_on: &bool| if *is_on { "on" } else { "off" };
        // Writing into a string does not fail.
        _ = writeln!(
            text,
            "netns {netns}: {count} of {max} entries ({} % full), accounting {}, time stamps {}",
            (100 * count).checked_div(*max).unwrap_or(100),
            on(accounting),
            on(timestamps),
        );
    }
    if tracking.len() > MOST {
        _ = writeln!(text, "{} more namespaces with entries", tracking.len() - MOST);
    }
    if !idle.is_empty() {
        _ = writeln!(text, "network namespaces without an entry now: {}", idle.len());
    }
    if tracking.is_empty() {
        _ = writeln!(text, "tracking begins with a rule that asks for it; conntrace adds none:\n{RULE}");
    }
    text.trim_end().to_owned()
}
