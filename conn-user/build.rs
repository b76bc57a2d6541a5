//! Builds the kernel programs and hands them to `include_bytes_aligned!` in `OUT_DIR`.

#![expect(clippy::disallowed_macros, reason = "cargo reads what a build script prints")]
#![expect(unsafe_code, reason = "the environment of this process is set while it has one thread")]

#[path = "../xtask/src/toolchain.rs"]
mod toolchain;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use aya_build::{Package, Toolchain, build_ebpf};
use toolchain::{BOOTSTRAP_CRATES, Decision, Facts, Places};

/// aya-build runs `rustup run TOOLCHAIN PROGRAM …`, and warns on every build where there is no rustup. This
/// stands in for it when the distribution's compiler builds: it drops the toolchain's name, and what cargo and
/// rustup set for the compiler that runs this script.
const STAND_IN: &str = r#"#!/bin/sh
shift 2
program=/usr/bin/$1
shift
unset LD_LIBRARY_PATH RUSTUP_TOOLCHAIN RUSTDOC CARGO
RUSTC=/usr/bin/rustc exec "$program" "$@"
"#;

fn main() {
    if let Err(message) = build() {
        // One line: cargo prints each line as an error of its own.
        println!("cargo::error={}", message.replace('\n', " "));
    }
}

fn build() -> Result<(), String> {
    let here = variable("CARGO_MANIFEST_DIR")?;
    let workspace = here.parent().ok_or("the package is not in a workspace")?;
    for input in ["conn-ebpf", "conn-common", "xtask/src/toolchain.rs", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", workspace.join(input).display());
    }
    for name in ["CONNTRACE_CACHE", "RUSTUP_HOME"] {
        println!("cargo::rerun-if-env-changed={name}");
    }

    // SAFETY: no other thread runs yet in this process.
    // Without it the inner cargo's progress comes out as warnings.
    unsafe { env::set_var("CARGO_TERM_QUIET", "true") };

    let places = Places::here();
    let facts = Facts::gather(&places);
    match Decision::new(&facts) {
        Decision::Rustup => {}
        decision @ Decision::Distribution { .. } if decision.is_ready() => {
            println!("cargo::rerun-if-changed={}", places.linker().display());
            use_distribution(&places, &variable("OUT_DIR")?)?;
        }
        Decision::Distribution { .. } => {
            return Err("the BPF toolchain is not complete on this machine; run `cargo xtask setup`, which says what \
                        it installs, then build again"
                .to_owned());
        }
        Decision::Unsupported { commands } => {
            return Err(format!("there is no BPF toolchain on this machine; run: {}", commands.join("; ")));
        }
    }

    let programs = workspace.join("conn-ebpf");
    let root_dir =
        programs.to_str().ok_or_else(|| format!("{} is not UTF-8; move the project", programs.display()))?;
    build_ebpf([Package { name: "conn-ebpf", root_dir, ..Package::default() }], Toolchain::Nightly)
        .map_err(|error| format!("the kernel programs do not build; see the messages above ({error:#})"))
}

/// Makes this process's children use the distribution's compiler, through [`STAND_IN`].
fn use_distribution(places: &Places, out_dir: &Path) -> Result<(), String> {
    let bin = out_dir.join("stand-in");
    let rustup = bin.join("rustup");
    let written = fs::create_dir_all(&bin)
        .and_then(|()| fs::write(&rustup, STAND_IN))
        .and_then(|()| fs::set_permissions(&rustup, fs::Permissions::from_mode(0o755)));
    written.map_err(|error| format!("cannot write {}: {error}", rustup.display()))?;

    let mut path = bin.into_os_string();
    path.push(":");
    path.push(places.distribution_path());
    // SAFETY: no other thread runs yet in this process.
    unsafe {
        env::set_var("PATH", path);
        env::set_var("RUSTC_BOOTSTRAP", BOOTSTRAP_CRATES);
    }
    Ok(())
}

/// A path that cargo sets for build scripts.
fn variable(name: &str) -> Result<PathBuf, String> {
    env::var_os(name).map(PathBuf::from).ok_or_else(|| format!("{name} is not set; build with cargo"))
}
