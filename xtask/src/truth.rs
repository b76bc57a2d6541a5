//! `cargo xtask truth`: the ledger beside the counts of the traffic generator.

use std::io::Write as _;
use std::process::{ExitCode, Stdio};

use anyhow::{Context as _, Result};

use crate::{binary, command, page, setup};

/// The page with the table.
const PAGE: &str = "docs/exactness.md";

/// Options of `truth`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Connections for each set of hooks
    #[arg(long, default_value_t = 200_000)]
    connections: u64,
    /// Put the table into docs/exactness.md
    #[arg(long)]
    write: bool,
}

/// Runs the comparison and prints its table.
pub(crate) fn main(arguments: &Arguments) -> Result<ExitCode> {
    setup::ensure_toolchain()?;
    setup::ensure_test_tools()?;
    let program = binary::conntrace(false)?;
    let number = arguments.connections.to_string();
    let mut truth =
        command::cargo(["run", "--quiet", "--release", "--package", "conn-tests", "--bin", "truth"]);
    truth.args(["--", "--connections", &number]).env("CONNTRACE_BIN", program).stdout(Stdio::piped());
    let output =
        truth.spawn().and_then(std::process::Child::wait_with_output).context("cannot start cargo")?;
    let table = String::from_utf8(output.stdout).context("the table is no text")?;
    std::io::stdout().write_all(table.as_bytes())?;
    if !output.status.success() {
        return Ok(ExitCode::FAILURE);
    }
    if arguments.write {
        let heading = format!("{}, `cargo xtask truth --connections {number}`:\n\n", page::host()?);
        page::replace(PAGE, "table", &(heading + &table))?;
    }
    Ok(ExitCode::SUCCESS)
}
