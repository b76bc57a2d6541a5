//! Random expressions and connections, and an evaluation without sets to compare with.

use conn_common::connection::{Connection, IN, OUT};
use conn_common::owner::CONNECT;
use conn_common::state::{CLOSE, ESTABLISHED, SYN_RECV, SYN_SENT, TIME_WAIT};
use proptest::prelude::*;

use super::tests::parsed;
use super::*;
use crate::host::lookup::fixed::FixedLookup;

/// An expression with a naive evaluation, without sets.
#[derive(Clone, Debug)]
enum Naive {
    Port(&'static str, &'static str, u16),
    Ports(&'static str, u16, u16),
    EitherPort(bool, u16),
    Address4(&'static str, u32, u8),
    Address6(&'static str, u128, u8),
    EitherAddress(bool, u32, u8),
    State(u8),
    In(bool),
    V6(bool),
    Tcp(bool),
    Pid(&'static str, u32),
    NoOwner,
    Comm(&'static str),
    Not(Box<Naive>),
    All(Vec<Naive>),
    Any(Vec<Naive>),
}

impl Naive {
    fn text(&self) -> String {
        let join = |terms: &[Self], with: &str| {
            let terms: Vec<String> = terms.iter().map(|term| format!("({})", term.text())).collect();
            terms.join(with)
        };
        match self {
            Self::Port(word, sign, port) => format!("{word} {sign} :{port}"),
            Self::Ports(word, low, high) => format!("{word} {low}-{high}"),
            Self::EitherPort(true, port) => format!("( sport = :{port} or dport = :{port} )"),
            Self::EitherPort(false, port) => format!("( service = :{port} or client-port = :{port} )"),
            Self::Address4(word, address, len) => {
                format!("{word} {}/{len}", std::net::Ipv4Addr::from_bits(*address))
            }
            Self::Address6(word, address, len) => {
                format!("{word} {}/{len}", std::net::Ipv6Addr::from_bits(*address))
            }
            Self::EitherAddress(by_side, address, len) => {
                let address = std::net::Ipv4Addr::from_bits(*address);
                let [one, other] = if *by_side { ["dst", "src"] } else { ["client", "server"] };
                format!("( {one} {address}/{len} or {other} {address}/{len} )")
            }
            Self::State(state) => format!("state {}", state::name((*state).into()).unwrap()),
            Self::In(yes) => format!("direction {}", if *yes { "in" } else { "out" }),
            Self::V6(yes) => format!("family {}", if *yes { "ipv6" } else { "ipv4" }),
            Self::Tcp(yes) => format!("proto {}", if *yes { "tcp" } else { "udp" }),
            Self::Pid(sign, pid) => format!("pid {sign} {pid}"),
            Self::NoOwner => "uid = -".into(),
            Self::Comm(name) => format!("comm = {name}"),
            Self::Not(term) => format!("not ({})", term.text()),
            Self::All(terms) => join(terms, " and "),
            Self::Any(terms) => join(terms, " or "),
        }
    }

    fn holds(&self, it: &Connection) -> bool {
        let compare = |sign: &str, a: u64, b: u64| match sign {
            "=" => a == b,
            "!=" => a != b,
            "<" => a < b,
            "<=" => a <= b,
            ">" => a > b,
            _ => a >= b,
        };
        let known = it.owner.is_known();
        let (opener, other) = ((it.sport, it.src), (it.dport, it.dst));
        let (ours, theirs) = if it.direction == OUT { (opener, other) } else { (other, opener) };
        let end = |word: &str| match word {
            "client" | "client-port" => opener,
            "server" | "service" => other,
            "src" | "sport" => ours,
            _ => theirs,
        };
        let is_in = |bytes: &[u8; 16], address: u32, len: u8| {
            let own = u32::from_be_bytes(bytes[..4].try_into().unwrap());
            it.family == 4 && (0..len).all(|bit| own << bit >> 31 == address << bit >> 31)
        };
        match self {
            Self::Port(word, sign, port) => compare(sign, end(word).0.into(), (*port).into()),
            Self::Ports(word, low, high) => (*low..=*high).contains(&end(word).0),
            Self::EitherPort(_, port) => it.sport == *port || it.dport == *port,
            Self::Address4(word, address, len) => is_in(&end(word).1, *address, *len),
            Self::Address6(word, address, len) => {
                let own = u128::from_be_bytes(end(word).1);
                it.family == 6 && (0..*len).all(|bit| own << bit >> 127 == address << bit >> 127)
            }
            Self::EitherAddress(_, address, len) => {
                is_in(&it.src, *address, *len) || is_in(&it.dst, *address, *len)
            }
            Self::State(state) => it.state == *state,
            Self::In(yes) => (it.direction == IN) == *yes,
            Self::V6(yes) => (it.family == 6) == *yes,
            // A connection without an event is one of TCP.
            Self::Tcp(yes) => *yes,
            Self::Pid("!=", pid) => !known || it.owner.pid != *pid,
            Self::Pid(sign, pid) => known && compare(sign, it.owner.pid.into(), (*pid).into()),
            Self::NoOwner => !known,
            Self::Comm(name) => {
                known && &it.owner.comm[..name.len()] == name.as_bytes() && it.owner.comm[name.len()] == 0
            }
            Self::Not(term) => !term.holds(it),
            Self::All(terms) => terms.iter().all(|term| term.holds(it)),
            Self::Any(terms) => terms.iter().any(|term| term.holds(it)),
        }
    }
}

/// Random expressions over few values, so that connections match often.
fn naive() -> impl Strategy<Value = Naive> {
    let sign = || prop::sample::select(vec!["=", "!=", "<", "<=", ">", ">="]);
    let port_word = || prop::sample::select(vec!["service", "client-port", "sport", "dport"]);
    let word = || prop::sample::select(vec!["client", "server", "src", "dst"]);
    let test = prop_oneof![
        (port_word(), sign(), port()).prop_map(|(word, sign, port)| Naive::Port(word, sign, port)),
        (port_word(), port(), port()).prop_map(|(word, a, b)| Naive::Ports(word, a.min(b), a.max(b))),
        (any::<bool>(), port()).prop_map(|(by_side, port)| Naive::EitherPort(by_side, port)),
        (word(), address4(), 0..=32_u8).prop_map(|(word, address, len)| Naive::Address4(word, address, len)),
        (word(), address6(), 0..=128_u8).prop_map(|(word, address, len)| Naive::Address6(word, address, len)),
        (any::<bool>(), address4(), 0..=32_u8)
            .prop_map(|(by_side, address, len)| Naive::EitherAddress(by_side, address, len)),
        tcp_state().prop_map(Naive::State),
        any::<bool>().prop_map(Naive::In),
        any::<bool>().prop_map(Naive::V6),
        any::<bool>().prop_map(Naive::Tcp),
        (sign(), 0..4_u32).prop_map(|(sign, pid)| Naive::Pid(sign, pid)),
        Just(Naive::NoOwner),
        prop::sample::select(vec!["a", "ab", "curl"]).prop_map(Naive::Comm),
    ];
    test.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|term| Naive::Not(Box::new(term))),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Naive::All),
            prop::collection::vec(inner, 2..4).prop_map(Naive::Any),
        ]
    })
}

