//! The back: the half of the daemon with privileges. It counts, starts commands, and takes requests of the front, which it
//! reads again itself.

use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::socket::{UnixAddr, getsockname};
use serde_json::json;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use crate::error::Error;
use crate::event::sort_key::SourceGroup;
use crate::filter::Filter;
use crate::filter::protocols::Protocols;
use crate::host::lookup::HostLookup;
use crate::ledger::metrics::Format;
use crate::output::journal;
use crate::serve::address::Address;
use crate::serve::channel::{self, Channel};
use crate::serve::child::{self, Order, SELF};
use crate::serve::count;
use crate::serve::endpoint::Endpoint;
use crate::serve::epoch::Epoch;
use crate::serve::lookup::ClientLookup;
use crate::serve::message::{Reply, Request, Setup};
use crate::serve::notify;
use crate::serve::peer::{Peer, Rights};
use crate::serve::places::Places;
use crate::serve::problem::Problem;
use crate::serve::query::Query;
use crate::serve::streams::{self, Streams};
use crate::settings::{CountSettings, Settings, StatsSettings};
use crate::stream::ready::Ready;

/// How often the front is asked for a sign of life.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// How long it may take to answer.
const SILENCE: Duration = Duration::from_secs(10);
/// How long the back waits before it starts the front again; twice as long after each failure.
const RESTART: Duration = Duration::from_millis(50);
/// The longest such wait.
const MAX_RESTART: Duration = Duration::from_secs(5);

/// A request, and what its client may see.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    query: Query,
    uid: u32,
    rights: Rights,
}

/// What the back answers from its own counts.
#[derive(Debug)]
pub(crate) enum Report {
    /// Counts per service port, and the terminal of the client.
    Stats(StatsSettings, Option<String>),
    /// All counts as metrics.
    Metrics {
        /// The form that the client takes.
        format: Format,
        /// How many commands run for clients.
        commands: usize,
    },
    /// How many connections are open; a command answers if the ledger does not know.
    Count(CountSettings, Asked),
}

/// A request for a report.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// The front that it came from, and its number there.
    pub(crate) of: (u64, u64),
    /// What to report.
    pub(crate) report: Report,
}

/// A report, or why there is none.
#[derive(Debug)]
pub(crate) struct Reported {
    /// The request.
    pub(crate) of: (u64, u64),
    /// The content, and the exit status of the command; or the query of the command that answers.
    pub(crate) answer: Result<(Vec<u8>, u8), Unknown>,
}

/// Why there is no report.
#[derive(Debug)]
pub(crate) enum Unknown {
    /// It cannot be made.
    Problem(Problem),
    /// A command makes it.
    Command(Asked),
}

/// What the back has for the whole of its life.
#[derive(Debug)]
pub(crate) struct Back<'a> {
    /// The sockets for scrapers.
    pub(crate) addresses: &'a [Address],
    /// Lines that clients of shared streams lost, as the fronts say.
    pub(crate) lines_lost: Cell<u64>,
    /// The socket for clients.
    pub(crate) listener: OwnedFd,
    /// What the front needs to know.
    pub(crate) setup: watch::Sender<Setup>,
    /// When counting began.
    pub(crate) epoch: Epoch,
    /// Handshakes and lifetimes are counted.
    pub(crate) lifetimes: bool,
    /// What is counted of remote addresses.
    pub(crate) sources: Option<SourceGroup>,
    /// The names of this host.
    pub(crate) names: HostLookup,
    /// The user that the front becomes, and its group.
    pub(crate) front_user: (u32, u32),
    /// How often `-v` was given.
    pub(crate) verbose: u8,
    /// Takes requests for reports.
    pub(crate) wanted: mpsc::UnboundedSender<Wanted>,
    /// The streams that outlive the daemon.
    pub(crate) streams: Streams,
}

/// A front that runs.
struct Front {
    process: Child,
    channel: Channel<Reply, Request>,
    orders: HashMap<u64, mpsc::UnboundedSender<Order>>,
    number: u64,
    heard: Instant,
}

