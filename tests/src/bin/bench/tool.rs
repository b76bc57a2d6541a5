//! Programs that watch connections: conntrace in several ways, and its peers.

use crate::machine;
use conn_tests::{
    netns::NetNs,
    tracer::{Ended, Setup, Tracer},
    usage,
};
use nix::{
    sys::time::TimeValLike as _,
    time::{ClockId, clock_getcpuclockid},
    unistd::Pid,
};
use std::{
    collections::BTreeSet,
    env, fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{self, Command},
    time::Duration,
};

/// How a tool is run.
pub(crate) enum How<'a> {
    /// Nothing runs.
    Alone,
    /// conntrace, with these words.
    Conntrace(&'a [&'a str]),
    /// A program that is as conntrace to its starter, with these words.
    Like(&'a Path, &'a [&'a str]),
    /// Another program, of a package. It does not say when it is ready.
    Peer { program: &'a str, words: &'a [&'a str], package: &'a str },
}

/// Peers look for their tracepoints there, and not every host has it mounted. `exec` keeps the process.
const WITH_TRACEFS: &str = "mount -t tracefs none /sys/kernel/tracing 2>/dev/null; \
                            mount -t debugfs none /sys/kernel/debug 2>/dev/null; exec \"$@\"";

/// A tool, and where it runs.
pub(crate) struct Tool<'a> {
    pub(crate) name: &'a str,
    pub(crate) how: How<'a>,
    /// In a namespace with connection tracking, with the load.
    pub(crate) tracked: bool,
    /// How many lines it should write for each connection.
    pub(crate) lines: Option<f64>,
}

/// A tool that runs.
pub(crate) struct Running {
    tracer: Option<Tracer>,
    file: PathBuf,
}

/// The result of a tool's run.
#[derive(Default)]
pub(crate) struct RunResult {
    pub(crate) lines: u64,
    /// Events that it says it has lost.
    pub(crate) lost: Option<u64>,
    pub(crate) peak_bytes: Option<u64>,
}

/// Memory, where there is a file system for it: a disk would be measured, too.
fn directory() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { env::temp_dir() }
}

/// A name for a file that no other process uses.
pub(crate) fn file(name: &str) -> PathBuf {
    directory().join(format!("conntrace-bench-{}-{name}", process::id()))
}

/// Where a program is.
fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/usr/share/bcc/tools"].map(PathBuf::from);
    env::split_paths(&path).chain(more).map(|directory| directory.join(program)).find(|path| path.is_file())
}

impl Tool<'_> {
    /// Starts it, and waits until it watches.
    ///
    /// # Errors
    /// Why it cannot run here.
    pub(crate) fn start(&self, ns: &NetNs) -> Result<Running, String> {
        if self.tracked {
            track(ns)?;
        }
        let file = file("out");
        let setup = match &self.how {
            How::Alone => {
                machine::settle();
                return Ok(Running { tracer: None, file });
            }
            How::Conntrace(words) => Setup::new(*words),
            How::Like(program, words) => Setup::new(*words).program(*program),
            How::Peer { program, words, package } => {
                let path = find(program).ok_or_else(|| format!("no {program} here (package {package})"))?;
                let path = path.to_string_lossy().into_owned();
                let words = words.iter().map(|&word| word.to_owned());
                let before = ["--mount", "sh", "-c", WITH_TRACEFS, "sh"].map(str::to_owned);
                Setup::new(before.into_iter().chain([path]).chain(words)).program("/usr/bin/unshare")
            }
        };
        let setup = setup.stdout_to(&file);
        let tracer = match &self.how {
            How::Peer { .. } => {
                let tracer = if self.tracked { ns.run(|| setup.spawn()) } else { setup.spawn() };
                // It compiles, loads and attaches; then it waits for events.
                std::thread::sleep(Duration::from_millis(300));
                tracer
            }
            _ => setup.start(),
        };
        machine::settle();
        Ok(Running { tracer: Some(tracer), file })
    }
}

impl Running {
    /// CPU time that it has used so far, seconds.
    pub(crate) fn cpu(&self) -> f64 {
        let Some(tracer) = &self.tracer else { return 0.0 };
        let pid = Pid::from_raw(tracer.pid().cast_signed());
        // A peer that could not run has no clock any more; its end shows the cause.
        let time = clock_getcpuclockid(pid).and_then(ClockId::now);
        time.map_or(0.0, |time| time.num_nanoseconds() as f64 / 1e9)
    }

    /// Its process id; `None` if nothing runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.tracer.as_ref().map(Tracer::pid)
    }

    /// Memory of the process now, bytes; 0 without one.
    pub(crate) fn memory(&self) -> u64 {
        self.tracer.as_ref().map_or(0, |tracer| usage::memory(tracer.pid()))
    }

    /// The ids of the BPF programs that it has open.
    pub(crate) fn programs(&self) -> BTreeSet<u32> {
        let Some(tracer) = &self.tracer else { return BTreeSet::new() };
        let files = fs::read_dir(format!("/proc/{}/fdinfo", tracer.pid())).into_iter().flatten();
        let infos = files.filter_map(|file| fs::read_to_string(file.ok()?.path()).ok());
        // Links name their programs, too.
        let id =
            |info: String| info.lines().find_map(|line| line.strip_prefix("prog_id:"))?.trim().parse().ok();
        infos.filter_map(id).collect()
    }

    /// Ends it.
    ///
    /// # Errors
    /// Why it was none of its best days.
    pub(crate) fn stop(self) -> Result<RunResult, String> {
        let Some(tracer) = self.tracer else { return Ok(RunResult::default()) };
        let ended = tracer.stop();
        let lines = lines(&self.file);
        let _ = fs::remove_file(&self.file);
        let interrupted = ended.signal == Some(libc::SIGINT);
        if ended.code != Some(0) && !interrupted && lines == 0 {
            let last = ended.stderr.lines().last().unwrap_or("it ended without a word").trim();
            return Err(format!("it did not run: {last}"));
        }
        Ok(RunResult { lines, lost: lost(&ended), peak_bytes: Some(ended.usage.peak_bytes) })
    }
}

/// Lines with something in them.
fn lines(file: &Path) -> u64 {
    let Ok(file) = fs::File::open(file) else { return 0 };
    let lines = BufReader::with_capacity(1 << 20, file).split(b'\n').map_while(Result::ok);
    lines.filter(|line| !line.is_empty()).count() as u64
}

/// The losses that a tool prints.
fn lost(ended: &Ended) -> Option<u64> {
    let number = |line: &str, word: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        words.windows(2).find(|pair| pair[0].eq_ignore_ascii_case(word))?[1]
            .trim_end_matches(':')
            .parse()
            .ok()
    };
    // The accounting at the end includes what single lines have printed before.
    if let Some(accounting) = ended.stderr.lines().find(|line| line.starts_with("conntrace: produced")) {
        return number(accounting, "lost");
    }
    let losses: Vec<u64> = ended.stderr.lines().filter_map(|line| number(line, "lost")).collect();
    (!losses.is_empty()).then(|| losses.iter().sum())
}

/// Turns connection tracking on: a rule that asks for it.
pub(crate) fn track(ns: &NetNs) -> Result<(), String> {
    let nft = find("nft").ok_or("no nft here (package nftables)")?;
    let rules = "add table inet t; add chain inet t c { type filter hook input priority 0; }; \
                 add rule inet t c ct state new counter";
    let done = ns.run(|| Command::new(nft).arg(rules).output()).map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&done.stderr);
    if done.status.success() {
        Ok(())
    } else {
        Err(format!("nft: {}", said.lines().next().unwrap_or_default()))
    }
}
