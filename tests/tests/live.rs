//! Live tests: real kernel, real traffic, the real binary.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::unnecessary_wraps,
    reason = "test code: a panic is the failure report, and all tests have one signature"
)]

mod live {
    pub(crate) mod choice;
    pub(crate) mod cmdline;
    pub(crate) mod company;
    pub(crate) mod confined;
    pub(crate) mod count;
    pub(crate) mod crash;
    pub(crate) mod crowd;
    pub(crate) mod doctor;
    pub(crate) mod end;
    pub(crate) mod event;
    pub(crate) mod family;
    pub(crate) mod filter;
    pub(crate) mod forced;
    pub(crate) mod format;
    pub(crate) mod ledger;
    pub(crate) mod life;
    pub(crate) mod list;
    pub(crate) mod load;
    pub(crate) mod loss;
    pub(crate) mod manual;
    pub(crate) mod memory;
    pub(crate) mod mptcp;
    pub(crate) mod namespace;
    pub(crate) mod own;
    pub(crate) mod owner;
    pub(crate) mod peer;
    pub(crate) mod place;
    pub(crate) mod reader;
    pub(crate) mod reason;
    pub(crate) mod refusal;
    pub(crate) mod resolve;
    pub(crate) mod scenario;
    pub(crate) mod ss;
    pub(crate) mod start;
    pub(crate) mod time;
    pub(crate) mod traffic;
    pub(crate) mod usage;
}

use conn_tests::harness::{self, Live, Test};
use std::process::ExitCode;

fn main() -> ExitCode {
    let themes = [
        live::choice::TESTS,
        live::cmdline::TESTS,
        live::confined::TESTS,
        live::count::TESTS,
        live::crash::TESTS,
        live::doctor::TESTS,
        live::end::TESTS,
        live::event::TESTS,
        live::family::TESTS,
        live::filter::TESTS,
        live::format::TESTS,
        live::ledger::TESTS,
        live::life::TESTS,
        live::list::TESTS,
        live::loss::TESTS,
        live::manual::TESTS,
        live::memory::TESTS,
        live::mptcp::TESTS,
        live::namespace::TESTS,
        live::own::TESTS,
        live::owner::TESTS,
        live::peer::TESTS,
        live::place::TESTS,
        live::reader::TESTS,
        live::reason::TESTS,
        live::refusal::TESTS,
        live::resolve::TESTS,
        live::scenario::TESTS,
        live::ss::TESTS,
        live::time::TESTS,
        live::traffic::TESTS,
        live::usage::TESTS,
    ];
    // Those that need the machine for themselves come last, so that the others do not wait for them.
    let alone = [live::company::TESTS, live::start::TESTS, live::crowd::TESTS, live::load::TESTS];
    let plain = |live: &[&'static [Live]]| live.concat().into_iter().map(Test::from);
    harness::run(
        plain(&themes).chain(live::ledger::scenarios()).chain(live::forced::tests()).chain(plain(&alone)),
    )
}
