//! The source of the BPF toolchain: facts about this machine, and a decision that is a pure function of them.
//! `cargo xtask setup` and conn-user's build script share this file, so it uses std alone and starts no process. The
//! facts take milliseconds to gather.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// The distribution's packages: compiler, cargo, a ready `core` for BPF, and the LLVM that bpf-linker links.
pub(crate) const PACKAGES: [&str; 4] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf", "llvm-22-dev"];
/// The bpf-linker built for the distribution's LLVM.
pub(crate) const LINKER_VERSION: &str = "0.13.0";
/// bpf-linker's cargo feature that chooses [`LLVM`].
pub(crate) const LINKER_FEATURE: &str = "llvm-22";
/// Where llvm-22-dev installs, below the root.
pub(crate) const LLVM: &str = "usr/lib/llvm-22";
/// BPF code has the byte order of the machine it runs on.
pub(crate) const BPF_TARGET: &str =
    if cfg!(target_endian = "little") { "bpfel-unknown-none" } else { "bpfeb-unknown-none" };
/// Unstable features are unlocked for these crates by name. `1` would unlock all, and make aya-build compile
/// `core`, which the distribution ships ready.
pub(crate) const BOOTSTRAP_CRATES: &str = "aya_ebpf,aya_ebpf_bindings,aya_log_ebpf,conn_ebpf";

/// The paths that facts are read from. Tests pass those of a made-up machine.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// The root of the file system.
    pub(crate) root: PathBuf,
    /// The value of `PATH`.
    pub(crate) path: OsString,
    /// rustup's home.
    pub(crate) rustup_home: PathBuf,
    /// The project's own cache, where its bpf-linker lives.
    pub(crate) cache: PathBuf,
}

impl Places {
    /// The paths of this process.
    pub(crate) fn here() -> Self {
        let home = env::home_dir().unwrap_or_else(|| PathBuf::from("/"));
        let named = |variable| env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
        let cache = named("CONNTRACE_CACHE").unwrap_or_else(|| {
            named("XDG_CACHE_HOME").unwrap_or_else(|| home.join(".cache")).join("conntrace")
        });
        Self {
            root: PathBuf::from("/"),
            path: env::var_os("PATH").unwrap_or_default(),
            rustup_home: named("RUSTUP_HOME").unwrap_or_else(|| home.join(".rustup")),
            cache,
        }
    }

    /// Where the project's own bpf-linker is installed: one directory for each version and LLVM.
    pub(crate) fn linker_root(&self) -> PathBuf {
        self.cache.join(format!("bpf-linker-{LINKER_VERSION}-{LINKER_FEATURE}"))
    }

    /// The project's own bpf-linker.
    pub(crate) fn linker(&self) -> PathBuf {
        self.linker_root().join("bin/bpf-linker")
    }

    /// The `PATH` under which the distribution's toolchain works: its linker, its LLVM and its compiler come
    /// before anything of rustup's.
    pub(crate) fn distribution_path(&self) -> OsString {
        let first =
            [self.linker_root().join("bin"), self.root.join(LLVM).join("bin"), self.root.join("usr/bin")];
        let mut path = OsString::new();
        for directory in first {
            path.push(directory);
            path.push(":");
        }
        path.push(&self.path);
        path
    }

    /// Whether the package is installed, by the files of dpkg.
    fn has_package(&self, name: &str) -> bool {
        let info = self.root.join("var/lib/dpkg/info");
        if info.join(format!("{name}.list")).exists() {
            return true;
        }
        // Packages that exist for several architectures at a time are listed as `name:architecture.list`.
        let prefix = format!("{name}:");
        fs::read_dir(info).is_ok_and(|entries| {
            entries.flatten().any(|entry| {
                let file = entry.file_name();
                let file = Path::new(&file);
                file.extension() == Some(OsStr::new("list")) && file.to_string_lossy().starts_with(&prefix)
            })
        })
    }

    /// The files without which an installed package does not count: `/usr/bin` may hold rustup's proxies.
    fn has_files_of(&self, package: &str) -> bool {
        let own_binary = |name: &str| {
            let file = self.root.join("usr/bin").join(name);
            is_executable(&file)
                && fs::canonicalize(&file).is_ok_and(|real| real.file_name() != Some(OsStr::new("rustup")))
        };
        match package {
            "rustc-web" => own_binary("rustc"),
            "cargo-web" => own_binary("cargo"),
            "libstd-rust-web-dev-bpf" => {
                self.root.join("usr/lib/rustlib").join(BPF_TARGET).join("lib").is_dir()
            }
            _ => self.root.join(LLVM).is_dir(),
        }
    }

