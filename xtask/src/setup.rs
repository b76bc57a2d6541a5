//! `cargo xtask setup`: a complete BPF toolchain. A complete one stays untouched.

use std::env;
use std::fs;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::command::{self, line};
use crate::toolchain::{self, Decision, Facts, LINKER_FEATURE, LINKER_VERSION, LLVM, Places};

/// Programs the tests call, and the package each comes from.
const TEST_TOOLS: [(&str, &str); 9] = [
    ("ip", "iproute2"),
    ("ss", "iproute2"),
    ("cc", "gcc"),
    ("conntrack", "conntrack"),
    ("nft", "nftables"),
    ("tcpstates", "libbpf-tools"),
    // Without the package that makes a service of it.
    ("dnsmasq", "dnsmasq-base"),
    ("dig", "bind9-dnsutils"),
    // Brings the module that makes environments.
    ("python3", "python3-venv"),
];

/// Those of them that tests in virtual machines call.
const MACHINE_TOOLS: [(&str, &str); 2] = [("conntrack", "conntrack"), ("nft", "nftables")];

/// Programs that conntrace is measured beside.
const PEERS: [(&str, &str); 4] =
    [("conntrack", "conntrack"), ("nft", "nftables"), ("bpftrace", "bpftrace"), ("tcplife", "libbpf-tools")];

/// Runs the task alone and prints the toolchain.
pub(crate) fn main() -> Result<ExitCode> {
    let found = match ensure_toolchain()? {
        Decision::Rustup => "rustup's nightly, and the bpf-linker on PATH".to_owned(),
        _ => format!("the distribution's packages, and {}", Places::here().linker().display()),
    };
    eprintln!("BPF toolchain: {found}");
    Ok(ExitCode::SUCCESS)
}

/// Completes the toolchain where possible. Silent when it is complete.
pub(crate) fn ensure_toolchain() -> Result<Decision> {
    let places = Places::here();
    let facts = Facts::gather(&places);
    let decision = Decision::new(&facts);
    match &decision {
        Decision::Rustup => return Ok(decision),
        Decision::Distribution { install, build_linker } => {
            if !install.is_empty()
                && let Err(error) = install_packages(install)
            {
                bail!("{error:#}\n{}", by_hand(&toolchain::commands(&facts)));
            }
            if *build_linker {
                build_linker_into_cache(&places)?;
            }
        }
        Decision::Unsupported { commands } => bail!("there is no BPF toolchain here; {}", by_hand(commands)),
    }
    let reached = Decision::new(&Facts::gather(&places));
    if !reached.is_ready() {
        bail!("everything was installed, and still the toolchain is not complete: {reached:?}");
    }
    Ok(reached)
}

/// Installs the programs that the tests call, where possible; else names the tests that will be skipped.
pub(crate) fn ensure_test_tools() -> Result<()> {
    ensure_tools(&TEST_TOOLS, "tests that need")
}

/// The same for the programs that tests in virtual machines call.
pub(crate) fn ensure_machine_tools() -> Result<()> {
    ensure_tools(&MACHINE_TOOLS, "tests in virtual machines that need")
}

/// The same for the programs that conntrace is measured beside.
pub(crate) fn ensure_bench_tools() -> Result<()> {
    ensure_tools(&PEERS, "comparisons with")
}

fn ensure_tools(wanted: &[(&str, &str)], subject: &str) -> Result<()> {
    let places = Places::here();
    let missing = |(tool, _): &&(&str, &str)| toolchain::find_on(&places.path, tool).is_none();
    let (tools, mut packages): (Vec<&str>, Vec<&str>) = wanted.iter().filter(missing).copied().unzip();
    packages.dedup();
    if tools.is_empty() {
        return Ok(());
    }
    let facts = Facts::gather(&places);
    if facts.debian && facts.root {
        return install_packages(&packages);
    }
    eprintln!("note: {subject} {} will not run; install {}", tools.join(", "), packages.join(" "));
    Ok(())
}

/// Prints the packages, then installs them without removing any other.
fn install_packages(packages: &[&str]) -> Result<()> {
    eprintln!("Installing the distribution's packages: {}", packages.join(" "));
    // A package list of another vendor may fail to download; the run goes on.
    if let Err(error) = command::run(&mut apt(&["update", "--quiet"])) {
        eprintln!("note: {error:#}; going on with the package lists as they are");
    }
    // `--no-remove`: these packages conflict with other Rust packages, which are the user's to keep.
    let install = ["install", "--quiet", "--yes", "--no-install-recommends", "--no-remove"];
    let simulated = apt(&[&install[..], &["--simulate"], packages].concat())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .context("cannot start apt-get")?;
    if !simulated.status.success() {
        let said = String::from_utf8_lossy(&simulated.stderr);
        bail!("apt-get cannot install them here: {}", said.trim().replace('\n', " "));
    }
    command::run(&mut apt(&[&install[..], packages].concat()))
}

fn apt(arguments: &[&str]) -> Command {
    let mut apt = Command::new("apt-get");
    apt.args(["-o", "DPkg::Lock::Timeout=120"]).args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    apt.stdin(Stdio::null()).stdout(std::io::stderr());
    apt
}

/// The distribution's cargo with the distribution's compiler.
pub(crate) fn distribution_cargo(places: &Places) -> Command {
    let mut cargo = Command::new(places.root.join("usr/bin/cargo"));
    // The variables that cargo and rustup have set for this process are about another compiler.
    for (name, _) in env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("RUST")
            || name_text.starts_with("CARGO_TARGET")
            || name_text == "LD_LIBRARY_PATH"
        {
            cargo.env_remove(&name);
        }
    }
    cargo.env_remove("CARGO").env_remove("CARGO_BUILD_TARGET").env_remove("CARGO_ENCODED_RUSTFLAGS");
    cargo.env("RUSTC", places.root.join("usr/bin/rustc"));
    cargo
}

/// bpf-linker for the distribution's LLVM, built by the distribution's compiler. The user's own toolchain
/// stays untouched.
fn build_linker_into_cache(places: &Places) -> Result<()> {
    let target = places.linker_root();
    eprintln!("Building bpf-linker {LINKER_VERSION} into {} (once, about a minute)", target.display());
    fs::create_dir_all(&target).with_context(|| {
        format!("cannot make {}; set CONNTRACE_CACHE to a directory of yours", target.display())
    })?;
    let mut cargo = distribution_cargo(places);
    cargo.args(["install", "--quiet", "--locked", "--force", "--version", LINKER_VERSION, "bpf-linker"]);
    cargo.args(["--no-default-features", "--features", LINKER_FEATURE, "--root"]).arg(&target);
    // Without LLVM's own programs on PATH, the linker's build script does not find its library.
    cargo.env("PATH", places.distribution_path()).env("LLVM_PREFIX", places.root.join(LLVM));
    cargo.stdout(std::io::stderr());
    command::run(&mut cargo).with_context(|| {
        format!(
            "bpf-linker does not build; cargo needs its registry for this, the command was `{}`",
            line(&cargo)
        )
    })
}

fn by_hand(commands: &[String]) -> String {
    let lines = commands.join("\n").replace('\n', "\n    ");
    format!("to set it up by hand, run:\n    {lines}")
}
