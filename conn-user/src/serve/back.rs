//! The back: the half of the daemon with privileges. It counts, starts commands, and takes requests of the front, which it
//! reads again itself.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::process::{Child, Command};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use crate::error::Error;
use crate::filter::protocols::Protocols;
use crate::output::stderr;
use crate::serve::channel::{self, Channel};
use crate::serve::child::{self, Order, SELF};
use crate::serve::count;
use crate::serve::endpoint::Endpoint;
use crate::serve::epoch::Epoch;
use crate::serve::lookup::ClientLookup;
use crate::serve::message::{Reply, Request, Setup};
use crate::serve::notify;
use crate::serve::problem::Problem;
use crate::serve::query::Query;
use crate::settings::{CountSettings, Settings, StatsSettings};
use crate::stream::ready::Ready;

/// How many commands run at the same time.
pub(crate) const MAX_COMMANDS: usize = 16;
/// How often the front is asked for a sign of life.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// How long it may take to answer.
const SILENCE: Duration = Duration::from_secs(10);
/// How long the back waits before it starts the front again; twice as long after each failure.
const RESTART: Duration = Duration::from_millis(50);
/// The longest such wait.
const MAX_RESTART: Duration = Duration::from_secs(5);

/// What the back answers from its own counts.
#[derive(Debug)]
pub(crate) enum Report {
    /// Counts per service port.
    Stats(StatsSettings),
    /// How many connections are open; the query starts a command if the ledger does not know.
    Count(CountSettings, Query),
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
    /// The text, and the exit status of the command; or the query of the command that answers.
    pub(crate) answer: Result<(String, u8), Unknown>,
}

/// Why there is no report.
#[derive(Debug)]
pub(crate) enum Unknown {
    /// It cannot be made.
    Problem(Problem),
    /// A command makes it.
    Command(Query),
}

/// What the back has for the whole of its life.
#[derive(Debug)]
pub(crate) struct Back {
    /// The socket for clients.
    pub(crate) listener: OwnedFd,
    /// What the front needs to know.
    pub(crate) setup: watch::Sender<Setup>,
    /// When counting began.
    pub(crate) epoch: Epoch,
    /// The names that clients may use.
    pub(crate) lookup: ClientLookup,
    /// The user that the front becomes, and its group.
    pub(crate) front_user: (u32, u32),
    /// How often `-v` was given.
    pub(crate) verbose: u8,
    /// Takes requests for reports.
    pub(crate) wanted: mpsc::UnboundedSender<Wanted>,
}

/// A front that runs.
struct Front {
    process: Child,
    channel: Channel<Reply, Request>,
    orders: HashMap<u64, mpsc::UnboundedSender<Order>>,
    number: u64,
    heard: Instant,
}

