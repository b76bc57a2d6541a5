//! A reader of `conntrack -E` event lines, written from conntrack's own grammar and not from conntrace's
//! formatter, so that what it takes is what any parser of conntrack's output takes.
//!
//! ```text
//! ["[SECONDS.MICROS]\t"] TYPE " " [L3] L4 [TIMEOUT " "] [STATE " "] TUPLE ["[UNREPLIED] "] TUPLE
//! ["[ASSURED] "] ["key=value "]…
//! ```
//! TYPE is right-aligned in 9 columns, protocol names are padded to 8, and the last blank is cut off.

use crate::truth::Tuple;
use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

const STATES: [&str; 11] = [
    "NONE",
    "SYN_SENT",
    "SYN_RECV",
    "ESTABLISHED",
    "FIN_WAIT",
    "CLOSE_WAIT",
    "LAST_ACK",
    "TIME_WAIT",
    "CLOSE",
    "SYN_SENT2",
    "LISTEN",
];

const TYPES: [(&str, Kind); 6] = [
    ("    [NEW] ", Kind::New),
    (" [UPDATE] ", Kind::Update),
    ("[DESTROY] ", Kind::Destroy),
    ("[ATTEMPT] ", Kind::Attempt),
    (" [LISTEN] ", Kind::Listen),
    (" [CLOSED] ", Kind::Closed),
];

/// The type of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `[NEW]`
    New,
    /// `[UPDATE]`
    Update,
    /// `[DESTROY]`
    Destroy,
    /// `[ATTEMPT]`, which conntrack does not have
    Attempt,
    /// `[LISTEN]`, which conntrack does not have
    Listen,
    /// `[CLOSED]`, which conntrack does not have
    Closed,
    /// None: a line of `conntrack -L`
    Open,
}

/// What stands in front of a line with `-o timestamp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// Seconds since the epoch.
    pub seconds: u64,
    /// Microseconds.
    pub micros: u32,
}

/// One direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Side {
    /// `src=` and `sport=`; of ICMP `id=`
    pub source: SocketAddr,
    /// `dst=` and `dport=`; of ICMP `type=` and `code=`
    pub destination: SocketAddr,
    /// `packets=` and `bytes=`
    pub counters: Option<(u64, u64)>,
}

/// An event line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// With `-o timestamp`.
    pub stamp: Option<Stamp>,
    /// The type.
    pub kind: Kind,
    /// With `-o extended`: 2 or 10.
    pub family: Option<u8>,
    /// Name of the protocol.
    pub protocol: String,
    /// Number of the protocol.
    pub number: u8,
    /// Seconds until the entry goes.
    pub timeout: Option<u32>,
    /// The TCP state.
    pub state: Option<String>,
    /// The original direction.
    pub original: Side,
    /// The reply direction.
    pub reply: Side,
    /// `[UNREPLIED]`
    pub unreplied: bool,
    /// `[ASSURED]`
    pub assured: bool,
    /// `[OFFLOAD]`, in the place of `[ASSURED]`
    pub offload: bool,
    /// What follows as key=value.
    pub keys: BTreeMap<String, String>,
}

/// Why a line is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ungrammatical {
    line: String,
    at: usize,
    wanted: &'static str,
}

impl fmt::Display for Ungrammatical {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "not a conntrack line: {} expected at column {} of {:?}",
            self.wanted,
            self.at + 1,
            self.line
        )
    }
}

impl std::error::Error for Ungrammatical {}

impl Line {
    /// The tuple from the side that opened the connection.
    pub fn tuple(&self) -> Tuple {
        Tuple { client: self.original.source, server: self.original.destination }
    }

    /// The value of a key.
    pub fn key(&self, name: &str) -> Option<&str> {
        self.keys.get(name).map(String::as_str)
    }
}

impl FromStr for Line {
    type Err = Ungrammatical;