fn port() -> impl Strategy<Value = u16> {
    prop_oneof![Just(0), 21..24_u16, Just(65_535)]
}

fn address4() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0x0a00_0001), Just(0x0a00_0002), Just(0xc000_0201), Just(0)]
}

fn address6() -> impl Strategy<Value = u128> {
    prop_oneof![Just(1), Just(2), Just(0xfd_u128 << 120), Just(0xfffe_ffff_ffff)]
}

fn tcp_state() -> impl Strategy<Value = u8> {
    prop::sample::select(vec![ESTABLISHED, SYN_SENT, SYN_RECV, TIME_WAIT, CLOSE])
}

/// Random connections over the values of [`naive`].
pub(crate) fn connection() -> impl Strategy<Value = Connection> {
    let places = (port(), port(), address4(), address6(), any::<bool>(), any::<bool>());
    let owner = (any::<bool>(), 0..4_u32, prop::sample::select(vec!["a", "ab", "abc", "curl"]));
    (places, owner, tcp_state()).prop_map(
        |((sport, dport, four, six, is_v6, is_in), (known, pid, comm), state)| {
            let mut it = Connection {
                sport,
                dport,
                state,
                direction: if is_in { IN } else { OUT },
                family: if is_v6 { 6 } else { 4 },
                ..Connection::UNSEEN
            };
            if is_v6 {
                (it.src, it.dst) = (six.to_be_bytes(), (six ^ 3).to_be_bytes());
            } else {
                it.src[..4].copy_from_slice(&four.to_be_bytes());
                it.dst[..4].copy_from_slice(&(four ^ 3).to_be_bytes());
            }
            if known {
                it.owner.source = CONNECT;
                it.owner.pid = pid;
                it.owner.comm[..comm.len()].copy_from_slice(comm.as_bytes());
            }
            it
        },
    )
}

