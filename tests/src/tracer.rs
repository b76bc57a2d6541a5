//! A handle on a running `conntrace`: it waits for what the tracer says and never sleeps.

use crate::{
    exit::{self, Usage},
    line::{Kind, Line},
    timeout,
};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use std::{
    fs,
    io::{BufRead as _, BufReader, Read, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::process::ExitStatusExt as _,
    },
    path::PathBuf,
    process::Child,
    sync::{Arc, Condvar, LazyLock, Mutex},
    thread,
    time::{Duration, Instant},
};

mod confinement;
mod setup;

pub use setup::{Setup, binary};

/// The environment variable that names the descriptor conntrace writes one byte to once it traces.
pub const READY_FD: &str = "CONNTRACE_READY_FD";
/// The environment variable with arguments that every conntrace gets after its own: to run any test with other
/// hooks than the planned ones.
pub const ARGUMENTS: &str = "CONNTRACE_TEST_ARGUMENTS";

/// How long the tracer may take to attach.
static START: LazyLock<Duration> = LazyLock::new(|| timeout::seconds(60));
/// How long an expected line may take; generous, because a busy machine is no failure.
static LINE: LazyLock<Duration> = LazyLock::new(|| timeout::seconds(40));

/// How many lines of its output a failing test shows.
const SHOWN: usize = 60;

/// What the tracer has written, shared between the threads that read it and the one that waits.
#[derive(Debug, Default)]
struct Output {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    stdout: Vec<String>,
    stderr: Vec<String>,
    stdout_ended: bool,
    stderr_ended: bool,
}

/// A running `conntrace`. Dropped, it is killed; in a failing test its whole output is printed first.
#[derive(Debug)]
pub struct Tracer {
    child: Child,
    args: Vec<String>,
    output: Arc<Output>,
    ready: OwnedFd,
    /// A copy of the program that other users may run.
    copy: Option<PathBuf>,
    /// The end of its terminal that a person would see.
    terminal: Option<fs::File>,
}

/// How a tracer ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// What it used.
    pub usage: Usage,
    /// All lines of stdout.
    pub stdout: Vec<String>,
    /// All of stderr.
    pub stderr: String,
}

impl Tracer {
    /// [`Setup::start`] with these arguments.
    pub fn start<A: ToString>(args: impl IntoIterator<Item = A>) -> Self {
        Setup::new(args).start()
    }

    fn await_ready(&self) {
        assert!(self.is_ready(), "conntrace ended, or closed {READY_FD}, before it was ready");
    }

