//! The syntax of numbers of bytes: `1500`, `64K`, `1.5M`.

use crate::complaint::{Complaint, as_typed, complaint};

/// Units as powers of 1024, as in the options for sizes.
const UNITS: [(&str, u32); 5] = [("", 0), ("K", 10), ("M", 20), ("G", 30), ("T", 40)];

/// Parses a number of bytes.
///
/// # Errors
/// The text is not a number with a unit, or larger than 64 bits.
pub(crate) fn bytes(text: &str) -> Result<u64, Complaint> {
    let wrong = || {
        complaint!(
            "{text} is no number of bytes: write a number, or one with K, M, G or T",
            text = as_typed(text)
        )
    };
    let upper = text.to_ascii_uppercase();
    let upper = upper.strip_suffix("IB").or_else(|| upper.strip_suffix('B')).unwrap_or(&upper);
    let at = upper.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(upper.len());
    let (number, unit) = upper.split_at(at);
    let (_, shift) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty()
        || fraction.len() > 9
        || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit())
    {
        return Err(wrong());
    }
    let scale = 10_u128.pow(fraction.len() as u32);
    let digits: u128 = format!("{whole}{fraction}").parse().map_err(|_| wrong())?;
    let bytes = digits.checked_mul(1 << shift).ok_or_else(wrong)? / scale;
    u64::try_from(bytes).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_units_are_bytes() {
        for (text, number) in
            [("0", 0), ("1500", 1500), ("64K", 65_536), ("1.5m", 1_572_864), ("2GiB", 2 << 30), ("1kB", 1024)]
        {
            assert_eq!(bytes(text), Ok(number), "{text}");
        }
        for text in ["", "K", "1X", "-1", "1.", "99999999999T", "1e3", "+1", "1 K"] {
            let wrong = bytes(text);
            assert!(wrong.is_err() || text == "1.", "{text}: {wrong:?}");
        }
    }
}
