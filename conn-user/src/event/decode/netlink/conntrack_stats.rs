//! What connection tracking counts of one network namespace (`enum ctattr_stats_cpu` and `ctattr_stats_global`,
//! `include/uapi/linux/netfilter/nfnetlink_conntrack.h`).

use bytes::Buf as _;

use crate::event::decode::netlink::{Cut, End, attributes, messages};
use crate::event::entry::Failures;

/// The length of `struct nfgenmsg`.
const GENERIC: usize = 4;

/// Adds the failures that one read shows, one message for each CPU. Returns the end of the dump if it is there.
///
/// # Errors
/// The bytes end in the middle of a message.
pub(crate) fn failures(bytes: &[u8], sum: &mut Failures) -> Result<Option<End>, Cut> {
    for message in messages(bytes) {
        let message = message?;
        if let Some(end) = message.end() {
            return Ok(Some(end));
        }
        for attribute in attributes(message.body.get(GENERIC..).ok_or(Cut)?) {
            let (kind, value) = attribute?;
            // CTA_STATS_INSERT_FAILED, CTA_STATS_DROP, CTA_STATS_EARLY_DROP.
            let counter = match kind {
                9 => &mut sum.insert_failed,
                10 => &mut sum.dropped,
                11 => &mut sum.dropped_early,
                _ => continue,
            };
            *counter += u64::from(number(value)?);
        }
    }
    Ok(None)
}

/// How many entries the table has, and how many it may have; `None` if the bytes hold no answer.
///
/// # Errors
/// The bytes end in the middle of a message.
pub(crate) fn entries(bytes: &[u8]) -> Result<Option<[u64; 2]>, Cut> {
    let Some(message) = messages(bytes).next().transpose()?.filter(|message| message.end().is_none()) else {
        return Ok(None);
    };
    let (mut count, mut max) = (None, 0);
    for attribute in attributes(message.body.get(GENERIC..).ok_or(Cut)?) {
        match attribute? {
            // CTA_STATS_GLOBAL_ENTRIES, and since Linux 4.18 CTA_STATS_GLOBAL_MAX_ENTRIES.
            (1, value) => count = Some(number(value)?.into()),
            (2, value) => max = number(value)?.into(),
            _ => {}
        }
    }
    Ok(count.map(|count| [count, max]))
}

fn number(mut value: &[u8]) -> Result<u32, Cut> {
    value.try_get_u32().map_err(|_| Cut)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(attributes: &[(u16, u32)]) -> Vec<u8> {
        let mut body = vec![0; GENERIC];
        for (kind, value) in attributes {
            body.extend([&8_u16.to_ne_bytes()[..], &kind.to_ne_bytes(), &value.to_be_bytes()].concat());
        }
        let length = (16 + body.len()) as u32;
        [&length.to_ne_bytes()[..], &(1_u16 << 8 | 5).to_ne_bytes(), &[0; 10], &body].concat()
    }

    #[test]
    fn counts_of_all_cpus_are_added() {
        let bytes = [message(&[(9, 1), (10, 2), (11, 3), (3, 9)]), message(&[(9, 10)])].concat();
        let mut sum = Failures::default();
        assert_eq!(failures(&bytes, &mut sum), Ok(None));
        assert_eq!(sum, Failures { insert_failed: 11, dropped: 2, dropped_early: 3 });
        assert_eq!(entries(&message(&[(1, 7), (2, 1_000)])), Ok(Some([7, 1_000])));
        assert_eq!((entries(&message(&[])), entries(&[])), (Ok(None), Ok(None)));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = bytes;
            if bytes.len() > 4 {
                let length = (bytes.len() as u32).to_ne_bytes();
                bytes[..4].copy_from_slice(&length);
            }
            _ = (failures(&bytes, &mut Failures::default()), entries(&bytes));
        }
    }
}
