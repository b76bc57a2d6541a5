//! The self-test: a connection in a network namespace of its own, and checks that it is seen, counted and owned right.

#![expect(unsafe_code, reason = "an interface is raised by ioctl(2), which takes a C structure")]

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use conn_common::cause::Cause;
use conn_common::connection::{IN, OUT};
use conn_common::filter::ANY_KIND;
use conn_common::ledger::Cells;
use conn_common::name;
use conn_common::owner::{ACCEPT, CONNECT, LISTENER, Owner};
use nix::libc;
use nix::sched::{CloneFlags, unshare};
use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use crate::enrich::Enricher;
use crate::error::Error;
use crate::event::enriched::Enriched;
use crate::event::kind::Kind;
use crate::event::lost::Lost;
use crate::event::{Event, until_zero};
use crate::filter::Filter;
use crate::filter::expression::{Expression, Field};
use crate::filter::value::ranges::Ranges;
use crate::host::accept_hook::Search;
use crate::host::clock::WallClock;
use crate::host::facts::Host;
use crate::host::plan::Plan;
use crate::kernel::attempt_hooks::Sight;
use crate::kernel::load_options::Options;
use crate::kernel::session::Session;
use crate::ledger::reader::LedgerReader;
use crate::output::stdout::Written;
use crate::settings::DEFAULT_RING_BYTES;
use crate::stream::consumer::{Consumer, Finished, Taken};
use crate::stream::live::LiveSource;
use crate::stream::notice::Notice;
use crate::stream::pipeline::Pipeline;
use crate::stream::source::Batch;

/// One check.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    /// The property that was checked.
    pub what: &'static str,
    /// The check passed.
    pub passed: bool,
    /// The value that was found.
    pub found: String,
}

/// The result of the self-test.
pub(super) struct Checked {
    /// The plan that was carried out.
    pub plan: Plan,
    /// The hook for accepts.
    pub accepts: Search,
    /// The hooks for attempts that never become a connection.
    pub sight: Sight,
    /// The checks.
    pub outcomes: Vec<Outcome>,
}

/// How long the events of a connection may take to arrive.
const MAX_WAIT: Duration = Duration::from_secs(10);
/// Bytes sent through the connection.
const MESSAGE: &[u8] = b"conntrace doctor";

/// Starts a run, makes a connection, and checks its events and counts.
///
/// # Errors
/// The error that keeps conntrace from working here.
pub(super) fn run(host: &Host) -> Result<Checked, Error> {
    let place = Place::prepare()?;
    // Only this port: whatever else the host does must not fill the ring.
    let port = Ranges::one(place.port.into());
    let filter = Filter::new(Some(Expression::test(Field::Service, port)));
    let options = Options {
        kinds: ANY_KIND,
        ring_bytes: DEFAULT_RING_BYTES,
        owners: name::HOLDERS,
        counts: true,
        ..Options::lists(&filter)
    };
    let mut session = Session::start(host, &options)?;
    let made = place.connect()?;
    let events = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Io { context: "starting the event loop".into(), source })?
        .block_on(collect(&mut session, &filter, &made))?;
    let outcomes = check(host, &session, &made, &events)?;
    let Sight { half_open, dropped, .. } = session.probe.sight();
    let sight = Sight { half_open, dropped, ..session.sight };
    Ok(Checked { plan: session.plan.clone(), accepts: session.accepts.clone(), sight, outcomes })
}

/// A connection that was made and closed by its client.
struct Made {
    netns: u32,
    sport: u16,
    dport: u16,
}

/// A listener in a network namespace of its own, if that is allowed, kept by a thread that is in there.
struct Place {
    port: u16,
    go: mpsc::Sender<()>,
    thread: thread::JoinHandle<io::Result<Made>>,
}

impl Place {
    fn prepare() -> Result<Self, Error> {
        let (go, gone) = mpsc::channel();
        let (ready, listens) = mpsc::channel();
        let thread = thread::spawn(move || {
            if unshare(CloneFlags::CLONE_NEWNET).is_ok() {
                raise_loopback()?;
            }
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            // Both fail only after the other thread has dropped its end.
            let _ = ready.send(listener.local_addr()?.port());
            let _ = gone.recv();
            talk(&listener)
        });
        match listens.recv() {
            Ok(port) => Ok(Self { port, go, thread }),
            // It ended before it listened.
            Err(mpsc::RecvError) => Err(match join(thread) {
                Err(error) => error,
                Ok(_) => Error::Internal("the self-test ended before it began".into()),
            }),
        }
    }

    fn connect(self) -> Result<Made, Error> {
        let _ = self.go.send(());
        join(self.thread)
    }
}

fn join(thread: thread::JoinHandle<io::Result<Made>>) -> Result<Made, Error> {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        .map_err(|source| Error::Io { context: "making the connection of the self-test".into(), source })
}

/// A whole connection: some bytes, closed by the client first.
fn talk(listener: &TcpListener) -> io::Result<Made> {
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let (mut server, _) = listener.accept()?;
    // The namespace of this thread, not of the process.
    let netns = File::open("/proc/thread-self/ns/net")?.metadata()?.ino() as u32;
    let made = Made { netns, sport: client.local_addr()?.port(), dport: listener.local_addr()?.port() };
    client.write_all(MESSAGE)?;
    drop(client);
    server.read_to_end(&mut Vec::new())?;
    Ok(made)
}

