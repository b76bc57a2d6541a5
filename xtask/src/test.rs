//! `cargo xtask test`: every test, and how many there were.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result};

use crate::command::{self, line};
use crate::tally::Tally;
use crate::{run, setup};

/// What `test` takes.
#[derive(Default, clap::Args)]
pub(crate) struct Arguments {
    /// Leave out the tests that trace this machine's own kernel
    #[arg(long)]
    no_live: bool,
    /// Given to the tests, such as a part of their names
    #[arg(last = true)]
    filter: Vec<String>,
}

/// Runs them. The last line on stdout is the count, whatever happened before it.
pub(crate) fn main(arguments: &Arguments) -> Result<ExitCode> {
    setup::ensure_toolchain()?;
    setup::ensure_test_tools()?;

    let mut tally = Tally::default();
    let complete = run_all(arguments, &mut tally);
    if !tally.reasons.is_empty() {
        println!("skipped:");
        for reason in &tally.reasons {
            println!("    {reason}");
        }
    }
    let good = match complete {
        Ok(()) if tally.passed + tally.failed == 0 => {
            eprintln!("error: no test ran");
            false
        }
        Ok(()) => tally.is_good(),
        Err(error) => {
            eprintln!("error: {error:#}");
            false
        }
    };
    println!("{tally}");
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
    let program = run::build(false)?;
    // Without a package named, cargo takes the workspace's default members.
    stream(cargo_test(&[]).env("CONNTRACE_BIN", program), tally)
}

/// Passes on what the tests print, as they print it.
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
