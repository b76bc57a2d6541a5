//! Histograms of durations. Bucket boundaries are `2^(k/4)` seconds, and a bucket includes its upper boundary.
//!
//! So the array of counts is an OpenTelemetry exponential histogram of scale 2 and a Prometheus native histogram of
//! schema 2, with the first bucket as the zero bucket. Sums up to a power of two are exact buckets of a classic
//! histogram.
//!
//! A duration is compared in nanoseconds, as it was measured: a conversion to binary fractions of a second would round.

/// Scale of the OpenTelemetry exponential histogram, and schema of the Prometheus native one: parts of an octave, as a
/// power of two.
pub const SCALE: u32 = 2;
/// Octaves below one second that have buckets. The zero bucket holds durations of up to `2^-20` s, 953 ns.
pub const BELOW: u32 = 20;
/// Octaves above one second that have buckets: up to `2^24` s, 194 days. The last bucket also holds longer durations.
const ABOVE: u32 = 24;
/// How many buckets there are, the zero bucket included.
pub const BUCKETS: usize = 1 + ((BELOW + ABOVE) << SCALE) as usize;

/// The mantissas of `10^9 * 2^(k/4)`, ascending, rounded down to 64 bits of which the highest is set. They belong to
/// `k` modulo 4 = 1, 2, 3 and 0: a second is `1.86 * 2^29` ns, so its own mantissa is the largest.
const MANTISSAS: [u64; 4] =
    [0x8dc3_b896_0164_a7d9, 0xa896_5f74_bf06_5071, 0xc87c_3e7d_03cd_bec3, 0xee6b_2800_0000_0000];
/// The highest bit of a second in nanoseconds.
const SECOND_BIT: u16 = 29;
/// The position, as in [`position`], of the zero bucket: durations of up to `2^-20` s.
const ZERO: u16 = (SECOND_BIT - BELOW as u16) * 4 + 3;

/// The bucket of a duration in nanoseconds.
pub const fn bucket(ns: u64) -> usize {
    bucket_at(position(ns))
}

/// The bucket of a [`position`].
#[inline(always)]
pub const fn bucket_at(position: u16) -> usize {
    if position <= ZERO {
        return 0;
    }
    // In whole registers: of parts of them, the verifier loses the bounds.
    let bucket = position as usize - ZERO as usize;
    if bucket < BUCKETS { bucket } else { BUCKETS - 1 }
}

/// How many boundaries from 1 ns on are below a duration: four for each bit of it, and those that its mantissa
/// exceeds. Apart from [`bucket_at`], so that a kernel program can hide the number from the verifier in between.
#[inline(always)]
pub const fn position(ns: u64) -> u16 {
    let (bit, mantissa) = normalized(ns);
    let [first, second, third, last] = MANTISSAS;
    let below = (mantissa > first) as u16
        + (mantissa > second) as u16
        + (mantissa > third) as u16
        + (mantissa > last) as u16;
    bit * 4 + below
}

/// The number of the highest bit that is set (0 for 0), and the number shifted until that bit is the highest. In
/// halves, because the BPF instruction set cannot count zeros.
#[inline(always)]
const fn normalized(mut number: u64) -> (u16, u64) {
    let mut bit = 63;
    if number >> 32 == 0 {
        number <<= 32;
        bit -= 32;
    }
    if number >> 48 == 0 {
        number <<= 16;
        bit -= 16;
    }
    if number >> 56 == 0 {
        number <<= 8;
        bit -= 8;
    }
    if number >> 60 == 0 {
        number <<= 4;
        bit -= 4;
    }
    if number >> 62 == 0 {
        number <<= 2;
        bit -= 2;
    }
    if number >> 63 == 0 {
        number <<= 1;
        bit -= 1;
    }
    (bit, number)
}

/// The longest duration in a bucket, nanoseconds; its exact upper boundary is less than 1 ns more. The last bucket has
/// no longest duration, but a boundary.
pub const fn upper_ns(bucket: usize) -> u64 {
    let position = ZERO + bucket as u16;
    MANTISSAS[(position % 4) as usize] >> (63 - position / 4)
}

/// The longest duration that is too short for a bucket, nanoseconds.
pub const fn lower_ns(bucket: usize) -> u64 {
    if bucket == 0 { 0 } else { upper_ns(bucket - 1) }
}

/// The duration that stands for a bucket, nanoseconds. It is at most 8.7 % away from any duration in the bucket:
/// the harmonic mean of both boundaries is equally far from both.
pub const fn estimate_ns(bucket: usize) -> u64 {
    let (lower, upper) = (lower_ns(bucket) as u128, upper_ns(bucket) as u128);
    if lower == 0 { upper as u64 / 2 } else { (2 * lower * upper / (lower + upper)) as u64 }
}

/// Durations of the connections of one direction and service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Durations {
    /// From the attempt to the end of the handshake.
    pub handshake: Histogram,
    /// From the attempt to the end, of connections that were established.
    pub lifetime: Histogram,
}

impl Durations {
    /// No durations yet.
    pub const ZERO: Self = Self { handshake: Histogram::ZERO, lifetime: Histogram::ZERO };
}

/// How many durations fell into each bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Histogram {
    /// See [`bucket`].
    pub counts: [u64; BUCKETS],
}

