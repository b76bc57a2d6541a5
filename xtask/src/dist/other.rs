//! The other supported processor. This host cannot run programs for it, but the compiler checks the types: some differ,
//! such as C's `char`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::command::{self, run};
use crate::setup::distribution_cargo;
use crate::toolchain::{self, Places};
use crate::vm::archive::{self, Archive, Machine, Mirrors};

/// The processor.
pub(super) const TARGET: &str = "aarch64-unknown-linux-gnu";
/// Debian's name for it.
const ARCHITECTURE: &str = "arm64";
/// Debian's std, of the same version as its compiler.
const PACKAGE: &str = "libstd-rust-web-dev";
/// Debian's compiler.
const COMPILER: &str = "rustc-web";

/// What compiles the C and the assembly of `ring`, the cryptography of webhooks.
const C_COMPILER: &str = "aarch64-linux-gnu-gcc";

/// The check.
const CHECK: [&str; 6] = ["check", "--quiet", "--package", "conn-user", "--target", TARGET];

/// Checks conntrace's types for the other processor, by the compiler that has its std: the one in use, or Debian's.
/// Gives the name of the compiler, or the cause of a skipped check.
pub(super) fn check() -> Result<Result<&'static str, String>> {
    let places = Places::here();
    if toolchain::find_on(&places.path, C_COMPILER).is_none() {
        return Ok(Err(format!("there is no {C_COMPILER} here: apt-get install gcc-aarch64-linux-gnu")));
    }
    if has_std() {
        run(&mut command::cargo(CHECK))?;
        return Ok(Ok("the compiler in use"));
    }
    let sysroot = match sysroot(&places) {
        Ok(sysroot) => sysroot,
        Err(error) => {
            return Ok(Err(format!("there is no std for it here ({error:#}): rustup target add {TARGET}")));
        }
    };
    let mut cargo = distribution_cargo(&places);
    cargo.args(CHECK).current_dir(command::workspace());
    cargo.env("RUSTFLAGS", format!("--sysroot={}", sysroot.display()));
    // Two compilers must not share a target directory.
    cargo.env("CARGO_TARGET_DIR", command::target().join(ARCHITECTURE));
    run(&mut cargo)?;
    Ok(Ok("the distribution's compiler"))
}

/// Whether the compiler in use has std for the processor.
fn has_std() -> bool {
    let mut rustc = Command::new("rustc");
    let output = rustc.args(["--print", "target-libdir", "--target", TARGET]).stderr(Stdio::null()).output();
    output.is_ok_and(|output| {
        let library = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        !library.is_empty() && Path::new(&library).is_dir()
    })
}

/// A place where Debian's compiler finds std for both processors: its own, and that of Debian's other one, which is
/// fetched and unpacked, never installed.
fn sysroot(places: &Places) -> Result<PathBuf> {
    let version = version()?;
    let root = places.cache.join(format!("{ARCHITECTURE}-{version}"));
    let sysroot = root.join("sysroot");
    let libraries = sysroot.join("lib/rustlib");
    if libraries.join(TARGET).join("lib").is_dir() {
        return Ok(sysroot);
    }
    eprintln!("Fetching {PACKAGE} for {ARCHITECTURE} into {} (once; nothing is installed)", root.display());
    archive::remove(&root)?;
    let machine = Machine { architecture: Some(ARCHITECTURE), ..Machine::default() };
    let lists = root.join("apt");
    let debian = Archive::open(&lists, &Mirrors::of_host()?, &archive::suite_of_host()?, machine)?;
    let unpacked = root.join("unpacked");
    debian.unpack(&[format!("{PACKAGE}={version}")], &unpacked)?;
    archive::remove(&lists)?;
    fs::create_dir_all(&libraries).with_context(|| format!("cannot make {}", libraries.display()))?;
    let own = places.root.join("usr/lib/rustlib");
    for entry in fs::read_dir(&own).with_context(|| format!("cannot read {}", own.display()))? {
        let entry = entry?;
        symlink(entry.path(), libraries.join(entry.file_name()))?;
    }
    symlink(unpacked.join("usr/lib/rustlib").join(TARGET), libraries.join(TARGET))?;
    Ok(sysroot)
}

/// Which version of the compiler is installed.
fn version() -> Result<String> {
    let query = Command::new("dpkg-query").args(["--show", "--showformat=${Version}", COMPILER]).output();
    let output = query.context("cannot start dpkg-query")?;
    ensure!(output.status.success(), "{COMPILER} is not installed");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