/// A random expression.
pub(crate) fn expression() -> impl Strategy<Value = Expression> {
    naive().prop_map(|naive| parsed(&naive.text()))
}

proptest! {
    #[test]
    fn agrees_with_a_naive_evaluation(naive in naive(), connections in prop::collection::vec(connection(), 8)) {
        let expression = parsed(&naive.text());
        let simple = expression.clone().simplified();
        for it in &connections {
            prop_assert_eq!(expression.matches(&it.into()), naive.holds(it), "{}", &expression);
            prop_assert_eq!(simple.matches(&it.into()), naive.holds(it), "{} as {}", &expression, &simple);
        }
    }

    #[test]
    fn printed_expressions_parse_back(expression in expression()) {
        for expression in [expression.clone(), expression.simplified()] {
            prop_assert_eq!(parsed(&expression.to_string()), expression);
        }
    }

    #[test]
    fn names_parse_back(name in "[ -~]{1,15}", unknown in any::<bool>()) {
        let mut comm = [0; 16];
        comm[..name.len()].copy_from_slice(name.as_bytes());
        let mut set = Ranges::one(field::comm(&comm));
        if unknown {
            set = set.union(&Ranges::one(UNKNOWN));
        }
        for set in [set.clone(), Field::Comm.domain().without(&set)] {
            let test = Expression::test(Field::Comm, set);
            prop_assert_eq!(parsed(&test.to_string()), test);
        }
    }

    #[test]
    fn any_text_parses_or_fails(text in ".{0,60}") {
        let _ = parse(&text, &FixedLookup::default()).map_err(|error| error.show(&text));
    }

    #[test]
    fn any_words_parse_or_fail(words in prop::collection::vec(prop::sample::select(vec![
        "dport", "sport", "src", "dst", "client", "server", "service", "client-port", "dev", "fwmark", "autobound",
        "failed", "reason", "error", "lifetime", "bytes", "container", "unit", "refused", "ECONNREFUSED", "1s", "0x1/0x3",
        "any", "10/8", "localhost", "fe80::1%v0", "state", "exclude", "pid", "comm", "uid", "netns", "cgroup", "family",
        "direction", "=", "!=", "<", ">=", "and", "or", "not", "!", "(", ")", ":ssh", "22", "10.0.0.0/8", "[::1]:22",
        "established", "ä", "-", "*", "!22", ",", "1-2", "\"", "'", "\\", "::", "[", "]", "inet:", "proto", "udp", "6", "unix",
    ]), 0..12)) {
        let names = FixedLookup::default();
        for text in [words.join(" "), words.concat()] {
            match parse(&text, &names) {
                Ok(expression) => prop_assert_eq!(parsed(&expression.to_string()), expression, "{}", text),
                Err(error) => prop_assert!(error.show(&text).contains('^')),
            }
        }
    }
}
