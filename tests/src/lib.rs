//! The parts of conntrace's live tests: real network namespaces, real TCP traffic with exact counts of it
//! ([`truth::Truth`]), and a handle on a running `conntrace`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "test code: a panic is the failure report"
)]
#![expect(clippy::disallowed_macros, reason = "tests print for the reader of their log")]

pub mod attack;
pub mod btf;
pub mod daemon;
pub mod dns;
pub mod exclusive;
pub mod exit;
pub mod flood;
pub mod harness;
pub mod host;
pub mod kernel;
pub mod ledger;
pub mod line;
mod link;
pub mod losses;
pub mod map;
pub mod netns;
pub mod pins;
pub mod port;
pub mod python;
pub mod range;
pub mod routed;
pub mod sample;
pub mod scenario;
pub mod siege;
pub mod snmp;
pub mod sources;
pub mod stage;
pub mod timeout;
pub mod tracer;
pub mod traffic;
pub mod truth;
pub mod usage;

#[doc(hidden)]
pub use inventory;
