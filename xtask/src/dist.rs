//! `cargo xtask dist`: the release. One static program, alone, in an archive, in a Debian package, and ready for a container.

mod other;
mod package;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, ensure};

use crate::binary::{self, IS_STATIC_HOST};
use crate::command::{self, run};
use crate::{setup, toolchain};

/// The upper limit of the program's size, in bytes. It has 17 MB: a third of that are kernel programs and tables.
const LIMIT: u64 = 20 << 20;

/// Documents packed with the program, if present; directories as a whole.
const DOCUMENTS: [&str; 7] =
    ["README.md", "CHANGELOG.md", "LICENSE", "SECURITY.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs"];

/// Makes every part that this host can make, and names the skipped ones.
pub(crate) fn main() -> Result<ExitCode> {
    setup::ensure_toolchain()?;
    ensure!(IS_STATIC_HOST, "the release program is built on x86_64 Linux; this is another machine");
    let program = binary::static_conntrace()?;
    check(&program)?;
    let directory = command::target().join("dist");
    reset(&directory)?;
    let dist = Dist { program, directory, epoch: epoch() };
    dist.archive()?;
    match toolchain::find_on(&std::env::var_os("PATH").unwrap_or_default(), "dpkg-deb") {
        Some(_) => package::make(&dist)?,
        None => skipped("the Debian package", "there is no dpkg-deb here"),
    }
    dist.container()?;
    match other::check()? {
        Ok(compiler) => println!("{}: checked by {compiler}", other::TARGET),
        Err(reason) => skipped(other::TARGET, &reason),
    }
    Ok(ExitCode::SUCCESS)
}

/// The input of all parts.
struct Dist {
    program: PathBuf,
    directory: PathBuf,
    /// The time of every file inside, so that the same sources give the same archive.
    epoch: String,
}

impl Dist {
    const VERSION: &str = env!("CARGO_PKG_VERSION");

    /// `conntrace-VERSION-x86_64-linux.tar.gz`
    fn archive(&self) -> Result<()> {
        let name = format!("conntrace-{}-x86_64-linux", Self::VERSION);
        let top = self.directory.join(&name);
        install(&self.program, &top.join("conntrace"), 0o755)?;
        for document in DOCUMENTS {
            install_all(&command::workspace().join(document), &top.join(document))?;
        }
        let file = format!("{name}.tar.gz");
        let mut tar = Command::new("tar");
        tar.args(["--create", "--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--format=ustar"]);
        tar.arg(format!("--mtime=@{}", self.epoch)).args([
            "--use-compress-program=gzip -9n",
            "--file",
            &file,
        ]);
        run(tar.arg(&name).current_dir(&self.directory))?;
        fs::remove_dir_all(&top)?;
        self.made(&file)
    }

    /// A directory from which a container image is built.
    fn container(&self) -> Result<()> {
        let directory = self.directory.join("container");
        install_all(&command::workspace().join("packaging/container"), &directory)?;
        install(&self.program, &directory.join("conntrace"), 0o755)?;
        println!("{}: podman build --tag conntrace {0}", directory.display());
        Ok(())
    }

    fn made(&self, file: &str) -> Result<()> {
        let path = self.directory.join(file);
        println!("{}: {} bytes", path.display(), fs::metadata(&path)?.len());
        Ok(())
    }
}

/// Checks that the program is one static file below the size limit.
fn check(program: &Path) -> Result<()> {
    let content = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    ensure!(
        (content.len() as u64) < LIMIT,
        "{} has {} bytes, and {LIMIT} are too many",
        program.display(),
        content.len()
    );
    ensure!(
        interpreter(&content) == Some(false),
        "{} is not static: it asks for a dynamic linker",
        program.display()
    );
    println!("{}: {} bytes, static", program.display(), content.len());
    Ok(())
}

/// Whether a 64-bit little-endian ELF file asks for an interpreter, elf(5); `None` if it is no such file.
fn interpreter(elf: &[u8]) -> Option<bool> {
    const PT_INTERP: usize = 3;
    let number = |at: usize, size: usize| -> Option<usize> {
        let bytes = elf.get(at..at.checked_add(size)?)?;
        bytes
            .iter()
            .rev()
            .try_fold(0_usize, |number, &byte| number.checked_mul(256)?.checked_add(byte.into()))
    };
    if elf.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for header in 0..count {
        if number(table.checked_add(header * size)?, 4)? == PT_INTERP {
            return Some(true);
        }
    }
    Some(false)
}

fn skipped(what: &str, reason: &str) {
    println!("skipped: {what}: {reason}");
}

/// The time of the last commit, in seconds; without git, that of nothing.
fn epoch() -> String {
    let mut git = Command::new("git");
    let output = git.args(["log", "-1", "--format=%ct"]).current_dir(command::workspace()).output();
    let text =
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    if text.is_empty() { "0".to_owned() } else { text }
}

fn reset(directory: &Path) -> Result<()> {
    crate::vm::archive::remove(directory)?;
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))
}

/// Copies a file, with the directories that lead to it.
fn install(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let parent = to.parent().context("a file is in a directory")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(fs::set_permissions(to, fs::Permissions::from_mode(mode))?)
}

/// Copies a file or a directory with all that is in it, if it is there.
fn install_all(from: &Path, to: &Path) -> Result<()> {
    if from.is_dir() {
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            install_all(&entry.path(), &to.join(entry.file_name()))?;
        }
    } else if from.is_file() && from.file_name() != Some(OsStr::new(".gitignore")) {
        install(from, to, 0o644)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The header of a file with one program header of this kind.
    fn elf(kind: u8) -> Vec<u8> {
        let mut elf = vec![0; 64 + 56];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (elf[32], elf[54], elf[56], elf[64]) = (64, 56, 1, kind);
        elf
    }

    #[test]
    fn a_dynamic_program_is_recognized() {
        assert_eq!(interpreter(&elf(3)), Some(true));
        assert_eq!(interpreter(&elf(1)), Some(false));
        assert_eq!(interpreter(&elf(3)[..64]), None);
        assert_eq!(interpreter(b"#!/bin/sh"), None);
        let own = fs::read(std::env::current_exe().expect("a path")).expect("this test");
        assert_eq!(interpreter(&own), Some(true));
    }
}
