//! Worker processes that serve and call: the ground truth about owners. An acceptor announces itself through the
//! connection, so that the client knows the acceptor.

#![expect(unsafe_code, reason = "a child of fork has no safe form")]

use super::{
    LIMIT,
    process::Process,
    socket::{Server, await_end, connect, tuple_of},
};
use crate::truth::{Truth, Tuple};
use nix::unistd::{getpid, gettid};
use socket2::Socket;
use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    os::{
        fd::{AsRawFd as _, RawFd},
        unix::net::UnixStream,
    },
    sync::LazyLock,
    time::Duration,
};

/// A thread by its ids and its name in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    /// Its process.
    pub pid: u32,
    /// Itself.
    pub tid: u32,
    /// Its name, with zeros behind it.
    pub name: [u8; 16],
}

/// Bytes of an announcement.
const LEN: usize = 24;

impl Owner {
    /// No thread.
    const NONE: Self = Self { pid: 0, tid: 0, name: [0; 16] };

    /// The calling thread.
    pub fn current() -> Self {
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

    /// Reads the acceptor's announcement from a connection.
    ///
    /// # Panics
    /// No announcement comes.
    pub fn of_acceptor(mut connected: &Socket) -> Self {
        let mut bytes = [0; LEN];
        connected.read_exact(&mut bytes).expect("an announcement");
        Self::from_bytes(bytes)
    }

    /// Announces this thread to the client as the acceptor.
    ///
    /// # Errors
    /// The client is gone.
    pub fn announce(self, mut accepted: &Socket) -> std::io::Result<()> {
        accepted.write_all(&self.to_bytes())
    }
}

/// The name of a process, as the kernel has it.
pub fn process_name() -> String {
    fs::read_to_string("/proc/self/comm").expect("a name").trim_end().to_owned()
}

/// How long a worker waits for a test, which may be starting a tracer on a busy machine.
static LONG_LIMIT: LazyLock<Duration> = LazyLock::new(|| LIMIT.saturating_mul(9));

/// Accepts, announces itself and waits for the client's end, again and again until it is killed.
pub fn serve(server: &Server) {
    set_long_timeout(&server.socket);
    loop {
        let accepted = server.accept();
        set_long_timeout(&accepted);
        Owner::current().announce(&accepted).expect("the client waits");
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
    /// The thread that called.
    pub caller: Owner,
    /// The thread that accepted.
    pub acceptor: Owner,
}

/// Connects, and reads the acceptor.
pub fn call(server: SocketAddr) -> Call {
    called(connect(server))
}

/// Reads the acceptor of a connected socket.
pub fn called(socket: Socket) -> Call {
    let acceptor = Owner::of_acceptor(&socket);
    Call { tuple: tuple_of(&socket), caller: Owner::current(), acceptor, socket }
}

/// A worker's report of one connection: the client's port, and both owners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallReport {
    /// The address that was called. The test chose its port, so the report omits the port.
    pub server: [u8; 4],
    /// The client's port.
    pub client: u16,
    /// The thread that called.
    pub caller: Owner,
    /// The thread that accepted.
    pub acceptor: Owner,
}

const REPORT_LEN: usize = 6 + 2 * LEN;

impl CallReport {
    /// A report without facts.
    pub const NONE: Self = Self { server: [0; 4], client: 0, caller: Owner::NONE, acceptor: Owner::NONE };

    /// The caller's report of a call by IPv4.
    ///
    /// # Panics
    /// For another family.
    pub fn new(call: &Call) -> Self {
        let SocketAddr::V4(server) = call.tuple.server else { panic!("{} is not IPv4", call.tuple) };
        Self {
            server: server.ip().octets(),
            client: call.tuple.client.port(),
            caller: call.caller,
            acceptor: call.acceptor,
        }
    }

    fn to_bytes(self) -> [u8; REPORT_LEN] {
        let mut bytes = [0; REPORT_LEN];
        bytes[..4].copy_from_slice(&self.server);
        bytes[4..6].copy_from_slice(&self.client.to_ne_bytes());
        bytes[6..6 + LEN].copy_from_slice(&self.caller.to_bytes());
        bytes[6 + LEN..].copy_from_slice(&self.acceptor.to_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; REPORT_LEN]) -> Self {
        let owner = |at: usize| Owner::from_bytes(bytes[at..at + LEN].try_into().expect("24 bytes"));
        Self {
            server: [bytes[0], bytes[1], bytes[2], bytes[3]],
            client: u16::from_ne_bytes([bytes[4], bytes[5]]),
            caller: owner(6),
            acceptor: owner(6 + LEN),
        }
    }
}

/// What calls to a server of this module did, once both ends have closed.
pub fn truth_of(reports: &[CallReport], port: u16) -> Truth {
    let mut truth = Truth::default();
    for report in reports {
        let client = SocketAddr::from((Ipv4Addr::LOCALHOST, report.client));
        truth.whole(Tuple::new(client, SocketAddr::from((Ipv4Addr::from(report.server), port))));
        truth.payload(port, 0, LEN as u64);
    }
    truth
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

    /// Waits for [`Line::ready`] for so long.
    ///
    /// # Panics
    /// When the worker ends without it, or does not come there in time.
    pub fn await_ready_for(&self, limit: Duration) {
        self.line.set_read_timeout(Some(limit)).expect("a timeout");
        self.await_ready();
        self.line.set_read_timeout(Some(*LONG_LIMIT)).expect("a timeout");
    }

    /// Waits for [`Line::ready`].
    ///
    /// # Panics
    /// When the worker ends without it.
    pub fn await_ready(&self) {
        (&self.line).read_exact(&mut [0]).expect("the worker is ready");
    }

    /// Resumes a worker that waits in [`Line::wait`].
    ///
    /// # Panics
    /// When it is gone.
    pub fn resume(&self) {
        (&self.line).write_all(b"!").expect("the worker lives");
    }

    /// Waits for the worker's next report.
    ///
    /// # Panics
    /// When none comes.
    pub fn next_report(&self) -> CallReport {
        let mut bytes = [0; REPORT_LEN];
        (&self.line).read_exact(&mut bytes).expect("a call");
        CallReport::from_bytes(&bytes)
    }

    /// All reports of the worker until it ends well.
    ///
    /// # Panics
    /// When it does not.
    pub fn join(self) -> Vec<CallReport> {
        let mut bytes = Vec::new();
        (&self.line).read_to_end(&mut bytes).expect("all calls");
        self.process.join();
        let (reports, rest) = bytes.as_chunks();
        assert!(rest.is_empty(), "half a call");
        reports.iter().map(CallReport::from_bytes).collect()
    }
}

impl Line {
    /// Reports that the worker has reached its place in the test.
    pub fn ready(&self) {
        (&self.0).write_all(b".").expect("the test listens");
    }

    /// Reports calls.
    pub fn report(&self, calls: &[CallReport]) {
        let bytes: Vec<u8> = calls.iter().flat_map(|call| call.to_bytes()).collect();
        (&self.0).write_all(&bytes).expect("the test listens");
    }

    /// Waits for [`Worker::resume`].
    pub fn wait(&self) {
        (&self.0).read_exact(&mut [0]).expect("the test lives");
    }
}
