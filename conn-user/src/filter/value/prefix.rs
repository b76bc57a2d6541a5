//! Addresses and prefixes as numbers. The number of an IPv4 address is that of its IPv4-mapped IPv6 address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::complaint::{Complaint, as_typed, complaint};
use crate::filter::value::ranges::Ranges;

/// `::ffff:0:0`, the first IPv4 address.
const MAPPED: u128 = 0xffff << 32;
/// The last IPv4 address.
const MAPPED_END: u128 = MAPPED | 0xffff_ffff;
/// How to write an address, for messages.
pub(crate) const HOW: &str = "write an address or a prefix: 192.0.2.7, 10.0.0.0/8, fd00::/8";

/// All IPv4 addresses.
pub(crate) fn ipv4() -> Ranges {
    Ranges::between(MAPPED, MAPPED_END)
}

/// All IPv6 addresses, without the IPv4-mapped ones.
pub(crate) fn ipv6() -> Ranges {
    Ranges::collect([(0, MAPPED - 1), (MAPPED_END + 1, u128::MAX)])
}

/// Parses an address, or a prefix with a length or an IPv4 netmask. As in ss and conntrack, bits after the length do not
/// count, and before a length missing numbers of an IPv4 address are 0: `10/8`.
///
/// # Errors
/// The text is not an address or a prefix.
pub(crate) fn parse(text: &str) -> Result<Ranges, Complaint> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let is_short = length.is_some() && address.matches('.').count() < 3 && !address.contains(':');
    let whole = if is_short { complete(address) } else { address.to_owned() };
    let address: IpAddr = whole.parse().map_err(|_| no_address(text, address))?;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        None => bits,
        Some(length) => prefix_length(length, bits).ok_or_else(|| {
            complaint!("{length} is no prefix length: {address} takes 0 to {bits}", length = as_typed(length))
        })?,
    };
    let (first, host_bits) = match address {
        IpAddr::V4(v4) => (MAPPED | u128::from(v4.to_bits()), 32 - length),
        IpAddr::V6(v6) => (v6.to_bits(), 128 - length),
    };
    let host = 1_u128.checked_shl(host_bits).map_or(u128::MAX, |size| size - 1);
    let first = first & !host;
    let all = Ranges::between(first, first | host);
    // ::/0 is all of IPv6, and IPv4 is not IPv6.
    Ok(if is_ipv4(first, 128) { all } else { all.without(&ipv4()) })
}

/// An IPv4 address with its missing numbers, each of which is 0.
pub(crate) fn complete(address: &str) -> String {
    format!("{address}{}", ".0".repeat(3_usize.saturating_sub(address.matches('.').count())))
}

/// True if the text may be the name of a host.
pub(crate) fn may_be_name(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
}

/// The number of an address.
pub(crate) fn number_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => MAPPED | u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn no_address(text: &str, address: &str) -> Complaint {
    if may_be_name(address) {
        return complaint!(
            "{address} is no address, and options look no names up: {HOW}",
            address = as_typed(address)
        );
    }
    let has_port = address.rsplit_once(':').is_some_and(|(host, _)| host.parse::<Ipv4Addr>().is_ok());
    if has_port || address.starts_with('[') {
        return complaint!(
            "{text} has a port: ports have options of their own, --sport and --dport",
            text = as_typed(text)
        );
    }
    complaint!("{text} is no address: {HOW}", text = as_typed(text))
}

/// A length, or a netmask like 255.255.0.0.
fn prefix_length(text: &str, bits: u32) -> Option<u32> {
    if bits == 32
        && let Ok(mask) = text.parse::<Ipv4Addr>()
    {
        let mask = mask.to_bits();
        return (mask.leading_ones() == mask.count_ones()).then_some(mask.count_ones());
    }
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&length| digits && length <= bits)
}

