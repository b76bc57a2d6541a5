//! Layer-4 protocols, as the Internet numbers them (`IPPROTO_*`).

/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;

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

/// The protocol's name, lower case, as in `/etc/protocols`.
pub const fn name(protocol: u8) -> Option<&'static str> {
    match protocol {
        TCP => Some("tcp"),
        UDP => Some("udp"),
        _ => None,
    }
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
