//! `cargo xtask run`: from a checkout to the running program.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};

use crate::command::line;
use crate::{binary, setup, toolchain};

/// Options of `run`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Build without optimisation, faster to compile
    #[arg(long)]
    debug: bool,
    /// conntrace's own arguments
    #[arg(last = true)]
    arguments: Vec<OsString>,
}

/// Becomes conntrace, so that signals and the exit code are its own.
pub(crate) fn main(arguments: &Arguments) -> Result<ExitCode> {
    setup::ensure_toolchain()?;
    let program = binary::conntrace(arguments.debug)?;
    let mut command = if toolchain::is_root() {
        Command::new(&program)
    } else {
        let path = env::var_os("PATH").unwrap_or_default();
        let sudo = toolchain::find_on(&path, "sudo").with_context(|| {
            format!("conntrace must run as root, and there is no sudo; run as root: {}", program.display())
        })?;
        let mut command = Command::new(sudo);
        command.arg("--").arg(&program);
        command
    };
    let error = command.args(&arguments.arguments).exec();
    Err(error).with_context(|| format!("cannot start `{}`", line(&command)))
}
