//! `cargo xtask soak`: all attacks at once beside honest traffic, for minutes.

use std::process::ExitCode;

use anyhow::Result;

use crate::{binary, command, setup};

/// The test that soaks, and the variable with its length in seconds (`tests/tests/live/attacks/soak.rs`).
const TEST: &str = "attacks::soak::";
const SECONDS: &str = "CONNTRACE_SOAK_SECONDS";

/// Options of `soak`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Length in minutes
    #[arg(long, default_value_t = 10)]
    minutes: u64,
}

/// Runs the test with the release program.
pub(crate) fn main(arguments: &Arguments) -> Result<ExitCode> {
    setup::ensure_toolchain()?;
    setup::ensure_test_tools()?;
    let program = binary::conntrace(false)?;
    let mut soak =
        command::cargo(["test", "--package", "conn-tests", "--test", "live", "--", TEST, "--nocapture"]);
    soak.env("CONNTRACE_BIN", program).env(SECONDS, (arguments.minutes * 60).to_string());
    command::run(&mut soak)?;
    Ok(ExitCode::SUCCESS)
}
