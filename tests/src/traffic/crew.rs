//! Processes that serve and call, and say who they are: the truth about owners from the owners themselves.
//! Whoever accepts a connection introduces itself through it, so that its client knows.

use super::{
    LIMIT,
    process::Process,
    socket::{Server, await_end, connect, tuple_of},
};
use crate::truth::Tuple;
use nix::unistd::{getpid, gettid};
use socket2::Socket;
use std::{
    fs,
    io::{Read as _, Write as _},
    net::SocketAddr,
    os::{
        fd::{AsRawFd as _, RawFd},
        unix::net::UnixStream,
    },
    sync::LazyLock,
    time::Duration,
};

/// A thread, as the kernel knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Who {
    /// Its process.
    pub pid: u32,
    /// Itself.
    pub tid: u32,
    /// Its name, with zeros behind it.
    pub name: [u8; 16],
}

/// Bytes of an introduction.
const LEN: usize = 24;

impl Who {
    /// The calling thread.
    pub fn am_i() -> Self {
        let mut name = [0_u8; 16];
        // SAFETY: the kernel writes 16 bytes at most.
        unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
        Self { pid: getpid().as_raw().cast_unsigned(), tid: gettid().as_raw().cast_unsigned(), name }
    }

    /// Its name as text.
    pub fn thread(&self) -> String {
        String::from_utf8_lossy(&self.name).trim_end_matches('\0').to_owned()
    }

    fn to_bytes(self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[..4].copy_from_slice(&self.pid.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.tid.to_ne_bytes());
        bytes[8..].copy_from_slice(&self.name);
        bytes
    }

    fn from_bytes(bytes: [u8; LEN]) -> Self {
        let [p0, p1, p2, p3, t0, t1, t2, t3, name @ ..] = bytes;
        Self { pid: u32::from_ne_bytes([p0, p1, p2, p3]), tid: u32::from_ne_bytes([t0, t1, t2, t3]), name }
    }

    /// Learns who accepted a connection.
    ///
    /// # Panics
    /// When nobody says so.
    pub fn accepted(mut connected: &Socket) -> Self {
        let mut bytes = [0; LEN];
        connected.read_exact(&mut bytes).expect("an introduction");
        Self::from_bytes(bytes)
    }

    /// Says through a connection who accepted it.
    ///
    /// # Errors
    /// The client is gone.
    pub fn introduce(self, mut accepted: &Socket) -> std::io::Result<()> {
        accepted.write_all(&self.to_bytes())
    }
}

/// The name of a process, as the kernel has it.
pub fn process_name() -> String {
    fs::read_to_string("/proc/self/comm").expect("a name").trim_end().to_owned()
}

/// How long a worker waits for a test, which may be starting a tracer on a busy machine.
static LONG_LIMIT: LazyLock<Duration> = LazyLock::new(|| LIMIT.saturating_mul(9));

/// Accepts, introduces itself and waits for the client's end, again and again until it is killed.
pub fn serve(server: &Server) {
    set_long_timeout(&server.socket);
    loop {
        let accepted = server.accept();
        set_long_timeout(&accepted);
        Who::am_i().introduce(&accepted).expect("the client waits");
        await_end(&accepted);
    }
}

/// Lets a socket wait for as long as a worker does.
pub fn set_long_timeout(socket: &Socket) {
    socket.set_read_timeout(Some(*LONG_LIMIT)).expect("a timeout");
}

/// A connection to a server of this module.
#[derive(Debug)]
pub struct Call {
    /// The client's end.
    pub socket: Socket,
    /// The addresses.
    pub tuple: Tuple,
    /// Who called.
    pub caller: Who,
    /// Who accepted.
    pub acceptor: Who,
}

/// Connects, and learns who accepted.
pub fn call(server: SocketAddr) -> Call {
    called(connect(server))
}

/// Learns who accepted what was connected.
pub fn called(socket: Socket) -> Call {
    let acceptor = Who::accepted(&socket);
    Call { tuple: tuple_of(&socket), caller: Who::am_i(), acceptor, socket }
}

/// A connection that a worker tells of: the client's port, and both owners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Told {
    /// The address that was called. Its port is the test's, so it is not told.
    pub server: [u8; 4],
    /// The client's port.
    pub client: u16,
    /// Who called.
    pub caller: Who,
    /// Who accepted.
    pub acceptor: Who,
}