impl Histogram {
    /// No durations yet.
    pub const ZERO: Self = Self { counts: [0; BUCKETS] };

    /// Adds another histogram's counts.
    pub fn add(&mut self, other: &Self) {
        for (sum, count) in self.counts.iter_mut().zip(&other.counts) {
            *sum = sum.wrapping_add(*count);
        }
    }

    /// How many durations.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The duration that `per_mille` of all do not exceed, nanoseconds, at most 9 % off (a microsecond for the
    /// shortest). `None` without durations.
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
            .map(estimate_ns)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A product, lowest limb first.
    fn product(factors: &[u64]) -> Vec<u64> {
        let mut product = vec![1];
        for &factor in factors {
            let mut carry = 0;
            for limb in &mut product {
                let sum = u128::from(*limb) * u128::from(factor) + carry;
                *limb = sum as u64;
                carry = sum >> 64;
            }
            product.push(carry as u64);
        }
        while product.last() == Some(&0) {
            product.pop();
        }
        product
    }

    /// `ns <= 10^9 * 2^(k/4)`, that is `ns^4 <= 10^36 * 2^k`, in integers of any size.
    fn is_at_most(ns: u64, k: i32) -> bool {
        let twos = |k: i32| (0..k).map(|_| 2).collect::<Vec<u64>>();
        let left = product(&[vec![ns; 4], twos(-k)].concat());
        let right = product(&[vec![1_000_000_000; 4], twos(k)].concat());
        (left.len(), left.iter().rev().collect::<Vec<_>>()) <= (right.len(), right.iter().rev().collect())
    }

    /// The exponent of the upper boundary of a bucket, in quarters of an octave of seconds.
    fn exponent(bucket: usize) -> i32 {
        i32::try_from(bucket).unwrap() - (BELOW * 4).cast_signed()
    }

    fn check(ns: u64) {
        let bucket = bucket(ns);
        let upper = bucket == BUCKETS - 1 || is_at_most(ns, exponent(bucket));
        let lower = bucket == 0 || !is_at_most(ns, exponent(bucket) - 1);
        assert!(lower && upper, "{ns} ns is not in bucket {bucket}");
    }

    #[test]
    fn boundaries_are_powers_of_the_fourth_root_of_two() {
        for at in 0..BUCKETS {
            let upper = upper_ns(at);
            assert!(is_at_most(upper, exponent(at)) && !is_at_most(upper + 1, exponent(at)), "{at}: {upper}");
            assert_eq!((bucket(upper), bucket(upper + 1)), (at, (at + 1).min(BUCKETS - 1)), "{upper}");
            check(upper);
            check(upper + 1);
        }
        for ns in [0, 1, 2, 953, 954, u64::MAX / 2, u64::MAX / 2 + 1, u64::MAX] {
            check(ns);
        }
    }

    #[test]
    fn powers_of_two_seconds_end_a_bucket() {
        for (octave, ns) in [(0, 1_000_000_000), (1, 2_000_000_000), (-9, 1_953_125), (10, 1_024_000_000_000)]
        {
            let at = usize::try_from(octave + BELOW.cast_signed()).unwrap() * 4;
            assert_eq!((bucket(ns), bucket(ns + 1), upper_ns(at)), (at, at + 1, ns));
        }
    }

    #[test]
    fn quantiles_of_nothing_and_of_one() {
        let mut histogram = Histogram::ZERO;
        assert_eq!(histogram.quantile(500), None);
        histogram.counts[bucket(5_000_000)] += 1;
        for per_mille in [0, 500, 1_000] {
            assert_eq!(histogram.quantile(per_mille), Some(estimate_ns(bucket(5_000_000))));
        }
    }

    /// Durations of every size that has a bucket of its own.
    fn durations() -> impl Strategy<Value = u64> {
        (10_u32..=52, any::<u64>()).prop_map(|(bit, low)| 1 << bit | low & ((1 << bit) - 1))
    }

    fn is_off_by_at_most_9_percent(shown: u64, exact: u64) -> bool {
        u128::from(shown.abs_diff(exact)) * 100 <= u128::from(exact) * 9
    }

    proptest! {
        #[test]
        fn each_duration_is_between_the_boundaries_of_its_bucket(ns in prop_oneof![durations(), any::<u64>()]) {
            check(ns);
        }

        #[test]
        fn an_estimate_is_at_most_9_percent_off(ns in durations()) {
            let shown = estimate_ns(bucket(ns));
            prop_assert!(is_off_by_at_most_9_percent(shown, ns), "{ns} is shown as {shown}");
        }

        #[test]
        fn quantiles_are_at_most_9_percent_off(
            mut all in prop::collection::vec(durations(), 1..300),
            per_mille in 0_u64..=1_000,
        ) {
            let mut histogram = Histogram::ZERO;
            for &ns in &all {
                histogram.counts[bucket(ns)] += 1;
            }
            all.sort_unstable();
            let rank = (all.len() as u64 * per_mille).div_ceil(1_000).max(1) as usize;
            let (shown, exact) = (histogram.quantile(per_mille).unwrap(), all[rank - 1]);
            prop_assert!(is_off_by_at_most_9_percent(shown, exact), "{exact} is shown as {shown}");
        }
    }
}
