//! A `conntrace serve` with a socket of its own, and requests to it without any library of HTTP.

#![expect(unsafe_code, reason = "a thread becomes another user by raw system calls")]

use crate::{
    timeout,
    tracer::{Ended, Setup, Tracer},
};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::{
    env, fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    panic,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

/// The user `nobody`, and the group whose members may ask the daemon.
pub const NOBODY: u32 = 65534;

/// A daemon. Its directory is removed with it.
#[derive(Debug)]
pub struct Daemon {
    directory: PathBuf,
    tracer: Option<Tracer>,
}

/// An answer as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The lines of the head, in lower case.
    pub head: Vec<String>,
    /// The body.
    pub body: String,
}

/// An answer that goes on.
#[derive(Debug)]
pub struct Stream {
    reader: BufReader<UnixStream>,
    /// The status.
    pub status: u16,
    /// The lines of the head, in lower case.
    pub head: Vec<String>,
}

impl Daemon {
    /// Starts a daemon that pins nothing, and waits until it answers.
    pub fn start() -> Self {
        Self::with(&["--transient"])
    }

    /// Starts a daemon with these options.
    pub fn with(options: &[&str]) -> Self {
        Self::setup(|setup| setup.arguments(options))
    }

    /// Starts a daemon that pins nothing, with a variable in its environment.
    pub fn with_variable(name: &'static str, value: &str) -> Self {
        Self::setup(|setup| setup.arguments(["--transient"]).variable(name, value))
    }

    fn setup(change: impl FnOnce(Setup) -> Setup) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("conn-daemon-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = env::temp_dir().join(name);
        fs::create_dir(&directory).expect("a new directory");
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).expect("permissions");
        let mut daemon = Self { directory, tracer: None };
        let setup =
            Setup::new(["serve", "--socket", daemon.socket().to_str().expect("UTF-8"), "--group", "65534"]);
        daemon.tracer = Some(change(setup).start());
        daemon
    }

    /// The path of its socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("s")
    }

    /// The process.
    pub fn tracer(&self) -> &Tracer {
        self.tracer.as_ref().expect("it runs")
    }

    /// Options of a command that asks it.
    pub fn option(&self) -> String {
        format!("--daemon={}", self.socket().display())
    }

    /// The process that speaks to clients.
    pub fn front(&self) -> u32 {
        Self::front_of(self.tracer().pid())
    }

    /// The process that speaks to the clients of the daemon with this process id.
    pub fn front_of(pid: u32) -> u32 {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("children");
        let is_front = |child: &&str| {
            let line = fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
            line.split(|&byte| byte == 0).nth(1) == Some(b"front")
        };
        children.split_ascii_whitespace().find(is_front).expect("a front").parse().expect("a number")
    }

    /// A connection.
    pub fn connect(&self) -> UnixStream {
        connect(&self.socket()).expect("connect")
    }

    /// Asks, and reads all of the answer.
    pub fn get(&self, target: &str) -> Answer {
        get(&self.socket(), target).expect("an answer")
    }

    /// Asks, expects success, and reads the answer as JSON.
    pub fn json(&self, target: &str) -> Value {
        let answer = self.get(target);
        assert_eq!(answer.status, 200, "{answer:?}");
        serde_json::from_str(&answer.body).expect("JSON")
    }

    /// Asks, and reads the head of the answer.
    pub fn stream(&self, target: &str) -> Stream {
        Stream::of(self.connect(), target).expect("a head")
    }

    /// Ends it by a signal.
    pub fn end(mut self, signal: Signal) -> Ended {
        let tracer = self.tracer.take().expect("it runs");
        tracer.signal(signal);
        tracer.await_end()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.tracer.take());
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn connect(socket: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(timeout::seconds(40)))?;
    Ok(stream)
}

/// Asks the daemon with this socket, and reads all of the answer.
///
/// # Errors
/// It cannot be reached, or gives no answer.
pub fn get(socket: &Path, target: &str) -> io::Result<Answer> {
    let mut stream = Stream::of(connect(socket)?, target)?;
    let body = stream.rest()?;
    Ok(Answer { status: stream.status, head: stream.head, body })
}

impl Stream {
    /// Sends a request, and reads the head of the answer.
    ///
    /// # Errors
    /// The daemon closes the connection before.
    pub fn of(mut stream: UnixStream, target: &str) -> io::Result<Self> {
        write!(stream, "GET {target} HTTP/1.1\r\nhost: conntrace\r\nconnection: close\r\n\r\n")?;
        let mut reader = BufReader::new(stream);
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match line.trim_end() {
                "" => break,
                line => head.push(line.to_ascii_lowercase()),
            }
        }
        let status = head.first().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        Ok(Self { reader, status: status.ok_or(io::ErrorKind::InvalidData)?, head })
    }

    fn is_chunked(&self) -> bool {
        self.head.iter().any(|line| line == "transfer-encoding: chunked")
    }

    /// The next chunk of the body; empty at its end.
    ///
    /// # Errors
    /// The body is cut.
    pub fn chunk(&mut self) -> io::Result<String> {
        let mut size = String::new();
        self.reader.read_line(&mut size)?;
        let size = usize::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
        let mut chunk = vec![0; size + 2];
        self.reader.read_exact(&mut chunk)?;
        chunk.truncate(size);
        String::from_utf8(chunk).map_err(io::Error::other)
    }

    /// The rest of the body.
    ///
    /// # Errors
    /// The body is cut.
    pub fn rest(&mut self) -> io::Result<String> {
        let mut body = String::new();
        if !self.is_chunked() {
            self.reader.read_to_string(&mut body)?;
            return Ok(body);
        }
        loop {
            match self.chunk()? {
                chunk if chunk.is_empty() => return Ok(body),
                chunk => body += &chunk,
            }
        }
    }

    /// The body until it has so many lines.
    pub fn lines(&mut self, count: usize) -> Vec<String> {
        let mut body = String::new();
        while body.matches('\n').count() < count {
            body += &self.chunk().expect("lines");
        }
        body.lines().map(str::to_owned).collect()
    }
}

/// Runs a function as this user, on a thread of its own. Groups are those of the process.
pub fn as_user<T: Send + 'static>(uid: u32, gid: u32, work: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = thread::spawn(move || {
        // SAFETY: the raw system calls change this thread alone, which ends after the work.
        let done = unsafe {
            libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<u32>())
                | libc::syscall(libc::SYS_setresgid, gid, gid, gid)
                | libc::syscall(libc::SYS_setresuid, uid, uid, uid)
        };
        assert_eq!(done, 0, "become user {uid}: {}", io::Error::last_os_error());
        work()
    });
    thread.join().unwrap_or_else(|failure| panic::resume_unwind(failure))
}

/// Waits until the daemon has closed a connection, and returns what it wrote before.
///
/// # Errors
/// It keeps the connection open.
pub fn await_close(mut stream: UnixStream, limit: Duration) -> io::Result<String> {
    stream.set_read_timeout(Some(limit))?;
    let mut text = Vec::new();
    match stream.read_to_end(&mut text) {
        Err(error) if error.kind() != io::ErrorKind::ConnectionReset => Err(error),
        _ => Ok(String::from_utf8_lossy(&text).into_owned()),
    }
}
