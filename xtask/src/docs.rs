//! `cargo xtask docs`: writes what is generated and committed under `docs`. A test of conn-user knows it
//! all and complains when it is not current; this lets it write instead.

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
