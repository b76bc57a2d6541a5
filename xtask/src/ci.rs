//! `cargo xtask ci`: all that a change must pass.

use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};

use crate::toolchain::BOOTSTRAP_CRATES;
use crate::{command, setup, test, tidy};

/// Runs the steps in order; the first that fails ends it.
pub(crate) fn main() -> Result<ExitCode> {
    setup::ensure_toolchain()?;
    step("format", &mut command::cargo(["fmt", "--all", "--check"]))?;
    let lint = ["clippy", "--quiet", "--all-targets", "--", "--deny", "warnings"];
    step("lint", &mut command::cargo(lint))?;
    step("lint of the kernel programs", &mut kernel_lint())?;
    let mut documentation = command::cargo(["doc", "--quiet", "--no-deps", "--document-private-items"]);
    step("documentation", documentation.env("RUSTDOCFLAGS", "--deny warnings"))?;
    eprintln!("== tidy");
    if tidy::main()? != ExitCode::SUCCESS {
        anyhow::bail!("tidy failed; see the lines above");
    }
    eprintln!("== test");
    test::main(&test::Arguments::default())
}

fn step(name: &str, command: &mut Command) -> Result<()> {
    eprintln!("== {name}: {}", command::line(command));
    command::run(command).with_context(|| format!("{name} failed"))
}

/// The toolchain that has the BPF target may come without clippy, so the kernel programs are linted for this
/// machine's own target, where they do not link and are not meant to. Their build for BPF is conn-user's.
fn kernel_lint() -> Command {
    let directory = command::workspace().join("target/kernel-lint");
    let mut lint = command::cargo(["clippy", "--quiet", "--package", "conn-ebpf", "--target-dir"]);
    lint.arg(directory).args(["--", "--deny", "warnings"]);
    // Without std there is nothing to unwind with.
    lint.env("CARGO_ENCODED_RUSTFLAGS", "-Cpanic=abort").env("RUSTC_BOOTSTRAP", BOOTSTRAP_CRATES);
    lint
}
