//! Many connections, as fast as the machine can make them, counted to the unit.

use crate::{
    traffic::{Server, socket::tcp},
    truth::{Cause, Truth},
};
use socket2::Socket;
use std::{
    collections::VecDeque,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    panic, process,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// Connections per server address: fewer than there are source ports, so that the `TIME_WAIT` sockets that
/// every orderly close leaves never exhaust them.
const BLOCK: u64 = 20_000;

/// How the connections of a flood end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The client closes first, in order.
    ClientFirst,
    /// The server closes first, in order.
    ServerFirst,
    /// The client resets (`SO_LINGER` 0).
    ClientReset,
    /// The server resets (`SO_LINGER` 0).
    ServerReset,
    /// Each of the above in turn.
    Mixed,
}

/// A flood of connections over loopback to one service port.
#[derive(Debug, Clone, Copy)]
pub struct Flood {
    /// The service port.
    pub port: u16,
    /// How many connections to make; [`Running::stop`] may end it before.
    pub connections: u64,
    /// How many threads make them.
    pub threads: u64,
    /// How many connections each thread keeps open before it closes the oldest.
    pub open: usize,
    /// How they end.
    pub ending: Ending,
    /// Each fourth is followed by one to an address without a listener, which is refused.
    pub refused: bool,
}

/// A flood that is under way.
#[derive(Debug)]
pub struct Running {
    threads: Vec<JoinHandle<(Truth, Vec<Pair>)>>,
    control: Arc<Control>,
}

/// Both ends of a connection that a flood left open, client first.
pub type Pair = (Socket, Socket);

/// What the threads of a flood share with its owner.
#[derive(Debug, Default)]
struct Control {
    /// [`GO_ON`], [`STOP`] or [`HALT`].
    order: AtomicU8,
    made: AtomicU64,
}

impl Control {
    fn order(&self) -> u8 {
        self.order.load(Ordering::Relaxed)
    }
}

const GO_ON: u8 = 0;
/// Make no more, close what is open.
const STOP: u8 = 1;
/// Make no more, leave open what is open.
const HALT: u8 = 2;

impl Flood {
    /// A flood by two threads, each connection closed before the next is made.
    pub fn new(port: u16, connections: u64, ending: Ending) -> Self {
        Self { port, connections, threads: 2, open: 0, ending, refused: false }
    }

    /// Makes them all.
    pub fn run(self) -> Truth {
        self.start().join()
    }

    /// Begins, in the network namespace of the calling thread.
    pub fn start(self) -> Running {
        let control = Arc::new(Control::default());
        let threads = (0..self.threads).map(|number| {
            // The first threads take what cannot be divided.
            let share = self.connections / self.threads + u64::from(number < self.connections % self.threads);
            let control = Arc::clone(&control);
            thread::spawn(move || self.work(share, &control))
        });
        Running { threads: threads.collect(), control }
    }

    fn work(self, share: u64, control: &Control) -> (Truth, Vec<Pair>) {
        let mut truth = Truth::default();
        let mut left = share;
        while left > 0 && control.order() == GO_ON {
            let block = left.min(BLOCK);
            let open = self.block(block, &mut truth, control);
            if control.order() == HALT {
                return (truth, open.into_iter().map(|(_, client, server)| (client, server)).collect());
            }
            for connection in open {
                self.close(connection, &mut truth);
            }
            left -= block;
        }
        (truth, Vec::new())
    }

