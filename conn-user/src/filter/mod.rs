//! The filter of connections: options and expression as one value, in two parts. The kernel decides its part, user
//! space the rest, on each event that the kernel lets through.

mod explain;
pub(crate) mod expression;
pub(crate) mod kernel_part;
pub(crate) mod lifetimes;
pub mod protocols;
pub(crate) mod sockets;
pub mod subject;
pub(crate) mod syntax_error;
pub mod tracked;
pub(crate) mod value;
pub(crate) mod visible;
pub(crate) mod workload;

use std::collections::BTreeMap;

use conn_common::connection::{Connection, IN, OUT};
use conn_common::protocol::TCP;
use conn_common::remote::{SLOT_WORDS, slot_bit};
use conn_common::state::{CLOSE, LISTEN};

pub use self::kernel_part::KernelPart;
use crate::filter::expression::{Expression, Field, PredicateKind, field};
use crate::filter::protocols::Protocols;
use crate::filter::subject::Subject;
use crate::filter::value::ranges::Ranges;

/// A filter of connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The whole filter; `None` admits every connection.
    whole: Option<Expression>,
    /// The kernel's part.
    kernel_part: KernelPart,
    /// The same as an expression.
    in_kernel: Option<Expression>,
    /// The part that the kernel cannot decide.
    rest: Option<Expression>,
    /// For each field, a set that contains the value of every connection that passes. Fields without such a bound are
    /// absent.
    bounds: BTreeMap<Field, Ranges>,
    /// The filter has `state all`, which excludes nothing and includes sockets beyond open connections.
    all_states: bool,
    /// The one user whose processes the run may show.
    viewer: Option<u32>,
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
        let mut in_kernel = Vec::new();
        let mut decided = Vec::new();
        for (&field, set) in &bounds {
            if kernel_part.takes(field, set) {
                decided.push(field);
                in_kernel.push(Expression::test(field, set.clone()));
            }
        }
        // The bound of a single test decides. The bounds of other terms only narrow.
        let rest = terms.into_iter().filter(|term| {
            let takes = match term {
                Expression::Test(test) => return !decided.contains(&test.field),
                Expression::Predicate(predicate) => kernel_part.takes_predicate(predicate, true),
                Expression::Not(inner) => {
                    matches!(&**inner, Expression::Predicate(predicate) if kernel_part.takes_predicate(predicate, false))
                }
                Expression::Or(terms) => match &terms[..] {
                    [Expression::Test(a), Expression::Test(b)] => {
                        let (a, b) = if a.field < b.field { (a, b) } else { (b, a) };
                        kernel_part.takes_either(a, b)
                    }
                    _ => false,
                },
                Expression::And(_) => false,
            };
            if takes {
                in_kernel.push(term.clone());
            }
            !takes
        });
        let rest = Expression::all_of(rest.collect());
        // A list judges by the whole filter.
        if whole.as_ref().is_some_and(|whole| whole.has_predicate(PredicateKind::Mark)) {
            kernel_part.show_marks();
        }
        let in_kernel = Expression::all_of(in_kernel);
        Self { whole, kernel_part, in_kernel, rest, bounds, all_states, viewer: None }
    }

    /// The filter of a run that shows the processes of one user only. A test of what belongs to a process must not say
    /// anything of others, so with such a test only connections of that user's processes pass.
    pub(crate) fn of_viewer(whole: Option<Expression>, viewer: u32, tests_workloads: bool) -> Self {
        let is_private = |whole: &Expression| {
            whole.fields().into_iter().any(Field::is_private)
                || PredicateKind::ALL.into_iter().any(|kind| kind.is_private() && whole.has_predicate(kind))
        };
        let is_private = tests_workloads || whole.as_ref().is_some_and(is_private);
        let own = is_private.then(|| Expression::test(Field::Uid, Ranges::one(viewer.into())));
        let terms = whole.into_iter().chain(own).collect();
        Self { viewer: Some(viewer), ..Self::new(Expression::all_of(terms)) }
    }

    /// The one user whose processes the run may show; `None` if it may show all.
    pub(crate) const fn viewer(&self) -> Option<u32> {
        self.viewer
    }

    /// The kernel's part.
    pub const fn kernel_part(&self) -> &KernelPart {
        &self.kernel_part
    }

    /// True if a connection passes.
    pub fn matches<'a>(&self, subject: impl Into<Subject<'a>>) -> bool {
        self.whole.as_ref().is_none_or(|whole| whole.matches(&subject.into()))
    }

    /// True if a connection passes that the kernel has let through.
    pub fn matches_rest<'a>(&self, subject: impl Into<Subject<'a>>) -> bool {
        self.rest.as_ref().is_none_or(|rest| rest.matches(&subject.into()))
    }

    /// True if the filter tests one of the fields.
    pub fn asks_for(&self, is_one: impl Fn(Field) -> bool) -> bool {
        self.fields().any(is_one)
    }

    /// True if the filter has a predicate of this kind that user space decides.
    pub fn decides(&self, kind: PredicateKind) -> bool {
        self.rest.as_ref().is_some_and(|rest| rest.has_predicate(kind))
    }

    /// True if the filter asks for containers or units.
    pub fn asks_for_workloads(&self) -> bool {
        PredicateKind::ALL.into_iter().any(|kind| kind.is_of_workloads() && self.decides(kind))
    }

    /// A set that contains the value of a field in every connection that passes; `None` if there is no such bound.
    pub(crate) fn bound(&self, field: Field) -> Option<&Ranges> {
        self.bounds.get(&field)
    }

    /// The fields that the filter tests.
    pub fn fields(&self) -> impl Iterator<Item = Field> {
        self.whole.iter().flat_map(Expression::fields)
    }

    /// The protocols that may pass; `None` if the filter does not test for them.
    pub fn protocols(&self) -> Option<Protocols> {
        let tests = self.asks_for(|field| field == Field::Protocol);
        let bound = || self.bounds.get(&Field::Protocol).map_or(Protocols::INET, Protocols::from_numbers);
        tests.then(bound)
    }

    /// True if the filter tests states, and this state may pass.
    pub fn asks_for_state(&self, state: u8) -> bool {
        self.all_states || self.bounds.get(&Field::State).is_some_and(|states| states.contains(state.into()))
    }

    /// True if only listening sockets pass, and of UDP only sockets without a peer.
    pub fn is_of_listeners(&self, protocols: Protocols) -> bool {
        let listening = |state| match state {
            LISTEN => true,
            CLOSE => protocols.intersects(Protocols::UDP.union(Protocols::UNIX)),
            _ => false,
        };
        let asked = self.bounds.get(&Field::State);
        asked.is_some_and(|asked| !asked.is_empty() && asked.numbers().all(|state| listening(state as u8)))
    }

    /// True if the filter lets sockets without a direction pass that listen.
    pub fn admits_listeners(&self) -> bool {
        self.bounds.get(&Field::Direction).is_none_or(|set| set.contains(field::LISTEN))
    }

    /// True if a slot of the ledger may count connections that pass. A slot of TCP knows direction and service port only.
    pub fn matches_slot(&self, direction: u8, port: u16) -> bool {
        self.matches_slot_of(TCP, direction, port)
    }

    /// The same of the counts of a protocol.
    pub(crate) fn matches_slot_of(&self, protocol: u8, direction: u8, port: u16) -> bool {
        let connection = Connection { direction, dport: port, ..Connection::UNSEEN };
        let subject = Subject { protocol, ..Subject::from(&connection) };
        let knows = |field| matches!(field, Field::Direction | Field::Service | Field::Protocol);
        if !self.asks_for(|field| !knows(field)) && !self.has_predicate() {
            return self.matches(subject);
        }
        [Field::Direction, Field::Service, Field::Protocol]
            .iter()
            .all(|field| self.bounds.get(field).is_none_or(|set| set.contains(field.of(&subject))))
    }

    /// The slots that [`Self::matches_slot`] lets through, as [`slot_bit`] has them; `None` for all.
    pub(crate) fn slots(&self) -> Option<Vec<u64>> {
        let mut words = vec![0; SLOT_WORDS as usize];
        for direction in [IN, OUT] {
            for port in (0..=u16::MAX).filter(|&port| self.matches_slot(direction, port)) {
                let (word, bit) = slot_bit(direction, port);
                words[word as usize] |= bit;
            }
        }
        words.iter().any(|&word| word != u64::MAX).then_some(words)
    }

    /// True if the filter tests something of the owner.
    pub(crate) fn asks_for_owners(&self) -> bool {
        let kinds = [PredicateKind::Container, PredicateKind::Unit, PredicateKind::UserUnit];
        self.asks_for(Field::is_owners) || kinds.into_iter().any(|kind| self.has_predicate_of(kind))
    }

    /// True if the filter has a test that no set of numbers can express.
    pub(crate) fn has_predicate(&self) -> bool {
        PredicateKind::ALL.into_iter().any(|kind| self.has_predicate_of(kind))
    }

    /// True if the filter has a predicate of this kind.
    pub(crate) fn has_predicate_of(&self, kind: PredicateKind) -> bool {
        self.whole.as_ref().is_some_and(|whole| whole.has_predicate(kind))
    }
}