impl Back {
    /// Answers the requests of the front, and starts it again when it ends. Never returns but by an error.
    ///
    /// # Errors
    /// A front cannot be started at all.
    pub(crate) async fn run(&self, mut reports: mpsc::UnboundedReceiver<Reported>) -> Result<(), Error> {
        let (ended, mut ends) = mpsc::unbounded_channel();
        let commands = Arc::new(Semaphore::new(MAX_COMMANDS));
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
                &commands,
                &ended,
                &mut reports,
                &mut ends,
                ticks,
            );
            let why = done.await.unwrap_or_else(|error| error.to_string());
            // Its commands end with it: their readers are gone.
            drop(front);
            stderr::print(format_args!("conntrace: the front has ended ({why}), and is started again\n"));
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
        command.args(std::iter::repeat_n("-v", usize::from(self.verbose))).kill_on_drop(true);
        let process = command.spawn().map_err(context)?;
        let listener = [self.listener.as_fd()];
        channel.send(&Reply::Setup(self.setup.borrow().clone()), &listener).await.map_err(context)?;
        Ok(Front { process, channel, orders: HashMap::new(), number, heard: Instant::now() })
    }

    /// Serves one front until it ends, and returns why.
    #[expect(clippy::too_many_arguments, reason = "what outlives a front belongs to its caller")]
    async fn serve(
        &self,
        front: &mut Front,
        ready: &mut Option<Ready>,
        pause: &mut Duration,
        commands: &Arc<Semaphore>,
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
                _ = ticks.tick() => front.channel.send(&Reply::Ask, &[]).await?,
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
                            Err(Unknown::Command(query)) => self.start(front, id, &query, commands, ended).await?,
                        }
                    }
                }
                received = front.channel.receive() => {
                    let Some((request, _)) = received? else { return Ok("it closed its socket".into()) };
                    front.heard = Instant::now();
                    match request {
                        Request::Ready => {
                            *pause = RESTART;
                            if let Some(ready) = ready.take() {
                                ready.signal();
                                notify::ready();
                            }
                        }
                        Request::Alive { .. } => notify::alive(),
                        Request::Run { id, query } => {
                            self.begin(front, id, query, commands, ended).await?;
                        }
                        Request::Finish { id } => order(front, id, Order::Finish),
                        Request::Leave { id } => order(front, id, Order::Leave),
                    }
                }
            }
        }
    }

    /// Answers a request, or starts what will.
    async fn begin(
        &self,
        front: &mut Front,
        id: u64,
        query: Query,
        commands: &Arc<Semaphore>,
        ended: &mpsc::UnboundedSender<((u64, u64), u8)>,
    ) -> io::Result<()> {
        let of = (front.number, id);
        if query.endpoint == Endpoint::Health {
            let health = self.health(commands);
            return self.answer(front, id, Ok((health, 0))).await;
        }
        // The front has read the query. The back trusts none of what it says.
        let problem = match query.settings(&self.lookup) {
            Err(problem) => problem,
            Ok(Settings::Stats(settings)) if settings.protocols != Protocols::TCP => Problem::parameter(
                if settings.forwarded.is_some() { "direction" } else { "protocol" },
                "the daemon counts connections of TCP only",
                "use conntrace --local stats",
            ),
            Ok(Settings::Stats(settings)) => {
                // The receiver ends with the daemon.
                let _ = self.wanted.send(Wanted { of, report: Report::Stats(settings) });
                return Ok(());
            }
            Ok(Settings::Count(settings)) if count::is_of_ledger(&settings) => {
                // The receiver ends with the daemon.
                let _ = self.wanted.send(Wanted { of, report: Report::Count(settings, query) });
                return Ok(());
            }
            Ok(_) => return self.start(front, id, &query, commands, ended).await,
        };
        self.answer(front, id, Err(problem)).await
    }

    /// Starts the command that answers.
    async fn start(
        &self,
        front: &mut Front,
        id: u64,
        query: &Query,
        commands: &Arc<Semaphore>,
        ended: &mpsc::UnboundedSender<((u64, u64), u8)>,
    ) -> io::Result<()> {
        let later = "ask again later";
        let problem = match Arc::clone(commands).try_acquire_owned() {
            _ if front.orders.contains_key(&id) => {
                Problem::new(500, "a number is used twice", "report this bug")
            }
            Err(_) => {
                Problem::new(503, format!("{MAX_COMMANDS} commands of clients run, and no more may"), later)
            }
            Ok(permit) => {
                let (of, ended) = ((front.number, id), ended.clone());
                let at_end = move |code| {
                    drop(permit);
                    // The receiver ends with the daemon.
                    let _ = ended.send((of, code));
                };
                match child::start(query, at_end) {
                    Ok(started) => {
                        front.orders.insert(id, started.orders);
                        let ends = [started.stdout.as_fd(), started.stderr.as_fd(), started.ready.as_fd()];
                        return front.channel.send(&Reply::Started { id }, &ends).await;
                    }
                    Err(error) => Problem::new(503, format!("no command can be started: {error}"), later),
                }
            }
        };
        self.answer(front, id, Err(problem)).await
    }

    /// Sends an answer that is known as a whole.
    async fn answer(&self, front: &Front, id: u64, answer: Result<(String, u8), Problem>) -> io::Result<()> {
        match answer {
            Err(problem) => {
                front.channel.send(&Reply::Refused { id, status: problem.status, problem }, &[]).await
            }
            Ok((text, code)) => {
                let ends = child::answer(text.as_bytes())?;
                front.channel.send(&Reply::Started { id }, &ends.each_ref().map(|end| end.as_fd())).await?;
                front.channel.send(&Reply::Ended { id, code }, &[]).await
            }
        }
    }

    /// The state of the daemon, as JSON.
    fn health(&self, commands: &Semaphore) -> String {
        let running = MAX_COMMANDS - commands.available_permits();
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
