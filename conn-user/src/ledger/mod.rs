//! The counts per service port, and the proof that they are right.

pub(crate) mod attempts;
pub(crate) mod audit;
pub(crate) mod auditor;
mod background;
pub mod counts;
pub(crate) mod flow_audit;
pub(crate) mod flow_report;
pub(crate) mod flow_reporter;
pub(crate) mod forwarded_report;
pub(crate) mod history;
pub(crate) mod kernel_counters;
pub(crate) mod latency;
pub mod metrics;
mod netns_totals;
pub mod passages;
mod passes;
pub mod plot;
mod proof;
mod rates;
pub mod reader;
pub(crate) mod remotes;
pub(crate) mod repair;
pub(crate) mod report;
pub(crate) mod report_text;
pub(crate) mod reporter;
pub(crate) mod self_cost;
pub(crate) mod sources;