/// The address of a number.
pub(crate) fn name(number: u128) -> IpAddr {
    if (MAPPED..=MAPPED_END).contains(&number) {
        IpAddr::V4(Ipv4Addr::from_bits(number as u32))
    } else {
        IpAddr::V6(Ipv6Addr::from_bits(number))
    }
}

/// The number of an address in the form of [`conn_common::connection::Connection::src`].
pub(crate) fn number(family: u8, bytes: &[u8; 16]) -> u128 {
    if family == 6 {
        return u128::from_be_bytes(*bytes);
    }
    let [a, b, c, d, ..] = *bytes;
    MAPPED | u128::from(u32::from_be_bytes([a, b, c, d]))
}

/// A prefix: the first address, and the length of at most 128 bits.
pub(crate) type Block = (u128, u8);

/// The fewest prefixes that make up a set, in order.
pub(crate) fn blocks(set: &Ranges) -> impl Iterator<Item = Block> {
    set.as_slice().iter().flat_map(|&(low, high)| {
        let mut next = Some(low);
        std::iter::from_fn(move || {
            let first = next.filter(|&first| first <= high)?;
            // The largest prefix that the alignment of the first address and the rest of the range allow.
            let rest = high - first;
            let fits = if rest == u128::MAX { 128 } else { (rest + 1).ilog2() };
            let bits = first.trailing_zeros().min(fits);
            let size_less_one = 1_u128.checked_shl(bits).map_or(u128::MAX, |size| size - 1);
            next = (first | size_less_one).checked_add(1);
            Some((first, (128 - bits) as u8))
        })
    })
}

/// A set as text: prefixes of IPv4, then of IPv6.
pub(crate) fn write(set: &Ranges) -> Vec<String> {
    let (v4, v6) = (set.intersection(&ipv4()), set.intersection(&ipv6()));
    // In text, a prefix of IPv6 never includes IPv4. So the pieces around IPv4 may be one prefix.
    let around = v6.union(&ipv4());
    let (pieces, around): (Vec<_>, Vec<_>) =
        (blocks(&v6).collect(), blocks(&around).filter(|&(first, length)| !is_ipv4(first, length)).collect());
    let v6 = if around.len() < pieces.len() { around } else { pieces };
    blocks(&v4).chain(v6).map(write_block).collect()
}

fn is_ipv4(first: u128, length: u8) -> bool {
    length >= 96 && (MAPPED..=MAPPED_END).contains(&first)
}

