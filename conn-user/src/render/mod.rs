//! Events into lines. Pure functions that append to a buffer and do not allocate besides its growth.

mod conntrack;
mod json;

use std::io::Write as _;
use std::net::IpAddr;

use crate::clock::WallClock;
use crate::event::Event;

/// How events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As `conntrack -E` writes them.
    Conntrack {
        /// Begin each line with the unix time of the event, as `conntrack -o timestamp`.
        timestamp: bool,
    },
    /// One JSON object a line.
    Json,
}

/// Appends `event` as one line, with its line end.
pub fn render(format: Format, event: &Event, clock: &WallClock, out: &mut Vec<u8>) {
    match format {
        Format::Conntrack { timestamp } => {
            if timestamp {
                conntrack::timestamp(clock.to_unix_ns(event.time_ns), out);
            }
            conntrack::event(event, out);
        }
        Format::Json => json::event(event, clock, out),
    }
    out.push(b'\n');
}

/// Appends an integer in decimal.
fn integer(number: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends an address.
fn address(address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(address) => {
            let [first, rest @ ..] = address.octets();
            integer(first, out);
            for octet in rest {
                out.push(b'.');
                integer(octet, out);
            }
        }
        // Writing into a vector does not fail.
        IpAddr::V6(address) => _ = write!(out, "{address}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-01-02T03:04:05Z at boot.
    pub(super) const CLOCK: WallClock = WallClock::with_offset(1_767_323_045_000_000_000);

    /// Renders events, one line each.
    pub(super) fn lines(format: Format, events: &[Event]) -> String {
        let mut out = Vec::new();
        for event in events {
            render(format, event, &CLOCK, &mut out);
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn addresses_are_written_as_std_does() {
        for text in ["0.0.0.0", "192.0.2.255", "::", "::1", "2001:db8::22", "fe80::1:0:0:1"] {
            let mut out = Vec::new();
            address(text.parse().unwrap(), &mut out);
            assert_eq!(out, text.as_bytes());
        }
    }
}