    /// Waits until all programs are attached; false if conntrace ends before.
    pub fn is_ready(&self) -> bool {
        let mut fds = [PollFd::new(self.ready.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(*START).expect("a short time");
        let ready = poll(&mut fds, timeout).expect("poll");
        assert!(ready == 1, "conntrace was not ready in {:?}", *START);
        nix::unistd::read(&self.ready, &mut [0]).expect("read") == 1
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line of stdout, those already there included.
    pub fn await_stdout(&self, what: &str, accept: impl Fn(&str) -> bool) -> String {
        self.find_stdout(accept).unwrap_or_else(|missing| panic!("{missing}: {what}"))
    }

    /// [`Tracer::await_stdout`] for callers that have more to say when the line does not come.
    ///
    /// # Errors
    /// Why it does not come.
    pub fn find_stdout(&self, accept: impl Fn(&str) -> bool) -> Result<String, String> {
        self.find(|lines| (&lines.stdout, lines.stdout_ended), accept)
    }

    /// Waits for a line of stderr, those already there included.
    pub fn await_stderr(&self, what: &str, accept: impl Fn(&str) -> bool) -> String {
        let found = self.find(|lines| (&lines.stderr, lines.stderr_ended), accept);
        found.unwrap_or_else(|missing| panic!("{missing}: {what}"))
    }

    /// True if such a line is on stdout by now.
    pub fn has_stdout(&self, accept: impl Fn(&str) -> bool) -> bool {
        self.output.lines.lock().unwrap().stdout.iter().any(|line| accept(line))
    }

    /// True if such a line is on stderr by now.
    pub fn has_stderr(&self, accept: impl Fn(&str) -> bool) -> bool {
        self.output.lines.lock().unwrap().stderr.iter().any(|line| accept(line))
    }

    /// Waits until the reading end of stdout is closed, see [`Setup::head`].
    pub fn await_hang_up(&self) {
        let lines = self.output.lines.lock().unwrap();
        let waited = self.output.changed.wait_timeout_while(lines, *LINE, |lines| !lines.stdout_ended);
        assert!(waited.unwrap().0.stdout_ended, "stdout is still being read");
    }

    /// Waits for an event line. Every line read on the way must be grammatical.
    pub fn await_event(&self, what: &str, accept: impl Fn(&Line) -> bool) -> Line {
        let text = self.await_stdout(what, |text| accept(&parse(text)));
        parse(&text)
    }

    /// Waits for the event of this kind with this tuple and `dir=`.
    pub fn await_flow(&self, kind: Kind, direction: &str, tuple: crate::truth::Tuple) -> Line {
        self.await_event(&format!("{kind:?} dir={direction} {tuple}"), |line| {
            line.kind == kind && line.tuple() == tuple && line.key("dir") == Some(direction)
        })
    }

    /// Waits for a JSON object. Every line read on the way must be one.
    pub fn await_json(&self, what: &str, accept: impl Fn(&Value) -> bool) -> Value {
        let text = self.await_stdout(what, |text| accept(&parse_json(text)));
        parse_json(&text)
    }

    /// All event lines so far.
    pub fn events(&self) -> Vec<Line> {
        self.output.lines.lock().unwrap().stdout.iter().map(|text| parse(text)).collect()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("signal conntrace");
    }

    /// Ctrl-C, then [`Tracer::await_end`].
    pub fn stop(self) -> Ended {
        self.signal(Signal::SIGINT);
        self.await_end()
    }

    /// Types Ctrl-C on the terminal of [`Setup::on_terminal`].
    pub fn interrupt(&self) {
        self.terminal.as_ref().expect("a terminal").write_all(b"\x03").expect("type");
    }

    /// Waits for the end of the process and of its output.
    pub fn await_end(mut self) -> Ended {
        let (status, usage) = exit::await_exit(&mut self.child, *LINE);
        let lines = self.output.lines.lock().unwrap();
        let (lines, timeout) = self
            .output
            .changed
            .wait_timeout_while(lines, *LINE, |lines| !(lines.stdout_ended && lines.stderr_ended))
            .unwrap();
        assert!(!timeout.timed_out(), "something keeps conntrace's output open after its end");
        Ended {
            code: status.code(),
            signal: status.signal(),
            usage,
            stdout: lines.stdout.clone(),
            stderr: lines.stderr.iter().flat_map(|line| [line.as_str(), "\n"]).collect(),
        }
    }

    fn find(
        &self,
        stream: impl Fn(&Lines) -> (&Vec<String>, bool),
        accept: impl Fn(&str) -> bool,
    ) -> Result<String, String> {
        let deadline = Instant::now() + *LINE;
        let mut next = 0;
        let mut lines = self.output.lines.lock().unwrap();
        loop {
            let (seen, ended) = stream(&lines);
            // Judged without the lock: a panic in `accept` must leave the output readable.
            let fresh = seen[next..].to_vec();
            drop(lines);
            next += fresh.len();
            if let Some(line) = fresh.into_iter().find(|line| accept(line)) {
                return Ok(line);
            }
            if ended {
                return Err("conntrace ended without it".into());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("no such line in {:?}", *LINE));
            }
            let changed = |lines: &mut Lines| {
                let (seen, ended) = stream(lines);
                seen.len() == next && !ended
            };
            let guard = self.output.lines.lock().unwrap();
            lines = self.output.changed.wait_timeout_while(guard, left, changed).unwrap().0;
        }
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(directory) = self.copy.as_ref().and_then(|copy| copy.parent()) {
            let _ = fs::remove_dir_all(directory);
        }
        if thread::panicking()
            && let Ok(lines) = self.output.lines.lock()
            // The readers have a moment to come to the end.
            && let Ok((lines, _)) = self.output.changed.wait_timeout_while(lines, *START, |lines| {
                !(lines.stdout_ended && lines.stderr_ended)
            })
        {
            eprintln!("--- conntrace {}", self.args.join(" "));
            for (name, lines) in [("stdout", &lines.stdout), ("stderr", &lines.stderr)] {
                eprintln!("--- its {name}, {} lines, of which the last are", lines.len());
                for line in &lines[lines.len().saturating_sub(SHOWN)..] {
                    eprintln!("{line}");
                }
            }
            eprintln!("---");
        }
    }
}

impl Ended {
    /// Asserts an exit code and returns stderr.
    pub fn expect_code(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "{self:#?}");
        &self.stderr
    }

    /// Asserts success, and returns stderr as it is on a quiet host. The programs' failures are counted for the whole host,
    /// so the accounting may name some that other connections caused.
    pub fn expect_balance(&self) -> String {
        self.expect_code(0).lines().flat_map(|line| [without_failures(line), "\n".into()]).collect()
    }

    /// All event lines.
    pub fn events(&self) -> Vec<Line> {
        self.stdout.iter().map(|text| parse(text)).collect()
    }
}

/// An accounting as it is if no program failed, for whatever connection of the host. Other lines stay.
pub fn without_failures(line: &str) -> String {
    match line.split_once(": adds up, but the programs failed") {
        Some((accounting, _)) => format!("{accounting}: holds"),
        None => line.to_owned(),
    }
}

fn parse(text: &str) -> Line {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

fn parse_json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("not a JSON object: {error}: {text:?}"))
}

/// Reads lines on a thread of their own until the end or for `head` lines.
fn collect(
    output: &Arc<Output>,
    stream: impl Read + Send + 'static,
    head: usize,
    part: impl Fn(&mut Lines) -> (&mut Vec<String>, &mut bool) + Send + 'static,
) {
    let output = Arc::clone(output);
    thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        for _ in 0..head {
            let mut line = Vec::new();
            if reader.read_until(b'\n', &mut line).unwrap_or(0) == 0 {
                break;
            }
            let line = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
            part(&mut output.lines.lock().unwrap()).0.push(line);
            output.changed.notify_all();
        }
        drop(reader);
        *part(&mut output.lines.lock().unwrap()).1 = true;
        output.changed.notify_all();
    });
}

#[cfg(test)]
mod tests;
