//! The counts per service port, and their proof.

pub mod audit;
pub mod latency;
pub mod reader;
pub mod repair;
pub mod report;
pub mod self_cost;
