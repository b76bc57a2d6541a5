//! Descriptors that change between a look and the use of a path.

use conn_tests::{
    attack::{Attacker, may_attack, namespaces},
    harness::Outcome,
    host::Host,
    needs_whole_machine, timeout,
    tracer::Setup,
};
use macro_rules_attribute::apply;
use nix::{
    fcntl::{OFlag, open},
    sys::stat::Mode,
    unistd::mkfifo,
};
use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process, thread,
    time::{Duration, Instant},
};

/// Runs beside descriptors that change.
const RUNS: usize = 5;

/// A pipe that only root may read, in a directory that every user may pass.
struct Pipe(PathBuf);

impl Pipe {
    fn new() -> Self {
        let directory = env::temp_dir().join(format!("conn-tests-pipe-{}", process::id()));
        fs::create_dir_all(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o711)).unwrap();
        mkfifo(&directory.join("pipe"), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        Self(directory)
    }

    fn path(&self) -> PathBuf {
        self.0.join("pipe")
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Whether a process has a pipe open for reading, or waits in opening it.
pub(crate) fn has_reader(pipe: &Path) -> bool {
    open(pipe, OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC, Mode::empty()).is_ok()
}

/// Descriptors are a namespace when they are looked at, and a pipe of root's when they are opened.
#[apply(needs_whole_machine)]
fn changing_descriptors_lead_nowhere(_: &Host) -> Outcome {
    may_attack()?;
    let pipe = Pipe::new();
    let path = pipe.path();
    let attacker = Attacker::start("conn-flip", |line| namespaces::flip(line, &path));
    attacker.await_ready();
    let mut hung = 0;
    for _ in 0..RUNS {
        let arguments = ["stats", "-o", "json", "--interval", "200ms", "--timeout", "1500ms"];
        let tracer = Setup::new(arguments).spawn();
        // A hanging process is released by a writer.
        let began = Instant::now();
        let limit = timeout::seconds(10);
        let mut opened = false;
        while fs::metadata(format!("/proc/{}/exe", tracer.pid())).is_ok() && began.elapsed() < limit {
            if has_reader(&path) {
                opened = true;
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        hung += usize::from(opened);
        if !opened {
            tracer.await_end().expect_code(0);
        }
    }
    println!("flip: root opened the pipe in {hung} of {RUNS} runs");
    assert_eq!(hung, 0);
    drop(attacker);
    Ok(())
}
