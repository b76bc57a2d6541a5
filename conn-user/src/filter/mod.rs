//! The filter of connections: options and expression as one value, in two parts. The kernel decides its part, user
//! space the rest, on each event that the kernel lets through.

pub(crate) mod expression;
pub(crate) mod kernel_part;
pub(crate) mod lifetimes;
pub(crate) mod sockets;
pub(crate) mod syntax_error;
pub(crate) mod value;
pub(crate) mod workload;

use std::collections::BTreeMap;

use conn_common::connection::Connection;
use conn_common::state::LISTEN;

pub use self::kernel_part::KernelPart;
use crate::filter::expression::{Expression, Field, Test};
use crate::filter::value::ranges::Ranges;

/// The log lists at most this many values of a test.
const MAX_LISTED: usize = 16;

/// A filter of connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The whole filter; `None` admits every connection.
    whole: Option<Expression>,
    /// The kernel's part.
    kernel_part: KernelPart,
    /// The part that the kernel cannot decide.
    rest: Option<Expression>,
    /// For each field, a set that contains the value of every connection that passes. Fields without such a bound are
    /// absent.
    bounds: BTreeMap<Field, Ranges>,
    /// The filter has `state all`, which excludes nothing and includes sockets beyond open connections.
    all_states: bool,
}

impl Filter {
    /// Every connection.
    pub fn all() -> Self {
        Self::default()
    }

    /// The filter of an expression.
    pub fn new(whole: Option<Expression>) -> Self {
        let all_states = whole.as_ref().is_some_and(says_all_states);
        let whole = whole.map(Expression::simplified);
        let terms = match whole.clone() {
            Some(Expression::And(terms)) => terms,
            other => Vec::from_iter(other),
        };
        let bounds: BTreeMap<Field, Ranges> = Field::ALL
            .into_iter()
            .filter_map(|field| Some((field, bound(whole.as_ref()?, field)?)))
            .collect();
        let mut kernel_part = KernelPart::all();
        let taken: Vec<Field> = bounds
            .iter()
            .filter(|(field, set)| kernel_part.takes(**field, set))
            .map(|(field, _)| *field)
            .collect();
        // The bound of a single test decides. The bounds of other terms only narrow.
        let rest = terms.into_iter().filter(|term| match term {
            Expression::Test(test) => !taken.contains(&test.field),
            _ => true,
        });
        Self { rest: Expression::all_of(rest.collect()), whole, kernel_part, bounds, all_states }
    }

    /// The kernel's part.
    pub const fn kernel_part(&self) -> &KernelPart {
        &self.kernel_part
    }

    /// True if a connection passes.
    pub fn matches(&self, connection: &Connection) -> bool {
        self.whole.as_ref().is_none_or(|whole| whole.matches(connection))
    }

    /// True if a connection passes that the kernel has let through.
    pub fn matches_rest(&self, connection: &Connection) -> bool {
        self.rest.as_ref().is_none_or(|rest| rest.matches(connection))
    }

    /// True if the filter tests one of the fields.
    pub fn asks_for(&self, is_one: impl Fn(Field) -> bool) -> bool {
        self.fields().any(is_one)
    }

    /// The fields that the filter tests.
    pub fn fields(&self) -> impl Iterator<Item = Field> {
        self.whole.iter().flat_map(Expression::fields)
    }

    /// True if the filter tests states, and this state may pass.
    pub fn asks_for_state(&self, state: u8) -> bool {
        self.all_states || self.bounds.get(&Field::State).is_some_and(|states| states.contains(state.into()))
    }

    /// True if only listening sockets pass.
    pub fn is_of_listeners(&self) -> bool {
        self.bounds.get(&Field::State) == Some(&Ranges::one(LISTEN.into()))
    }

    /// True if a slot of the ledger may count connections that pass. A slot knows direction and service port only.
    pub fn matches_slot(&self, direction: u8, port: u16) -> bool {
        let connection = Connection { direction, dport: port, ..Connection::UNSEEN };
        if !self.asks_for(|field| !matches!(field, Field::Direction | Field::Dport)) {
            return self.matches(&connection);
        }
        [Field::Direction, Field::Dport]
            .iter()
            .all(|field| self.bounds.get(field).is_none_or(|set| set.contains(field.of(&connection))))
    }

    /// Logs with `-v` which part the kernel decides. Warns if no connection can pass.
    pub fn log(&self) {
        let short_test = |field: &Field, set: &Ranges| short(&Test { field: *field, set: set.clone() });
        let in_kernel = self.bounds.iter().filter(|(field, _)| self.kernel_part.has(**field));
        let in_kernel: Vec<String> = in_kernel.map(|(field, set)| short_test(field, set)).collect();
        let all = "every connection";
        log::debug!(
            "filter in the kernel: {}",
            if in_kernel.is_empty() { all.into() } else { in_kernel.join(" and ") }
        );
        if matches!(&self.whole, Some(Expression::Test(test)) if test.set.is_empty()) {
            log::warn!("no connection can pass this filter: what it asks for excludes each other");
        }
        if let Some(rest) = &self.rest {
            log::debug!("filter here, on what the kernel lets through: {}", short_expression(rest));
        }
    }
}

/// True if one of the tests lets every state pass.
fn says_all_states(expression: &Expression) -> bool {
    match expression {
        Expression::Test(test) => test.field == Field::State && test.set == Field::State.domain(),
        Expression::Not(_) => false,
        Expression::And(terms) | Expression::Or(terms) => terms.iter().any(says_all_states),
    }
}

