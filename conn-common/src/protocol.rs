//! Layer-4 protocols, as the Internet numbers them (`IPPROTO_*`).

/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// ICMP. Connection tracking has flows of it and of the protocols below; no socket of conntrace's has.
pub const ICMP: u8 = 1;
/// GRE.
pub const GRE: u8 = 47;
/// ICMP of IPv6.
pub const ICMPV6: u8 = 58;
/// SCTP.
pub const SCTP: u8 = 132;

/// The result of [`index`] for a protocol that is not counted.
pub const NO_INDEX: u8 = 3;

/// The two bits of a protocol in a key of the ledger. A run that counts another protocol gets the next number.
#[inline(always)]
pub const fn index(protocol: u8) -> u8 {
    match protocol {
        TCP => 0,
        _ => NO_INDEX,
    }
}

/// The protocol with this index, if there is one.
pub const fn from_index(index: u8) -> Option<u8> {
    match index {
        0 => Some(TCP),
        _ => None,
    }
}

/// The protocols with a name, by their names in conntrack.
const NAMED: [(u8, &str); 8] = [
    (TCP, "tcp"),
    (UDP, "udp"),
    (ICMP, "icmp"),
    (33, "dccp"),
    (GRE, "gre"),
    (ICMPV6, "icmpv6"),
    (SCTP, "sctp"),
    (136, "udplite"),
];

/// The names that [`name`] gives.
pub const NAMES: [&str; NAMED.len()] = {
    let mut names = [""; NAMED.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = NAMED[at].1;
        at += 1;
    }
    names
};

/// The protocol's name, lower case, as in `/etc/protocols` and in conntrack.
pub const fn name(protocol: u8) -> Option<&'static str> {
    let mut at = 0;
    while at < NAMED.len() {
        if NAMED[at].0 == protocol {
            return Some(NAMED[at].1);
        }
        at += 1;
    }
    None
}

/// The protocol with this name.
pub fn from_name(wanted: &str) -> Option<u8> {
    (0..=u8::MAX).find(|&protocol| name(protocol) == Some(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_and_protocol_match() {
        for protocol in 0..=u8::MAX {
            let back = from_index(index(protocol));
            assert_eq!(back, (index(protocol) != NO_INDEX).then_some(protocol), "{protocol}");
            assert_eq!(name(protocol).and_then(from_name), name(protocol).map(|_| protocol));
        }
    }
}
