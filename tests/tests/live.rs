//! Live tests: real kernel, real traffic, the real binary.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::unnecessary_wraps,
    reason = "test code: a panic is the failure report, and all tests have one signature"
)]

mod live {
    pub(crate) mod end;
    pub(crate) mod event;
    pub(crate) mod family;
    pub(crate) mod filter;
    pub(crate) mod format;
    pub(crate) mod loss;
    pub(crate) mod namespace;
    pub(crate) mod scenario;
    pub(crate) mod traffic;
    pub(crate) mod usage;
}

use conn_tests::harness;
use std::process::ExitCode;

fn main() -> ExitCode {
    let themes = [
        live::end::TESTS,
        live::event::TESTS,
        live::family::TESTS,
        live::filter::TESTS,
        live::format::TESTS,
        live::loss::TESTS,
        live::namespace::TESTS,
        live::scenario::TESTS,
        live::traffic::TESTS,
        live::usage::TESTS,
    ];
    harness::run(themes.into_iter().flatten().copied())
}