/// The values of a field in all connections that pass; `None` for any value.
fn bound(expression: &Expression, field: Field) -> Option<Ranges> {
    match expression {
        Expression::Test(test) => (test.field == field).then(|| test.set.clone()),
        Expression::And(terms) => {
            terms.iter().filter_map(|term| bound(term, field)).reduce(|all, next| all.intersection(&next))
        }
        Expression::Or(terms) => {
            let bounds: Option<Vec<Ranges>> = terms.iter().map(|term| bound(term, field)).collect();
            Ranges::in_any(&bounds?).filter(|any| *any != field.domain())
        }
        // Simplified expressions have no negation.
        Expression::Not(_) => None,
    }
}

/// A test as a short text, for any number of values.
fn short(test: &Test) -> String {
    match test.weight() {
        0..=MAX_LISTED => test.to_string(),
        many => format!("{} in a set of {many}", test.field.word()),
    }
}

fn short_expression(expression: &Expression) -> String {
    let join = |terms: &[Expression], with: &str| {
        let terms: Vec<String> = terms.iter().map(|term| format!("({})", short_expression(term))).collect();
        terms.join(with)
    };
    match expression {
        Expression::Test(test) => short(test),
        Expression::Not(term) => format!("not ({})", short_expression(term)),
        Expression::And(terms) => join(terms, " and "),
        Expression::Or(terms) => join(terms, " or "),
    }
}

#[cfg(test)]
mod tests {
    use conn_common::connection::{IN, OUT};
    use conn_common::filter::{wants_owner, wants_state, wants_tuple};
    use proptest::prelude::*;

    use super::*;
    use crate::filter::expression::random;
    use crate::host::lookup::fixed::FixedLookup;

    fn filter(text: &str) -> Filter {
        Filter::new(Some(expression::parse(text, &FixedLookup::default()).unwrap()))
    }

    /// The decision of the kernel programs, in their order.
    fn kernel(filter: &Filter, it: &Connection) -> bool {
        let kernel_part = filter.kernel_part();
        wants_tuple(kernel_part, it)
            && wants_state(kernel_part, it.state)
            && wants_owner(kernel_part, &it.owner)
    }

    #[test]
    fn kernel_decides_what_it_can() {
        for text in [
            "dport = 22",
            "dport != 22 and src 10.0.0.0/8 and state established",
            "dport = 22 or dport = 80",
            "pid = 7,8 and comm != curl and uid = - and netns = blue and cgroup = /web",
            "direction in and family ipv6 and sport > 1024",
            "uid >= 1000",
            "not (dport = 22 or src 10.0.0.0/8)",
        ] {
            assert_eq!(filter(text).rest, None, "{text}");
        }
        for (text, rest) in [
            ("uid >= 100000 and dport = 22", "uid = 100000-4294967295"),
            ("dport = 22 or src 10.0.0.0/8", "dport = 22 or src = 10.0.0.0/8"),
        ] {
            assert_eq!(filter(text).rest.unwrap().to_string(), rest);
        }
    }

    #[test]
    fn or_narrows_the_kernel_part() {
        let it = filter("dport = 22 or (dport >= 8000 and dst 10.0.0.0/8)");
        let on = |port| Connection { dport: port, family: 4, state: 1, ..Connection::UNSEEN };
        assert_eq!([22, 80, 8000].map(|port| kernel(&it, &on(port))), [true, false, true]);
        assert_eq!([22, 8000].map(|port| it.matches_rest(&on(port))), [true, false]);
    }

    #[test]
    fn many_terms_are_simplified() {
        let address = |n: u32| std::net::Ipv4Addr::from_bits(0x0a00_0000 + 2 * n);
        let text = |term: &dyn Fn(u32) -> String| (0..10_000).map(term).collect::<Vec<_>>().join(" or ");
        let it = filter(&text(&|n| format!("src {}", address(n))));
        assert_eq!((it.kernel_part().sources.len(), it.rest), (10_000, None));
        let it = filter(&text(&|n| format!("src {} and dport = :{n}", address(n))));
        assert_eq!(it.kernel_part().sources.len(), 10_000);
        assert!(it.rest.is_some());
    }

    #[test]
    fn slots_match_by_direction_and_port() {
        let it = filter("dport = 22 and direction in or dport = 80 and direction out");
        assert_eq!(
            [(IN, 22), (OUT, 22), (IN, 80), (OUT, 80)]
                .map(|(direction, port)| it.matches_slot(direction, port)),
            [true, false, false, true]
        );
        let it = filter("dport = 22 and pid = 7");
        assert!(it.matches_slot(IN, 22) && !it.matches_slot(IN, 23));
        assert!(Filter::all().matches_slot(OUT, 0));
    }

    proptest! {
        #[test]
        fn both_parts_together_are_the_whole(
            expression in random::expression(),
            connections in prop::collection::vec(random::connection(), 8),
        ) {
            let filter = Filter::new(Some(expression.clone()));
            for it in &connections {
                let both = kernel(&filter, it) && filter.matches_rest(it);
                prop_assert_eq!(both, expression.matches(it), "{} on {:?}", &expression, it);
                prop_assert_eq!(filter.matches(it), both);
                prop_assert!(!both || filter.matches_slot(it.direction, it.dport));
            }
        }
    }
}
