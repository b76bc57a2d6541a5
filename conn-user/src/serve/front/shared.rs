//! What all clients share: the way to the back, the answers that wait, and the numbers of clients.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::rc::Rc;

use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use crate::serve::front::answer::Whole;
use crate::serve::front::fanout::Fanout;
use crate::serve::message::{Reply, Request, Setup};
use crate::serve::peer::Rights;
use crate::serve::problem::Problem;
use crate::serve::query::Query;

/// News of a request.
#[derive(Debug)]
pub(super) enum News {
    /// The pipes of the command.
    Started(Vec<OwnedFd>),
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
    pub(super) socket: Rc<UnixStream>,
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
}

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
        };
        (Rc::new(shared), queue)
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
                return self.send(Request::Alive { clients });
            }
            Reply::Setup(setup) => {
                self.setup.replace(setup);
                // There may be more room now.
                return self.left.notify_one();
            }
            Reply::Started { id } => (id, News::Started(descriptors)),
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
