//! Tests of what only connection tracking knows: the tuple of replies, address translation, zones, any protocol.

use std::net::SocketAddr;

use conn_common::connection::Connection;

use crate::event::Event;
use crate::event::entry::octets;
use crate::event::tracked::Nat;
use crate::filter::Filter;
use crate::filter::value::prefix;
use crate::filter::value::ranges::Ranges;

/// A filter of flows. All its tests must pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrackedFilter {
    /// The layer-4 protocols, by number; `None` for all.
    pub protocols: Option<Ranges>,
    /// The tuple of replies: its client is the source of replies.
    pub reply: Filter,
    /// The zones; `None` for all. A flow without a zone is in zone 0.
    pub zones: Option<Ranges>,
    /// Tests of address translation.
    pub nat: Vec<NatTest>,
}

/// A test of address translation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatTest {
    /// The end that is translated; `Both` for either.
    pub of: Nat,
    /// The addresses that it is translated to; `None` for any.
    pub to: Option<Ranges>,
}

impl TrackedFilter {
    /// True if a flow passes.
    pub(crate) fn matches(&self, event: &Event) -> bool {
        let has = |set: &Option<Ranges>, number: u128| set.as_ref().is_none_or(|set| set.contains(number));
        has(&self.protocols, event.protocol.into())
            && has(&self.zones, event.tracked.zone.unwrap_or(0).into())
            && self.nat.iter().all(|test| test.matches(event))
            && self.reply.matches(&reply(event))
    }
}

impl NatTest {
    fn matches(&self, event: &Event) -> bool {
        let Some(nat) = event.nat() else { return false };
        let [source, destination] = event.reply();
        let is_one =
            |end: SocketAddr| self.to.as_ref().is_none_or(|to| to.contains(prefix::number_of(end.ip())));
        // Replies go to what the source became, and come from what the destination became.
        let by_source = nat.is_of_source() && is_one(destination);
        let by_destination = nat.is_of_destination() && is_one(source);
        (self.of.is_of_source() && by_source) || (self.of.is_of_destination() && by_destination)
    }
}

/// The direction of replies as a connection.
fn reply(event: &Event) -> Connection {
    let [source, destination] = event.reply();
    Connection {
        src: octets(source.ip()),
        dst: octets(destination.ip()),
        sport: source.port(),
        dport: destination.port(),
        ..event.connection
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::entry::tests::{entries, entry, reading};
    use crate::event::kind::Kind;
    use crate::filter::expression;
    use crate::host::lookup::fixed::FixedLookup;

    fn set(text: &str) -> Ranges {
        prefix::parse(text).unwrap()
    }

    #[test]
    fn translation_is_tested_by_end_and_address() {
        // 10.0.0.1:40000 becomes 10.1.0.2:1024.
        let event = entry().event(&reading(Kind::New));
        assert_eq!(event.nat(), Some(Nat::Source));
        for (of, to, passes) in [
            (Nat::Source, None, true),
            (Nat::Both, None, true),
            (Nat::Destination, None, false),
            (Nat::Source, Some(set("10.1.0.2")), true),
            (Nat::Both, Some(set("10.1.0.0/24")), true),
            (Nat::Source, Some(set("10.0.0.1")), false),
            (Nat::Both, Some(set("10.1.0.1")), false),
        ] {
            let filter = TrackedFilter { nat: vec![NatTest { of, to }], ..TrackedFilter::default() };
            assert_eq!(filter.matches(&event), passes, "{filter:?}");
        }
        let plain = &entries()[1];
        let any = NatTest { of: Nat::Both, to: None };
        assert!(plain.nat().is_none() && !any.matches(plain));
    }

    #[test]
    fn replies_zones_and_protocols_are_tested() {
        let [dns, tcp] = [&entries()[0], &entries()[1]];
        let reply = |text: &str| {
            let expression = expression::parse(text, &FixedLookup::default()).unwrap();
            TrackedFilter { reply: Filter::new(Some(expression)), ..TrackedFilter::default() }
        };
        assert!(reply("client 10.1.0.1 and server 10.1.0.2 and service = 1024").matches(dns));
        assert!(!reply("server 10.0.0.1").matches(dns) && reply("server 10.0.0.1").matches(tcp));
        let zone = |zone| TrackedFilter { zones: Some(Ranges::one(zone)), ..TrackedFilter::default() };
        assert!(zone(0).matches(dns) && !zone(3).matches(dns) && zone(3).matches(tcp));
        let udp = TrackedFilter { protocols: Some(Ranges::one(17)), ..TrackedFilter::default() };
        assert!(udp.matches(dns) && !udp.matches(tcp) && TrackedFilter::default().matches(tcp));
    }
}
