//! The kernels of the matrix: stock kernels of Debian for cloud machines.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use super::archive::{self, Archive, Machine, Mirrors};

/// A kernel of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Its name on the command line and in results.
    pub(crate) name: &'static str,
    /// The release of Debian that has it.
    suite: &'static str,
    /// The processor that QEMU emulates for it.
    pub(crate) cpu: &'static str,
    /// Whether conntrace supports it; else conntrace refuses to run.
    pub(crate) supported: bool,
    /// Whether two programs on one tracepoint are never both skipped; docs/kernels.md has the measurements.
    pub(crate) twice_is_exact: bool,
}

/// All of them. The processor: QEMU 7.2 spoils flags in `cmpxchg16b`, on which 6.12 panics under load; newer
/// kernels cannot allocate local storage without it.
pub(crate) const ALL: [Wanted; 4] = [
    Wanted { name: "5.10", suite: "bullseye", cpu: "max", supported: false, twice_is_exact: true },
    Wanted { name: "6.1", suite: "bookworm", cpu: "max", supported: true, twice_is_exact: true },
    Wanted { name: "6.12", suite: "trixie", cpu: "max,-cx16", supported: true, twice_is_exact: true },
    Wanted { name: "newest", suite: "sid", cpu: "max", supported: true, twice_is_exact: false },
];

/// Modules that every test may need.
const MODULES: [&str; 3] = ["inet_diag", "tcp_diag", "veth"];

/// Modules of the tests of forwarded flows: rules, connection tracking, translation, flowtables, and a bridge whose packets are
/// tracked. They are loaded in this order, which meets the dependencies in each kernel of the matrix. A kernel may lack one: 7.2
/// has `nfnetlink` built in and no `libcrc32c`, and `nft_counter` is a module of 5.10 only.
const NETFILTER: [&str; 21] = [
    "libcrc32c",
    "nfnetlink",
    "nf_defrag_ipv4",
    "nf_defrag_ipv6",
    "nf_conntrack",
    "nf_conntrack_netlink",
    "nf_nat",
    "nf_tables",
    "nft_counter",
    "nft_ct",
    "nft_chain_nat",
    "nft_masq",
    "nft_nat",
    "nft_redir",
    "nf_flow_table",
    "nf_flow_table_inet",
    "nft_flow_offload",
    "llc",
    "stp",
    "bridge",
    "br_netfilter",
];

/// The package that depends on the current kernel.
const META: &str = "linux-image-cloud-amd64";

/// A kernel in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kernel {
    /// Its entry in the matrix.
    pub(crate) wanted: Wanted,
    /// Debian's version, such as `6.1.192-2`.
    pub(crate) version: String,
    directory: PathBuf,
}

/// Those that the names mean, or all.
pub(crate) fn choose(names: &[String]) -> Result<Vec<Wanted>> {
    for name in names {
        let known = ALL.iter().any(|wanted| wanted.name == name);
        ensure!(known, "no kernel {name:?} in the matrix, there are {}", ALL.map(|it| it.name).join(", "));
    }
    let chosen = |wanted: &&Wanted| names.is_empty() || names.iter().any(|name| name == wanted.name);
    Ok(ALL.iter().filter(chosen).copied().collect())
}

impl Wanted {
    /// The kernel from the cache. What is not there, or is to be looked for again, is fetched.
    pub(crate) fn get(self, cache: &Path, mirrors: Option<&Mirrors>, update: bool) -> Result<Kernel> {
        let directory = cache.join("kernel").join(self.name);
        if update || cached(&directory).is_none() {
            let mirrors = mirrors.context("this host's apt knows no archive of Debian's")?;
            self.fetch(cache, mirrors, &directory)?;
        }
        let version = cached(&directory).context("the kernel in the cache has no version")?;
        Ok(Kernel { wanted: self, version, directory })
    }

