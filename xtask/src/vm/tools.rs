//! Programs of this host that tests call, for machines: with their shared libraries, at the same paths.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::initramfs::Initramfs;
use crate::toolchain::{self, Places};

/// The programs, and where tests expect them.
const TOOLS: [(&str, &str); 5] = [
    ("nft", "usr/sbin/nft"),
    ("conntrack", "usr/sbin/conntrack"),
    ("sh", "bin/sh"),
    ("setpriv", "usr/bin/setpriv"),
    ("unshare", "usr/bin/unshare"),
];
/// The directories of the programs, for tests that look for them.
pub(crate) const PATH: &str = "/bin:/usr/bin:/usr/sbin";
/// `nft` and `conntrack` look up protocols by name.
const PROTOCOLS: &[u8] = b"icmp 1 ICMP\ntcp 6 TCP\nudp 17 UDP\nipv6-icmp 58 IPv6-ICMP\nsctp 132 SCTP\n";

/// Adds the programs. Tests that need one that this host lacks are skipped.
pub(crate) fn add(archive: &mut Initramfs) -> Result<()> {
    let mut libraries = BTreeSet::new();
    for (name, to) in TOOLS {
        let Some(program) = toolchain::find_on(&Places::here().path, name) else {
            eprintln!("note: this host has no {name}, so tests that call it are skipped in the machines");
            continue;
        };
        archive.copy(to, &program)?;
        libraries.extend(libraries_of(&program)?);
    }
    for library in libraries {
        archive.copy(library.to_string_lossy().trim_start_matches('/'), &library)?;
    }
    archive.file("etc/protocols", PROTOCOLS);
    Ok(())
}

/// The loader and the libraries of a program; none of a static one.
fn libraries_of(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).env("LC_ALL", "C").output().context("cannot start ldd")?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(library).collect())
}

/// The path in a line of ldd: `NAME => PATH (ADDRESS)`, or `PATH (ADDRESS)` of the loader. The kernel's own has none.
fn library(line: &str) -> Option<PathBuf> {
    let file = line.split_once(" => ").map_or(line, |(_, file)| file);
    let (path, _) = file.trim().rsplit_once(" (")?;
    path.starts_with('/').then(|| PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_ldd() {
        for (line, path) in [
            ("\tlinux-vdso.so.1 (0x00007fb86116a000)", None),
            (
                "\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007fb860e5b000)",
                Some("/lib/x86_64-linux-gnu/libc.so.6"),
            ),
            ("\t/lib64/ld-linux-x86-64.so.2 (0x00007fb86116c000)", Some("/lib64/ld-linux-x86-64.so.2")),
            ("\tlibgone.so.1 => not found", None),
            ("\tnot a dynamic executable", None),
        ] {
            assert_eq!(library(line), path.map(PathBuf::from), "{line:?}");
        }
    }
}
