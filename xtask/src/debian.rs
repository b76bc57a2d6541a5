//! Programs of Debian packages that tests and pictures need, unpacked. A package that is installed would start its service.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::command;
use crate::toolchain::{self, Places};

/// The packages, and a file of each that tests use.
const PACKAGES: [(&str, &str); 6] = [
    ("prometheus", "usr/bin/prometheus"),
    ("prometheus-node-exporter", "usr/bin/prometheus-node-exporter"),
    ("victoria-metrics", "usr/bin/victoria-metrics"),
    ("munin-node", "usr/sbin/munin-run"),
    ("munin-common", "usr/share/perl5/Munin/Common/Defaults.pm"),
    ("libnet-server-perl", "usr/share/perl5/Net/Server.pm"),
];
/// The variable with the directory of the programs, for the tests.
const VARIABLE: &str = "CONNTRACE_TEST_PROGRAMS";

/// Unpacks the packages where possible; else names what will be skipped. The directory of their programs, under the variable
/// that the tests read.
pub(crate) fn ensure() -> (&'static str, PathBuf) {
    if let Some(chosen) = env::var_os(VARIABLE) {
        return (VARIABLE, chosen.into());
    }
    let places = Places::here();
    let root = places.cache.join("debian");
    for (package, program) in PACKAGES {
        if root.join(program).is_file() {
            continue;
        }
        if let Err(error) = unpack(&places, package, &root) {
            eprintln!("note: tests that need {package} will not run: {error:#}");
        }
    }
    (VARIABLE, root.join("usr/bin"))
}

/// Downloads a package, and unpacks its files below a directory.
fn unpack(places: &Places, package: &str, root: &Path) -> Result<()> {
    let found = toolchain::find_on(&places.path, "dpkg-deb");
    ensure!(found.is_some(), "this host is not a Debian");
    eprintln!("Unpacking {package} into {} (once)", root.display());
    let fresh = root.join(format!("{package}.new"));
    if fresh.exists() {
        fs::remove_dir_all(&fresh)?;
    }
    fs::create_dir_all(&fresh).with_context(|| format!("cannot make {}", fresh.display()))?;
    let mut download = Command::new("apt-get");
    // The download runs as another user, who may not write here.
    download.args(["-o", "APT::Sandbox::User=root", "download", "--quiet", package]).current_dir(&fresh);
    command::run(command::quiet(&mut download))?;
    for file in fs::read_dir(&fresh)? {
        let mut extract = Command::new("dpkg-deb");
        extract.arg("--extract").arg(file?.path()).arg(root);
        command::run(command::quiet(&mut extract))?;
    }
    Ok(fs::remove_dir_all(&fresh)?)
}

/// Downloads a package with all that it needs and this host lacks, and unpacks all below a directory.
pub(crate) fn unpack_whole(package: &str, root: &Path) -> Result<()> {
    let archives = root.join("archives");
    // apt-get wants this directory.
    fs::create_dir_all(archives.join("partial"))
        .with_context(|| format!("cannot make {}", archives.display()))?;
    let mut download = Command::new("apt-get");
    download
        .args(["install", "--download-only", "--yes", "--quiet", "--no-install-recommends"])
        .args(["-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=root", "-o"])
        .arg(format!("Dir::Cache::archives={}", archives.display()))
        .arg(package);
    command::run(command::quiet(&mut download))?;
    for file in fs::read_dir(&archives)? {
        let file = file?.path();
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        // A newer interpreter than the host's would not fit its modules.
        let is_perl =
            ["perl_", "perl-base_", "perl-modules", "libperl5"].iter().any(|one| name.starts_with(one));
        if file.is_file() && !is_perl {
            let mut extract = Command::new("dpkg-deb");
            command::run(command::quiet(extract.arg("--extract").arg(&file).arg(root)))?;
        }
    }
    Ok(())
}
