//! `cargo xtask package-test`: the Debian package on fresh Debians, in root directories of their own: installed, used,
//! upgraded, removed and purged, without a service manager and with systemd as process 1.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::command::{self, run};
use crate::toolchain::{self, Places};
use crate::vm::archive;

/// The releases of Debian that the package is for.
const SUITES: [&str; 2] = ["bookworm", "trixie"];
/// What a root directory has beside the base system.
const INCLUDED: &str = "systemd,systemd-sysv,curl,procps,iproute2";
/// The older version of the same package.
const OLDER: &str = "0.0.1";

/// Which package to test, and where.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The release of Debian: bookworm or trixie [default: both]
    #[arg(long)]
    suite: Vec<String>,
    /// Only without systemd (plain), only with it (booted), or only the image (container)
    #[arg(long)]
    only: Option<String>,
    /// The package [default: the one that `cargo xtask dist` has made]
    #[arg(long)]
    package: Option<PathBuf>,
}

/// Tests the package.
pub(crate) fn main(arguments: &Arguments) -> Result<ExitCode> {
    ensure!(toolchain::is_root(), "namespaces and mounts need root");
    let places = Places::here();
    ensure!(
        toolchain::find_on(&places.path, "mmdebstrap").is_some(),
        "there is no mmdebstrap here: apt-get install mmdebstrap"
    );
    let package = match &arguments.package {
        Some(package) => package.clone(),
        None => newest(&command::target().join("dist"))?,
    };
    let is_chosen = |test: &str| arguments.only.as_deref().is_none_or(|only| only == test);
    let work = command::target().join("package-test");
    archive::remove(&work)?;
    fs::create_dir_all(&work)?;
    let tests = prepare(&package, &work)?;
    let mut failed = Vec::new();
    for suite in SUITES.into_iter().filter(|_| is_chosen("plain") || is_chosen("booted")) {
        if !arguments.suite.is_empty() && !arguments.suite.iter().any(|chosen| chosen == suite) {
            continue;
        }
        let image = image(&places, suite)?;
        for test in ["plain", "booted"] {
            if !is_chosen(test) {
                continue;
            }
            println!("---- {suite}, {test}");
            let done = one(&image, &tests, &work, test);
            remove_cgroups();
            if let Err(error) = done {
                println!("{error:#}");
                failed.push(format!("{suite} {test}"));
            }
        }
    }
    archive::remove(&work)?;
    if is_chosen("container") {
        println!("---- container");
        if toolchain::find_on(&places.path, "podman").is_none() {
            println!("skipped: there is no podman here: apt-get install podman runc");
        } else if let Err(error) = container() {
            println!("{error:#}");
            failed.push("container".into());
        }
    }
    if failed.is_empty() {
        println!("the package passes");
        return Ok(ExitCode::SUCCESS);
    }
    println!("failed: {}", failed.join(", "));
    Ok(ExitCode::FAILURE)
}

/// The package in a directory.
fn newest(directory: &Path) -> Result<PathBuf> {
    let missing = || format!("no package in {}: run cargo xtask dist", directory.display());
    let files = fs::read_dir(directory).with_context(missing)?;
    let mut packages: Vec<_> = files
        .filter_map(|file| Some(file.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|end| end == "deb"))
        .collect();
    packages.sort();
    packages.pop().with_context(missing)
}

/// A directory with the test's scripts, the package, and an older one: the same with another version.
fn prepare(package: &Path, work: &Path) -> Result<PathBuf> {
    let tests = work.join("test");
    fs::create_dir(&tests)?;
    for script in fs::read_dir(command::workspace().join("packaging/test"))? {
        let script = script?;
        fs::copy(script.path(), tests.join(script.file_name()))?;
    }
    fs::copy(package, tests.join("new.deb")).with_context(|| format!("cannot copy {}", package.display()))?;
    let content = work.join("content");
    run(Command::new("dpkg-deb").arg("--raw-extract").arg(package).arg(&content))?;
    let control = content.join("DEBIAN/control");
    let text = fs::read_to_string(&control)?;
    let older = text.lines().map(|line| match line.strip_prefix("Version: ") {
        Some(_) => format!("Version: {OLDER}\n"),
        None => format!("{line}\n"),
    });
    fs::write(&control, older.collect::<String>())?;
    let mut build = Command::new("dpkg-deb");
    build.args(["--root-owner-group", "-Znone", "--build"]).arg(&content).arg(tests.join("old.deb"));
    run(command::quiet(&mut build))?;
    Ok(tests)
}

