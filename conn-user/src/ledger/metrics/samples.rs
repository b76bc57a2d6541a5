//! Samples by family, added up by their labels.

use std::collections::BTreeMap;

use conn_common::histogram::Histogram;

use super::family::{ALL, Family};

/// The values of labels, in the order of [`Family::labels`].
type Labels = Vec<String>;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// A count.
    Count(u64),
    /// A number that may be negative.
    Number(i64),
    /// Seconds.
    Seconds(f64),
    /// Durations by bucket.
    Durations(Box<Histogram>),
    /// A fact of an [`super::family::Kind::Info`] family.
    Fact,
}

impl Value {
    /// The sum with another value of the same family.
    fn add(&mut self, other: Self) {
        match (self, other) {
            (Self::Count(sum), Self::Count(more)) => *sum = sum.wrapping_add(more),
            (Self::Number(sum), Self::Number(more)) => *sum = sum.wrapping_add(more),
            (Self::Seconds(sum), Self::Seconds(more)) => *sum += more,
            (Self::Durations(sum), Self::Durations(more)) => sum.add(&more),
            (old, new) => *old = new,
        }
    }
}

/// The samples of one reading.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples(BTreeMap<&'static str, BTreeMap<Labels, Value>>);

impl Samples {
    /// Adds a value to the sample with these labels.
    pub(super) fn add(&mut self, family: &'static Family, labels: &[&str], value: Value) {
        debug_assert_eq!(family.labels.len(), labels.len(), "{}", family.name);
        let labels = labels.iter().map(|&label| label.to_owned()).collect();
        match self.0.entry(family.name).or_default().entry(labels) {
            std::collections::btree_map::Entry::Vacant(free) => {
                free.insert(value);
            }
            std::collections::btree_map::Entry::Occupied(mut sum) => sum.get_mut().add(value),
        }
    }

    /// The families with samples.
    pub(super) fn families(&self) -> impl Iterator<Item = (&'static Family, &BTreeMap<Labels, Value>)> {
        ALL.iter().filter_map(|&family| Some((family, self.0.get(family.name)?)))
    }
}