/// A prefix as text.
fn write_block((first, length): Block) -> String {
    let (address, length, bits) = match name(first) {
        // The first mapped address ends in 32 zeros, so no prefix that begins there is shorter than 96 bits.
        v4 @ IpAddr::V4(_) => (v4, length.saturating_sub(96), 32),
        v6 @ IpAddr::V6(_) => (v6, length, 128),
    };
    if length == bits { address.to_string() } else { format!("{address}/{length}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(text: &str) -> Result<String, Complaint> {
        parse(text).map(|set| write(&set).join(","))
    }

    #[test]
    fn reads_addresses_and_prefixes() {
        for text in [
            "192.0.2.7",
            "10.0.0.0/8",
            "0.0.0.0/0",
            "::1",
            "fd00::/8",
            "2001:db8::/32",
            "2000::/3",
            "::/0",
            "::/80",
        ] {
            assert_eq!(written(text), Ok(text.to_owned()));
        }
        assert_eq!(written("10.0.0.0/255.0.0.0"), Ok("10.0.0.0/8".into()));
        assert_eq!(written("::ffff:10.0.0.0/104"), Ok("10.0.0.0/8".into()));
        // As ss and conntrack have it.
        assert_eq!(written("10.1.2.3/8"), Ok("10.0.0.0/8".into()));
        assert_eq!(written("fd00::1/8"), Ok("fd00::/8".into()));
        assert_eq!(written("10/8"), Ok("10.0.0.0/8".into()));
        assert_eq!(written("193.233.7/24"), Ok("193.233.7.0/24".into()));
        assert_eq!(written("::ffff:10.0.0.1/80"), Ok("::/80".into()));
        assert_eq!(written("192.0.2.7/32"), Ok("192.0.2.7".into()));
        assert_eq!(parse("::/0").unwrap(), ipv6());
        assert_eq!(parse("0.0.0.0/0").unwrap(), ipv4());
    }

    #[test]
    fn errors_name_the_mistake() {
        let errors = [
            "",
            "10.0.0",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/+8",
            "10.0.0.0/255.0.255.0",
            "10.0.0.0/",
            "localhost",
            "10.0.0.1:22",
            "[::1]:22",
            "::1::2",
        ]
        .map(|text| parse(text).unwrap_err().to_string());
        insta::assert_snapshot!(errors.join("\n"), @r#"
        "" is no address: write an address or a prefix: 192.0.2.7, 10.0.0.0/8, fd00::/8
        "10.0.0" is no address: write an address or a prefix: 192.0.2.7, 10.0.0.0/8, fd00::/8
        "33" is no prefix length: 10.0.0.0 takes 0 to 32
        "129" is no prefix length: :: takes 0 to 128
        "+8" is no prefix length: 10.0.0.0 takes 0 to 32
        "255.0.255.0" is no prefix length: 10.0.0.0 takes 0 to 32
        "" is no prefix length: 10.0.0.0 takes 0 to 32
        "localhost" is no address, and options look no names up: write an address or a prefix: 192.0.2.7, 10.0.0.0/8, fd00::/8
        "10.0.0.1:22" has a port: ports have options of their own, --sport and --dport
        "[::1]:22" has a port: ports have options of their own, --sport and --dport
        "::1::2" is no address: write an address or a prefix: 192.0.2.7, 10.0.0.0/8, fd00::/8
        "#);
    }

    proptest! {
        #[test]
        fn blocks_make_up_the_set(edges in prop::collection::vec(any::<(u128, u8)>(), 0..6)) {
            let ranges = edges.iter().map(|&(low, bits)| (low, low | 1_u128.checked_shl(u32::from(bits)).unwrap_or(0).wrapping_sub(1)));
            let set = Ranges::collect(ranges);
            let blocks: Vec<Block> = blocks(&set).collect();
            let ends = |&(first, length): &Block| {
                (first, first | 1_u128.checked_shl(128 - u32::from(length)).map_or(u128::MAX, |size| size - 1))
            };
            prop_assert_eq!(Ranges::collect(blocks.iter().map(ends)), set);
            for block in &blocks {
                prop_assert_eq!(ends(block).0, block.0);
            }
        }

        #[test]
        fn written_sets_parse_back(edges in prop::collection::vec((0..4_usize, 0..4_usize), 0..4)) {
            let marks = [0, MAPPED - 1, MAPPED + 5, MAPPED_END + 1, 1 << 100];
            let set = Ranges::collect(edges.iter().map(|&(low, more)| (marks[low], marks[(low + more).min(4)])));
            let sets = write(&set).into_iter().map(|text| parse(&text).unwrap());
            prop_assert_eq!(sets.fold(Ranges::EMPTY, |all, next| all.union(&next)), set);
        }

        #[test]
        fn any_text_parses_or_fails(text in "[0-9a-f:./]{0,24}") {
            let _ = parse(&text);
        }

        #[test]
        fn addresses_keep_their_number(number in prop_oneof![any::<u128>(), MAPPED..=MAPPED_END]) {
            let address = name(number);
            prop_assert_eq!(parse(&address.to_string()), Ok(Ranges::one(number)));
            let (family, bytes) = match address {
                IpAddr::V4(v4) => {
                    let mut bytes = [0; 16];
                    bytes[..4].copy_from_slice(&v4.octets());
                    (4, bytes)
                }
                IpAddr::V6(v6) => (6, v6.octets()),
            };
            prop_assert_eq!(super::number(family, &bytes), number);
        }
    }
}
