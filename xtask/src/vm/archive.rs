//! Debian's archives through the host's apt-get, with separate sources, lists and cache, so that the host's own stay as
//! they are. Packages are unpacked, never installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::command::line;

/// The keyring of their signatures.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The package sources of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mirrors {
    main: String,
    security: Option<String>,
}

impl Mirrors {
    /// As the host's apt is configured.
    pub(crate) fn of_host() -> Result<Self> {
        let mut apt = Command::new("apt-get");
        let said = text(apt.args(["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]))?;
        ensure!(Path::new(KEYRING).exists(), "there is no {KEYRING}; install debian-archive-keyring");
        Self::among(&said).context("this host's apt knows no archive of Debian's")
    }

    /// From the addresses of all its archives, one a line.
    fn among(addresses: &str) -> Option<Self> {
        let ending = |end: &str| {
            let found = addresses.lines().find(|address| address.trim_end_matches('/').ends_with(end));
            found.map(str::to_owned)
        };
        Some(Self { main: ending("/debian")?, security: ending("/debian-security") })
    }

    fn sources(&self, suite: &str) -> String {
        let of = |mirror: &str, suite: &str| format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n");
        let mut sources = of(&self.main, suite);
        // Unstable has no suite of updates.
        if let Some(security) = self.security.as_ref().filter(|_| suite != "sid") {
            sources += &of(security, &format!("{suite}-security"));
        }
        sources
    }
}

/// The suite that this host is of.
pub(crate) fn suite_of_host() -> Result<String> {
    let release = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let suite = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    Ok(suite.context("/etc/os-release has no VERSION_CODENAME")?.trim_matches('"').to_owned())
}

/// The machine that packages are for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Machine<'a> {
    /// Its dpkg's status file, if they need not be complete without what is installed.
    pub(crate) installed: Option<&'a Path>,
    /// Debian's name of its processor, if it is not that of this host.
    pub(crate) architecture: Option<&'a str>,
}

/// One suite.
#[derive(Debug)]
pub(crate) struct Archive {
    directory: PathBuf,
}

impl Archive {
    /// Fetches the lists of a suite for a machine into `directory`.
    pub(crate) fn open(
        directory: &Path,
        mirrors: &Mirrors,
        suite: &str,
        machine: Machine<'_>,
    ) -> Result<Self> {
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(directory.join(part))
                .with_context(|| format!("cannot make {}", directory.display()))?;
        }
        let path = |name: &str| directory.join(name).display().to_string();
        fs::write(path("status"), "")?;
        fs::write(path("sources.list"), mirrors.sources(suite))?;
        let installed = machine.installed.map_or_else(|| path("status"), |file| file.display().to_string());
        let mut settings = vec![
            ("Dir::Etc::sourcelist", path("sources.list")),
            ("Dir::Etc::sourceparts", "-".to_owned()),
            ("Dir::State::lists", path("lists")),
            ("Dir::State::status", installed),
            ("Dir::Cache", path("cache")),
            ("Acquire::Languages", "none".to_owned()),
            // No other process uses these directories.
            ("APT::Sandbox::User", fetching_user()),
        ];
        if let Some(architecture) = machine.architecture {
            settings.push(("APT::Architecture", architecture.to_owned()));
            settings.push(("APT::Architectures", architecture.to_owned()));
        }
        let lines = settings.iter().map(|(name, value)| format!("{name} \"{value}\";\n"));
        fs::write(path("apt.conf"), lines.collect::<String>())?;
        let archive = Self { directory: directory.to_owned() };
        archive.apt("apt-get", &["update", "--quiet=2"])?;
        Ok(archive)
    }

    /// The dependencies of a package with names that begin with `prefix`.
    pub(crate) fn depends(&self, package: &str, prefix: &str) -> Result<Vec<String>> {
        let said = self.apt("apt-cache", &["depends", package])?;
        let names = said.lines().filter_map(|line| line.trim_start().strip_prefix("Depends: "));
        Ok(names.filter(|name| name.starts_with(prefix)).map(str::to_owned).collect())
    }

    /// The version that apt would install.
    pub(crate) fn version(&self, package: &str) -> Result<String> {
        let said = self.apt("apt-cache", &["show", "--no-all-versions", package])?;
        let version = said.lines().find_map(|line| line.strip_prefix("Version: "));
        version.map(str::to_owned).with_context(|| format!("{package} has no version"))
    }

    /// What would have to be installed beside what is there, as `name=version`.
    pub(crate) fn missing(&self, package: &str) -> Result<Vec<String>> {
        let said = self.apt("apt-get", &["install", "--simulate", "--no-install-recommends", package])?;
        Ok(said.lines().filter_map(installs).collect())
    }

    /// Fetches packages and unpacks them below `into`.
    pub(crate) fn unpack(&self, packages: &[String], into: &Path) -> Result<()> {
        let fetched = self.directory.join("packages");
        remove(&fetched)?;
        fs::create_dir_all(&fetched)?;
        fs::create_dir_all(into)?;
        let mut download = vec!["download", "--quiet=2"];
        download.extend(packages.iter().map(String::as_str));
        self.apt_in(&fetched, "apt-get", &download)?;
        for package in fs::read_dir(&fetched)? {
            text(Command::new("dpkg-deb").arg("--extract").arg(package?.path()).arg(into))?;
        }
        remove(&fetched)
    }

    fn apt(&self, program: &str, arguments: &[&str]) -> Result<String> {
        self.apt_in(&self.directory, program, arguments)
    }

    fn apt_in(&self, directory: &Path, program: &str, arguments: &[&str]) -> Result<String> {
        let mut apt = Command::new(program);
        apt.args(arguments).current_dir(directory).env("APT_CONFIG", self.directory.join("apt.conf"));
        text(apt.env("LC_ALL", "C"))
    }
}

/// The user that fetches. As root, apt would become `_apt`, which may not write to the directories of root.
fn fetching_user() -> String {
    if crate::toolchain::is_root() { "root".to_owned() } else { String::new() }
}

/// `name=version` of a line of a simulation: `Inst name [old] (version archive)`.
fn installs(line: &str) -> Option<String> {
    let (name, rest) = line.strip_prefix("Inst ")?.split_once(' ')?;
    let (_, version) = rest.split_once('(')?;
    Some(format!("{name}={}", version.split(' ').next()?))
}

/// Removes a directory, if it is there.
pub(crate) fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}

