//! How a filter was understood, in words, and why it can never match.

use conn_common::state::CLOSE;

use crate::event::kind::Kind;
use crate::event::unix::STATES;
use crate::filter::Filter;
use crate::filter::expression::field::UNKNOWN;
use crate::filter::expression::{Expression, Field, state};
use crate::filter::protocols::Protocols;
use crate::filter::value::prefix;
use crate::filter::value::ranges::Ranges;

/// The log lists at most this many values of a test.
const MAX_LISTED: usize = 16;

impl Filter {
    /// Logs with `-v` which part the kernel decides, in words. Warns if nothing of these kinds and protocols can pass.
    pub fn log(&self, kinds: &[Kind], protocols: Protocols) {
        let every = || "every connection passes".to_owned();
        log::debug!("filter in the kernel: {}", self.in_kernel.as_ref().map_or_else(every, describe));
        if let Some(rest) = &self.rest {
            log::debug!("filter here, on what the kernel lets through: {}", describe(rest));
        }
        if let Some(why) = self.contradiction(kinds, protocols) {
            log::warn!("this filter can never match: {why}");
        }
    }

    /// Why nothing of these kinds and protocols can pass; `None` if something may.
    pub(crate) fn contradiction(&self, kinds: &[Kind], protocols: Protocols) -> Option<String> {
        if let Some((field, _)) = self.bounds.iter().find(|(_, set)| set.is_empty()) {
            return Some(format!("what it asks for excludes each other in {}", field.noun()));
        }
        self.two_families()
            .or_else(|| self.no_such_state(kinds, protocols))
            .or_else(|| self.no_end(kinds))
            .or_else(|| self.no_listener(kinds))
    }

    /// Two ends of different families.
    fn two_families(&self) -> Option<String> {
        let [mut four, mut six] = [Vec::new(), Vec::new()];
        for (field, set) in &self.bounds {
            let (v4, v6) = match field {
                Field::Family => (Ranges::one(4), Ranges::one(6)),
                field if field.is_address() => (prefix::ipv4(), prefix::ipv6()),
                _ => continue,
            };
            let has = |family: &Ranges| !set.intersection(family).is_empty();
            match (has(&v4), has(&v6)) {
                (true, false) => four.push(*field),
                (false, true) => six.push(*field),
                _ => {}
            }
        }
        let (four, six) = (four.first()?, six.first()?);
        Some(format!("{} is IPv4 and {} is IPv6, and a connection has one family", four.noun(), six.noun()))
    }

    /// States that nothing of these kinds has.
    fn no_such_state(&self, kinds: &[Kind], protocols: Protocols) -> Option<String> {
        let asked = self.bounds.get(&Field::State)?;
        let is_unix = protocols == Protocols::UNIX;
        let has_unconnected = kinds.contains(&Kind::Open) && protocols.contains(Protocols::UDP);
        let may_be = |state: u128| {
            let is = |known: &u8| u128::from(*known) == state;
            if is_unix {
                return STATES.iter().any(is);
            }
            kinds.iter().any(|kind| kind.states().iter().any(is)) || has_unconnected && is(&CLOSE)
        };
        if asked.numbers().any(may_be) {
            return None;
        }
        let names: Vec<_> = asked.numbers().filter_map(state::name).collect();
        if is_unix {
            return Some(format!("no Unix domain socket has the state {}", names.join(" or ")));
        }
        let hint =
            if kinds.contains(&Kind::Open) { "" } else { ": conntrace list shows sockets in every state" };
        Some(format!("no event of the chosen kinds has the state {}{hint}", names.join(" or ")))
    }

    /// A test that only ends pass, where there are none.
    fn no_end(&self, kinds: &[Kind]) -> Option<String> {
        if kinds.contains(&Kind::Destroy) {
            return None;
        }
        let is_of_end = |(field, set): &(&Field, &Ranges)| match field {
            Field::Failed => !set.contains(0),
            Field::Reason | Field::Error => !set.contains(UNKNOWN),
            _ => false,
        };
        let (field, _) = self.bounds.iter().find(is_of_end)?;
        Some(format!(
            "only DESTROY events have {}",
            if *field == Field::Failed { "failed" } else { field.noun() }
        ))
    }

    /// A direction, where there are only listeners.
    fn no_listener(&self, kinds: &[Kind]) -> Option<String> {
        let has_only = kinds.iter().all(|kind| kind.is_of_listeners());
        (has_only && !self.admits_listeners()).then(|| "a listener is neither in nor out".to_owned())
    }
}

