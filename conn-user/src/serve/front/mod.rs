//! The front: the half of the daemon that speaks to clients. It has no privileges, see [`confine`].

mod accept;
mod answer;
mod body;
mod fanout;
mod http;
mod patient;
mod scrapers;
mod shared;
mod socket;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use tokio::task::LocalSet;

use crate::cli::FrontArgs;
use crate::error::Error;
use crate::serve::channel::Channel;
use crate::serve::confine;
use crate::serve::front::scrapers::Scrapers;
use crate::serve::front::shared::Shared;
use crate::serve::message::{Reply, Request};

/// Runs the front, with the socket to the back as standard input, until the back ends.
///
/// # Errors
/// It cannot be confined, or the back says nothing it understands.
pub(crate) fn run(args: &FrontArgs) -> Result<(), Error> {
    let error = |source| Error::Io { context: "starting the front".into(), source };
    let end = io::stdin().as_fd().try_clone_to_owned().map_err(error)?;
    let confined = confine::enter(args.user, args.group).map_err(error)?;
    log::debug!("the front is confined: {confined}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(error)?;
    LocalSet::new()
        .block_on(&runtime, serve(end))
        .map_err(|source| Error::Io { context: "speaking to the back".into(), source })
}

async fn serve(end: OwnedFd) -> io::Result<()> {
    let channel = Rc::new(Channel::<Request, Reply>::new(end)?);
    let Some((Reply::Setup(setup), descriptors)) = channel.receive().await? else {
        return Err(io::Error::other("the first message is no setup"));
    };
    let mut listeners = descriptors.into_iter();
    let Some(listener) = listeners.next() else {
        return Err(io::Error::other("the setup has no socket"));
    };
    let (shared, mut outgoing) = Shared::new(setup);
    let sender = Rc::clone(&channel);
    tokio::task::spawn_local(async move {
        while let Some((request, client)) = outgoing.recv().await {
            let client: Vec<_> = client.iter().map(AsFd::as_fd).collect();
            if sender.send(&request, &client).await.is_err() {
                // The reader of the channel sees the end, too.
                return;
            }
        }
    });
    tokio::task::spawn_local(accept::accept(Rc::clone(&shared), listener)?);
    // Those behind the Unix socket have an address.
    let scrapers = Rc::new(Scrapers::default());
    for listener in listeners {
        let accepting = scrapers::accept(Rc::clone(&shared), Rc::clone(&scrapers), listener)?;
        tokio::task::spawn_local(accepting);
    }
    shared.send(Request::Ready);
    while let Some((reply, descriptors)) = channel.receive().await? {
        shared.take(reply, descriptors);
    }
    Ok(())
}
