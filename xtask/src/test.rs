//! `cargo xtask test`: every test, and a count of them.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result};

use crate::command::{self, line};
use crate::tally::Tally;
use crate::{binary, debian, python, setup, skips, vm};

/// Options of `test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Leave out the tests that trace this machine's own kernel
    #[arg(long)]
    no_live: bool,
    /// Leave out the virtual machines, for a quick round
    #[arg(long)]
    no_vm: bool,
    /// Fail on every skip that xtask/src/skips.rs does not list, as a run with `CI` set does
    #[arg(long)]
    strict_skips: bool,
    /// Given to the tests of this machine, such as a part of their names; leaves out the virtual machines, too
    #[arg(last = true)]
    filter: Vec<String>,
}

/// Runs them.
pub(crate) fn main(arguments: &Arguments) -> Result<ExitCode> {
    setup::ensure_toolchain()?;
    setup::ensure_test_tools()?;

    let mut tally = Tally::default();
    let complete = run_all(arguments, &mut tally);
    if arguments.strict_skips || skips::is_ci() {
        tally.forbid_skips(skips::accepted);
    }
    Ok(tally.report(complete))
}

fn run_all(arguments: &Arguments, tally: &mut Tally) -> Result<()> {
    let cargo_test = |what: &[&str]| {
        let mut cargo = command::cargo([&["test", "--no-fail-fast"], what].concat());
        cargo.arg("--").args(&arguments.filter);
        cargo
    };
    if arguments.no_live {
        stream(
            &mut cargo_test(&["--package", "conn-common", "--package", "conn-user", "--package", "xtask"]),
            tally,
        )?;
        return stream(&mut cargo_test(&["--package", "conn-tests", "--lib"]), tally);
    }
    let in_machines = !arguments.no_vm && arguments.filter.is_empty();
    // The tests run the program that `cargo xtask dist` packs.
    let program = if in_machines { vm::conntrace()? } else { binary::conntrace(false)? };
    // Without a package named, cargo takes the workspace's default members.
    let mut tests = cargo_test(&[]);
    tests.env("CONNTRACE_BIN", &program).envs(python::ensure()).envs([debian::ensure()]);
    let here = stream(&mut tests, tally);
    if in_machines {
        vm::run(&vm::Arguments::short(), &program, tally)?;
    }
    here
}

/// Passes on the output of the tests, line by line.
fn stream(cargo: &mut Command, tally: &mut Tally) -> Result<()> {
    let mut child =
        cargo.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start `{}`", line(cargo)))?;
    let mut output = BufReader::new(child.stdout.take().context("cargo's stdout was not piped")?);
    let mut stdout = std::io::stdout();
    let mut text = Vec::new();
    while output.read_until(b'\n', &mut text).context("cannot read from cargo")? > 0 {
        stdout.write_all(&text).context("cannot write to stdout")?;
        tally.line(String::from_utf8_lossy(&text).trim_end());
        text.clear();
    }
    let status = child.wait().context("cannot wait for cargo")?;
    anyhow::ensure!(status.success(), "`{}` failed: {status}", line(cargo));
    Ok(())
}
