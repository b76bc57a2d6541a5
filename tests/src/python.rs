//! The interpreter with packages from the Python index, which `cargo xtask test` makes.

use crate::harness::Skip;
use std::{
    env,
    ffi::OsString,
    process::{Command, Stdio},
};

/// The variable with its path.
const VARIABLE: &str = "CONNTRACE_TEST_PYTHON";

/// The interpreter, if it has these packages, with commas between.
///
/// # Errors
/// There is none, or it lacks one of them.
pub fn with(packages: &str) -> Result<OsString, Skip> {
    let skip =
        || Skip(format!("{VARIABLE} names no interpreter with {packages}; cargo xtask test makes one"));
    let python = env::var_os(VARIABLE).ok_or_else(skip)?;
    let mut import = Command::new(&python);
    let import = import.args(["-c", &format!("import {packages}")]).stderr(Stdio::null()).status();
    if import.is_ok_and(|status| status.success()) { Ok(python) } else { Err(skip()) }
}
