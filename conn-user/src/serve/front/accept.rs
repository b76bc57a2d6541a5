//! Takes connections, within limits.

use std::cell::RefCell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net;
use std::rc::Rc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::sleep;

use crate::output::async_fd::register;
use crate::serve::front::http;
use crate::serve::front::patient::{PATIENCE, Patient};
use crate::serve::front::shared::{Client, Shared};
use crate::serve::front::socket::Socket;
use crate::serve::peer::Peer;
use crate::serve::problem::Problem;

/// The longest head of a request, in bytes.
const MAX_HEAD: usize = 64 << 10;
/// How long the head of a request may take, and how long a connection may be idle before it.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// How often the front looks whether a client that sends no more has gone.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long the front waits when it has no descriptors left.
pub(super) const PAUSE: Duration = Duration::from_millis(100);

/// Takes connections for ever.
///
/// # Errors
/// The socket cannot be polled.
pub(super) fn accept(shared: Rc<Shared>, listener: OwnedFd) -> io::Result<impl Future<Output = ()>> {
    let listener = net::UnixListener::from(listener);
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    Ok(async move {
        loop {
            // Others wait in the queue of the kernel.
            while shared.clients.borrow().values().sum::<usize>() >= shared.setup.borrow().clients {
                shared.left.notified().await;
            }
            match listener.accept().await {
                Ok((client, _)) => greet(&shared, client),
                Err(error) => {
                    log::debug!("no connection can be taken: {error}");
                    sleep(PAUSE).await;
                }
            }
        }
    })
}

/// Serves a client, if its user has room for one more.
fn greet(shared: &Rc<Shared>, client: UnixStream) {
    let Ok(peer) = Peer::of(&client) else { return };
    let of_user = shared.clients.borrow().get(&peer.uid).copied().unwrap_or_default();
    if peer.uid != 0 && of_user >= shared.setup.borrow().per_user {
        let problem = Problem::new(
            503,
            format!("the user has {of_user} clients, and no more may be"),
            "ask again later",
        );
        return Socket::Unix(client).write_once(&http::text_of(&problem));
    }
    let place = Place::take(shared, peer.uid);
    let rights = peer.rights(&shared.setup.borrow());
    let socket = Rc::new(Socket::Unix(client));
    let client = Rc::new(Client { rights, socket: Rc::clone(&socket) });
    tokio::task::spawn_local(async move {
        let of_client = Rc::clone(&place.shared);
        let service = service_fn(move |request| {
            let (shared, client) = (Rc::clone(&of_client), Rc::clone(&client));
            async move { Ok::<_, Infallible>(http::answer(&shared, &client, request).await) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME)
            .max_buf_size(MAX_HEAD)
            // A client that sends no more may still read, as nc -N does.
            .half_close(true)
            .serve_connection(TokioIo::new(Patient::new(Rc::clone(&socket), PATIENCE)), service);
        tokio::select! {
            served = served => {
                if let Err(error) = served {
                    log::debug!("a client of user {}: {error}", place.uid);
                }
            }
            // Its command ends with the connection.
            gone = gone(&socket) => log::debug!("a client of user {} has gone: {gone:?}", place.uid),
        }
    });
}

/// Waits until a client has closed its connection, in both directions.
async fn gone(socket: &Socket) -> io::Result<()> {
    // The connection itself is polled for what it reads.
    let watched = register(File::from(socket.as_fd().try_clone_to_owned()?), Interest::READABLE)?;
    loop {
        let mut guard = watched.readable().await?;
        let mut polled = [PollFd::new(socket.as_fd(), PollFlags::empty())];
        poll(&mut polled, PollTimeout::ZERO)?;
        if polled[0].revents().is_some_and(|found| found.contains(PollFlags::POLLHUP)) {
            return Ok(());
        }
        if guard.ready().is_read_closed() {
            // The client sends no more, and may read. tokio never takes this readiness back.
            sleep(LOOK_AGAIN).await;
        } else {
            guard.clear_ready();
        }
    }
}

/// The place of a client among all. Dropped, it is free again.
struct Place {
    shared: Rc<Shared>,
    uid: u32,
}

impl Place {
    fn take(shared: &Rc<Shared>, uid: u32) -> Self {
        *shared.clients.borrow_mut().entry(uid).or_default() += 1;
        Self { shared: Rc::clone(shared), uid }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let clients: &RefCell<HashMap<u32, usize>> = &self.shared.clients;
        let mut clients = clients.borrow_mut();
        if let Some(of_user) = clients.get_mut(&self.uid) {
            *of_user -= 1;
            if *of_user == 0 {
                clients.remove(&self.uid);
            }
        }
        drop(clients);
        self.shared.left.notify_one();
    }
}