    fn from_str(line: &str) -> Result<Self, Ungrammatical> {
        // The blank that conntrack cuts off is put back, so that every token ends in one.
        let padded = format!("{line} ");
        let mut reader = Reader { all: &padded, rest: &padded };
        let stamp = reader.stamp()?;
        let kind = TYPES
            .into_iter()
            .find_map(|(text, kind)| reader.skip(text).then_some(kind))
            .or_else(|| reader.rest.starts_with(|c: char| c.is_ascii_lowercase()).then_some(Kind::Open))
            .ok_or_else(|| reader.wanted("an event type"))?;
        let family = [("ipv4     2 ", 2), ("ipv6     10 ", 10)]
            .into_iter()
            .find_map(|(text, family)| reader.skip(text).then_some(family));
        let (protocol, number) = reader.protocol()?;
        let timeout = reader.take(|word| word.parse::<u32>().ok());
        let state = reader.take(|word| STATES.contains(&word).then(|| word.to_owned()));
        let original = reader.side()?;
        let unreplied = reader.skip("[UNREPLIED] ");
        let reply = reader.side()?;
        let assured = reader.skip("[ASSURED] ");
        let offload = !assured && reader.skip("[OFFLOAD] ");
        let keys = reader.keys()?;
        let same_family =
            [original.source, original.destination, reply.source, reply.destination].map(|a| a.is_ipv4());
        if same_family.iter().any(|is_ipv4| *is_ipv4 != same_family[0]) {
            return Err(reader.wanted("addresses of one family"));
        }
        Ok(Self {
            stamp,
            kind,
            family,
            protocol,
            number,
            timeout,
            state,
            original,
            reply,
            unreplied,
            assured,
            offload,
            keys,
        })
    }
}

