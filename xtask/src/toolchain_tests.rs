//! The decision on every kind of machine, and the facts of made-up ones.

use std::os::unix::fs::symlink;

use super::*;

/// A Debian without anything, seen by a user.
fn bare() -> Facts {
    Facts {
        rustup: true,
        nightly: false,
        rust_src: false,
        linker_on_path: false,
        debian: true,
        root: false,
        missing: PACKAGES.to_vec(),
        linker_cached: false,
    }
}

fn distribution(install: &[&'static str], build_linker: bool) -> Decision {
    Decision::Distribution { install: install.to_vec(), build_linker }
}

fn commands_for(facts: &Facts) -> Vec<String> {
    match Decision::new(facts) {
        Decision::Unsupported { commands } => commands,
        other => panic!("{other:?} for {facts:?}"),
    }
}

#[test]
fn a_complete_rustup_wins_everywhere() {
    let complete = Facts { nightly: true, rust_src: true, linker_on_path: true, ..bare() };
    for (debian, root, linker_cached) in [
        (false, false, false),
        (false, true, false),
        (true, false, true),
        (true, true, false),
        (true, true, true),
    ] {
        for missing in [vec![], PACKAGES.to_vec()] {
            let facts = Facts { debian, root, missing, linker_cached, ..complete.clone() };
            assert_eq!(Decision::new(&facts), Decision::Rustup, "{facts:?}");
        }
    }
    assert!(Decision::Rustup.is_ready());
}

#[test]
fn each_hole_in_rustup_sends_root_on_debian_to_the_packages() {
    for (nightly, rust_src, linker_on_path) in [
        (false, false, false),
        (false, false, true),
        (true, false, false),
        (true, false, true),
        (true, true, false),
    ] {
        let facts = Facts { nightly, rust_src, linker_on_path, root: true, ..bare() };
        let decision = Decision::new(&facts);
        assert_eq!(decision, distribution(&PACKAGES, true), "{facts:?}");
        assert!(!decision.is_ready());
    }
}

#[test]
fn only_what_is_missing_is_installed() {
    let facts = Facts { root: true, missing: vec!["llvm-22-dev"], linker_cached: true, ..bare() };
    assert_eq!(Decision::new(&facts), distribution(&["llvm-22-dev"], false));
    let facts = Facts { root: true, missing: vec![], ..bare() };
    assert_eq!(Decision::new(&facts), distribution(&[], true));
}

#[test]
fn with_the_packages_there_root_is_not_needed() {
    for root in [false, true] {
        let facts = Facts { root, missing: vec![], ..bare() };
        assert_eq!(Decision::new(&facts), distribution(&[], true));
        let facts = Facts { linker_cached: true, ..facts };
        assert_eq!(Decision::new(&facts), distribution(&[], false));
        assert!(Decision::new(&facts).is_ready());
    }
}

#[test]
fn a_user_on_debian_gets_both_ways_as_commands() {
    let facts = Facts { missing: vec!["rustc-web", "llvm-22-dev"], ..bare() };
    assert_eq!(
        commands_for(&facts),
        [
            "rustup toolchain install nightly --component rust-src",
            "cargo install bpf-linker",
            "# or, with the distribution's packages and without rustup:\nsudo apt-get update && sudo apt-get install --no-remove rustc-web llvm-22-dev && cargo xtask setup",
        ]
    );
}

#[test]
fn elsewhere_the_commands_name_what_is_missing() {
    let install = "rustup toolchain install nightly --component rust-src";
    let linker = "cargo install bpf-linker";
    for root in [false, true] {
        let facts = Facts { debian: false, root, ..bare() };
        assert_eq!(commands_for(&facts), [install, linker]);
        let no_rustup = commands_for(&Facts { rustup: false, ..facts.clone() });
        assert_eq!(
            no_rustup,
            [&format!("{install}  # rustup itself comes from your distribution or the Rust project"), linker]
        );
        assert_eq!(commands_for(&Facts { nightly: true, ..facts.clone() }), [install, linker]);
        assert_eq!(commands_for(&Facts { nightly: true, rust_src: true, ..facts.clone() }), [linker]);
        assert_eq!(commands_for(&Facts { linker_on_path: true, ..facts.clone() }), [install]);
        // Files that look like the packages' mean nothing where the packages do not exist.
        let facts = Facts { missing: vec![], linker_cached: true, ..facts };
        assert!(!Decision::new(&facts).is_ready());
    }
}

#[test]
fn os_release_is_read_as_it_is_written() {
    assert!(is_debian("PRETTY_NAME=\"Debian GNU/Linux 12\"\nID=debian\n"));
    assert!(is_debian("ID=ubuntu\nID_LIKE=debian\n"));
    assert!(is_debian("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"));
    assert!(!is_debian("ID=fedora\nID_LIKE=\"rhel\"\nHOME_URL=\"https://debian.example\"\n"));
    assert!(!is_debian("VERSION_ID=debian\n"));
    assert!(!is_debian(""));
}

/// A directory that plays the root of a machine, removed when dropped.
struct Machine(PathBuf);

impl Machine {
    fn new(name: &str) -> Self {
        let root = env::temp_dir().join(format!("conntrace-toolchain-{}-{name}", std::process::id()));
        fs::create_dir_all(&root).expect("a temporary directory");
        Self(root)
    }

    fn file(&self, path: &str, mode: u32) {
        let file = self.0.join(path);
        fs::create_dir_all(file.parent().expect("below the root")).expect("directory");
        fs::write(&file, "").expect("file");
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("mode");
    }

    fn text(&self, path: &str, text: &str) {
        self.file(path, 0o644);
        fs::write(self.0.join(path), text).expect("text");
    }

    fn places(&self) -> Places {
        Places {
            root: self.0.clone(),
            path: self.0.join("home/bin").into_os_string(),
            rustup_home: self.0.join("home/.rustup"),
            cache: self.0.join("home/.cache/conntrace"),
        }
    }

    fn facts(&self) -> Facts {
        Facts { root: false, ..Facts::gather(&self.places()) }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn an_empty_machine_has_nothing() {
    let machine = Machine::new("empty");
    assert_eq!(machine.facts(), Facts { rustup: false, debian: false, ..bare() });
}

#[test]
fn rustup_counts_only_from_the_path_and_with_a_compiler() {
    let machine = Machine::new("rustup");
    let toolchain = format!("home/.rustup/toolchains/nightly-{}-unknown-linux-gnu", env::consts::ARCH);
    machine.file(&format!("{toolchain}/bin/rustc"), 0o755);
    machine.file(&format!("{toolchain}/lib/rustlib/src/rust/library/core/Cargo.toml"), 0o644);
    machine.file("home/bin/bpf-linker", 0o644);
    assert_eq!(machine.facts(), Facts { rustup: false, debian: false, ..bare() });
    machine.file("home/bin/rustup", 0o755);
    machine.file("home/bin/bpf-linker", 0o755);
    assert_eq!(Decision::new(&machine.facts()), Decision::Rustup);
}

#[test]
fn packages_count_with_their_files() {
    let machine = Machine::new("packages");
    machine.text("etc/os-release", "ID=debian\n");
    for package in PACKAGES {
        machine.file(&format!("var/lib/dpkg/info/{package}.list"), 0o644);
    }
    assert_eq!(machine.facts(), Facts { rustup: false, ..bare() });
    machine.file("usr/bin/cargo", 0o755);
    machine.file(&format!("{LLVM}/bin/llvm-config"), 0o755);
    machine.file(&format!("usr/lib/rustlib/{BPF_TARGET}/lib/libcore.rlib"), 0o644);
    // rustup's proxy in /usr/bin is not the distribution's compiler.
    machine.file("home/bin/rustup", 0o755);
    symlink(machine.0.join("home/bin/rustup"), machine.0.join("usr/bin/rustc")).expect("symlink");
    assert_eq!(machine.facts().missing, ["rustc-web"]);
    fs::remove_file(machine.0.join("usr/bin/rustc")).expect("removed");
    machine.file("usr/bin/rustc", 0o755);
    assert_eq!(Decision::new(&machine.facts()), distribution(&[], true));
    machine.file("home/.cache/conntrace/bpf-linker-0.13.0-llvm-22/bin/bpf-linker", 0o755);
    assert!(Decision::new(&machine.facts()).is_ready());
}

#[test]
fn a_package_of_several_architectures_is_found() {
    let machine = Machine::new("multiarch");
    machine.file("var/lib/dpkg/info/llvm-22-dev:amd64.list", 0o644);
    machine.file("var/lib/dpkg/info/rustc-web:amd64.md5sums", 0o644);
    assert!(machine.places().has_package("llvm-22-dev"));
    assert!(!machine.places().has_package("rustc-web"));
    assert!(!machine.places().has_package("llvm-22"));
}

#[test]
fn the_distribution_comes_first_on_its_path() {
    let places = Places {
        root: PathBuf::from("/"),
        path: OsString::from("/home/u/.cargo/bin:/usr/bin"),
        rustup_home: PathBuf::new(),
        cache: PathBuf::from("/c"),
    };
    assert_eq!(
        places.distribution_path(),
        "/c/bpf-linker-0.13.0-llvm-22/bin:/usr/lib/llvm-22/bin:/usr/bin:/home/u/.cargo/bin:/usr/bin"
    );
}
