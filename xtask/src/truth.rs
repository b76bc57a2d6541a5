//! `cargo xtask truth`: the ledger beside the generator that made the connections.

use std::env;
use std::fs;
use std::io::Write as _;
use std::process::{ExitCode, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::{binary, command, setup};

/// Where the table belongs.
const PAGE: &str = "docs/exactness.md";
/// What stands before and after it there.
const MARKS: [&str; 2] = ["<!-- table: begin -->\n", "<!-- table: end -->\n"];

/// What `truth` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Connections for each set of hooks
    #[arg(long, default_value_t = 200_000)]
    connections: u64,
    /// Put the table into docs/exactness.md
    #[arg(long)]
    write: bool,
}

/// Runs the comparison and shows its table.
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
        write(&table, arguments.connections)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Replaces the table on the page, with the kernel it was measured on.
fn write(table: &str, connections: u64) -> Result<()> {
    let page = command::workspace().join(PAGE);
    let text = fs::read_to_string(&page).with_context(|| format!("cannot read {PAGE}"))?;
    let Some((before, rest)) = text.split_once(MARKS[0]) else { bail!("{PAGE} has no line {:?}", MARKS[0]) };
    let Some((_, after)) = rest.split_once(MARKS[1]) else { bail!("{PAGE} has no line {:?}", MARKS[1]) };
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpus = std::thread::available_parallelism()?;
    let heading = format!(
        "Linux {} on {}, {cpus} CPUs, `cargo xtask truth --connections {connections}`:\n\n",
        kernel.trim().split('-').next().unwrap_or_default(),
        env::consts::ARCH
    );
    let text = [before, MARKS[0], &heading, table, MARKS[1], after].concat();
    fs::write(&page, text).with_context(|| format!("cannot write {PAGE}"))
}