const TOLD_LEN: usize = 6 + 2 * LEN;

impl Told {
    /// What a caller tells of a call by IPv4.
    ///
    /// # Panics
    /// For another family.
    pub fn of(call: &Call) -> Self {
        let SocketAddr::V4(server) = call.tuple.server else { panic!("{} is not IPv4", call.tuple) };
        Self {
            server: server.ip().octets(),
            client: call.tuple.client.port(),
            caller: call.caller,
            acceptor: call.acceptor,
        }
    }

    fn to_bytes(self) -> [u8; TOLD_LEN] {
        let mut bytes = [0; TOLD_LEN];
        bytes[..4].copy_from_slice(&self.server);
        bytes[4..6].copy_from_slice(&self.client.to_ne_bytes());
        bytes[6..6 + LEN].copy_from_slice(&self.caller.to_bytes());
        bytes[6 + LEN..].copy_from_slice(&self.acceptor.to_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; TOLD_LEN]) -> Self {
        let who = |at: usize| Who::from_bytes(bytes[at..at + LEN].try_into().expect("24 bytes"));
        Self {
            server: [bytes[0], bytes[1], bytes[2], bytes[3]],
            client: u16::from_ne_bytes([bytes[4], bytes[5]]),
            caller: who(6),
            acceptor: who(6 + LEN),
        }
    }
}

/// A process of its own with a line to the test. Killed when dropped.
#[derive(Debug)]
pub struct Worker {
    process: Process,
    line: UnixStream,
}

/// The worker's end of the line.
#[derive(Debug)]
pub struct Line(UnixStream);

impl Worker {
    /// Forks. The child runs `job` under the name `name`, with no descriptors but stdio, `kept` and the line.
    pub fn start(name: &str, kept: &[RawFd], job: impl FnOnce(&Line)) -> Self {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        ours.set_read_timeout(Some(*LONG_LIMIT)).expect("a timeout");
        let kept = [kept, &[theirs.as_raw_fd()]].concat();
        let theirs = Line(theirs);
        Self { process: Process::run(name, &kept, || job(&theirs)), line: ours }
    }

    /// A worker that listens by itself and serves; returns when it listens.
    pub fn server(name: &str, listen: impl FnOnce() -> Server) -> Self {
        let worker = Self::start(name, &[], |line| {
            let server = listen();
            line.ready();
            serve(&server);
        });
        worker.await_ready();
        worker
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Waits for [`Line::ready`].
    ///
    /// # Panics
    /// When the worker ends without it.
    pub fn await_ready(&self) {
        (&self.line).read_exact(&mut [0]).expect("the worker is ready");
    }

    /// Lets a worker go on that waits in [`Line::wait`].
    ///
    /// # Panics
    /// When it is gone.
    pub fn go_on(&self) {
        (&self.line).write_all(b"!").expect("the worker lives");
    }

    /// Waits for the next call that the worker tells of.
    ///
    /// # Panics
    /// When none comes.
    pub fn told(&self) -> Told {
        let mut bytes = [0; TOLD_LEN];
        (&self.line).read_exact(&mut bytes).expect("a call");
        Told::from_bytes(&bytes)
    }

    /// All that the worker tells until it ends well.
    ///
    /// # Panics
    /// When it does not.
    pub fn join(self) -> Vec<Told> {
        let mut bytes = Vec::new();
        (&self.line).read_to_end(&mut bytes).expect("all calls");
        self.process.join();
        let (told, rest) = bytes.as_chunks();
        assert!(rest.is_empty(), "half a call");
        told.iter().map(Told::from_bytes).collect()
    }
}

impl Line {
    /// Says that the worker is where the test wants it.
    pub fn ready(&self) {
        (&self.0).write_all(b".").expect("the test listens");
    }

    /// Tells of calls.
    pub fn tell(&self, calls: &[Told]) {
        let bytes: Vec<u8> = calls.iter().flat_map(|call| call.to_bytes()).collect();
        (&self.0).write_all(&bytes).expect("the test listens");
    }

    /// Waits for [`Worker::go_on`].
    pub fn wait(&self) {
        (&self.0).read_exact(&mut [0]).expect("the test lives");
    }
}
