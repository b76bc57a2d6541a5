//! TCP states by the names of ss, conntrack and the kernel.

use conn_common::state::{
    CLOSE, CLOSE_WAIT, CLOSING, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, LAST_ACK, LISTEN, SYN_RECV, SYN_SENT,
    TIME_WAIT,
};

use crate::complaint::{Complaint, as_typed, complaint};
use crate::filter::value::ranges::Ranges;

/// How to write a state, for messages.
pub(crate) const HOW: &str = "write established, syn-sent, syn-recv, fin-wait-1, fin-wait-2, close-wait, last-ack, \
                       closing, closed, or a group: all, connected, synchronized, bucket, big";

/// One name of each state, in the kernel's order.
const NAMES: [(&str, u8); 11] = [
    ("established", ESTABLISHED),
    ("syn-sent", SYN_SENT),
    ("syn-recv", SYN_RECV),
    ("fin-wait-1", FIN_WAIT1),
    ("fin-wait-2", FIN_WAIT2),
    ("time-wait", TIME_WAIT),
    ("closed", CLOSE),
    ("close-wait", CLOSE_WAIT),
    ("last-ack", LAST_ACK),
    ("listening", LISTEN),
    ("closing", CLOSING),
];

/// Other names, without hyphens.
const ALIASES: [(&str, u8); 8] = [
    ("estab", ESTABLISHED),
    ("synrcv", SYN_RECV),
    ("synreceived", SYN_RECV),
    ("close", CLOSE),
    ("unconnected", CLOSE),
    ("unconn", CLOSE),
    ("listen", LISTEN),
    ("timewait", TIME_WAIT),
];

/// Every state.
pub(crate) fn all() -> Ranges {
    Ranges::between(u128::from(ESTABLISHED), u128::from(CLOSING))
}

/// The states that a name stands for. Hyphens, underscores and case are ignored.
///
/// # Errors
/// The text is not a name of a state or a group.
pub(crate) fn parse(text: &str) -> Result<Ranges, Complaint> {
    let plain = |name: &str| name.replace(['-', '_'], "").to_ascii_lowercase();
    let name = plain(text);
    let one = |&(_, state): &(&str, u8)| Ranges::one(state.into());
    let of = |states: &[u8]| Ranges::collect(states.iter().map(|&state| (state.into(), state.into())));
    if let Some(found) = NAMES.iter().find(|(known, _)| plain(known) == name) {
        return Ok(one(found));
    }
    if let Some(found) = ALIASES.iter().find(|(known, _)| *known == name) {
        return Ok(one(found));
    }
    match name.as_str() {
        "all" => Ok(all()),
        "connected" => Ok(all().without(&of(&[LISTEN, CLOSE]))),
        "synchronized" => Ok(all().without(&of(&[LISTEN, CLOSE, SYN_SENT]))),
        "bucket" => Ok(of(&[SYN_RECV, TIME_WAIT])),
        "big" => Ok(all().without(&of(&[SYN_RECV, TIME_WAIT]))),
        // conntrack has one name for both states.
        "finwait" => Ok(of(&[FIN_WAIT1, FIN_WAIT2])),
        "boundinactive" => {
            Err("no connection is bound-inactive: ss --bound-inactive shows sockets that only have a port"
                .into())
        }
        "newsynrecv" => Err("the kernel's new-syn-recv is called syn-recv, as in ss".into()),
        _ => Err(complaint!("unknown state {text}: {HOW}", text = as_typed(text))),
    }
}

/// The name of a state; `None` for other numbers.
pub(crate) fn name(state: u128) -> Option<&'static str> {
    NAMES.iter().find(|&&(_, number)| u128::from(number) == state).map(|&(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_ss_and_conntrack_are_states() {
        let states = |text: &str| parse(text).unwrap().numbers().map(|n| n as u8).collect::<Vec<_>>();
        for (text, state) in [
            ("ESTABLISHED", ESTABLISHED),
            ("estab", ESTABLISHED),
            ("SYN_SENT", SYN_SENT),
            ("fin_wait1", FIN_WAIT1),
            ("FIN-WAIT-2", FIN_WAIT2),
            ("time-wait", TIME_WAIT),
            ("unconn", CLOSE),
            ("CLOSE", CLOSE),
            ("listen", LISTEN),
        ] {
            assert_eq!(states(text), [state], "{text}");
        }
        assert_eq!(states("FIN_WAIT"), [FIN_WAIT1, FIN_WAIT2]);
        assert_eq!(states("bucket"), [SYN_RECV, TIME_WAIT]);
        assert_eq!(states("all").len(), 11);
        assert_eq!(states("connected").len(), 9);
        assert_eq!(states("synchronized").len(), 8);
        assert_eq!(states("big").len(), 9);
        let refused = ["bound-inactive", "new-syn-recv"].map(|name| parse(name).unwrap_err().to_string());
        insta::assert_snapshot!(refused.join("\n"), @"
        no connection is bound-inactive: ss --bound-inactive shows sockets that only have a port
        the kernel's new-syn-recv is called syn-recv, as in ss
        ");
        assert!(parse("NONE").unwrap_err().to_string().contains("established"));
    }

    #[test]
    fn every_state_has_a_name() {
        for state in all().numbers() {
            assert_eq!(parse(name(state).unwrap()), Ok(Ranges::one(state)));
        }
        assert_eq!(name(0), None);
    }
}
