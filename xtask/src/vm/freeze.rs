//! Self-descriptions of kernels, written to files for unit tests. `tests/src/bin/freeze.rs` produces them.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::Ran;
use super::job::Kind;
use crate::command;

/// The directory that unit tests read.
const DIRECTORY: &str = "conn-user/tests/kernel";

/// Writes the self-descriptions of the machines' kernels, and that of this host's kernel if it is complete.
pub(crate) fn write(ran: &[Ran], program: &Path) -> Result<()> {
    for one in ran {
        let lines =
            one.lines_of(Kind::Freeze).with_context(|| format!("{} wrote nothing", one.kernel.linux()))?;
        keep(one.kernel.linux(), lines)?;
    }
    let release =
        fs::read_to_string("/proc/sys/kernel/osrelease").context("this host's kernel has no name")?;
    let output =
        Command::new(program).output().with_context(|| format!("cannot run {}", program.display()))?;
    if !output.status.success() {
        eprintln!("note: this host's own kernel, {}, does not describe itself completely", release.trim());
        return Ok(());
    }
    let lines: Vec<String> = String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect();
    keep(&release, &lines)
}

fn keep(release: &str, lines: &[String]) -> Result<()> {
    let (types, format) = parse(lines).with_context(|| format!("Linux {release} describes no types"))?;
    ensure!(!types.is_empty() && !format.is_empty(), "Linux {release} describes itself in part only");
    let version: Vec<&str> = release.splitn(3, '.').take(2).collect();
    let path = |end: &str| command::workspace().join(DIRECTORY).join(format!("{}.{end}", version.join(".")));
    fs::create_dir_all(command::workspace().join(DIRECTORY))?;
    fs::write(path("btf"), types)?;
    fs::write(path("format"), format)?;
    Ok(())
}

/// Types and format, from what a kernel's job wrote.
fn parse(lines: &[String]) -> Option<(Vec<u8>, String)> {
    let digits: String = lines.iter().filter_map(|line| line.strip_prefix("btf ")).collect();
    let digits: Option<Vec<u32>> = digits.chars().map(|digit| digit.to_digit(16)).collect();
    let types =
        digits?.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | *digit as u8)).collect();
    let format =
        lines.iter().filter_map(|line| Some(format!("{}\n", line.strip_prefix("format ")?))).collect();
    Some((types, format))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_self_description_is_digits_and_lines() {
        let lines = ["btf 9feb01", "btf 00", "@x", "format name: y", "format "].map(str::to_owned);
        assert_eq!(parse(&lines), Some((vec![0x9f, 0xeb, 1, 0], "name: y\n\n".to_owned())));
        assert_eq!(parse(&["btf 0x".to_owned()]), None);
    }
}
