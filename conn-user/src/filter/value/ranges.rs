//! Sets of numbers as ranges: ports, addresses, process ids, and other values of fields.

/// A set of numbers: sorted ranges with a gap between any two, both ends included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(Vec<(u128, u128)>);

impl Ranges {
    /// No number.
    pub const EMPTY: Self = Self(Vec::new());

    /// One number.
    pub fn one(number: u128) -> Self {
        Self(vec![(number, number)])
    }

    /// All numbers from `low` to `high`; none if `low` is larger.
    pub fn between(low: u128, high: u128) -> Self {
        Self(if low <= high { vec![(low, high)] } else { vec![] })
    }

    /// All numbers of some ranges in any order.
    pub fn collect(ranges: impl IntoIterator<Item = (u128, u128)>) -> Self {
        let mut all: Vec<_> = ranges.into_iter().filter(|(low, high)| low <= high).collect();
        all.sort_unstable();
        let mut merged: Vec<(u128, u128)> = Vec::with_capacity(all.len());
        for (low, high) in all {
            match merged.last_mut() {
                Some(last) if low <= last.1.saturating_add(1) => last.1 = last.1.max(high),
                _ => merged.push((low, high)),
            }
        }
        Self(merged)
    }

    /// The ranges, sorted, with a gap between any two.
    pub fn as_slice(&self) -> &[(u128, u128)] {
        &self.0
    }

    /// True if `number` is in the set.
    pub fn contains(&self, number: u128) -> bool {
        let after = self.0.partition_point(|&(low, _)| low <= number);
        after > 0 && number <= self.0[after - 1].1
    }

    /// True if the set has no number.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of members, at most `u128::MAX`.
    pub fn len(&self) -> u128 {
        self.0.iter().fold(0, |sum: u128, (low, high)| sum.saturating_add((high - low).saturating_add(1)))
    }

    /// The union.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self::collect(self.0.iter().chain(&other.0).copied())
    }

    /// The intersection.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let (mut ours, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut both = Vec::new();
        while let (Some(&&a), Some(&&b)) = (ours.peek(), theirs.peek()) {
            let (low, high) = (a.0.max(b.0), a.1.min(b.1));
            if low <= high {
                both.push((low, high));
            }
            // The range that ends first cannot overlap with later ranges.
            if a.1 <= b.1 {
                ours.next()
            } else {
                theirs.next()
            };
        }
        Self(both)
    }

    /// The union of any number of sets; `None` for no set.
    pub fn in_any(sets: &[Self]) -> Option<Self> {
        (!sets.is_empty()).then(|| Self::collect(sets.iter().flat_map(Self::as_slice).copied()))
    }

    /// The intersection of any number of sets; `None` for no set.
    pub fn in_all(sets: &[Self]) -> Option<Self> {
        let (first, others) = sets.split_first()?;
        Some(others.iter().fold(first.clone(), |all, next| all.intersection(next)))
    }

    /// The members that `other` does not have.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        self.intersection(&other.complement())
    }

    /// Every number that is not in the set.
    #[must_use]
    fn complement(&self) -> Self {
        let mut gaps = Vec::with_capacity(self.0.len() + 1);
        let mut next = Some(0);
        for &(low, high) in &self.0 {
            if let Some(from) = next.filter(|&from| from < low) {
                gaps.push((from, low - 1));
            }
            next = high.checked_add(1);
        }
        gaps.extend(next.map(|from| (from, u128::MAX)));
        Self(gaps)
    }

    /// Every member, in order. Check [`Self::len`] before.
    pub fn numbers(&self) -> impl Iterator<Item = u128> {
        self.0.iter().flat_map(|&(low, high)| low..=high)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sets near 0, near a word's width, and near the largest number.
    fn sets() -> impl Strategy<Value = Ranges> {
        let edge = prop_oneof![0..12_u128, u128::MAX - 12..=u128::MAX, 60..70_u128];
        prop::collection::vec((edge.clone(), edge), 0..6).prop_map(Ranges::collect)
    }

    fn probes() -> impl Iterator<Item = u128> {
        (0..14).chain(58..72).chain(u128::MAX - 14..=u128::MAX)
    }

    fn is_canonical(set: &Ranges) -> bool {
        set.0.iter().all(|(low, high)| low <= high)
            && set.0.windows(2).all(|two| two[0].1.checked_add(1).is_some_and(|next| next < two[1].0))
    }

    proptest! {
        #[test]
        fn sets_behave_like_sets(a in sets(), b in sets()) {
            let (union, both, without) = (a.union(&b), a.intersection(&b), a.without(&b));
            for set in [&a, &union, &both, &without] {
                prop_assert!(is_canonical(set), "{:?}", set);
            }
            for n in probes() {
                let (in_a, in_b) = (a.contains(n), b.contains(n));
                prop_assert_eq!(union.contains(n), in_a || in_b);
                prop_assert_eq!(both.contains(n), in_a && in_b);
                prop_assert_eq!(without.contains(n), in_a && !in_b);
                prop_assert_eq!(a.complement().contains(n), !in_a);
            }
            prop_assert_eq!(a.complement().complement(), a);
        }
    }

    #[test]
    fn counts_its_numbers() {
        let set = Ranges::collect([(7, 9), (1, 2), (3, 3), (5, 4)]);
        assert_eq!(set.as_slice(), [(1, 3), (7, 9)]);
        assert_eq!((set.len(), set.numbers().collect::<Vec<_>>()), (6, vec![1, 2, 3, 7, 8, 9]));
        assert_eq!(Ranges::EMPTY.complement().len(), u128::MAX);
        assert!(Ranges::between(2, 1).is_empty());
    }
}
