//! Builds programs of this workspace, and finds where cargo put them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::command::{self, line};

/// The target that static programs are built for. With a target named, the flags hold for the programs and not
/// for build scripts, nor for the kernel programs that one of these builds.
pub(crate) const STATIC_TARGET: &str = "x86_64-unknown-linux-gnu";

/// Whether static programs can be built and run here.
pub(crate) const IS_STATIC_HOST: bool = cfg!(all(target_arch = "x86_64", target_os = "linux"));

/// Executables by the names of their targets.
pub(crate) type Programs = BTreeMap<String, PathBuf>;

/// conntrace for this machine.
pub(crate) fn conntrace(debug: bool) -> Result<PathBuf> {
    let mut cargo = command::cargo(["build", "--package", "conn-user", "--bin", "conntrace"]);
    if !debug {
        cargo.arg("--release");
    }
    one(build(&mut cargo)?, "conntrace")
}

/// The program that puts empty programs on conntrace's hooks.
pub(crate) fn empty() -> Result<PathBuf> {
    let example = ["build", "--release", "--package", "conn-user", "--example", "empty"];
    one(build(&mut command::cargo(example))?, "empty")
}

/// The bench program.
pub(crate) fn bench() -> Result<PathBuf> {
    let program = ["build", "--release", "--package", "conn-tests", "--bin", "bench"];
    one(build(&mut command::cargo(program))?, "bench")
}

/// The release program: one static file.
pub(crate) fn static_conntrace() -> Result<PathBuf> {
    let build_static = ["build", "--release", "--package", "conn-user", "--bin", "conntrace"];
    one(build(&mut statically(&build_static))?, "conntrace")
}

/// The live tests and what else a virtual machine needs beside conntrace.
pub(crate) fn static_tests() -> Result<Programs> {
    let build_tests = ["test", "--no-run", "--profile", "guest", "--package", "conn-tests", "--test", "live"];
    build(&mut statically(&build_tests))
}

fn statically(arguments: &[&str]) -> Command {
    let mut cargo = command::cargo(arguments);
    cargo.args(["--target", STATIC_TARGET]);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static");
    cargo
}

/// The program with this name.
pub(crate) fn one(mut programs: Programs, name: &str) -> Result<PathBuf> {
    programs.remove(name).with_context(|| format!("cargo built {name} and did not say where it is"))
}

/// Runs a cargo that builds.
fn build(cargo: &mut Command) -> Result<Programs> {
    cargo.arg("--message-format=json-render-diagnostics");
    let mut child = cargo
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", line(cargo)))?;
    let progress = child.stderr.take().context("cargo's stderr was not piped")?;
    let progress = thread::spawn(move || {
        for text in BufReader::new(progress).lines().map_while(Result::ok) {
            // Without anything to compile, cargo prints this line only.
            if !text.trim_start().starts_with("Finished ") {
                eprintln!("{text}");
            }
        }
    });
    let messages = child.stdout.take().context("cargo's stdout was not piped")?;
    let mut programs = Programs::new();
    for message in BufReader::new(messages).lines() {
        programs.extend(executable(&message.context("cannot read from cargo")?));
    }
    let status = child.wait().context("cannot wait for cargo")?;
    // The thread only prints. The status of the build decides.
    let _ = progress.join();
    if !status.success() {
        let what = cargo.get_args().skip_while(|word| *word != OsStr::new("--package")).nth(1);
        bail!("{} does not build; see cargo's messages above", what.unwrap_or_default().display());
    }
    Ok(programs)
}

/// The program that a message of cargo describes, if any.
fn executable(message: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(message).ok()?;
    let target = &message["target"];
    if target["kind"][0] == "custom-build" {
        return None;
    }
    Some((target["name"].as_str()?.to_owned(), PathBuf::from(message["executable"].as_str()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_by_name() {
        let artifact = r#"{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"conntrace"},"executable":"/t/conntrace"}"#;
        assert_eq!(executable(artifact), Some(("conntrace".to_owned(), PathBuf::from("/t/conntrace"))));
        assert_eq!(executable(r#"{"target":{"kind":["lib"],"name":"conntrace"},"executable":null}"#), None);
        let script =
            r#"{"target":{"kind":["custom-build"],"name":"build-script-build"},"executable":"/t/b"}"#;
        assert_eq!(executable(script), None);
        assert_eq!(executable(r#"{"reason":"build-finished","success":true}"#), None);
        assert_eq!(executable("not JSON"), None);
    }
}