    /// Keeps the image and the modules, and nothing else of the packages. The record comes last: without it, nothing counts.
    fn fetch(self, cache: &Path, mirrors: &Mirrors, directory: &Path) -> Result<()> {
        let archive =
            Archive::open(&cache.join("apt").join(self.suite), mirrors, self.suite, Machine::default())?;
        let Some(image) = archive.depends(META, "linux-image-")?.into_iter().next() else {
            bail!("{META} of {} depends on no kernel", self.suite);
        };
        let version = archive.version(&image)?;
        if cached(directory).as_ref() == Some(&version) {
            return Ok(());
        }
        eprintln!("Fetching Linux {version} of {} into {} (once)", self.suite, directory.display());
        // Newer packages of a kernel are in parts, and the image's is empty.
        let mut packages = archive.depends(&image, "linux-binary-")?;
        packages.extend(archive.depends(&image, "linux-modules-")?);
        packages.push(image);
        archive::remove(directory)?;
        let unpacked = directory.join("unpacked");
        archive.unpack(&packages, &unpacked)?;
        keep(&unpacked, "vmlinuz", &directory.join("vmlinuz"))?;
        let modules = directory.join("modules");
        fs::create_dir_all(&modules)?;
        for (number, module) in MODULES.iter().chain(&NETFILTER).enumerate() {
            let file = format!("{module}.ko");
            if MODULES.contains(module) || find(&unpacked, &file)?.is_some() {
                keep(&unpacked, &file, &modules.join(format!("{number:02}-{module}")))?;
            }
        }
        archive::remove(&unpacked)?;
        fs::write(directory.join("version"), record(&version))?;
        Ok(())
    }
}

impl Kernel {
    /// What the boot loader would load.
    pub(crate) fn image(&self) -> PathBuf {
        self.directory.join("vmlinuz")
    }

    /// Its modules, by names that give their order.
    pub(crate) fn modules(&self) -> Result<Vec<(String, PathBuf)>> {
        let mut modules = Vec::new();
        for entry in fs::read_dir(self.directory.join("modules"))? {
            let entry = entry?;
            modules.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
        }
        modules.sort();
        Ok(modules)
    }

    /// The version of Linux that it is, such as `6.1.192`.
    pub(crate) fn linux(&self) -> &str {
        self.version.split(['-', '~', '+']).next().unwrap_or(&self.version)
    }
}

/// What the cache notes of a kernel: another list of modules makes it fetch the kernel again.
fn record(version: &str) -> String {
    format!("{version}\n{}\n", [&MODULES[..], &NETFILTER].concat().join(" "))
}

/// The version of the kernel in the cache, if it has all modules that are wanted.
fn cached(directory: &Path) -> Option<String> {
    version(&fs::read_to_string(directory.join("version")).ok()?).map(str::to_owned)
}

/// The version in a record that lists the modules that are wanted.
fn version(found: &str) -> Option<&str> {
    let version = found.lines().next()?;
    (found == record(version)).then_some(version)
}

/// Moves the first file below `directory` whose name begins so. A compressed module keeps the end of its name.
fn keep(directory: &Path, name: &str, to: &Path) -> Result<()> {
    let found = find(directory, name)?.with_context(|| format!("the kernel's packages have no {name}"))?;
    let file = found.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let to = match file.split_once(".ko") {
        Some((_, compression)) => to.with_file_name(format!(
            "{}.ko{compression}",
            to.file_name().unwrap_or_default().to_string_lossy()
        )),
        None => to.to_owned(),
    };
    fs::rename(&found, &to).with_context(|| format!("cannot move {} to {}", found.display(), to.display()))
}

fn find(directory: &Path, name: &str) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            if let Some(found) = find(&entry.path(), name)? {
                return Ok(Some(found));
            }
        } else if entry.file_name().to_string_lossy().starts_with(name) {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_chosen_by_name() {
        let names = |chosen: &[&str]| {
            let chosen: Vec<String> = chosen.iter().map(|name| (*name).to_owned()).collect();
            choose(&chosen).map(|all| all.iter().map(|wanted| wanted.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]).expect("all"), ["5.10", "6.1", "6.12", "newest"]);
        assert_eq!(names(&["6.12", "6.1"]).expect("two"), ["6.1", "6.12"]);
        let refused = names(&["6.6"]).expect_err("not in the matrix").to_string();
        assert!(refused.contains("\"6.6\"") && refused.contains("6.12"), "{refused}");
    }

    #[test]
    fn a_kernel_without_the_modules_is_not_in_the_cache() {
        assert_eq!(version(&record("6.1.192-2")), Some("6.1.192-2"));
        for other in ["", "6.1.192-2", "6.1.192-2\ninet_diag tcp_diag veth\n"] {
            assert_eq!(version(other), None, "{other:?}");
        }
    }

    #[test]
    fn the_version_of_linux_is_debians_without_its_own_part() {
        let kernel =
            |version: &str| Kernel { wanted: ALL[0], version: version.to_owned(), directory: PathBuf::new() };
        assert_eq!(kernel("6.1.192-2").linux(), "6.1.192");
        assert_eq!(kernel("7.2~rc5-1~exp1").linux(), "7.2");
    }
}
