//! The counts per service port, and the proof that they are right.

pub mod audit;
pub mod auditor;
mod background;
pub mod latency;
mod passes;
pub mod reader;
pub mod repair;
pub mod report;
mod report_text;
pub mod reporter;
pub mod self_cost;
