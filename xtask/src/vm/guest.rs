//! One virtual machine, followed by its output on two serial ports. `tests/src/bin/guest-init.rs` defines the format.

#![expect(unsafe_code, reason = "what a child does between fork and exec has no safe form")]

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use crate::command::line;

/// A machine that writes nothing for so long is dead: its pulse is six times as fast.
const SILENCE: Duration = Duration::from_secs(90);
/// How much of the kernel's log a bad end shows.
const TAIL: usize = 30;
const PULSE: &str = "@alive";

/// One step of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// It has booted this release of Linux.
    Ready(String),
    /// A job begins.
    Begin(String),
    /// A line that a job wrote.
    Line(String),
    /// A job has ended, with `exit CODE` or worse.
    End(String, String),
    /// The kernel complains, in its own log.
    Warning(String),
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// All jobs have run.
    Done,
    /// The kernel gave up.
    Panic(String),
    /// The machine fell silent.
    Hang(String),
    /// It ended before its jobs did.
    Broken(String),
}

/// Where the lines of a machine are kept.
#[derive(Debug, Clone)]
pub(crate) struct Logs {
    /// What jobs wrote.
    pub(crate) results: PathBuf,
    /// What the kernel wrote.
    pub(crate) kernel: PathBuf,
}

#[derive(Debug, PartialEq, Eq)]
enum Output {
    Result(String),
    Kernel(String),
}

/// Runs a machine to its end.
pub(crate) fn run(machine: &mut Command, logs: &Logs, on_event: impl FnMut(Event)) -> Result<Fate> {
    run_with(SILENCE, machine, logs, on_event)
}

/// [`run`] with a limit for silence.
pub(crate) fn run_with(
    silence: Duration,
    machine: &mut Command,
    logs: &Logs,
    mut on_event: impl FnMut(Event),
) -> Result<Fate> {
    // SAFETY: one system call between fork and exec.
    unsafe {
        // The machine ends with this process, even after a SIGKILL.
        machine.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?));
    }
    let mut child = Machine(
        machine
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start `{}`", line(machine)))?,
    );
    let (sender, receiver) = channel();
    let results = child.0.stdout.take().context("QEMU's stdout was not piped")?;
    let kernel = child.0.stderr.take().context("QEMU's stderr was not piped")?;
    listen(results, log(&logs.results)?, sender.clone(), Output::Result);
    listen(kernel, log(&logs.kernel)?, sender, Output::Kernel);

    let mut progress = Progress::default();
    loop {
        match receiver.recv_timeout(silence) {
            Ok(output) => progress.read(output, &mut on_event),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                return Ok(Fate::Hang(format!("silent for {} s {}", silence.as_secs(), progress.tail())));
            }
        }
    }
    let status = child.0.wait().context("cannot wait for QEMU")?;
    Ok(progress.end(&status.to_string()))
}

/// Kills the machine when dropped.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn log(path: &Path) -> Result<File> {
    File::create(path).with_context(|| format!("cannot write {}", path.display()))
}

/// Reads lines until the end, on a thread of its own.
fn listen(
    from: impl Read + Send + 'static,
    mut log: File,
    sender: Sender<Output>,
    port: fn(String) -> Output,
) {
    thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut bytes = Vec::new();
        while from.read_until(b'\n', &mut bytes).is_ok_and(|read| read > 0) {
            let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            // A failed write to the log does not stop the run.
            let _ = if line == PULSE { Ok(()) } else { writeln!(log, "{line}") };
            if sender.send(port(line)).is_err() {
                break;
            }
            bytes.clear();
        }
    });
}

/// The state of a machine so far.
#[derive(Debug, Default)]
struct Progress {
    kernel: Vec<String>,
    job: Option<String>,
    last: String,
    panic: Option<String>,
    done: bool,
    failed: Option<String>,
}