/// An expression in words.
fn describe(expression: &Expression) -> String {
    let join = |terms: &[Expression], with: &str| {
        let inner = |term: &Expression| match term {
            Expression::And(_) | Expression::Or(_) => format!("( {} )", describe(term)),
            _ => describe(term),
        };
        terms.iter().map(inner).collect::<Vec<_>>().join(with)
    };
    match expression {
        Expression::Test(test) => match test.weight() {
            0..=MAX_LISTED => test.describe(),
            many => format!("{} is in a set of {many}", test.field.noun()),
        },
        Expression::Predicate(predicate) => predicate.describe(true),
        Expression::Not(term) => match &**term {
            Expression::Predicate(predicate) => predicate.describe(false),
            term => format!("not ( {} )", describe(term)),
        },
        Expression::And(terms) => join(terms, ", and "),
        Expression::Or(terms) => join(terms, ", or "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::expression;
    use crate::host::lookup::fixed::FixedLookup;

    fn filter(text: &str) -> Filter {
        Filter::new(Some(expression::parse(text, &FixedLookup::default()).unwrap()))
    }

    #[test]
    fn filters_are_described_in_words() {
        for (text, words) in [
            ("sport = :443", "this host's port is 443"),
            ("service = 22,80", "the service port is 22 or 80"),
            ("( dport = :ssh or sport = :ssh )", "the peer's port is 22, or this host's port is 22"),
            (
                "state established and not client 10.0.0.0/8",
                "the state is established, and the client's address is not 10.0.0.0/8",
            ),
            ("comm != curl,-", "the owner's name is not curl or unknown"),
            ("failed and reason = refused", "the connection failed, and the reason of the end is refused"),
            ("lifetime > 1s", "the lifetime is at least 1000000001ns"),
            ("fwmark = 1/3", "the mark is 0x1 under the mask 0x3"),
            ("not dev = eth0", "the interface is not eth0"),
            (
                "pid = 7 or dport = 22 and uid = 0",
                "the owner's process id is 7, or ( the peer's port is 22, and the owner's user id is 0 )",
            ),
        ] {
            assert_eq!(filter(text).whole.as_ref().map(describe).as_deref(), Some(words), "{text}");
        }
    }

    #[test]
    fn contradictions_are_found() {
        for (text, why) in [
            ("client 2.2.2.2 server ::1", "the client's address is IPv4 and the server's address is IPv6"),
            ("src 2.2.2.2 and client ::1", "this host's address is IPv4 and the client's address is IPv6"),
            ("family ipv6 and dst 10/8", "the peer's address is IPv4 and the family is IPv6"),
            ("service = 22 and service = 23", "what it asks for excludes each other in the service port"),
            ("service = 22 and service = 23 and pid = 7", "excludes each other in the service port"),
        ] {
            let found = filter(text).contradiction(&Kind::ALL, Protocols::TCP).unwrap_or_default();
            assert!(found.contains(why), "{text}: {found}");
        }
        for text in ["client 2.2.2.2 or server ::1", "not client 2.2.2.2 and server ::1", "service = 22"] {
            assert_eq!(filter(text).contradiction(&Kind::ALL, Protocols::TCP), None, "{text}");
        }
    }

    #[test]
    fn kinds_without_a_state_or_an_end_are_found() {
        let found = |text: &str, kinds: &[Kind]| {
            filter(text).contradiction(kinds, Protocols::TCP).unwrap_or_default()
        };
        assert_eq!(
            found("state time-wait", &Kind::ALL),
            "no event of the chosen kinds has the state time-wait: conntrace list shows sockets in every state"
        );
        assert!(found("state established and service = 22", &[Kind::New]).contains("the state established"));
        assert!(found("state closed", &[Kind::Open]).ends_with("has the state closed"));
        assert_eq!(filter("state closed").contradiction(&[Kind::Open], Protocols::UDP), None);
        assert_eq!(found("failed", &[Kind::New]), "only DESTROY events have failed");
        assert_eq!(
            found("reason = refused", &[Kind::Open]),
            "only DESTROY events have the reason of the end"
        );
        for text in
            ["state time-wait or service = 22", "state connected", "not failed", "error != ECONNRESET"]
        {
            assert_eq!(found(text, &[Kind::Update]), "", "{text}");
        }
        assert_eq!(found("direction in", &[Kind::Listen]), "a listener is neither in nor out");
        assert_eq!(found("direction listen", &[Kind::Listen]), "");
        assert_eq!(found("failed state closed", &Kind::ALL), "");
        assert_eq!(found("state time-wait", &[Kind::Open]), "");
    }
}