/// An archive with a fresh Debian, made once.
fn image(places: &Places, suite: &str) -> Result<PathBuf> {
    let directory = places.cache.join("roots");
    let image = directory.join(format!("{suite}.tar"));
    if image.is_file() {
        return Ok(image);
    }
    fs::create_dir_all(&directory)?;
    eprintln!("Making a fresh {suite} in {} (once)", directory.display());
    let fresh = directory.join(format!("{suite}.new.tar"));
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap.args(["--quiet", "--variant=minbase", &format!("--include={INCLUDED}"), suite]).arg(&fresh);
    run(command::quiet(&mut mmdebstrap))?;
    fs::rename(&fresh, &image)?;
    Ok(image)
}

/// Runs one test in a fresh root directory.
fn one(image: &Path, tests: &Path, work: &Path, test: &str) -> Result<()> {
    let root = work.join("root");
    archive::remove(&root)?;
    fs::create_dir(&root)?;
    run(Command::new("tar").arg("--extract").arg("--file").arg(image).arg("--directory").arg(&root))?;
    let inside = root.join("test");
    run(Command::new("cp").arg("--recursive").arg(tests).arg(&inside))?;
    let mut enter = Command::new("unshare");
    enter.args(["--pid", "--fork", "--kill-child", "--mount", "--uts", "--ipc", "--net"]);
    enter.arg(inside.join("enter")).arg(&root).stdin(Stdio::null());
    if test == "plain" {
        enter.arg("/test/plain.sh");
        return run(&mut enter);
    }
    let units = root.join("etc/systemd/system");
    fs::write(units.join("package-test.service"), UNIT)?;
    fs::write(units.join("package-test.target"), TARGET)?;
    // systemd as in a container: it leaves the devices and the clock of the host alone.
    enter.args(["/usr/bin/env", "-i", "container=package-test", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]);
    enter.args([
        "/lib/systemd/systemd",
        "--unit=package-test.target",
        "--show-status=no",
        "--log-target=null",
    ]);
    let ended = enter.status().context("cannot start unshare")?;
    let log = fs::read_to_string(inside.join("log")).unwrap_or_default();
    print!("{log}");
    match fs::read_to_string(inside.join("status")) {
        Ok(status) if status.trim() == "status 0" => Ok(()),
        Ok(status) => bail!("{}", status.trim()),
        Err(_) => bail!("systemd ended before the test ({ended})"),
    }
}

/// Builds the image of `cargo xtask dist`, and runs it.
fn container() -> Result<()> {
    let (packaging, image) =
        (command::workspace().join("packaging"), command::target().join("dist/container"));
    ensure!(image.is_dir(), "there is no {}: run cargo xtask dist", image.display());
    let mut test = Command::new(packaging.join("test/container.sh"));
    test.arg(image).arg(packaging.join("container/daemonset.yaml"));
    run(test.stdin(Stdio::null()))
}

/// Removes the cgroups of a test, which `packaging/test/enter` and systemd have made.
fn remove_cgroups() {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        words.next().filter(|_| words.next() == Some("cgroup2"))
    });
    for point in points {
        let own = Path::new(point).join("conntrace-package-test");
        // Processes that were killed are gone soon.
        for _ in 0..50 {
            if !own.exists() {
                break;
            }
            remove_cgroup(&own);
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
}

/// Removes a cgroup and those in it, as far as they are empty.
fn remove_cgroup(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    // The next try follows.
    let _ = fs::remove_dir(path);
}

/// The unit that runs the test.
const UNIT: &str = "[Unit]\nAfter=basic.target\nRequires=basic.target\n[Service]\nType=oneshot\nTimeoutStartSec=300\n\
                    ExecStart=/bin/bash /test/booted.sh\nStandardOutput=append:/test/log\nStandardError=append:/test/log\n\
                    FailureAction=exit\n";
/// What systemd starts.
const TARGET: &str =
    "[Unit]\nRequires=basic.target package-test.service\nAfter=basic.target\nAllowIsolate=yes\n";
