//! `cargo xtask check`: what a change must pass besides the tests.

use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::toolchain::BOOTSTRAP_CRATES;
use crate::{command, setup, tidy};

/// Parts of a Rust toolchain that the steps need: cargo's command, and rustup's component.
const COMPONENTS: [(&str, &str); 2] = [("fmt", "rustfmt"), ("clippy", "clippy")];

/// Runs the steps in order; the first that fails ends the run.
pub(crate) fn main() -> Result<ExitCode> {
    setup::ensure_toolchain()?;
    ensure_components()?;
    step("format", &mut command::cargo(["fmt", "--all", "--check"]))?;
    let lint = ["clippy", "--quiet", "--all-targets", "--", "--deny", "warnings"];
    step("lint", &mut command::cargo(lint))?;
    step("lint of the kernel programs", &mut kernel_lint())?;
    let mut documentation = command::cargo(["doc", "--quiet", "--no-deps", "--document-private-items"]);
    step("documentation", documentation.env("RUSTDOCFLAGS", "--deny warnings"))?;
    eprintln!("== tidy");
    tidy::main()
}

/// Fails with a remedy if the toolchain that runs this task lacks a component.
fn ensure_components() -> Result<()> {
    let is_missing = |(name, _): &&(&str, &str)| {
        let mut version = command::cargo([*name, "--version"]);
        !version.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    let missing: Vec<&str> = COMPONENTS.iter().filter(is_missing).map(|(_, component)| *component).collect();
    if !missing.is_empty() {
        let missing = missing.join(" ");
        bail!(
            "this Rust toolchain lacks {missing}; install with `rustup component add {missing}`, \
               or from your distribution"
        );
    }
    Ok(())
}

fn step(name: &str, command: &mut Command) -> Result<()> {
    eprintln!("== {name}: {}", command::line(command));
    command::run(command).with_context(|| format!("{name} failed"))
}

/// Lints the kernel programs for this machine's own target, since the toolchain with the BPF target may lack clippy.
/// They are not linked. conn-user's build script compiles them for BPF.
fn kernel_lint() -> Command {
    let directory = command::workspace().join("target/kernel-lint");
    let mut lint = command::cargo(["clippy", "--quiet", "--package", "conn-ebpf", "--target-dir"]);
    lint.arg(directory).args(["--", "--deny", "warnings"]);
    // Without std there is nothing to unwind with.
    lint.env("CARGO_ENCODED_RUSTFLAGS", "-Cpanic=abort").env("RUSTC_BOOTSTRAP", BOOTSTRAP_CRATES);
    lint
}
