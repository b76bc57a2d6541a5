//! The room for flows, as typed.

use conn_common::flow_table::BUCKET;

use crate::complaint::{Complaint, as_typed, complaint};
use crate::error::UsageError;
use crate::filter::protocols::Protocols;
use crate::settings::optional;

/// Room for flows in a run that asks for no number.
const DEFAULT_MAX_FLOWS: u32 = 1 << 17;
/// The smallest table: two buckets.
const LEAST: u64 = 2 * BUCKET as u64;
/// The largest table: 4 GiB.
const MOST: u64 = 1 << 24;

/// The room for flows of a run that shows these protocols. A run without UDP has none.
pub(super) fn room_for_flows(option: Option<&str>, protocols: Protocols) -> Result<u32, UsageError> {
    let typed = optional("--max-flows", option, max_flows)?;
    if typed.is_some() && !protocols.contains(Protocols::UDP) {
        return Err(UsageError::conflict(
            "--max-flows",
            "flows are of udp: add udp to -p, or leave --max-flows out",
        ));
    }
    Ok(typed.unwrap_or(DEFAULT_MAX_FLOWS))
}

/// A number of flows, with K or M for powers of 1024, rounded up to a power of two.
fn max_flows(text: &str) -> Result<u32, Complaint> {
    let text = text.trim();
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 20),
        _ => (text, 0),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(complaint!(
            "{} is not a number of flows: write one like 131072, 512K or 1M",
            as_typed(text)
        ));
    }
    // Too many digits are too many flows.
    let number = digits.parse().unwrap_or(u64::MAX).saturating_mul(1 << shift);
    if number == 0 {
        return Err("a table of no flows counts nothing: write 16 or more, or leave udp out of -p".into());
    }
    match u32::try_from(number.max(LEAST)) {
        Ok(flows) if number <= MOST => Ok(flows.next_power_of_two()),
        _ => Err(complaint!("{text} is too large: the limit is 16M, which takes 4 GiB of memory")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_up_to_a_power_of_two() {
        for (text, expected) in [
            ("1", 16),
            ("131072", 131_072),
            ("131073", 262_144),
            ("512K", 524_288),
            ("1m", 1 << 20),
            ("16M", 1 << 24),
        ] {
            assert_eq!(max_flows(text).as_ref(), Ok(&expected), "{text}");
        }
    }

    #[test]
    fn errors_name_the_remedy() {
        let errors = ["", "x", "-1", "0", "17M", "99999999999999999999999"]
            .map(|text| max_flows(text).unwrap_err().to_string());
        insta::assert_snapshot!(errors.join("\n"), @r#"
        "" is not a number of flows: write one like 131072, 512K or 1M
        "x" is not a number of flows: write one like 131072, 512K or 1M
        "-1" is not a number of flows: write one like 131072, 512K or 1M
        a table of no flows counts nothing: write 16 or more, or leave udp out of -p
        17M is too large: the limit is 16M, which takes 4 GiB of memory
        99999999999999999999999 is too large: the limit is 16M, which takes 4 GiB of memory
        "#);
    }
}
