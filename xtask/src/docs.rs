//! `cargo xtask docs`: writes the generated files under `docs`. A test of conn-user fails when one is not current; here
//! the test writes the files instead. `--samples` does the same with the samples, which live tests compare.

use std::process::ExitCode;

use anyhow::Result;

use crate::{binary, command, setup};

/// Options of `docs`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Make the samples of README.md and docs again, too, by real runs: needs root
    #[arg(long)]
    samples: bool,
}

/// Writes the files.
pub(crate) fn main(arguments: &Arguments) -> Result<ExitCode> {
    setup::ensure_toolchain()?;
    let mut test = command::cargo(["test", "--quiet", "--package", "conn-user", "--test", "docs"]);
    command::run(test.env("CONNTRACE_DOCS", "write"))?;
    if arguments.samples {
        let program = binary::conntrace(false)?;
        let live = ["test", "--quiet", "--package", "conn-tests", "--test", "live", "--", "docs::samples"];
        command::run(command::cargo(live).env("CONNTRACE_BIN", program).env("CONNTRACE_DOCS", "write"))?;
    }
    Ok(ExitCode::SUCCESS)
}
