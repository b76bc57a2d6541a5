//! The addresses of a network namespace, as the kernel's messages show them (`include/uapi/linux/if_addr.h`).

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Buf as _;

use crate::event::decode::netlink::{Cut, End, attributes, messages};

/// `RTM_NEWADDR`.
const NEW: u16 = 20;
/// The length of `struct ifaddrmsg`.
const HEADER: usize = 8;

/// Adds the addresses that one read shows, and broadcast addresses. Returns the end of the dump if it is there.
///
/// # Errors
/// The bytes end in the middle of a message.
pub(crate) fn addresses(bytes: &[u8], own: &mut HashSet<IpAddr>) -> Result<Option<End>, Cut> {
    for message in messages(bytes) {
        let message = message?;
        if let Some(end) = message.end() {
            return Ok(Some(end));
        }
        if message.kind != NEW {
            continue;
        }
        // The address of a link to one peer has IFA_LOCAL, and IFA_ADDRESS is the peer's then.
        let (mut local, mut address) = (None, None);
        for attribute in attributes(message.body.get(HEADER..).ok_or(Cut)?) {
            match attribute? {
                (1, value) => address = ip(value),
                (2, value) => local = ip(value),
                (4, value) => own.extend(ip(value)),
                _ => {}
            }
        }
        own.extend(local.or(address));
    }
    Ok(None)
}

/// An address by its length.
fn ip(mut value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => value.try_get_u32().ok().map(|bits| Ipv4Addr::from_bits(bits).into()),
        16 => value.try_get_u128().ok().map(|bits| Ipv6Addr::from_bits(bits).into()),
        _ => None,
    }
}
