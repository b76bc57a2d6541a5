//! A bpf file system of a test's own, and a daemon that pins there.

#![expect(unsafe_code, reason = "a link is detached by a raw system call")]

use crate::{
    daemon,
    ledger::Report,
    timeout,
    tracer::{self, Ended, Setup, Tracer},
    truth::Truth,
};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::Signal,
};
use std::{
    env,
    ffi::CString,
    fs, io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

/// The line of a daemon that goes on with the programs of the last one.
pub const TAKEN_OVER: &str = "the programs of the last daemon go on";
/// The line of a daemon that replaces them.
pub const REPLACED: &str = "the programs of the last daemon are replaced";
/// The beginning of the line of a daemon that does not go on with pins.
pub const ANEW: &str = "counting begins anew: ";
/// The beginning of the line of a daemon that can pin nothing.
pub const UNPINNED: &str = "nothing is pinned, so the counts end with the daemon: ";
/// A build of which one global differs.
pub const OTHER_BUILD: &str = "CONNTRACE_TEST_BUILD";

/// A directory for a bpf file system, which goes with this value, as all that is pinned there.
#[derive(Debug)]
pub struct Pins {
    base: PathBuf,
}

impl Pins {
    /// With a bpf file system.
    pub fn new() -> Self {
        let pins = Self::bare();
        let mounted = mount(Some("bpf"), &pins.point(), Some("bpf"), MsFlags::empty(), Some("mode=0700"));
        mounted.expect("a bpf file system");
        pins
    }

    /// An empty directory.
    pub fn bare() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let base = env::temp_dir().join(format!("conn-tests-{}-pins-{number}", process::id()));
        let pins = Self { base };
        fs::create_dir_all(pins.point()).expect("a new directory");
        pins
    }

    /// The mount point.
    pub fn point(&self) -> PathBuf {
        self.base.join("bpf")
    }

    /// A daemon that pins here.
    pub fn serve(&self) -> Setup {
        self.serve_at(&self.point())
    }

    /// The same with another mount point.
    pub fn serve_at(&self, point: &Path) -> Setup {
        Self::serve_with(point, &self.socket())
    }

    /// The same with another socket.
    pub fn serve_beside(&self) -> Setup {
        Self::serve_with(&self.point(), &self.base.join("other"))
    }

    fn serve_with(point: &Path, socket: &Path) -> Setup {
        Setup::new(["serve", "-v", "--group", "65534", "--socket"]).arguments([
            socket.display().to_string(),
            "--bpffs".into(),
            point.display().to_string(),
        ])
    }

    /// The same in a time namespace whose clocks are a day ahead.
    pub fn serve_a_day_ahead(&self) -> Setup {
        let arguments =
            ["--time", "--fork", "--kill-child", "--boottime", "86400", "--monotonic", "86400", "--"];
        let (program, point) = (tracer::binary(), self.point());
        Setup::new(arguments).program("/usr/bin/unshare").arguments([
            program.display().to_string(),
            "serve".into(),
            "-v".into(),
            "--group=65534".into(),
            format!("--socket={}", self.socket().display()),
            format!("--bpffs={}", point.display()),
        ])
    }

    /// Asks the daemon, and expects an answer.
    pub fn get(&self, target: &str) -> String {
        let answer = daemon::get(&self.socket(), target).expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    }

    /// The path of the daemon's socket.
    pub fn socket(&self) -> PathBuf {
        self.base.join("socket")
    }

    /// The counts of the daemon.
    pub fn report(&self) -> Report {
        Report::parse(&self.get("/v1/stats"))
    }

    /// Waits until the counts equal what `known` makes of each report, and until an audit began later. Returns the report.
    ///
    /// # Panics
    /// When they do not in time, with the differences.
    pub fn await_equal_but(&self, known: impl Fn(&Report) -> Truth) -> Report {
        let begun = Instant::now();
        let mut equal_since = None;
        loop {
            let report = self.report();
            let wrong = report.differences(&known(&report));
            if wrong.is_empty() {
                let since: &Instant = equal_since.get_or_insert_with(Instant::now);
                let age = report.audit.age_seconds;
                if age.is_some_and(|age| since.elapsed().as_secs_f64() > age) {
                    return report;
                }
            } else {
                equal_since = None;
                let (wrong, text) = (wrong.join("\n"), report.to_text());
                assert!(begun.elapsed() < timeout::seconds(60), "not the truth:\n{wrong}\n{text}");
            }
            assert!(begun.elapsed() < timeout::seconds(120), "no audit: {:?}", report.audit);
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until the counts equal the truth, and an audit agrees.
    ///
    /// # Panics
    /// Likewise.
    pub fn await_equal(&self, truth: &Truth) -> Report {
        self.await_equal_but(|_| truth.clone())
    }

    /// The same daemon of another build.
    pub fn serve_other_build(&self) -> Setup {
        self.serve().variable(OTHER_BUILD, "1")
    }

    /// Takes the pins away.
    pub fn detach(&self) -> Ended {
        Setup::new(["serve", "--detach", "--bpffs"]).arguments([self.point().display()]).run()
    }

    /// The directories of the epochs.
    pub fn epochs(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.point().join("conntrace")) else { return vec![] };
        let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
        paths.sort();
        paths
    }

    /// The directory of the only epoch.
    pub fn epoch(&self) -> PathBuf {
        let mut epochs = self.epochs();
        assert_eq!(epochs.len(), 1, "{epochs:?}");
        epochs.remove(0)
    }
}

impl Default for Pins {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        // The daemon may have mounted one more.
        while umount2(&self.point(), MntFlags::MNT_DETACH).is_ok() {}
        let _ = fs::remove_dir_all(&self.base);
    }
}

/// Detaches a pinned link of a cgroup.
///
/// # Panics
/// The kernel refuses.
pub fn detach_link(pin: &Path) {
    const OBJ_GET: libc::c_int = 7;
    const LINK_DETACH: libc::c_int = 34;
    let path = CString::new(pin.to_str().expect("UTF-8")).expect("no NUL");
    let bpf = |command: libc::c_int, first: u64| {
        let attributes = [first, 0];
        // SAFETY: the kernel only reads these attributes and the path, which outlive the call.
        let done =
            unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(&attributes)) };
        assert!(done >= 0, "bpf {command}: {}", io::Error::last_os_error());
        done
    };
    let link = i32::try_from(bpf(OBJ_GET, path.as_ptr().expose_provenance() as u64)).expect("a descriptor");
    // SAFETY: the call returned a new descriptor, which nothing else owns.
    let link = unsafe { OwnedFd::from_raw_fd(link) };
    bpf(LINK_DETACH, link.as_raw_fd().cast_unsigned().into());
}

/// Kills the daemon, which gets no chance to do anything.
pub fn kill(daemon: Tracer) {
    daemon.signal(Signal::SIGKILL);
    assert_eq!(daemon.await_end().signal, Some(Signal::SIGKILL as i32));
}
