//! Histograms of time spans: octaves of nanoseconds, each in four equal parts. The middle of a part is at
//! most an eighth away from anything in it.

/// The first octave, 2^10 ns: about a microsecond. What is shorter has one bucket of its own.
const FIRST: u32 = 10;
/// The last octave, 2^53 ns: 104 days. What is longer is in its last part.
const LAST: u32 = 53;
/// Parts of an octave, as a power of two.
const PARTS: u32 = 2;
/// How many buckets there are.
pub const BUCKETS: usize = 1 + ((LAST - FIRST + 1) << PARTS) as usize;

/// The bucket of a span.
#[inline(always)]
pub const fn bucket(ns: u64) -> usize {
    let octave = octave(ns);
    if octave < FIRST {
        return 0;
    }
    if octave > LAST {
        return BUCKETS - 1;
    }
    let part = (ns >> (octave - PARTS)) as u32 & ((1 << PARTS) - 1);
    (1 + ((octave - FIRST) << PARTS) + part) as usize
}

/// The highest bit that is set, 0 for 0: by halves, since the programs' processor cannot count zeros.
#[inline(always)]
const fn octave(mut ns: u64) -> u32 {
    let mut octave = 0;
    if ns >> 32 != 0 {
        ns >>= 32;
        octave += 32;
    }
    if ns >> 16 != 0 {
        ns >>= 16;
        octave += 16;
    }
    if ns >> 8 != 0 {
        ns >>= 8;
        octave += 8;
    }
    if ns >> 4 != 0 {
        ns >>= 4;
        octave += 4;
    }
    if ns >> 2 != 0 {
        ns >>= 2;
        octave += 2;
    }
    octave + (ns >> 1) as u32
}

/// The first span of a bucket, nanoseconds.
pub const fn start(bucket: usize) -> u64 {
    if bucket == 0 {
        return 0;
    }
    let at = bucket as u64 - 1;
    let (octave, part) = (FIRST as u64 + (at >> PARTS), at & ((1 << PARTS) - 1));
    (1 << octave) + (part << (octave - PARTS as u64))
}

/// The span that stands for a bucket: its middle.
pub const fn middle(bucket: usize) -> u64 {
    start(bucket).midpoint(start(bucket + 1))
}

/// Spans of the connections of one direction and service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Spans {
    /// From the attempt to the end of the handshake.
    pub handshake: Histogram,
    /// From the attempt to the end, of connections that were established.
    pub lifetime: Histogram,
}

impl Spans {
    /// No span yet.
    pub const ZERO: Self = Self { handshake: Histogram::ZERO, lifetime: Histogram::ZERO };
}

/// How many spans fell into each bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Histogram {
    /// See [`bucket`].
    pub counts: [u64; BUCKETS],
}

impl Histogram {
    /// No span yet.
    pub const ZERO: Self = Self { counts: [0; BUCKETS] };

    /// Adds another one's spans.
    pub fn add(&mut self, other: &Self) {
        for (sum, count) in self.counts.iter_mut().zip(&other.counts) {
            *sum = sum.wrapping_add(*count);
        }
    }

    /// How many spans.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The span that `per_mille` of all are not longer than, nanoseconds, at most an eighth off (a
    /// microsecond for the shortest). `None` without spans.
    pub fn quantile(&self, per_mille: u64) -> Option<u64> {
        let count = self.count();
        let rank = (u128::from(count) * u128::from(per_mille.min(1_000))).div_ceil(1_000).max(1);
        let mut below = 0_u128;
        self.counts
            .iter()
            .position(|&one| {
                below += u128::from(one);
                below >= rank
            })
            .filter(|_| count > 0)
            .map(middle)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_join_without_gaps() {
        for at in 0..BUCKETS {
            assert_eq!(bucket(start(at)), at);
            assert_eq!(bucket(start(at + 1) - 1), at, "the end of {at}");
        }
        assert_eq!((bucket(0), bucket(1_023), bucket(1_024), bucket(u64::MAX)), (0, 0, 1, BUCKETS - 1));
    }

    #[test]
    fn quantiles_of_nothing_and_of_one() {
        let mut histogram = Histogram::ZERO;
        assert_eq!(histogram.quantile(500), None);
        histogram.counts[bucket(5_000_000)] += 1;
        for per_mille in [0, 500, 1_000] {
            assert_eq!(histogram.quantile(per_mille), Some(middle(bucket(5_000_000))));
        }
    }

    proptest! {
        #[test]
        fn a_bucket_is_at_most_an_eighth_off(octave in FIRST..=LAST, low: u64) {
            let ns = 1_u64 << octave | low & ((1 << octave) - 1);
            let error = middle(bucket(ns)).abs_diff(ns);
            prop_assert!(error * 8 <= ns, "{ns} is shown as {}", middle(bucket(ns)));
        }

        #[test]
        fn quantiles_are_at_most_an_eighth_off(
            mut spans in prop::collection::vec(1_u64 << FIRST..1 << (LAST + 1), 1..300),
            per_mille in 0_u64..=1_000,
        ) {
            let mut histogram = Histogram::ZERO;
            for &span in &spans {
                histogram.counts[bucket(span)] += 1;
            }
            spans.sort_unstable();
            let rank = (spans.len() as u64 * per_mille).div_ceil(1_000).max(1) as usize;
            let (shown, exact) = (histogram.quantile(per_mille).unwrap(), spans[rank - 1]);
            prop_assert!(shown.abs_diff(exact) * 8 <= exact, "{exact} is shown as {shown}");
        }
    }
}
