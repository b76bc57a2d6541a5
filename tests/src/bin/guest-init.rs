//! The first process of a virtual machine. It prepares the machine, runs the jobs, writes their results to the second
//! serial port, and ends the machine. `cargo xtask vm` reads the port.
//!
//! Lines that begin with `@` are its own: `@ready RELEASE`, `@begin JOB`, `@end JOB OUTCOME`, `@failed REASON`,
//! `@done`. All others are the jobs'. A pulse goes to the kernel's port, where it interrupts no job's line.

#![expect(unsafe_code, reason = "reboot, setrlimit and finit_module are raw system calls")]

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use conn_tests::netns::loopback_up;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::Pid;
use serde::Deserialize;

/// Where the results go.
const PORT: &str = "/dev/ttyS1";
/// Where the kernel's own lines go.
const CONSOLE: &str = "/dev/ttyS0";
/// What to run, in this order.
const JOBS: &str = "/jobs.json";
/// Modules to load, by the order of their names.
const MODULES: &str = "/modules";
/// A machine that writes nothing for much longer than this is dead.
const PULSE: Duration = Duration::from_secs(10);
/// As many as the kernel lets a process have, for tests with thousands of connections.
const FILES: u64 = 1 << 20;
/// The number of open files of all processes. As systemd does: else it follows the memory, and one test opens more.
const ALL_FILES: &str = "/proc/sys/fs/file-max";

const MOUNTS: [(&str, &str, &str); 7] = [
    ("proc", "/proc", "proc"),
    ("sysfs", "/sys", "sysfs"),
    ("devtmpfs", "/dev", "devtmpfs"),
    ("devpts", "/dev/pts", "devpts"),
    ("tmpfs", "/tmp", "tmpfs"),
    ("cgroup2", "/sys/fs/cgroup", "cgroup2"),
    ("tracefs", "/sys/kernel/tracing", "tracefs"),
];

/// One program to run.
#[derive(Debug, Deserialize)]
struct Job {
    name: String,
    /// The program and its arguments.
    command: Vec<String>,
    environment: Vec<(String, String)>,
    /// After this many seconds it is killed.
    limit: u64,
}

fn main() {
    let written = match start() {
        Ok(mut port) => match work(&mut port) {
            Ok(()) => writeln!(port, "@done"),
            Err(error) => writeln!(port, "@failed {error}"),
        },
        // Only the console is left.
        Err(error) => writeln!(io::stderr(), "guest-init: {error}"),
    };
    // SAFETY: plain numbers. Started with `-no-reboot`, the machine ends here.
    let error = unsafe { libc::reboot(if written.is_ok() { libc::RB_AUTOBOOT } else { libc::RB_POWER_OFF }) };
    panic!("reboot: {error} {}", io::Error::last_os_error());
}

/// Prepares what a usual machine has before the first login.
fn start() -> io::Result<File> {
    for (kind, target, source) in MOUNTS {
        // Some are made by those before them.
        let _ = fs::create_dir_all(target);
        mount(Some(source), target, Some(kind), MsFlags::empty(), None::<&str>)
            .map_err(|error| context(&format!("mount {target}"))(error.into()))?;
    }
    OpenOptions::new().write(true).open(PORT).map_err(context(PORT))
}

fn work(port: &mut File) -> io::Result<()> {
    let mut modules: Vec<PathBuf> =
        fs::read_dir(MODULES)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    modules.sort();
    for module in modules {
        load(&module).map_err(context(&module.display().to_string()))?;
    }
    loopback_up().map_err(context("lo"))?;
    fs::write(ALL_FILES, i64::MAX.to_string()).map_err(context(ALL_FILES))?;
    let files = libc::rlimit { rlim_cur: FILES, rlim_max: FILES };
    // SAFETY: the limit is valid.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const files) } != 0 {
        return Err(context("RLIMIT_NOFILE")(io::Error::last_os_error()));
    }
    let jobs = fs::read(JOBS).map_err(context(JOBS))?;
    let jobs: Vec<Job> = serde_json::from_slice(&jobs)?;
    writeln!(port, "@ready {}", fs::read_to_string("/proc/sys/kernel/osrelease")?.trim())?;
    for job in jobs {
        writeln!(port, "@begin {}", job.name)?;
        let outcome = job.run(port).unwrap_or_else(|error| format!("cannot run: {error}"));
        // A program may end in the middle of a line.
        writeln!(port, "\n@end {} {outcome}", job.name)?;
    }
    Ok(())
}

impl Job {
    /// Runs to the end, or to the limit; in the words of a result.
    fn run(&self, port: &File) -> io::Result<String> {
        let Some((program, arguments)) = self.command.split_first() else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(self.environment.iter().cloned()).process_group(0);
        command.stdin(Stdio::null()).stdout(port.try_clone()?).stderr(port.try_clone()?);
        let group = Pid::from_raw(command.spawn()?.id().cast_signed());
        let (ended, watched) = channel();
        let watch = {
            let console = OpenOptions::new().write(true).open(CONSOLE)?;
            let limit = Duration::from_secs(self.limit);
            thread::spawn(move || watch(console, group, limit, &watched))
        };
        let status = await_end(group, ended);
        let in_time = watch.join().unwrap_or(true);
        Ok(match status? {
            _ if !in_time => format!("timeout: killed after {} s", self.limit),
            WaitStatus::Exited(_, code) => format!("exit {code}"),
            WaitStatus::Signaled(_, signal, _) => format!("signal {signal}"),
            other => format!("{other:?}"),
        })
    }
}

/// Waits for this child, and for every orphan that comes before it.
fn await_end(child: Pid, ended: Sender<()>) -> io::Result<WaitStatus> {
    let status = loop {
        match wait() {
            Ok(status) if status.pid() == Some(child) => break Ok(status),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => break Err(error.into()),
        }
    };
    // What it has left behind is not the next job's.
    let _ = killpg(child, Signal::SIGKILL);
    drop(ended);
    status
}

/// Writes the pulse, and ends a job that takes too long; false if it had to.
fn watch(mut console: File, group: Pid, limit: Duration, ended: &Receiver<()>) -> bool {
    let start = Instant::now();
    let mut in_time = true;
    while ended.recv_timeout(PULSE) == Err(RecvTimeoutError::Timeout) {
        let _ = writeln!(console, "@alive");
        if in_time && start.elapsed() > limit {
            in_time = false;
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
    in_time
}

/// Loads a module, compressed or not.
fn load(path: &Path) -> io::Result<()> {
    const MODULE_INIT_COMPRESSED_FILE: libc::c_int = 4;
    let flags = if path.extension() == Some(OsStr::new("ko")) { 0 } else { MODULE_INIT_COMPRESSED_FILE };
    let file = File::open(path)?;
    // SAFETY: a descriptor, a C string and a number.
    match unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn context(what: &str) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{what}: {error}"))
}
