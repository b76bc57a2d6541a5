//! Readers that do not read: of standard output, of standard error, and none at all.

use conn_tests::{
    flood::{Ending, Flood},
    harness::{Outcome, tool},
    host::Host,
    needs_tracing,
    port::Port,
    tracer::{Ended, Setup, Tracer, binary},
    traffic::close::{self, First},
};
use macro_rules_attribute::apply;
use nix::{
    fcntl::{FcntlArg, fcntl},
    sys::{signal::Signal, stat::Mode},
    unistd::mkfifo,
};
use std::{
    fs::{self, File},
    io::Read as _,
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

/// How long an end may take on a busy machine. An unread pipe takes 0.7 s of it.
const AT_ONCE: Duration = Duration::from_secs(6);

/// The commands that run here, with arguments that make them end soon. No connection of the host has the port, so they
/// have as much to print whatever else runs.
const COMMANDS: [&str; 5] = [
    "list --dport 1",
    "count --dport 1",
    "events -vv --timeout 300ms --dport 1",
    "life --timeout 300ms --dport 1",
    "stats --timeout 300ms --dport 1",
];

/// A shell that runs conntrace with a redirection.
fn shell(arguments: &str, redirection: &str) -> Setup {
    let command = format!("exec {} {arguments} {redirection}", binary().display());
    Setup::new(["-c", &command]).program("/bin/sh")
}

/// A pipe that holds one page, whose reading end is open and not read.
struct Unread {
    path: PathBuf,
    reader: File,
}

impl Unread {
    fn new(port: &Port) -> Self {
        let path = std::env::temp_dir().join(format!("conn-tests-unread-{}-{port}", std::process::id()));
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        let reader = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
        fcntl(&reader, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
        Self { path, reader }
    }

    /// Starts conntrace in front of this pipe.
    fn start(&self, arguments: &str) -> Tracer {
        shell(arguments, &format!(">{}", self.path.display())).start()
    }

    /// The number of lines in the pipe, all of which are whole.
    fn lines(mut self) -> usize {
        let mut text = String::new();
        self.reader.read_to_string(&mut text).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'), "half a line: {text}");
        text.lines().count()
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// The number behind a word of the accounting.
fn number(ended: &Ended, word: &str) -> usize {
    let line = ended.stderr.lines().find(|line| line.contains("produced ")).unwrap();
    let mut words = line.split([' ', ':']).skip_while(|found| *found != word);
    words.nth(1).map_or(0, |number| number.parse().unwrap())
}

/// Checks that every event is in the pipe or accounted for as not written.
fn check(ended: &Ended, pipe: Unread, begin: Instant) {
    assert!(begin.elapsed() < AT_ONCE, "{:?}: {ended:#?}", begin.elapsed());
    assert!(ended.expect_balance().contains(": holds"), "{ended:#?}");
    assert_eq!(pipe.lines(), number(ended, "shown"), "{ended:#?}");
    let unwritten = number(ended, "unwritten");
    assert!(unwritten > 0 && ended.stderr.contains("were not written"), "{ended:#?}");
}

#[apply(needs_tracing)]
fn an_unread_pipe_stops_no_signal(_: &Host) -> Outcome {
    tool("/bin/sh")?;
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let port = Port::claim();
        let pipe = Unread::new(&port);
        let tracer = pipe.start(&format!("events --dport {port}"));
        let made = close::orderly(port.v4(), 50, First::Client);
        let begin = Instant::now();
        tracer.signal(signal);
        let ended = tracer.await_end();
        // Beginning, handshake and end of both ends are there, whether the pipe took them or not.
        assert!(number(&ended, "produced") >= made.tuples.len() * 6, "{ended:#?}");
        check(&ended, pipe, begin);
    }
    Ok(())
}

#[apply(needs_tracing)]
fn an_unread_pipe_stops_no_deadline(_: &Host) -> Outcome {
    tool("/bin/sh")?;
    let port = Port::claim();
    let pipe = Unread::new(&port);
    let tracer = pipe.start(&format!("events -o json --dport {port} --timeout 3s"));
    let begin = Instant::now();
    close::orderly(port.v4(), 20, First::Client);
    check(&tracer.await_end(), pipe, begin);
    Ok(())
}

#[apply(needs_tracing)]
fn an_unread_pipe_stops_no_count(_: &Host) -> Outcome {
    tool("/bin/sh")?;
    let port = Port::claim();
    let pipe = Unread::new(&port);
    let tracer = pipe.start(&format!("events -o json --dport {port} --count 60"));
    let begin = Instant::now();
    close::orderly(port.v4(), 20, First::Client);
    let ended = tracer.await_end();
    assert_eq!(number(&ended, "shown") + number(&ended, "unwritten"), 60, "{ended:#?}");
    check(&ended, pipe, begin);
    Ok(())
}

#[apply(needs_tracing)]
fn an_unread_pipe_stops_no_reports(_: &Host) -> Outcome {
    tool("/bin/sh")?;
    let port = Port::claim();
    let pipe = Unread::new(&port);
    let begin = Instant::now();
    let ended = pipe.start("stats -o json --interval 100ms --timeout 3s").await_end();
    assert!(begin.elapsed() < AT_ONCE + Duration::from_secs(6), "{:?}", begin.elapsed());
    assert!(ended.expect_code(0).contains("reports were not written"), "{ended:#?}");
    Ok(())
}

/// The most memory that a process has used, bytes.
fn peak_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// What an unread pipe, a slow reader and a fast one must not exceed: the ring, four times as much text, and the program
/// itself, with room for a build without optimisation.
const MAX_MEMORY: u64 = 160 << 20;

#[apply(needs_tracing)]
fn a_flood_delays_no_signal_and_takes_no_memory(_: &Host) -> Outcome {
    tool("/bin/sh")?;
    for (arguments, redirection) in [
        ("events -o json", ">/dev/null"),
        ("life --top 5", ">/dev/null"),
        ("stats --interval 100ms -o json", ">/dev/null"),
    ] {
        let tracer = shell(arguments, redirection).start();
        let port = Port::claim();
        let flood = Flood::new(port.number(), u64::MAX, Ending::Mixed).start();
        while flood.made() < 20_000 {
            thread::sleep(Duration::from_millis(5));
        }
        let memory = peak_memory(tracer.pid());
        let begin = Instant::now();
        tracer.signal(Signal::SIGINT);
        let ended = tracer.await_end();
        let took = begin.elapsed();
        flood.stop();
        println!("{arguments}: ended after {took:?}, at most {} MiB", memory >> 20);
        assert!(took < AT_ONCE, "{arguments}: {took:?}");
        assert_eq!(ended.code, Some(0), "{arguments}");
        assert!(memory < MAX_MEMORY, "{arguments}: {memory}");
    }
    Ok(())
}

#[apply(needs_tracing)]
fn errors_of_standard_error_are_ignored(_: &Host) -> Outcome {
    tool("/bin/sh")?;
    for redirection in ["2>/dev/full", "2>&-"] {
        for command in COMMANDS {
            let ended = shell(command, redirection).run();
            assert_eq!((ended.code, ended.signal), (Some(0), None), "{command} {redirection}: {ended:#?}");
        }
        for command in ["help", "help filters", "completions bash", "--help", "-h", "--version"] {
            let ended = shell(command, redirection).run();
            assert_eq!(ended.code, Some(0), "{command} {redirection}: {ended:#?}");
        }
        let doctor = shell("doctor", redirection).run();
        assert!(doctor.code.is_some_and(|code| code < 2), "doctor {redirection}: {doctor:#?}");
        let usage = shell("--no-such-option", redirection).run();
        assert_eq!(usage.code, Some(2), "{usage:#?}");
    }
    Ok(())
}

#[apply(needs_tracing)]
fn a_closed_standard_output_is_an_error(_: &Host) -> Outcome {
    tool("/bin/sh")?;
    for command in COMMANDS.into_iter().chain([
        "doctor",
        "help",
        "help filters",
        "completions bash",
        "--version",
        "--help",
        "-h",
    ]) {
        let ended = shell(command, ">&-").run();
        assert!(ended.expect_code(1).contains("standard output"), "{command}: {ended:#?}");
    }
    Ok(())
}
