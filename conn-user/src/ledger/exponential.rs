//! Buckets of durations as exponential histograms have them: those of OTLP, and the native ones of Prometheus.

use conn_common::histogram;

/// The index of the bucket above the zero bucket: `(2^-20, 2^-19.75]` s.
const FIRST: i32 = -(histogram::BELOW << histogram::SCALE).cast_signed();
/// The zero bucket has durations of up to so many seconds.
pub(crate) const ZERO_THRESHOLD: f64 = 1.0 / (1_u64 << histogram::BELOW) as f64;
/// The scale of OTLP, and the schema of Prometheus: an octave has `2^SCALE` buckets.
pub(crate) const SCALE: i32 = histogram::SCALE.cast_signed();

/// The buckets between the first and the last one that is not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exponential<'a> {
    /// Durations in the zero bucket.
    pub(crate) zero_count: u64,
    /// The index of the first bucket: of `i`, the bounds are `(2^(i/4), 2^((i+1)/4)]` seconds.
    pub(crate) offset: i32,
    /// The counts from there on.
    pub(crate) counts: &'a [u64],
}

impl<'a> Exponential<'a> {
    /// Of the counts of [`histogram::Histogram`].
    pub(crate) fn of(counts: &'a [u64]) -> Self {
        let (zero_count, above) = counts.split_first().map_or((0, counts), |(&zero, above)| (zero, above));
        let first = above.iter().position(|&count| count != 0).unwrap_or(above.len());
        let end = above.iter().rposition(|&count| count != 0).map_or(first, |last| last + 1);
        Self { zero_count, offset: FIRST + i32::try_from(first).unwrap_or(0), counts: &above[first..end] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bucket_has_the_bounds_of_its_index() {
        for at in 1..histogram::BUCKETS {
            let mut counts = vec![0; histogram::BUCKETS];
            counts[at] = 7;
            let found = Exponential::of(&counts);
            assert_eq!((found.zero_count, found.counts), (0, &[7][..]));
            let upper = 2_f64.powf(f64::from(found.offset + 1) / 4.0) * 1e9;
            assert!((upper - histogram::upper_ns(at) as f64).abs() <= 1.0 + upper * 1e-12, "{at}: {upper}");
        }
        let mut counts = vec![0; histogram::BUCKETS];
        counts[0] = 3;
        let found = Exponential::of(&counts);
        assert_eq!((found.zero_count, found.counts.len()), (3, 0));
        assert!((histogram::upper_ns(0) as f64 - ZERO_THRESHOLD * 1e9).abs() < 1.0);
    }
}
