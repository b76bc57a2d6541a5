//! The counts per service port, and the proof that they are right.

pub(crate) mod attempts;
pub(crate) mod audit;
pub(crate) mod auditor;
mod background;
pub(crate) mod latency;
mod passes;
pub mod reader;
pub(crate) mod repair;
pub(crate) mod report;
mod report_text;
pub(crate) mod reporter;
pub(crate) mod self_cost;