/// True if one of the tests lets every state pass.
fn says_all_states(expression: &Expression) -> bool {
    match expression {
        Expression::Test(test) => test.field == Field::State && test.set == Field::State.domain(),
        Expression::Not(_) | Expression::Predicate(_) => false,
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
        // Of simplified expressions, only predicates are negated.
        Expression::Not(_) | Expression::Predicate(_) => None,
    }
}

#[cfg(test)]
mod tests {
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
        filter.protocols().is_none_or(|loaded| loaded.contains(Protocols::TCP))
            && wants_tuple(kernel_part, it)
            && wants_state(kernel_part, it.state)
            && wants_owner(kernel_part, &it.owner)
    }

    #[test]
    fn kernel_decides_what_it_can() {
        for text in [
            "service = 22",
            "service != 22 and client 10.0.0.0/8 and state established",
            "service = 22 or service = 80",
            "service = 22 or client-port = 23",
            "client 10.0.0.0/8 or server 10.0.0.0/8",
            // As pasted from ss.
            "sport = :443",
            "( dport = :ssh or sport = :ssh )",
            "state fin-wait-1 ( sport = :http or sport = :https ) dst 193.233.7/24",
            "( src 0.0.0.0 or src 10.0.0.1 ) and dst 10.0.0.2",
            "src 10.0.0.1 and ( sport = 22 and dport = 50312 )",
            "src 10/8 or dst 10/8",
            "( sport = :80 or dport = :80 ) and ( src 10/8 or dst 10/8 ) and not state time-wait",
            "sport > :1024 and dport < :1024",
            "fwmark = 0x1/0xff and autobound",
            "not fwmark = 7",
            "service = 22 and src 10.0.0.1",
            "pid = 7,8 and comm != curl and uid = - and netns = blue and cgroup = /web",
            "direction in and family ipv6 and client-port > 1024",
            "uid >= 1000",
            "not (dport = 22 or src 10.0.0.0/8)",
            "not (dport = 22 or sport = 22)",
        ] {
            assert_eq!(filter(text).rest, None, "{text}");
        }
        for (text, rest) in [
            ("uid >= 100000 and dport = 22", "uid = 100000-4294967295"),
            ("dport = 22 or src 10.0.0.0/8", "dport = 22 or src = 10.0.0.0/8"),
            // One kind of ends of ports is in the kernel.
            ("service = 22 and sport = 22", "sport = 22"),
            ("dport = 22 or sport = 22 or pid = 7", "dport = 22 or sport = 22 or pid = 7"),
            ("failed and service = 22 and bytes > 1K", "failed and bytes >= 1025"),
            ("service = 22 and ( fwmark = 1 or unit = nginx )", "fwmark = 0x1 or unit = nginx"),
            ("dev = eth0 and src fe80::1%eth0", "dev = eth0 and dev = eth0"),
        ] {
            assert_eq!(filter(text).rest.unwrap().to_string(), rest);
        }
    }

    #[test]
    fn a_viewer_filters_by_processes_of_its_own_only() {
        let of = |text: &str, workloads| {
            Filter::of_viewer(expression::parse(text, &FixedLookup::default()).ok(), 7, workloads)
        };
        let on = |uid: u32, port| Connection {
            dport: port,
            owner: conn_common::owner::Owner {
                pid: 5,
                uid,
                source: conn_common::owner::CONNECT,
                ..Connection::UNSEEN.owner
            },
            ..Connection::UNSEEN
        };
        assert!(of("service = 22", false).matches(&on(8, 22)));
        for text in ["pid = 5", "pid != 6", "uid = 8 or service = 22", "not comm = x", "uid = 7,8"] {
            assert!(!of(text, false).matches(&on(8, 22)), "{text}");
        }
        assert!(
            of("pid = 5", false).matches(&on(7, 22)) && !of("uid = -", false).matches(&Connection::UNSEEN)
        );
        for text in
            ["fwmark = 0x1 or service = 22", "container = a or service = 22", "unit = a or service = 22"]
        {
            assert!(!of(text, false).matches(&on(8, 22)), "{text}");
        }
        assert!(!of("service = 22", true).matches(&on(8, 22)));
        assert!(of("dev = eth0 or service = 22", false).matches(&on(8, 22)));
    }

    #[test]
    fn or_narrows_the_kernel_part() {
        let it = filter("service = 22 or (service >= 8000 and server 10.0.0.0/8)");
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
        let it = filter("service = 22 and direction in or service = 80 and direction out");
        assert_eq!(
            [(IN, 22), (OUT, 22), (IN, 80), (OUT, 80)]
                .map(|(direction, port)| it.matches_slot(direction, port)),
            [true, false, false, true]
        );
        let it = filter("service = 22 and pid = 7");
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
                prop_assert_eq!(both, expression.matches(&it.into()), "{} on {:?}", &expression, it);
                prop_assert_eq!(filter.matches(it), both);
                prop_assert!(!both || filter.matches_slot(it.direction, it.dport));
            }
        }
    }
}
