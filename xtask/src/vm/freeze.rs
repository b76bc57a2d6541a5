//! What kernels tell of themselves, kept for the unit tests of what reads it: `tests/src/bin/freeze.rs`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::Ran;
use super::job::Kind;
use crate::command;

/// Where unit tests find it.
const DIRECTORY: &str = "conn-user/tests/kernel";

/// Keeps what the machines told, and this host, if its kernel tells all.
pub(crate) fn write(ran: &[Ran], program: &Path) -> Result<()> {
    for one in ran {
        let lines =
            one.lines_of(Kind::Freeze).with_context(|| format!("{} told nothing", one.kernel.linux()))?;
        keep(one.kernel.linux(), lines)?;
    }
    let release =
        fs::read_to_string("/proc/sys/kernel/osrelease").context("this host's kernel has no name")?;
    let told = Command::new(program).output().with_context(|| format!("cannot run {}", program.display()))?;
    if !told.status.success() {
        eprintln!("note: this host's own kernel, {}, does not tell all", release.trim());
        return Ok(());
    }
    let lines: Vec<String> = String::from_utf8(told.stdout)?.lines().map(str::to_owned).collect();
    keep(&release, &lines)
}

fn keep(release: &str, lines: &[String]) -> Result<()> {
    let (types, format) = parse(lines).with_context(|| format!("Linux {release} tells no types"))?;
    ensure!(!types.is_empty() && !format.is_empty(), "Linux {release} tells half of it");
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
    fn what_a_kernel_tells_is_digits_and_lines() {
        let lines = ["btf 9feb01", "btf 00", "@x", "format name: y", "format "].map(str::to_owned);
        assert_eq!(parse(&lines), Some((vec![0x9f, 0xeb, 1, 0], "name: y\n\n".to_owned())));
        assert_eq!(parse(&["btf 0x".to_owned()]), None);
    }
}
