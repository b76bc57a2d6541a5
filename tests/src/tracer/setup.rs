//! The program to start, its user, and its namespaces.

#![expect(unsafe_code, reason = "what a child does between fork and exec has no safe form")]

use super::{
    ARGUMENTS, Ended, Output, READY_FD, START, Tracer, collect,
    confinement::{Confinement, Container},
};
use nix::{
    fcntl::{FcntlArg, FdFlag, OFlag, fcntl},
    pty::{Winsize, openpty},
    unistd::{pipe2, setsid},
};
use std::{
    env,
    ffi::{CStr, CString},
    fs, io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{fs::PermissionsExt as _, process::CommandExt as _},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Instant,
};

/// What to start and how.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    args: Vec<String>,
    environment: Vec<(&'static str, String)>,
    program: Option<PathBuf>,
    confinement: Confinement,
    contained: bool,
    head: Option<usize>,
    file: Option<PathBuf>,
    terminal: Option<u16>,
}

impl Setup {
    /// Command-line arguments.
    pub fn new<A: ToString>(args: impl IntoIterator<Item = A>) -> Self {
        Self { args: args.into_iter().map(|arg| arg.to_string()).collect(), ..Self::default() }
    }

    /// More of them.
    #[must_use]
    pub fn arguments<A: ToString>(mut self, more: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(more.into_iter().map(|arg| arg.to_string()));
        self
    }

    /// A variable of its environment.
    #[must_use]
    pub fn variable(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.to_owned()));
        self
    }

    /// Another program instead of conntrace.
    #[must_use]
    pub fn program(mut self, path: impl Into<PathBuf>) -> Self {
        self.program = Some(path.into());
        self
    }

    /// Runs as the user `nobody`, without any privilege.
    #[must_use]
    pub fn unprivileged(self) -> Self {
        self.nobody_with(&[])
    }

    /// Runs as the user `nobody`, with these capabilities and without any other. It may not lock memory.
    #[must_use]
    pub fn nobody_with(mut self, capabilities: &[u8]) -> Self {
        self.confinement.capabilities = Some(capabilities.iter().fold(0, |all, bit| all | 1 << bit));
        self
    }

    /// May have no more open files than this, now or later.
    #[must_use]
    pub fn files(mut self, most: u64) -> Self {
        self.confinement.files = Some(most);
        self
    }

    /// Covers a directory with an empty one.
    #[must_use]
    pub fn without(self, directory: &Path) -> Self {
        self.mounting(c"tmpfs", directory)
    }

    /// Mounts a file system of this kind for it alone.
    #[must_use]
    pub fn mounting(mut self, kind: &'static CStr, directory: &Path) -> Self {
        let directory = CString::new(directory.to_str().expect("UTF-8")).expect("no NUL");
        self.confinement.mounts.push((kind, directory));
        self
    }

    /// Runs in a container: the network's namespace is the caller's, all others are new. It gets no signals.
    #[must_use]
    pub fn contained(mut self) -> Self {
        self.contained = true;
        self
    }

    /// Closes the reading end of stdout after this many lines, as `head -n` does.
    #[must_use]
    pub fn head(mut self, lines: usize) -> Self {
        self.head = Some(lines);
        self
    }

    /// Writes stdout to a new file instead of to this handle.
    #[must_use]
    pub fn stdout_to(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self
    }

    /// Runs on a terminal with this many columns. What the terminal shows arrives as stdout.
    #[must_use]
    pub fn on_terminal(mut self, columns: u16) -> Self {
        self.terminal = Some(columns);
        self
    }

    /// Starts conntrace in the namespace of the calling thread and returns at once.
    pub fn spawn(mut self) -> Tracer {
        let more = env::var(ARGUMENTS).unwrap_or_default();
        let more = more.split_ascii_whitespace().filter(|_| self.program.is_none());
        let program = self.program.clone().unwrap_or_else(binary);
        let copied = self.contained || self.confinement.capabilities.is_some();
        let copy = copied.then(|| public_copy(&program));
        let mut program = copy.clone().unwrap_or(program);
        if let Some(root) = copy.as_ref().and_then(|copy| copy.parent()).filter(|_| self.contained) {
            self.confinement.container = Some(Container::new(root).expect("a container"));
            program = Path::new("/").join(program.file_name().expect("a name"));
        }
        let (ready, signal) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        let mut command = Command::new(&program);
        command
            .args(&self.args)
            .args(more)
            .envs(self.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(path) = &self.file {
            command.stdout(fs::File::create(path).expect("a new file"));
        }
        let terminal = self.terminal.map(|columns| terminal(columns, &mut command));
        command.env(READY_FD, signal.as_raw_fd().to_string());
        let inherited = signal.as_raw_fd();
        let confinement = self.confinement;
        // SAFETY: async-signal-safe calls only, on a descriptor that is open until after the fork.
        unsafe {
            command.pre_exec(move || {
                // Background jobs of a shell begin with SIGINT ignored, and hand that down; a shell that
                // begins so cannot even trap it.
                for signal in [libc::SIGINT, libc::SIGTERM] {
                    if libc::signal(signal, libc::SIG_DFL) == libc::SIG_ERR {
                        return Err(io::Error::last_os_error());
                    }
                }
                // Only this child keeps it; other processes forked meanwhile see O_CLOEXEC.
                if libc::fcntl(inherited, libc::F_SETFD, 0) != 0 {
                    return Err(io::Error::last_os_error());
                }
                confinement.enter()
            });
        }
        let deadline = Instant::now() + *START;
        let mut child = loop {
            match command.spawn() {
                Ok(child) => break child,
                // Another test has forked while the copy was written; its child lets go of it soon.
                Err(error)
                    if error.kind() == io::ErrorKind::ExecutableFileBusy && Instant::now() < deadline =>
                {
                    thread::yield_now();
                }
                Err(error) => panic!("start {command:?}: {error}"),
            }
        };
        drop(signal);

        let output = Arc::new(Output::default());
        // The command holds copies of the terminal, whose reader would wait for them.
        drop(command);
        let head = self.head.unwrap_or(usize::MAX);
        let screen = terminal.as_ref().map(|terminal| terminal.try_clone().expect("another handle"));
        let out = child.stdout.take().map(OwnedFd::from).or(screen.map(OwnedFd::from)).map(fs::File::from);
        match out {
            Some(out) => collect(&output, out, head, |lines| (&mut lines.stdout, &mut lines.stdout_ended)),
            None => output.lines.lock().unwrap().stdout_ended = true,
        }
        match child.stderr.take() {
            Some(err) => {
                collect(&output, err, usize::MAX, |lines| (&mut lines.stderr, &mut lines.stderr_ended));
            }
            None => output.lines.lock().unwrap().stderr_ended = true,
        }
        Tracer { child, args: self.args, output, ready, copy, terminal }
    }

    /// Starts conntrace and waits until all its programs are attached.
    pub fn start(self) -> Tracer {
        let tracer = self.spawn();
        tracer.await_ready();
        tracer
    }

    /// Runs conntrace to its end.
    pub fn run(self) -> Ended {
        self.spawn().await_end()
    }
}

