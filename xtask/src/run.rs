//! `cargo xtask run`: from a checkout to the running program.

use std::env;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::thread;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::command::{self, line};
use crate::{setup, toolchain};

/// What `run` takes.
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
    let program = build(arguments.debug)?;
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

/// Builds conntrace and says where it is, wherever the target directory may be.
pub(crate) fn build(debug: bool) -> Result<PathBuf> {
    let mut cargo = command::cargo(["build", "--package", "conn-user", "--bin", "conntrace"]);
    cargo.arg("--message-format=json-render-diagnostics");
    if !debug {
        cargo.arg("--release");
    }
    let mut child = cargo
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", line(&cargo)))?;
    let progress = child.stderr.take().context("cargo's stderr was not piped")?;
    let progress = thread::spawn(move || {
        for text in BufReader::new(progress).lines().map_while(Result::ok) {
            // When there is nothing to compile, this is all that cargo has to say.
            if !text.trim_start().starts_with("Finished ") {
                eprintln!("{text}");
            }
        }
    });
    let messages = child.stdout.take().context("cargo's stdout was not piped")?;
    let mut program = None;
    for message in BufReader::new(messages).lines() {
        program = executable(&message.context("cannot read from cargo")?).or(program);
    }
    let status = child.wait().context("cannot wait for cargo")?;
    // It only prints; whatever happened to it, the build's own status is what counts.
    let _ = progress.join();
    if !status.success() {
        bail!("conntrace does not build; see cargo's messages above");
    }
    program.context("cargo built conntrace and did not say where it is")
}

/// The program's path, if that is what this message of cargo's is about.
fn executable(message: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    if message["target"]["name"] != "conntrace" {
        return None;
    }
    message["executable"].as_str().map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_program_itself_is_taken() {
        let artifact =
            r#"{"reason":"compiler-artifact","target":{"name":"conntrace"},"executable":"/t/conntrace"}"#;
        assert_eq!(executable(artifact), Some(PathBuf::from("/t/conntrace")));
        assert_eq!(executable(r#"{"target":{"name":"conntrace"},"executable":null}"#), None);
        assert_eq!(executable(r#"{"target":{"name":"build-script-build"},"executable":"/t/b"}"#), None);
        assert_eq!(executable(r#"{"reason":"build-finished","success":true}"#), None);
        assert_eq!(executable("not JSON"), None);
    }
}
