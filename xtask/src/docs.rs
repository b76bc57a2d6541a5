//! `cargo xtask docs`: writes the generated files under `docs`. A test of conn-user fails when one is not current; here
//! the test writes the files instead.

use std::process::ExitCode;

use anyhow::Result;

use crate::{command, setup};

/// Writes the files.
pub(crate) fn main() -> Result<ExitCode> {
    setup::ensure_toolchain()?;
    let mut test = command::cargo(["test", "--quiet", "--package", "conn-user", "--test", "docs"]);
    command::run(test.env("CONNTRACE_DOCS", "write"))?;
    Ok(ExitCode::SUCCESS)
}