    /// One server address's worth of connections; those that are still open.
    fn block(
        self,
        count: u64,
        truth: &mut Truth,
        control: &Control,
    ) -> impl IntoIterator<Item = (u64, Socket, Socket)> + use<> {
        let address = SocketAddr::from((fresh_loopback(), self.port));
        let listener = Server::listen_with(address, 4096, |_| {});
        let deaf = SocketAddr::from((fresh_loopback(), self.port));
        let mut open = VecDeque::with_capacity(self.open + 1);
        for number in 0..count {
            if control.order() != GO_ON {
                break;
            }
            let client = tcp(address);
            if let Err(error) = client.connect(&address.into()) {
                truth.failed(self.port, cause(&error));
                continue;
            }
            if self.refused && number % 4 == 0 {
                let error = tcp(deaf).connect(&deaf.into()).expect_err("nothing listens there");
                truth.failed(self.port, cause(&error));
            }
            let server = listener.accept();
            (&client).write_all(b"x").expect("a byte up");
            truth.both(self.port);
            truth.payload(self.port, 1, 0);
            control.made.fetch_add(1, Ordering::Relaxed);
            open.push_back((number, client, server));
            if open.len() > self.open
                && let Some(oldest) = open.pop_front()
            {
                self.close(oldest, truth);
            }
        }
        drop(listener);
        truth.listened(self.port);
        open
    }

    fn close(self, (number, client, server): (u64, Socket, Socket), truth: &mut Truth) {
        let ending = match (self.ending, number % 4) {
            (Ending::Mixed, 0) => Ending::ClientFirst,
            (Ending::Mixed, 1) => Ending::ServerFirst,
            (Ending::Mixed, 2) => Ending::ClientReset,
            (Ending::Mixed, _) => Ending::ServerReset,
            (ending, _) => ending,
        };
        // With unread data the server's close would be a reset.
        (&server).read_exact(&mut [0]).expect("the byte");
        match ending {
            Ending::ClientFirst | Ending::Mixed => {
                drop(client);
                drop(server);
            }
            Ending::ServerFirst => {
                drop(server);
                drop(client);
            }
            Ending::ClientReset => {
                client.set_linger(Some(Duration::ZERO)).expect("linger");
                drop(client);
                drop(server);
            }
            Ending::ServerReset => {
                server.set_linger(Some(Duration::ZERO)).expect("linger");
                drop(server);
                drop(client);
            }
        }
        truth.out(self.port).closed += 1;
        truth.inn(self.port).closed += 1;
    }
}

impl Running {
    /// Connections made so far.
    pub fn made(&self) -> u64 {
        self.control.made.load(Ordering::Relaxed)
    }

    /// Whether all threads have ended.
    pub fn is_finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Waits for the last connection.
    pub fn join(self) -> Truth {
        self.collect().0
    }

    fn collect(self) -> (Truth, Vec<Pair>) {
        let (mut truth, mut open) = (Truth::default(), Vec::new());
        for thread in self.threads {
            let (made, left) = thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic));
            truth += made;
            open.extend(left);
        }
        (truth, open)
    }

    /// Makes no more, closes what is open, and says what was done.
    pub fn stop(self) -> Truth {
        self.control.order.store(STOP, Ordering::Relaxed);
        self.join()
    }

    /// Makes no more, leaves open what is open, and says what was done.
    pub fn halt(self) -> (Truth, Vec<Pair>) {
        self.control.order.store(HALT, Ordering::Relaxed);
        self.collect()
    }
}

/// A loopback address no flood of this process has used; processes begin at different addresses.
fn fresh_loopback() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    const FIRST: u32 = 0x7f10_0000;
    const ADDRESSES: u32 = 0x00e0_0000;
    let start = process::id().wrapping_mul(0x9e37) % ADDRESSES;
    let offset = (start + NEXT.fetch_add(1, Ordering::Relaxed)) % ADDRESSES;
    Ipv4Addr::from(FIRST + offset)
}

fn cause(error: &io::Error) -> Cause {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => Cause::Refused,
        Some(libc::ETIMEDOUT) => Cause::TimedOut,
        Some(libc::EHOSTUNREACH | libc::ENETUNREACH) => Cause::Unreachable,
        Some(libc::ECONNRESET) => Cause::Reset,
        Some(libc::EADDRNOTAVAIL) => Cause::Local,
        // SO_SNDTIMEO ran out, and the socket is closed before an answer came.
        Some(libc::EINPROGRESS) => Cause::Abandoned,
        _ => panic!("connect: {error}"),
    }
}