    /// The nightly that `rustup run nightly` would use, if installed.
    fn nightly(&self) -> Option<PathBuf> {
        ["gnu", "musl"]
            .map(|abi| format!("nightly-{}-unknown-linux-{abi}", env::consts::ARCH))
            .into_iter()
            .map(|name| self.rustup_home.join("toolchains").join(name))
            .find(|directory| is_executable(&directory.join("bin/rustc")))
    }
}

/// Facts about this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, and they occur in any combination"
)]
pub(crate) struct Facts {
    /// rustup is on `PATH`.
    pub(crate) rustup: bool,
    /// It has a nightly.
    pub(crate) nightly: bool,
    /// That nightly has its library sources.
    pub(crate) rust_src: bool,
    /// A bpf-linker is on `PATH`.
    pub(crate) linker_on_path: bool,
    /// Debian, Ubuntu or a descendant of theirs.
    pub(crate) debian: bool,
    /// This process may install packages.
    pub(crate) root: bool,
    /// Which of [`PACKAGES`] are not installed.
    pub(crate) missing: Vec<&'static str>,
    /// The project's own bpf-linker has been built.
    pub(crate) linker_cached: bool,
}

impl Facts {
    /// Reads the facts, and changes nothing.
    pub(crate) fn gather(places: &Places) -> Self {
        let rustup = find_on(&places.path, "rustup").is_some();
        let nightly = places.nightly().filter(|_| rustup);
        let installed = |name: &str| places.has_package(name) && places.has_files_of(name);
        Self {
            rustup,
            rust_src: nightly
                .as_ref()
                .is_some_and(|directory| directory.join("lib/rustlib/src/rust/library/core").is_dir()),
            nightly: nightly.is_some(),
            linker_on_path: find_on(&places.path, "bpf-linker").is_some(),
            debian: fs::read_to_string(places.root.join("etc/os-release")).is_ok_and(|text| is_debian(&text)),
            root: is_root(),
            missing: PACKAGES.into_iter().filter(|name| !installed(name)).collect(),
            linker_cached: is_executable(&places.linker()),
        }
    }
}

/// What to do about the toolchain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// rustup's nightly and the bpf-linker on `PATH` are complete.
    Rustup,
    /// The distribution's packages and the project's own bpf-linker, after these steps; ready when none.
    Distribution {
        /// Packages to install.
        install: Vec<&'static str>,
        /// Whether bpf-linker must be built.
        build_linker: bool,
    },
    /// No toolchain can be set up from here.
    Unsupported {
        /// Commands for the user to run instead, the usual way first.
        commands: Vec<String>,
    },
}

impl Decision {
    /// Decides by facts alone.
    pub(crate) fn new(facts: &Facts) -> Self {
        if facts.nightly && facts.rust_src && facts.linker_on_path {
            return Self::Rustup;
        }
        // Only installing packages needs root. The linker goes to the user's own cache.
        if facts.debian && (facts.root || facts.missing.is_empty()) {
            return Self::Distribution { install: facts.missing.clone(), build_linker: !facts.linker_cached };
        }
        Self::Unsupported { commands: commands(facts) }
    }

    /// Whether a build can start now.
    pub(crate) fn is_ready(&self) -> bool {
        match self {
            Self::Rustup => true,
            Self::Distribution { install, build_linker } => install.is_empty() && !build_linker,
            Self::Unsupported { .. } => false,
        }
    }
}

/// The exact commands that complete the toolchain by hand: through rustup, or the distribution's way.
pub(crate) fn commands(facts: &Facts) -> Vec<String> {
    let mut commands = Vec::new();
    if !facts.nightly || !facts.rust_src {
        let rustup = if facts.rustup {
            ""
        } else {
            "  # rustup itself comes from your distribution or the Rust project"
        };
        commands.push(format!("rustup toolchain install nightly --component rust-src{rustup}"));
    }
    if !facts.linker_on_path {
        commands.push("cargo install bpf-linker".to_owned());
    }
    if facts.debian && !facts.root {
        let missing = facts.missing.join(" ");
        commands.push(format!(
            "# or, with the distribution's packages and without rustup:\n\
            sudo apt-get update && sudo apt-get install --no-remove {missing} && cargo xtask setup"
        ));
    }
    commands
}

/// Whether os-release names Debian, Ubuntu or a descendant of theirs.
fn is_debian(os_release: &str) -> bool {
    os_release
        .lines()
        .filter_map(|line| line.strip_prefix("ID=").or_else(|| line.strip_prefix("ID_LIKE=")))
        .flat_map(|value| value.trim_matches(['"', '\'']).split_whitespace())
        .any(|id| id == "debian" || id == "ubuntu")
}

/// Whether the effective user is root: the owner of a process's own directory in procfs.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|data| data.uid() == 0)
}

/// The first executable of that name on a `PATH`.
pub(crate) fn find_on(path: &OsStr, name: &str) -> Option<PathBuf> {
    env::split_paths(path).map(|directory| directory.join(name)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
#[path = "toolchain_tests.rs"]
mod tests;
