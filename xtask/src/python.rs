//! Python packages that tests run, in an environment of its own in the cache.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Result;

use crate::command;
use crate::toolchain::Places;

/// The packages, with their versions: both ends of a QUIC connection, the messages of OTLP, a collector of them, the language
/// of Vector's transforms, and YAML.
const PACKAGES: [&str; 5] =
    ["aioquic==1.2.0", "opentelemetry-proto==1.45.2", "rotel==0.0.1a15", "pyVRL==0.0.2", "PyYAML==6.0.4"];
/// A package without those that it names: the engine of `ClickHouse` (180 MB to fetch) needs pandas for data frames only.
const ALONE: &str = "chdb-core==26.9.0";
/// The variable with the path of the interpreter, for the tests.
const VARIABLE: &str = "CONNTRACE_TEST_PYTHON";

/// Makes the environment where possible; else names what will be skipped. Its interpreter, under the variable that the tests
/// read.
pub(crate) fn ensure() -> Option<(&'static str, PathBuf)> {
    if let Some(chosen) = env::var_os(VARIABLE) {
        return Some((VARIABLE, chosen.into()));
    }
    let root = Places::here().cache.join(format!("python-{}-{ALONE}", PACKAGES.join("-")));
    let python = root.join("bin/python");
    if !is_complete(&python)
        && let Err(error) = make(&root, &python)
    {
        eprintln!("note: tests that need {} {ALONE} will not run: {error:#}", PACKAGES.join(" "));
        return None;
    }
    Some((VARIABLE, python))
}

fn is_complete(python: &Path) -> bool {
    let mut import = Command::new(python);
    import
        .args(["-c", "import aioquic.asyncio, opentelemetry.proto, rotel, pyvrl, yaml, chdb"])
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    import.status().is_ok_and(|status| status.success())
}

fn make(root: &Path, python: &Path) -> Result<()> {
    eprintln!("Installing {} {ALONE} into {} (once)", PACKAGES.join(" "), root.display());
    // What an interrupted run has left.
    if root.exists() {
        fs::remove_dir_all(root)?;
    }
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv"]).arg(root);
    command::run(command::quiet(&mut venv))?;
    for what in [&PACKAGES[..], &["--no-deps", ALONE]] {
        let mut pip = Command::new(python);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(what);
        command::run(command::quiet(&mut pip))?;
    }
    Ok(())
}
