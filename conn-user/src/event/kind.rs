//! The kinds of events, by the names that conntrack gives them.

use conn_common::event;
use conn_common::filter::{ANY_KIND, LISTENER_KINDS, bit};
use conn_common::state::{
    CLOSE, CLOSE_WAIT, CLOSING, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, LAST_ACK, LISTEN, SYN_RECV, SYN_SENT,
    TIME_WAIT,
};

use crate::complaint::{Complaint, as_typed, complaint};

/// The kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A connection is attempted.
    New,
    /// A connection changed its state.
    Update,
    /// A connection ended.
    Destroy,
    /// A SYN arrived that has made no connection yet. Only on demand.
    Attempt,
    /// A socket listens from now on. Only on demand.
    Listen,
    /// A listener ended. Only on demand.
    Closed,
    /// A connection is open now: a walk found it. This kind is not in the stream, and no option chooses it.
    Open,
}

impl Kind {
    /// Those of a connection in the stream, in the order of a connection's life.
    pub const ALL: [Self; 3] = [Self::New, Self::Update, Self::Destroy];

    /// Those that the stream may have.
    pub const STREAM: [Self; 6] =
        [Self::New, Self::Update, Self::Destroy, Self::Attempt, Self::Listen, Self::Closed];

    /// The kind with the number that records have it by.
    pub const fn from_record(number: u8) -> Option<Self> {
        match number {
            event::NEW => Some(Self::New),
            event::UPDATE => Some(Self::Update),
            event::DESTROY => Some(Self::Destroy),
            event::ATTEMPT => Some(Self::Attempt),
            event::LISTEN => Some(Self::Listen),
            event::CLOSED => Some(Self::Closed),
            _ => None,
        }
    }

    /// Its bit in masks of kinds. That of [`Kind::Open`] is no bit of the kernel programs.
    pub const fn bit(self) -> u8 {
        match self {
            Self::New => bit(event::NEW),
            Self::Update => bit(event::UPDATE),
            Self::Destroy => bit(event::DESTROY),
            Self::Attempt => bit(event::ATTEMPT),
            Self::Listen => bit(event::LISTEN),
            Self::Closed => bit(event::CLOSED),
            Self::Open => 1 << 7,
        }
    }

    /// The kind with this word.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::STREAM.into_iter().chain([Self::Open]).find(|kind| kind.name() == name)
    }

    /// True if events of this kind are of listeners.
    pub const fn is_of_listeners(self) -> bool {
        matches!(self, Self::Listen | Self::Closed)
    }

    /// The states that a connection can have in events of this kind, see [`conn_common::state`].
    pub const fn states(self) -> &'static [u8] {
        match self {
            Self::New => &[SYN_SENT, SYN_RECV],
            Self::Update => &[SYN_RECV, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING],
            Self::Destroy | Self::Closed => &[CLOSE],
            Self::Attempt => &[SYN_RECV],
            Self::Listen => &[LISTEN],
            Self::Open => &[
                SYN_SENT,
                SYN_RECV,
                ESTABLISHED,
                FIN_WAIT1,
                FIN_WAIT2,
                TIME_WAIT,
                CLOSE_WAIT,
                LAST_ACK,
                CLOSING,
                LISTEN,
            ],
        }
    }

    /// The word for it in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Update => "update",
            Self::Destroy => "destroy",
            Self::Attempt => "attempt",
            Self::Listen => "listen",
            Self::Closed => "closed",
            Self::Open => "open",
        }
    }
}

/// A choice of kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindSet(u8);

/// The words of conntrack's `--event-mask` and their bits, and two of ours. Of two words with the same prefix, the first
/// one counts. `ALL` has no attempts: a flood of them must not drown connections. It has no listeners: parsers of conntrack's
/// lines know connections only.
const WORDS: [(&str, u8); 6] = [
    ("ALL", ANY_KIND),
    ("NEW", bit(event::NEW)),
    ("UPDATES", bit(event::UPDATE)),
    ("DESTROY", bit(event::DESTROY)),
    ("ATTEMPT", bit(event::ATTEMPT)),
    ("LISTEN", LISTENER_KINDS),
];

impl KindSet {
    /// Every kind of connections.
    pub const ALL: Self = Self(ANY_KIND);
    /// Beginnings and ends.
    pub const BOUNDS: Self = Self(bit(event::NEW) | bit(event::DESTROY));
    /// Ends only.
    pub const DESTROY: Self = Self(bit(event::DESTROY));

    /// Parses one or more comma-separated words as conntrack does: in any case, shortened at will.
    ///
    /// # Errors
    /// Names the word that is none of them.
    pub fn parse(text: &str) -> Result<Self, Complaint> {
        text.split(',').map(word).try_fold(0, |mask, bits| Ok(mask | bits?)).map(Self)
    }

    /// Both choices together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// True if `kind` was chosen.
    pub const fn contains(self, kind: Kind) -> bool {
        self.0 & kind.bit() != 0
    }

    /// True if `kind` was chosen and nothing else.
    pub const fn is_only(self, kind: Kind) -> bool {
        self.0 == kind.bit()
    }

    /// The bits as the kernel programs take them, see [`conn_common::filter`].
    pub const fn mask(self) -> u8 {
        self.0
    }
}

fn word(word: &str) -> Result<u8, Complaint> {
    let word = word.trim();
    let is_prefix = |name: &str| {
        !word.is_empty() && name.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word))
    };
    WORDS.iter().find(|(name, _)| is_prefix(name)).map(|&(_, bits)| bits).ok_or_else(|| {
        complaint!(
            "unknown event kind {}: use ALL, NEW, UPDATES, DESTROY, ATTEMPT or LISTEN, separated by commas",
            as_typed(word)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_conntrack_are_accepted() {
        let mask = |text| KindSet::parse(text).map(KindSet::mask);
        for (text, expected) in [
            ("NEW", 0b001),
            ("n", 0b001),
            ("Update", 0b010),
            ("UPDATES", 0b010),
            ("destroy", 0b100),
            ("d,NEW", 0b101),
            ("new, upd", 0b011),
            ("ALL", 0b111),
            ("ATTEMPT", 0b100_0000),
            ("ALL,att", 0b100_0111),
            ("a", 0b111),
            ("LISTEN", 0b1_1000),
            ("all,l", 0b1_1111),
        ] {
            assert_eq!(mask(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn errors_name_the_word_that_is_wrong() {
        insta::assert_snapshot!(KindSet::parse("NEW,GONE").unwrap_err(), @r#"unknown event kind "GONE": use ALL, NEW, UPDATES, DESTROY, ATTEMPT or LISTEN, separated by commas"#);
        for text in ["", "NEW,", "UPDATESS", "é", "nеw"] {
            assert!(KindSet::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sets_contain_the_kinds_of_their_words() {
        let set = KindSet::parse("new").unwrap().union(KindSet::parse("destroy").unwrap());
        assert_eq!(Kind::ALL.map(|kind| set.contains(kind)), [true, false, true]);
        for (number, kind) in (0..).zip(Kind::ALL) {
            assert_eq!(Kind::from_record(number), Some(kind));
            assert_eq!(kind.bit(), bit(number));
            assert!(KindSet::ALL.contains(kind));
        }
        assert_eq!(Kind::from_record(5), None);
        for kind in Kind::STREAM {
            assert_eq!(Kind::from_name(kind.name()), Some(kind));
        }
        assert!(!KindSet::ALL.contains(Kind::Open));
    }
}
