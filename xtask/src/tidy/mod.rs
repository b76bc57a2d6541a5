//! `cargo xtask tidy`: the project's rules that its text shows. ARCHITECTURE.md gives the reasons.
//!
//! The same check is a test of this package, so plain `cargo test` runs it.

mod circles;
mod rules;
mod source;
mod walls;

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::command;
use source::Crate;

/// The crates whose folders are stages.
const CRATES: [&str; 2] = ["conn-user", "conn-ebpf"];

/// One file of the checkout.
struct File {
    /// Relative to the top of the checkout, with `/` between its parts.
    path: String,
    text: String,
}

/// One broken rule, or a note.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    path: String,
    /// Counted from 1.
    line: usize,
    says: String,
    /// A note does not fail the check.
    fails: bool,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let note = if self.fails { "" } else { "note: " };
        write!(f, "{}:{}: {note}{}", self.path, self.line, self.says)
    }
}

/// Prints every finding; one that fails is the exit code.
pub(crate) fn main() -> Result<ExitCode> {
    let found = check(&command::workspace())?;
    for finding in &found {
        eprintln!("{finding}");
    }
    let failed = found.iter().any(|finding| finding.fails);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Checks the checkout whose top is `root`.
fn check(root: &Path) -> Result<Vec<Finding>> {
    let mut files = Vec::new();
    collect(root, "", &mut files)?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let mut found = rules::check(&files);
    for name in CRATES {
        let sources = Crate::new(name, &files)?;
        found.extend(walls::check(&sources));
        found.extend(circles::check(&sources));
    }
    found.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    Ok(found)
}

/// Reads every file of the checkout that a rule covers.
fn collect(directory: &Path, prefix: &str, files: &mut Vec<File>) -> Result<()> {
    let unreadable = || format!("cannot read {}", directory.display());
    for entry in fs::read_dir(directory).with_context(unreadable)? {
        let entry = entry.with_context(unreadable)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type()?;
        let path = format!("{prefix}{name}");
        if kind.is_dir() {
            if name != "target" && name != ".git" {
                collect(&entry.path(), &format!("{path}/"), files)?;
            }
        } else if kind.is_file() && rules::covers(&path) {
            let text = fs::read_to_string(entry.path()).with_context(|| format!("cannot read {path}"))?;
            files.push(File { path, text });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_checkout_is_tidy() {
        let found = check(&command::workspace()).expect("readable files");
        let broken: Vec<String> = found.iter().filter(|one| one.fails).map(Finding::to_string).collect();
        assert!(broken.is_empty(), "{}", broken.join("\n"));
    }
}
