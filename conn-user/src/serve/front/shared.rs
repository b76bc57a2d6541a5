//! What all clients share: the way to the back, the answers that wait, and the numbers of clients.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::time::{Instant, sleep_until};

use crate::serve::endpoint::Endpoint;
use crate::serve::front::answer::Whole;
use crate::serve::front::fanout::Fanout;
use crate::serve::front::socket::Socket;
use crate::serve::message::{Reply, Request, Setup};
use crate::serve::peer::Rights;
use crate::serve::problem::Problem;
use crate::serve::query::Query;

/// News of a request.
#[derive(Debug)]
pub(super) enum News {
    /// The pipes of the command, and whether its stream outlives the daemon.
    Started(Vec<OwnedFd>, bool),
    /// There is no answer.
    Refused(Problem),
    /// The exit status of the command.
    Ended(u8),
}

/// A client, for the life of its connection.
#[derive(Debug)]
pub(super) struct Client {
    /// What it may see, if it may ask at all.
    pub(super) rights: Option<Rights>,
    /// Its connection.
    pub(super) socket: Rc<Socket>,
}

impl Client {
    /// True if this answer is for such clients.
    pub(super) fn may_ask(&self, endpoint: Endpoint) -> bool {
        !self.socket.is_tcp() || Endpoint::ON_ADDRESS.contains(&endpoint)
    }

    /// The refusal of another path.
    pub(super) fn no_such_path(&self) -> Problem {
        let paths: Vec<_> =
            Endpoint::ALL.into_iter().filter(|one| self.may_ask(*one)).map(Endpoint::path).collect();
        let (paths, tcp) = (paths.join(", "), self.socket.is_tcp());
        let elsewhere = if tcp { "; all others are on the Unix socket of the daemon" } else { "" };
        Problem::new(404, "there is no such path", format!("paths are {paths}{elsewhere}"))
    }
}

/// Requests that are the same have one answer: their queries are, and what their clients may see.
pub(super) type Same = (Query, Rights);

/// Those that wait for the next answer to a query.
pub(super) type Waiting = Vec<(Rc<Client>, tokio::sync::oneshot::Sender<Rc<Result<Whole, Problem>>>)>;

/// The state of the front.
#[derive(Debug)]
pub(super) struct Shared {
    /// What the back has said.
    pub(super) setup: RefCell<Setup>,
    outgoing: UnboundedSender<(Request, Option<OwnedFd>)>,
    next: Cell<u64>,
    requests: RefCell<HashMap<u64, UnboundedSender<News>>>,
    /// Clients by user.
    pub(super) clients: RefCell<HashMap<u32, usize>>,
    /// Queries that are under way, with those that wait for the next answer to the same.
    pub(super) under_way: RefCell<HashMap<Same, Waiting>>,
    /// Streams that equal requests share.
    pub(super) streams: RefCell<HashMap<Same, Rc<Fanout>>>,
    /// A client has left.
    pub(super) left: tokio::sync::Notify,
    /// Lines that clients of shared streams lost, and that the back does not know of.
    pub(super) lines_lost: Cell<u64>,
    /// When clients of addresses get the next answer.
    next_scrape: Cell<Instant>,
}

/// Time between two answers to clients of addresses, so that they cost a bounded share of a CPU.
const PACE: Duration = Duration::from_millis(50);

impl Shared {
    pub(super) fn new(setup: Setup) -> (Rc<Self>, UnboundedReceiver<(Request, Option<OwnedFd>)>) {
        let (outgoing, queue) = mpsc::unbounded_channel();
        let shared = Self {
            setup: RefCell::new(setup),
            outgoing,
            next: Cell::new(0),
            requests: RefCell::default(),
            clients: RefCell::default(),
            under_way: RefCell::default(),
            streams: RefCell::default(),
            left: tokio::sync::Notify::new(),
            lines_lost: Cell::new(0),
            next_scrape: Cell::new(Instant::now()),
        };
        (Rc::new(shared), queue)
    }

    /// Waits until clients of addresses may have their next answer. All that wait meanwhile share it.
    pub(super) async fn pace(&self) {
        let at = self.next_scrape.get().max(Instant::now());
        self.next_scrape.set(at + PACE);
        sleep_until(at).await;
    }

    /// Sends to the back. Each client has one request at a time, so few wait.
    pub(super) fn send(&self, request: Request) {
        // Without a back, the front ends.
        let _ = self.outgoing.send((request, None));
    }

    /// Takes a message of the back.
    pub(super) fn take(&self, reply: Reply, descriptors: Vec<OwnedFd>) {
        let (id, news) = match reply {
            Reply::Ask => {
                let clients = self.clients.borrow().values().sum();
                return self.send(Request::Alive { clients, lines_lost: self.lines_lost.take() });
            }
            Reply::Setup(setup) => {
                self.setup.replace(setup);
                // There may be more room now.
                return self.left.notify_one();
            }
            Reply::Started { id, is_kept } => (id, News::Started(descriptors, is_kept)),
            Reply::Refused { id, status, problem } => (id, News::Refused(Problem { status, ..problem })),
            Reply::Ended { id, code } => (id, News::Ended(code)),
        };
        let requests = self.requests.borrow();
        if let Some(request) = requests.get(&id) {
            // The client may have left.
            let _ = request.send(news);
        }
    }

    /// Asks the back for a client.
    pub(super) fn ask(self: &Rc<Self>, query: Query, client: &Client) -> Asked {
        let id = self.next.replace(self.next.get() + 1);
        let (sender, news) = mpsc::unbounded_channel();
        self.requests.borrow_mut().insert(id, sender);
        // Without its connection, the back refuses.
        let socket = client.socket.as_fd().try_clone_to_owned().ok();
        // Without a back, the front ends.
        let _ = self.outgoing.send((Request::Run { id, query }, socket));
        Asked { id, news, shared: Rc::clone(self) }
    }
}

/// A request of the back. Dropped, it says that the client has left.
#[derive(Debug)]
pub(super) struct Asked {
    id: u64,
    pub(super) news: UnboundedReceiver<News>,
    shared: Rc<Shared>,
}

impl Asked {
    /// What ends the command as Ctrl-C does.
    pub(super) fn finish(&self) -> impl FnOnce() + use<> {
        let (id, shared) = (self.id, Rc::clone(&self.shared));
        move || shared.send(Request::Finish { id })
    }

    /// The exit status of the command, once it has ended.
    pub(super) async fn code(&mut self) -> u8 {
        loop {
            match self.news.recv().await {
                Some(News::Ended(code)) => return code,
                Some(_) => {}
                None => return 1,
            }
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.shared.requests.borrow_mut().remove(&self.id);
        // The back ignores the number of a command that has ended.
        self.shared.send(Request::Leave { id: self.id });
    }
}