/// The output of a program. A failure carries the last line of its errors.
fn text(command: &mut Command) -> Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{}`", line(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last: Vec<&str> = said.lines().rev().take(2).collect();
        bail!("`{}` failed: {}", line(command), last.into_iter().rev().collect::<Vec<_>>().join(" "));
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{}` wrote no text", line(command)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_come_from_the_sources_of_the_host() {
        let mirrors = Mirrors::among("http://a.example/debian/\nhttp://a.example/debian-security/\n");
        let mirrors = mirrors.expect("an archive");
        let signed = format!("[signed-by={KEYRING}]");
        assert_eq!(
            mirrors.sources("trixie"),
            format!(
                "deb {signed} http://a.example/debian/ trixie main\n\
                 deb {signed} http://a.example/debian-security/ trixie-security main\n"
            )
        );
        assert_eq!(mirrors.sources("sid"), format!("deb {signed} http://a.example/debian/ sid main\n"));
        assert_eq!(Mirrors::among("http://a.example/ubuntu\nhttp://a.example/apt"), None);
    }

    #[test]
    fn simulations_yield_packages_and_versions() {
        let fresh = "Inst libfdt1 (1.6.1-4+b1 Debian:12.15/oldstable [amd64])";
        assert_eq!(installs(fresh).as_deref(), Some("libfdt1=1.6.1-4+b1"));
        let newer = "Inst seabios [1.15] (1.16.2-1 Debian:12.15/oldstable [all])";
        assert_eq!(installs(newer).as_deref(), Some("seabios=1.16.2-1"));
        assert_eq!(installs("Conf seabios (1.16.2-1 Debian:12.15/oldstable [all])"), None);
        assert_eq!(installs("Remv qemu-utils [1:10.0]"), None);
    }
}