/// The program under test.
pub fn binary() -> PathBuf {
    if let Some(path) = env::var_os("CONNTRACE_BIN") {
        return path.into();
    }
    // target/<profile>/deps/<this test>
    let own = env::current_exe().expect("this program's path");
    let found = own.parent().and_then(Path::parent).map(|profile| profile.join("conntrace"));
    found.filter(|path| path.exists()).unwrap_or_else(|| {
        panic!("no conntrace beside {}: run `cargo xtask test`, or set CONNTRACE_BIN", own.display())
    })
}

/// Makes a terminal that the command controls, and returns the other end.
fn terminal(columns: u16, command: &mut Command) -> fs::File {
    let size = Winsize { ws_row: 50, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let pair = openpty(&size, None).expect("a terminal");
    for end in [&pair.master, &pair.slave] {
        fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).expect("close-on-exec");
    }
    let slave = fs::File::from(pair.slave);
    let end = || slave.try_clone().expect("another handle");
    command.stdin(end()).stdout(end()).stderr(end());
    // SAFETY: async-signal-safe calls only; stdin is the terminal by then.
    unsafe {
        command.pre_exec(|| {
            setsid()?;
            match libc::ioctl(0, libc::TIOCSCTTY, 0) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        });
    }
    fs::File::from(pair.master)
}

/// A copy of the program in a directory that every user may enter.
fn public_copy(program: &Path) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("conn-tests-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let directory = env::temp_dir().join(name);
    fs::create_dir(&directory).expect("a new directory");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).expect("permissions");
    let copy = directory.join("conntrace");
    fs::copy(program, &copy).unwrap_or_else(|error| panic!("copy {}: {error}", program.display()));
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("permissions");
    copy
}