impl Progress {
    fn read(&mut self, output: Output, on_event: &mut impl FnMut(Event)) {
        match output {
            Output::Kernel(line) if line == PULSE || line.is_empty() => {}
            Output::Kernel(line) => {
                if let Some((_, reason)) = line.split_once("Kernel panic - ") {
                    self.panic.get_or_insert(reason.to_owned());
                }
                if ["WARNING: ", "BUG: ", "stall", "lockup"].iter().any(|word| line.contains(word)) {
                    on_event(Event::Warning(line.clone()));
                }
                self.kernel.push(line);
            }
            Output::Result(line) => {
                let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
                match word {
                    "@ready" => on_event(Event::Ready(rest.to_owned())),
                    "@begin" => {
                        self.job = Some(rest.to_owned());
                        on_event(Event::Begin(rest.to_owned()));
                    }
                    "@end" => {
                        let job = self.job.take().unwrap_or_default();
                        let outcome = rest.strip_prefix(&job).unwrap_or(rest).trim_start().to_owned();
                        on_event(Event::End(job, outcome));
                    }
                    "@failed" => self.failed = Some(rest.to_owned()),
                    "@done" => self.done = true,
                    _ => {
                        self.last.clone_from(&line);
                        on_event(Event::Line(line));
                    }
                }
            }
        }
    }

    /// The current job, and the kernel's last lines.
    fn tail(&self) -> String {
        let place = self.job.as_ref().map_or_else(
            || "outside of any job".to_owned(),
            |job| format!("in {job}, whose last line was {:?}", self.last),
        );
        let from = self.kernel.len().saturating_sub(TAIL);
        format!("{place}; the kernel's last lines:\n    {}", self.kernel[from..].join("\n    "))
    }

    fn end(&self, status: &str) -> Fate {
        if let Some(reason) = &self.panic {
            return Fate::Panic(format!("{reason} {}", self.tail()));
        }
        match &self.failed {
            Some(reason) => Fate::Broken(reason.clone()),
            None if self.done => Fate::Done,
            None => Fate::Broken(format!("QEMU ended ({status}) {}", self.tail())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fate(output: Vec<Output>) -> (Vec<Event>, Fate) {
        let (mut progress, mut events) = (Progress::default(), Vec::new());
        for line in output {
            progress.read(line, &mut |event| events.push(event));
        }
        (events, progress.end("exit status: 0"))
    }

    fn result(line: &str) -> Output {
        Output::Result(line.to_owned())
    }

    #[test]
    fn a_good_run_yields_its_steps() {
        let lines = ["@ready 6.1.0", "@begin a b", "test a ... ok", "", "@end a b exit 0", "@done"];
        let (events, fate) = fate(lines.map(result).into());
        let expected = [
            Event::Ready("6.1.0".into()),
            Event::Begin("a b".into()),
            Event::Line("test a ... ok".into()),
            Event::Line(String::new()),
            Event::End("a b".into(), "exit 0".into()),
        ];
        assert_eq!((&events[..], fate), (&expected[..], Fate::Done));
    }

    #[test]
    fn a_kernel_panic_is_no_test_failure() {
        let kernel = Output::Kernel("[    9.1] Kernel panic - not syncing: Fatal exception".into());
        let (_, fate) = fate(vec![result("@begin live"), result("test a ... ok"), kernel]);
        let Fate::Panic(reason) = fate else { panic!("{fate:?}") };
        assert!(reason.starts_with("not syncing: Fatal exception in live"), "{reason}");
        assert!(reason.contains("test a ... ok"), "{reason}");
    }

    #[test]
    fn an_early_end_is_broken() {
        assert!(matches!(fate(vec![result("@ready 6.1.0")]).1, Fate::Broken(_)));
        let failed = fate(vec![result("@failed /modules/0-veth.ko: no")]).1;
        assert_eq!(failed, Fate::Broken("/modules/0-veth.ko: no".into()));
    }

    #[test]
    fn kernel_warnings_are_events() {
        let warning = "[   70.0] WARNING: CPU: 1 PID: 0 at net/ipv4/tcp.c:1";
        let (events, _) = fate(vec![Output::Kernel(warning.into()), Output::Kernel("[ 1.0] usual".into())]);
        assert_eq!(events, [Event::Warning(warning.into())]);
    }

    #[test]
    fn silence_is_a_hang() {
        let mut silent = Command::new("sleep");
        let nowhere = Logs { results: "/dev/null".into(), kernel: "/dev/null".into() };
        let fate = run_with(Duration::from_millis(50), silent.arg("60"), &nowhere, |_| {});
        assert!(matches!(fate, Ok(Fate::Hang(_))), "{fate:?}");
    }
}
