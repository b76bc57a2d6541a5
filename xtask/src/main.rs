//! The project's own tasks: `cargo xtask setup | run | test | soak | truth | bench | vm | dist | package-test | docs | pictures | check | tidy`.

#![expect(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    reason = "a task prints for the person who started it; conntrace's own output is another crate's"
)]

mod bench;
mod binary;
mod check;
mod command;
mod debian;
mod dist;
mod docs;
mod package_test;
mod page;
mod pictures;
mod python;
mod run;
mod setup;
mod skips;
mod soak;
mod tally;
mod test;
mod tidy;
mod toolchain;
mod truth;
mod vm;

use std::process::ExitCode;

use clap::Parser;

/// The project's own tasks.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Task {
    /// Find a working BPF toolchain, or install one
    Setup,
    /// Build everything and run conntrace, through sudo when not root
    Run(run::Arguments),
    /// Run every test
    Test(test::Arguments),
    /// Run all attacks at once beside honest traffic, for minutes
    Soak(soak::Arguments),
    /// Compare the ledger with a load of known numbers, for each set of hooks
    Truth(truth::Arguments),
    /// Measure what conntrace costs, beside its peers
    Bench(bench::Arguments),
    /// Run the live tests and the truth in stock kernels, in virtual machines
    Vm(vm::Arguments),
    /// Build the release: a static program, an archive of it, and a Debian package
    Dist,
    /// Try the Debian package on fresh Debians: install, use, upgrade, remove, purge
    PackageTest(package_test::Arguments),
    /// Check format, lints, documentation and tidy: all that a change must pass besides the tests
    Check,
    /// Write the manuals, completions and other files under docs that are generated
    Docs(docs::Arguments),
    /// Draw what Grafana and munin show of a scripted day of real traffic: needs root, and a host that is idle
    Pictures(pictures::Arguments),
    /// Check the rules of the project that its text shows
    Tidy,
}

fn main() -> ExitCode {
    let done = match Task::parse() {
        Task::Setup => setup::main(),
        Task::Run(arguments) => run::main(&arguments),
        Task::Test(arguments) => test::main(&arguments),
        Task::Soak(arguments) => soak::main(&arguments),
        Task::Truth(arguments) => truth::main(&arguments),
        Task::Bench(arguments) => bench::main(&arguments),
        Task::Vm(arguments) => vm::main(&arguments),
        Task::Dist => dist::main(),
        Task::PackageTest(arguments) => package_test::main(&arguments),
        Task::Check => check::main(),
        Task::Docs(arguments) => docs::main(&arguments),
        Task::Pictures(arguments) => pictures::main(&arguments),
        Task::Tidy => tidy::main(),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
