//! What `conntrace stats --sources` says, as JSON.

use serde::Deserialize;

/// The sources of a report.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the report")]
pub struct Sources {
    pub by: String,
    pub room: u64,
    pub listed: u64,
    pub full: bool,
    pub rows: Vec<Source>,
    pub others: Source,
    pub unlisted: Source,
    pub total: Source,
}

/// The counts of a remote address, or of several.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the report")]
pub struct Source {
    pub address: String,
    pub direction: String,
    pub attempts: Option<u64>,
    pub refused_by_us: Option<u64>,
    pub opened: u64,
    pub failed: u64,
}

impl Source {
    /// Attempts, refused SYNs, connections and failed ones; 0 for what is unknown.
    pub fn counts(&self) -> [u64; 4] {
        [self.attempts.unwrap_or(0), self.refused_by_us.unwrap_or(0), self.opened, self.failed]
    }
}

impl Sources {
    /// The counts of one row.
    pub fn of(&self, address: &str, direction: &str) -> Option<[u64; 4]> {
        let row = self.rows.iter().find(|row| row.address == address && row.direction == direction);
        row.map(Source::counts)
    }

    /// Panics unless the rows, the others and what is not listed add up to the total.
    ///
    /// # Panics
    /// They do not.
    pub fn check_sum(&self) {
        let rows = self.rows.iter().chain([&self.others, &self.unlisted]).map(Source::counts);
        let sum = rows.fold([0; 4], |sum, row| std::array::from_fn(|at| sum[at] + row[at]));
        assert_eq!(sum, self.total.counts(), "{self:?}");
    }
}