/// Sets the loopback interface of a new namespace up (netdevice(7)).
fn raise_loopback() -> io::Result<()> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // SAFETY: all zero is a valid request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // C's `char` has a sign or not, as the processor wants; these fit into either.
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo".map(libc::c_char::try_from)) {
        *to = from.unwrap_or_default();
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as i16;
    // SAFETY: the request outlives the call.
    let result = unsafe {
        libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&socket), libc::SIOCSIFFLAGS, &raw const request)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The events of the connection, until both of its ends have ended or the time is over.
async fn collect(session: &mut Session, filter: &Filter, made: &Made) -> Result<Vec<Event>, Error> {
    let mut source = LiveSource::new(session, DEFAULT_RING_BYTES)?;
    let mut pipeline = Pipeline::new(filter);
    let mut seen = Seen { made, events: Vec::new() };
    let deadline = Instant::now() + MAX_WAIT;
    loop {
        let quiet = pipeline.run(&mut source, &mut seen)? == Batch::Idle;
        let ends = seen.events.iter().filter(|event| event.kind == Kind::Destroy).count();
        if ends >= 2 {
            return Ok(seen.events);
        }
        match timeout_at(deadline, source.wait(quiet)).await {
            Ok(waited) => waited?,
            Err(_elapsed) => return Ok(seen.events),
        }
    }
}

/// Keeps the events of the connection that was made.
struct Seen<'a> {
    made: &'a Made,
    events: Vec<Event>,
}

impl Consumer for Seen<'_> {
    fn event(&mut self, event: &Enriched, _: &WallClock) -> Taken {
        self.events.extend(Some(event.event).filter(|event| self.made.is(event)));
        Taken::Shown
    }

    fn lost(&mut self, _: &Lost, _: &WallClock) {}

    fn notice(&mut self, _: &Notice) {}

    fn flush(&mut self) -> Result<Written, Error> {
        Ok(Written::All)
    }

    fn finish(&mut self, _: &mut Enricher, _: &WallClock) -> Finished {
        Finished::default()
    }
}

/// This process, as the kernel's programs see it.
struct Us {
    /// `None` in a pid namespace of our own, from where the number that the host knows is not to be seen.
    pid: Option<u32>,
    comm: String,
}

impl Us {
    fn new(host: &Host) -> Self {
        let comm = std::fs::read_to_string("/proc/self/comm").unwrap_or_default();
        Self {
            pid: host.sees_all_processes.then(std::process::id),
            comm: comm.trim_end_matches('\n').to_owned(),
        }
    }

    fn is(&self, owner: &Owner) -> bool {
        self.pid.is_none_or(|pid| pid == owner.pid) && until_zero(&owner.comm) == self.comm.as_bytes()
    }
}

impl Made {
    fn is(&self, event: &Event) -> bool {
        let connection = &event.connection;
        (connection.netns, connection.sport, connection.dport) == (self.netns, self.sport, self.dport)
    }
}

fn check(host: &Host, session: &Session, made: &Made, events: &[Event]) -> Result<Vec<Outcome>, Error> {
    let outcome = |what, passed, found: String| Outcome { what, passed, found };
    let of = |direction, kind| {
        events.iter().find(move |event| event.connection.direction == direction && event.kind == kind)
    };
    let kinds = |direction| {
        Kind::ALL
            .iter()
            .filter(|&&kind| of(direction, kind).is_some())
            .map(|kind| kind.name())
            .collect::<Vec<_>>()
    };
    let end = |direction, kind| of(direction, kind).and_then(|event| event.end);
    let ends = (end(OUT, Kind::Destroy), end(IN, Kind::Destroy));
    let owner = |direction| of(direction, Kind::Destroy).map(|event| event.connection.owner);
    let us = Us::new(host);
    let wanted = if session.accepts.hook.is_some() { ACCEPT } else { LISTENER };
    let belongs =
        |direction, source| owner(direction).is_some_and(|owner| us.is(&owner) && owner.source == source);
    let ledger = LedgerReader::new(&session.probe)?.read()?;
    let counted = |direction| {
        ledger
            .ports
            .get(&(direction, made.dport))
            .map_or((0, 0, 0), |slot| (slot.opened(), slot.established(), slot.closed()))
    };
    let bytes = ledger.ports.get(&(IN, made.dport)).map_or(0, Cells::bytes_received);
    Ok(vec![
        outcome("seen, outgoing", kinds(OUT).len() == Kind::ALL.len(), kinds(OUT).join(", ")),
        outcome("seen, incoming", kinds(IN).len() == Kind::ALL.len(), kinds(IN).join(", ")),
        outcome(
            "reason of the end",
            ends == (Some(Cause::ClosedByUs), Some(Cause::ClosedByPeer)),
            format!("{ends:?}"),
        ),
        outcome("owner, outgoing", belongs(OUT, CONNECT), format!("{:?}", owner(OUT))),
        outcome("owner, incoming", belongs(IN, wanted), format!("{:?}", owner(IN))),
        outcome(
            "counted",
            counted(OUT) == (1, 1, 1) && counted(IN) == (1, 1, 1) && bytes == MESSAGE.len() as u64,
            format!("out {:?}, in {:?}, {bytes} bytes", counted(OUT), counted(IN)),
        ),
    ])
}