struct Reader<'a> {
    all: &'a str,
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn wanted(&self, wanted: &'static str) -> Ungrammatical {
        Ungrammatical {
            line: self.all[..self.all.len() - 1].to_owned(),
            at: self.all.len() - self.rest.len(),
            wanted,
        }
    }

    fn skip(&mut self, text: &str) -> bool {
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// The next word and its one blank, if `read` takes the word.
    fn take<T>(&mut self, read: impl FnOnce(&'a str) -> Option<T>) -> Option<T> {
        let (word, rest) = self.rest.split_once(' ')?;
        let value = read(word)?;
        self.rest = rest;
        Some(value)
    }

    fn stamp(&mut self) -> Result<Option<Stamp>, Ungrammatical> {
        let Some((stamp, rest)) = self.rest.split_once('\t') else { return Ok(None) };
        let parts = stamp.strip_prefix('[').and_then(|s| s.strip_suffix(']')).and_then(|s| s.split_once('.'));
        let stamp = parts.and_then(|(seconds, micros)| {
            let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
            let valid = seconds.len() >= 8 && micros.len() == 6 && digits(seconds) && digits(micros);
            let stamp = Stamp { seconds: seconds.parse().ok()?, micros: micros.parse().ok()? };
            valid.then_some(stamp)
        });
        let stamp = stamp.ok_or_else(|| self.wanted("[seconds.microseconds]"))?;
        self.rest = rest;
        Ok(Some(stamp))
    }

    /// `"%-8s %u "`
    fn protocol(&mut self) -> Result<(String, u8), Ungrammatical> {
        let name = self.rest.get(..9).filter(|text| text.ends_with(' ')).map(str::trim_end);
        let name = name.filter(|name| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        });
        let name = name.ok_or_else(|| self.wanted("a protocol name in 8 columns"))?;
        self.rest = &self.rest[9..];
        let number = self.take(|word| word.parse().ok()).ok_or_else(|| self.wanted("a protocol number"))?;
        Ok((name.to_owned(), number))
    }

    fn side(&mut self) -> Result<Side, Ungrammatical> {
        let source = self.value::<IpAddr>("src=")?;
        let destination = self.value::<IpAddr>("dst=")?;
        let (from, to) = if self.rest.starts_with("type=") {
            // A flow of ICMP has an id in place of the source port, and type and code in place of the other.
            let (kind, code) = (self.value::<u8>("type=")?, self.value::<u8>("code=")?);
            (self.value("id=")?, u16::from_be_bytes([kind, code]))
        } else {
            (self.value("sport=")?, self.value("dport=")?)
        };
        let counters = if self.rest.starts_with("packets=") {
            Some((self.value("packets=")?, self.value("bytes=")?))
        } else {
            None
        };
        let (source, destination) = (SocketAddr::new(source, from), SocketAddr::new(destination, to));
        Ok(Side { source, destination, counters })
    }

    fn value<T: FromStr>(&mut self, key: &'static str) -> Result<T, Ungrammatical> {
        self.take(|word| word.strip_prefix(key)?.parse().ok()).ok_or_else(|| self.wanted(key))
    }

    /// With `-o ktimestamp`, a date in brackets.
    fn moment(&mut self, key: &str) -> bool {
        let rest = self.rest.strip_prefix(key).and_then(|rest| rest.split_once("] "));
        self.rest = rest.map_or(self.rest, |(_, rest)| rest);
        rest.is_some()
    }

    fn keys(&mut self) -> Result<BTreeMap<String, String>, Ungrammatical> {
        let mut keys = BTreeMap::new();
        while !self.rest.is_empty() {
            if self.skip("[USERSPACE] ") || self.moment("[start=") || self.moment("[stop=") {
                continue;
            }
            let (key, value) = self
                .take(|word| {
                    let (key, value) = word.split_once('=')?;
                    // "lifetime>=1.5": at least.
                    let name = key.strip_suffix('>').unwrap_or(key);
                    let valid = !name.is_empty()
                        && name.bytes().all(|b| b.is_ascii_lowercase() || b"_-".contains(&b))
                        && !value.is_empty()
                        && !value.contains(char::is_control);
                    valid.then(|| (key.to_owned(), value.to_owned()))
                })
                .ok_or_else(|| self.wanted("key=value"))?;
            if keys.insert(key, value).is_some() {
                return Err(self.wanted("a key only once"));
            }
        }
        Ok(keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Line, Ungrammatical> {
        line.parse()
    }

    #[test]
    fn conntracks_own_samples_are_read() {
        let new = parse("    [NEW] tcp      6 120 SYN_SENT src=192.168.2.100 dst=66.102.9.104 sport=33379 dport=80 [UNREPLIED] src=66.102.9.104 dst=192.168.2.100 sport=80 dport=33379").unwrap();
        assert_eq!((new.kind, new.timeout, new.state.as_deref()), (Kind::New, Some(120), Some("SYN_SENT")));
        assert_eq!((new.protocol.as_str(), new.number), ("tcp", 6));
        assert!(new.unreplied && !new.assured && new.keys.is_empty());
        assert_eq!(new.tuple().to_string(), "192.168.2.100:33379 > 66.102.9.104:80");
        assert_eq!(new.reply.source, new.original.destination);

        let old = parse("[DESTROY] tcp      6 src=10.0.0.1 dst=127.0.0.1 sport=36826 dport=28106 src=10.0.0.2 dst=127.0.0.2 sport=28107 dport=36826 [ASSURED]").unwrap();
        assert_eq!((old.kind, old.timeout, old.state, old.assured), (Kind::Destroy, None, None, true));

        let counted = parse("[DESTROY] tcp      6 TIME_WAIT src=192.168.4.81 dst=192.168.6.8 sport=54774 dport=8080 packets=6 bytes=1388 src=192.168.6.8 dst=192.168.4.81 sport=8080 dport=54774 packets=4 bytes=398 [ASSURED] mark=16777216 delta-time=120").unwrap();
        assert_eq!(counted.original.counters, Some((6, 1388)));
        assert_eq!(counted.key("delta-time"), Some("120"));

        let stamped = parse("[1685571135.590407]\t    [NEW] tcp      6 120 SYN_SENT src=10.244.1.6 dst=10.244.2.9 sport=49400 dport=5201 [UNREPLIED] src=10.244.2.9 dst=10.244.1.6 sport=5201 dport=49400 zone=65520").unwrap();
        assert_eq!(stamped.stamp, Some(Stamp { seconds: 1_685_571_135, micros: 590_407 }));
    }

    #[test]
    fn what_options_and_other_commands_add_is_read() {
        let listed = parse("ipv4     2 tcp      6 431982 ESTABLISHED src=192.0.2.1 dst=192.0.2.2 sport=34846 dport=993 packets=169 bytes=14322 src=192.0.2.2 dst=192.0.2.1 sport=993 dport=34846 packets=113 bytes=34787 [ASSURED] mark=0 [start=Fri Jan  2 03:04:06 2026] use=1 id=7").unwrap();
        assert_eq!((listed.kind, listed.family, listed.key("id")), (Kind::Open, Some(2), Some("7")));
        let flushed = parse("[DESTROY] tcp      6 9 CLOSE src=192.0.2.1 dst=192.0.2.2 sport=58020 dport=29707 src=192.0.2.2 dst=192.0.2.1 sport=29707 dport=58020 [ASSURED] [USERSPACE] portid=27413 progname=conntrack").unwrap();
        assert_eq!(flushed.key("progname"), Some("conntrack"));
        let offloaded = parse("tcp      6 src=192.0.2.1 dst=192.0.2.2 sport=34846 dport=993 src=192.0.2.2 dst=192.0.2.1 sport=993 dport=34846 [OFFLOAD] mark=0 use=2").unwrap();
        assert!(offloaded.offload && !offloaded.assured && offloaded.timeout.is_none(), "{offloaded:?}");
    }

    const OURS: &str = " [UPDATE] tcp      6 ESTABLISHED src=::1 dst=::1 sport=40000 dport=22 src=::1 dst=::1 sport=22 dport=40000 [ASSURED] dir=out pid=- comm=a\\x20b lifetime>=0.5";

    #[test]
    fn our_fields_are_keys() {
        let line = parse(OURS).unwrap();
        assert_eq!(line.key("pid"), Some("-"));
        assert_eq!(line.key("comm"), Some("a\\x20b"));
        assert_eq!(line.key("lifetime>"), Some("0.5"));
        assert!(line.tuple().client.is_ipv6());
    }

    #[test]
    fn types_of_ours_are_read() {
        let rest = "src=0.0.0.0 dst=127.0.0.1 sport=0 dport=22 src=127.0.0.1 dst=0.0.0.0 sport=22 dport=0 dir=listen";
        for (words, kind, state) in [
            (" [LISTEN] tcp      6 LISTEN ", Kind::Listen, "LISTEN"),
            (" [CLOSED] tcp      6 CLOSE ", Kind::Closed, "CLOSE"),
            ("[ATTEMPT] tcp      6 SYN_RECV ", Kind::Attempt, "SYN_RECV"),
        ] {
            let line = parse(&format!("{words}{rest}")).unwrap();
            assert_eq!(
                (line.kind, line.state.as_deref(), line.key("dir")),
                (kind, Some(state), Some("listen"))
            );
            assert!(
                parse(&format!(" {words}{rest}")).is_err()
                    && parse(&format!("{}{rest}", &words[1..])).is_err()
            );
        }
    }

    #[test]
    fn what_conntrack_would_not_print_is_rejected() {
        for (from, to) in [
            (" [UPDATE]", "[UPDATE]"),
            ("[UPDATE]", "[UPDATES]"),
            ("tcp      6", "tcp 6"),
            ("tcp      6", "TCP      6"),
            ("ESTABLISHED", "ESTAB"),
            ("ESTABLISHED", "FIN_WAIT1"),
            ("src=::1 dst", "src=:1 dst"),
            ("sport=40000", "sport=65536"),
            (" [ASSURED]", ""),
            (" [ASSURED]", "  [ASSURED]"),
            ("comm=a\\x20b", "comm=a b"),
            ("pid=-", "pid="),
            ("comm=", "pid="),
            ("lifetime>=0.5", "lifetime>=0.5 "),
            ("dst=::1 sport=22", "dst=127.0.0.1 sport=22"),
            ("dport=22 src", "src"),
        ] {
            let line = OURS.replacen(from, to, 1);
            assert_ne!(line, OURS);
            if to.is_empty() {
                assert!(!parse(&line).unwrap().assured);
            } else {
                assert!(parse(&line).is_err(), "{line:?}");
            }
        }
        assert!(parse("").is_err());
    }

    #[test]
    fn no_cut_of_a_line_panics() {
        for end in 0..OURS.len() {
            let _ = parse(&OURS[..end]);
        }
        let _ = parse("[é]\t é");
        let _ = parse("    [NEW] tcp     é6");
    }

    #[test]
    fn the_error_names_the_place() {
        let error = parse(&OURS.replace("tcp      6", "tcp      x")).unwrap_err();
        assert!(error.to_string().contains("a protocol number expected at column 20"), "{error}");
    }
}
