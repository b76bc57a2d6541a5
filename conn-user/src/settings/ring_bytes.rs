//! The size of the ring, as typed.

use crate::complaint::{Complaint, as_typed, complaint};

/// The smallest page, and so the smallest ring, in bytes.
const MIN_RING_BYTES: u64 = 4096;
/// The largest power of two that the kernel accepts as the size of a map, in bytes.
const MAX_RING_BYTES: u64 = 1 << 31;

/// A size in bytes, with K, M or G for powers of 1024, rounded up to a valid size of the ring.
pub(super) fn ring_bytes(text: &str) -> Result<u32, Complaint> {
    let text = text.trim();
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 20),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let number: u64 = match digits.parse() {
        Ok(number) => number,
        Err(_) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => u64::MAX,
        Err(_) => {
            return Err(complaint!(
                "{} is not a size: write a number of bytes, or one with K, M or G, like 64M",
                as_typed(text)
            ));
        }
    };
    if number == 0 {
        return Err("the buffer is too small: write 4096 or more".into());
    }
    number
        .checked_mul(1 << shift)
        .filter(|&bytes| bytes <= MAX_RING_BYTES)
        .and_then(|bytes| u32::try_from(bytes.max(MIN_RING_BYTES).next_power_of_two()).ok())
        .ok_or_else(|| complaint!("{text} is too large: the limit of the kernel is 2G"))
}
