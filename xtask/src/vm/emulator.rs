//! QEMU: from PATH, or from the distribution's packages, unpacked into the cache. An installation could remove other
//! packages.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::archive::{self, Archive, Machine, Mirrors};
use super::kernel::Kernel;
use crate::toolchain;

const PROGRAM: &str = "qemu-system-x86_64";
const PACKAGE: &str = "qemu-system-x86";
/// dpkg's list of installed packages.
const INSTALLED: &str = "/var/lib/dpkg/status";
/// Changes with each boot of this host.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// How machines are made on this host.
#[derive(Debug, Clone)]
pub(crate) struct Emulator {
    program: PathBuf,
    /// Its directory in the cache, unless it is installed.
    unpacked: Option<PathBuf>,
    /// KVM runs the processor instead of an emulation.
    pub(crate) kvm: bool,
}

impl Emulator {
    /// Finds QEMU, or fetches it.
    pub(crate) fn get(cache: &Path, mirrors: Option<&Mirrors>) -> Result<Self> {
        let path = env::var_os("PATH").unwrap_or_default();
        if let Some(program) = toolchain::find_on(&path, PROGRAM) {
            return Ok(Self { program, unpacked: None, kvm: false });
        }
        let root = cache.join("qemu");
        let program = root.join("usr/bin").join(PROGRAM);
        if !program.exists() {
            let mirrors = mirrors.with_context(|| format!("there is no {PROGRAM}; install QEMU"))?;
            fetch(cache, mirrors, &root)?;
        }
        Ok(Self { program, unpacked: Some(root), kvm: false })
    }

    /// A machine without any device but two serial ports: the kernel's on standard error, the results on
    /// standard output.
    pub(crate) fn machine(&self, kernel: &Kernel, initramfs: &Path) -> Command {
        let mut qemu = Command::new(&self.program);
        if let Some(root) = &self.unpacked {
            let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"].map(|part| root.join(part));
            if let Ok(libraries) = env::join_paths(&libraries) {
                qemu.env("LD_LIBRARY_PATH", libraries);
            }
            qemu.env("QEMU_MODULE_DIR", root.join("usr/lib/x86_64-linux-gnu/qemu"));
            for firmware in ["usr/share/qemu", "usr/share/seabios"] {
                qemu.arg("-L").arg(root.join(firmware));
            }
        }
        let wanted = kernel.wanted;
        // Both processors by one thread, in turn. With one for each, 6.12 and 7.2 were seen to die of an `int3` in code
        // that the kernel had patched back (a tracepoint that was turned off while the other processor was about to run
        // over it): real processors have rules for such code, which QEMU may not.
        let accelerator = if self.kvm { "kvm" } else { "tcg,thread=single" };
        let cpu = if self.kvm { "host" } else { wanted.cpu };
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        qemu.args(["-accel", accelerator, "-cpu", cpu, "-smp", "2", "-m", "1024"]);
        qemu.args(["-chardev", "file,id=kernel,path=/dev/stderr", "-serial", "chardev:kernel"]);
        qemu.args(["-chardev", "stdio,id=results,signal=off", "-serial", "chardev:results"]);
        qemu.arg("-kernel").arg(kernel.image()).arg("-initrd").arg(initramfs);
        // Results after an oops are void.
        qemu.args(["-append", "console=ttyS0 loglevel=5 oops=panic panic=-1"]);
        qemu
    }

    /// Uses KVM if `boots` with it. The answer holds until this host starts again: on some hosts there is a
    /// KVM that hangs, and to find out takes a while.
    pub(crate) fn try_kvm(&mut self, cache: &Path, boots: impl FnOnce(&Self) -> bool) -> Result<()> {
        if !Path::new("/dev/kvm").exists() {
            return Ok(());
        }
        let boot = fs::read_to_string(BOOT_ID).unwrap_or_default();
        let (works, hangs) = (format!("{}: works", boot.trim()), format!("{}: does not work", boot.trim()));
        let file = cache.join("kvm");
        let known = fs::read_to_string(&file).unwrap_or_default();
        self.kvm = known == works || known != hangs && boots(&Self { kvm: true, ..self.clone() });
        let answer = if self.kvm { works } else { hangs };
        fs::write(&file, answer).with_context(|| format!("cannot write {}", file.display()))
    }
}

fn fetch(cache: &Path, mirrors: &Mirrors, root: &Path) -> Result<()> {
    eprintln!("Fetching {PACKAGE} into {} (once; nothing is installed)", root.display());
    let machine = Machine { installed: Some(Path::new(INSTALLED)), ..Machine::default() };
    let archive = Archive::open(&cache.join("apt/host"), mirrors, &archive::suite_of_host()?, machine)?;
    let packages = archive.missing(PACKAGE)?;
    // A half of it must not look like the whole.
    let mut part = OsString::from(root);
    part.push(".part");
    let part = PathBuf::from(part);
    archive::remove(&part)?;
    archive.unpack(&packages, &part)?;
    fs::rename(&part, root).with_context(|| format!("cannot make {}", root.display()))
}