impl Back<'_> {
    /// Answers the requests of the front, and starts it again when it ends. Never returns but by an error.
    ///
    /// # Errors
    /// A front cannot be started at all.
    pub(crate) async fn run(&self, mut reports: mpsc::UnboundedReceiver<Reported>) -> Result<(), Error> {
        let (ended, mut ends) = mpsc::unbounded_channel();
        let places = Places::default();
        let mut pause = RESTART;
        let mut ready = Some(Ready::take());
        for number in 0.. {
            let mut front = self.start_front(number).await?;
            let mut ticks = interval(ASK_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let done = self.serve(
                &mut front,
                &mut ready,
                &mut pause,
                &places,
                &ended,
                &mut reports,
                &mut ends,
                ticks,
            );
            let why = done.await.unwrap_or_else(|error| error.to_string());
            // Its commands end with it: their readers are gone.
            drop(front);
            log::warn!("the front has ended ({why}), and is started again");
            sleep(pause).await;
            pause = (pause * 2).min(MAX_RESTART);
        }
        Ok(())
    }

    /// Starts a front.
    async fn start_front(&self, number: u64) -> Result<Front, Error> {
        let context = |source| Error::Io { context: "starting the front".into(), source };
        let (own, others) = channel::pair().map_err(context)?;
        let channel = Channel::new(own).map_err(context)?;
        let mut command = Command::new(SELF);
        command
            .arg0("conntrace")
            .arg("front")
            .env_clear()
            .stdin(others)
            .stdout(Stdio::null())
            .stderr(Stdio::inherit());
        let (uid, gid) = self.front_user;
        command.args([format!("--user={uid}"), format!("--group={gid}")]);
        if let Some(stream) = std::env::var_os(journal::VARIABLE) {
            command.env(journal::VARIABLE, stream);
        }
        command.args(std::iter::repeat_n("-v", usize::from(self.verbose))).kill_on_drop(true);
        let process = command.spawn().map_err(context)?;
        let addresses = self.addresses.iter().map(|address| address.socket.as_fd());
        let sockets: Vec<_> = [self.listener.as_fd()].into_iter().chain(addresses).collect();
        channel.send(&Reply::Setup(self.setup.borrow().clone()), &sockets).await.map_err(context)?;
        Ok(Front { process, channel, orders: HashMap::new(), number, heard: Instant::now() })
    }

    /// Serves one front until it ends, and returns why.
    #[expect(clippy::too_many_arguments, reason = "what outlives a front belongs to its caller")]
    async fn serve(
        &self,
        front: &mut Front,
        ready: &mut Option<Ready>,
        pause: &mut Duration,
        places: &Places,
        ended: &mpsc::UnboundedSender<((u64, u64), u8)>,
        reports: &mut mpsc::UnboundedReceiver<Reported>,
        ends: &mut mpsc::UnboundedReceiver<((u64, u64), u8)>,
        mut ticks: tokio::time::Interval,
    ) -> io::Result<String> {
        let mut changes = self.setup.subscribe();
        loop {
            tokio::select! {
                Ok(()) = changes.changed() => {
                    let setup = changes.borrow_and_update().clone();
                    front.channel.send(&Reply::Setup(setup), &[]).await?;
                }
                status = front.process.wait() => return Ok(status?.to_string()),
                () = sleep_until(front.heard + SILENCE) => return Ok("it gives no sign of life".into()),
                _ = ticks.tick() => {
                    self.streams.sweep();
                    front.channel.send(&Reply::Ask, &[]).await?;
                }
                Some((of, code)) = ends.recv() => {
                    if of.0 == front.number {
                        front.orders.remove(&of.1);
                        front.channel.send(&Reply::Ended { id: of.1, code }, &[]).await?;
                    }
                }
                Some(reported) = reports.recv() => {
                    if reported.of.0 == front.number {
                        let id = reported.of.1;
                        match reported.answer {
                            Ok(answer) => self.answer(front, id, Ok(answer)).await?,
                            Err(Unknown::Problem(problem)) => self.answer(front, id, Err(problem)).await?,
                            Err(Unknown::Command(asked)) => self.start(front, id, &asked, places, ended).await?,
                        }
                    }
                }
                received = front.channel.receive() => {
                    let Some((request, descriptors)) = received? else { return Ok("it closed its socket".into()) };
                    front.heard = Instant::now();
                    match request {
                        Request::Ready => {
                            *pause = RESTART;
                            if let Some(ready) = ready.take() {
                                ready.signal();
                                notify::ready();
                            }
                        }
                        Request::Alive { lines_lost, .. } => {
                            self.lines_lost.update(|all| all.saturating_add(lines_lost));
                            notify::alive();
                        }
                        Request::Run { id, query } => {
                            match self.judge(query, descriptors) {
                                Ok(asked) => self.begin(front, id, asked, places, ended).await?,
                                Err(problem) => self.answer(front, id, Err(problem)).await?,
                            }
                        }
                        Request::Finish { id } => order(front, id, Order::Finish),
                        Request::Leave { id } => order(front, id, Order::Leave),
                    }
                }
            }
        }
    }

    /// Looks which user a client is, and what it may see.
    fn judge(&self, query: Query, descriptors: Vec<OwnedFd>) -> Result<Asked, Problem> {
        let unknown = |why: &str| Problem::new(500, format!("the client is not known: {why}"), "ask again");
        let client = descriptors.into_iter().next().ok_or_else(|| unknown("no connection came"))?;
        if self.addresses.iter().any(|address| address.is_of(&client)) {
            // A client of an address has no known user, so its answers name no process.
            if !Endpoint::ON_ADDRESS.contains(&query.endpoint) {
                return Err(Problem::new(404, "there is no such path on an address", "ask the Unix socket"));
            }
            return Ok(Asked { query, uid: u32::MAX, rights: Rights::NOBODY });
        }
        // A connection to the socket for clients, not one that the front has made itself.
        let name = |socket: &OwnedFd| getsockname::<UnixAddr>(socket.as_raw_fd());
        if name(&client).ok() != name(&self.listener).ok() {
            return Err(unknown("the connection is another socket's"));
        }
        let peer = Peer::of(&client).map_err(|error| unknown(&error.to_string()))?;
        let rights = peer.rights(&self.setup.borrow()).ok_or_else(Problem::may_not_ask)?;
        Ok(Asked { query, uid: peer.uid, rights })
    }

    /// Answers a request, or starts what will.
    async fn begin(
        &self,
        front: &mut Front,
        id: u64,
        asked: Asked,
        places: &Places,
        ended: &mpsc::UnboundedSender<((u64, u64), u8)>,
    ) -> io::Result<()> {
        let of = (front.number, id);
        if asked.query.endpoint == Endpoint::Health {
            return self.answer(front, id, Ok((self.health(places).into_bytes(), 0))).await;
        }
        if asked.query.endpoint == Endpoint::Metrics {
            let (format, commands) = (asked.query.metrics(), places.taken());
            // The receiver ends with the daemon.
            let _ = self.wanted.send(Wanted { of, report: Report::Metrics { format, commands } });
            return Ok(());
        }
        let lookup = ClientLookup { names: &self.names, rights: asked.rights };
        let problem = match asked.query.settings(&lookup, asked.rights) {
            Err(problem) => problem,
            Ok(Settings::Stats(settings)) => match self.uncounted(&settings, &asked) {
                Some(problem) => problem,
                // Counts of a time of its own.
                None if asked.query.is_of_command() => {
                    return self.start(front, id, &asked, places, ended).await;
                }
                None => {
                    // The receiver ends with the daemon.
                    let _ = self
                        .wanted
                        .send(Wanted { of, report: Report::Stats(settings, asked.query.terminal) });
                    return Ok(());
                }
            },
            Ok(Settings::Count(settings)) if count::is_of_ledger(&settings) => {
                // The receiver ends with the daemon.
                let _ = self.wanted.send(Wanted { of, report: Report::Count(settings, asked) });
                return Ok(());
            }
            Ok(_) => return self.start(front, id, &asked, places, ended).await,
        };
        self.answer(front, id, Err(problem)).await
    }

    /// Why there are no such counts, if there are none.
    fn uncounted(&self, settings: &StatsSettings, asked: &Asked) -> Option<Problem> {
        if settings.forwarded.is_some() && asked.rights != Rights::All {
            let remedy = "become a member of the daemon's group";
            return Some(Problem::parameter(
                "forwarded",
                "root and the group alone see forwarded flows",
                remedy,
            ));
        }
        if asked.query.is_of_command() {
            return None;
        }
        let command = "add timeout=10s: a command counts it for so long";
        let refused = |name, message: &str, key: &str| {
            Some(Problem::parameter(name, message, format!("{command}; {key}")))
        };
        if settings.forwarded.is_some() {
            let message = "the daemon does not count forwarded flows since its epoch";
            return Some(Problem::parameter("forwarded", message, command));
        }
        if settings.protocols != Protocols::TCP {
            return Some(Problem::parameter("protocol", "the daemon counts TCP since its epoch", command));
        }
        if settings.lifetimes && !self.lifetimes {
            let key = "or set lifetimes = true in the configuration";
            return refused("lifetimes", "the daemon counts no lifetimes since its epoch", key);
        }
        match settings.sources {
            Some(_) if settings.filter != Filter::all() => {
                let key = "or leave dport, direction and filter out";
                refused("sources", "the daemon counts the sources of all ports together", key)
            }
            Some(top) if self.sources != Some(top.group) => {
                let key = format!("or set sources = \"{}\" in the configuration", top.group.name());
                refused("sources", "the daemon does not count these sources since its epoch", &key)
            }
            _ => None,
        }
    }

    /// Starts the command that answers.
    async fn start(
        &self,
        front: &mut Front,
        id: u64,
        asked: &Asked,
        places: &Places,
        ended: &mpsc::UnboundedSender<((u64, u64), u8)>,
    ) -> io::Result<()> {
        let problem = match places.take(asked.uid) {
            _ if front.orders.contains_key(&id) => {
                Problem::new(500, "a number is used twice", "report this bug")
            }
            Err(problem) => problem,
            Ok(place) => {
                let (of, ended) = ((front.number, id), ended.clone());
                let stream = self.streams.place(asked.uid, &asked.query);
                let kept = stream.clone();
                let at_end = move |code, has_client| {
                    drop(place);
                    // Without a front, the client may come again.
                    kept.iter().filter(|_| has_client).for_each(streams::Place::release);
                    // The receiver ends with the daemon.
                    let _ = ended.send((of, code));
                };
                match child::start(&asked.query, asked.rights, stream.as_ref(), at_end) {
                    Ok(started) => {
                        front.orders.insert(id, started.orders);
                        let ends = [started.stdout.as_fd(), started.stderr.as_fd(), started.ready.as_fd()];
                        return front
                            .channel
                            .send(&Reply::Started { id, is_kept: stream.is_some() }, &ends)
                            .await;
                    }
                    Err(error) => {
                        Problem::new(503, format!("no command can be started: {error}"), "ask again later")
                    }
                }
            }
        };
        self.answer(front, id, Err(problem)).await
    }

    /// Sends an answer that is known as a whole.
    async fn answer(&self, front: &Front, id: u64, answer: Result<(Vec<u8>, u8), Problem>) -> io::Result<()> {
        match answer {
            Err(problem) => {
                front.channel.send(&Reply::Refused { id, status: problem.status, problem }, &[]).await
            }
            Ok((content, code)) => {
                let (ends, started) = (child::answer(&content)?, Reply::Started { id, is_kept: false });
                front.channel.send(&started, &ends.each_ref().map(|end| end.as_fd())).await?;
                front.channel.send(&Reply::Ended { id, code }, &[]).await
            }
        }
    }

    /// The state of the daemon, as JSON.
    fn health(&self, places: &Places) -> String {
        let running = places.taken();
        let version = env!("CARGO_PKG_VERSION");
        json!({ "version": version, "epoch": self.epoch, "commands": running }).to_string() + "\n"
    }
}

fn order(front: &Front, id: u64, order: Order) {
    if let Some(orders) = front.orders.get(&id) {
        // A command that has just ended takes no orders.
        let _ = orders.send(order);
    }
}
