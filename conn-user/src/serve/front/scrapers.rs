//! Takes connections to addresses: anyone may be at the other end, so they have limits of their own, and no place of a
//! client of the Unix socket. Each has one request, and ends soon.

use std::cell::RefCell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::serve::front::accept::PAUSE;
use crate::serve::front::http;
use crate::serve::front::patient::Patient;
use crate::serve::front::shared::{Client, Shared};
use crate::serve::front::socket::Socket;
use crate::serve::peer::Rights;
use crate::serve::problem::Problem;

/// How many clients of addresses there may be.
pub(super) const MOST: usize = 64;
/// How many of them may have the same address, or the same 64 bits in front of an address of IPv6.
const OF_ONE: usize = 8;
/// The longest head of a request, in bytes.
const MAX_HEAD: usize = 8 << 10;
/// How long the head of a request may take.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// How long a client may take nothing of its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may take in all.
const WHOLE_TIME: Duration = Duration::from_secs(30);

/// Clients by address.
#[derive(Debug, Default)]
pub(super) struct Scrapers(RefCell<HashMap<IpAddr, usize>>);

/// Takes connections for ever.
///
/// # Errors
/// The socket cannot be polled.
pub(super) fn accept(
    shared: Rc<Shared>,
    scrapers: Rc<Scrapers>,
    listener: OwnedFd,
) -> io::Result<impl Future<Output = ()>> {
    let listener = TcpListener::from(listener);
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    Ok(async move {
        loop {
            match listener.accept().await {
                Ok((client, from)) => greet(&shared, &scrapers, client, from),
                Err(error) => {
                    log::debug!("no connection can be taken: {error}");
                    sleep(PAUSE).await;
                }
            }
        }
    })
}

/// Serves a client, if there is room for one more.
fn greet(shared: &Rc<Shared>, scrapers: &Rc<Scrapers>, client: TcpStream, from: SocketAddr) {
    let socket = Rc::new(Socket::Tcp(client));
    let place = match Place::take(scrapers, from.ip()) {
        Ok(place) => place,
        Err(message) => {
            let problem = Problem::new(503, message, "ask again later");
            return socket.write_once(&http::text_of(&problem));
        }
    };
    let client = Rc::new(Client { rights: Some(Rights::NOBODY), socket: Rc::clone(&socket) });
    let shared = Rc::clone(shared);
    tokio::task::spawn_local(async move {
        let service = service_fn(move |request| {
            let (shared, client) = (Rc::clone(&shared), Rc::clone(&client));
            async move { Ok::<_, Infallible>(http::answer(&shared, &client, request).await) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME)
            .max_buf_size(MAX_HEAD)
            .keep_alive(false)
            .half_close(true)
            .serve_connection(TokioIo::new(Patient::new(socket, PATIENCE)), service);
        match timeout(WHOLE_TIME, served).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => log::debug!("a client at {from}: {error}"),
            Err(_) => log::debug!("a client at {from} takes too long"),
        }
        drop(place);
    });
}

/// The place of a client among all. Dropped, it is free again.
#[derive(Debug)]
struct Place {
    scrapers: Rc<Scrapers>,
    of: IpAddr,
}

impl Place {
    fn take(scrapers: &Rc<Scrapers>, address: IpAddr) -> Result<Self, String> {
        let of = group(address);
        let mut clients = scrapers.0.borrow_mut();
        let of_one = clients.get(&of).copied().unwrap_or_default();
        if of_one >= OF_ONE {
            return Err(format!("the address has {of_one} clients, and no more may be"));
        }
        if clients.values().sum::<usize>() >= MOST {
            return Err(format!("there are {MOST} clients, and no more may be"));
        }
        clients.insert(of, of_one + 1);
        drop(clients);
        Ok(Self { scrapers: Rc::clone(scrapers), of })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut clients = self.scrapers.0.borrow_mut();
        if let Some(of_one) = clients.get_mut(&self.of) {
            *of_one -= 1;
            if *of_one == 0 {
                clients.remove(&self.of);
            }
        }
    }
}

/// The address, of which one host has many with IPv6.
fn group(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << u64::BITS)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_takes_all_places() {
        let scrapers = Rc::new(Scrapers::default());
        let take = |address: &str| Place::take(&scrapers, address.parse().unwrap());
        let mut held: Vec<Place> = (0..OF_ONE).map(|_| take("192.0.2.1").unwrap()).collect();
        assert!(take("192.0.2.1").unwrap_err().contains("8 clients"));
        assert!(take("::ffff:192.0.2.1").unwrap_err().contains("8 clients"));
        // A host has all addresses of its network of IPv6.
        held.extend((0..OF_ONE).map(|last| take(&format!("2001:db8::{last}")).unwrap()));
        assert!(take("2001:db8::ffff:1").is_err());
        held.extend((0..MOST - 2 * OF_ONE).map(|last| take(&format!("198.51.100.{last}")).unwrap()));
        assert!(take("203.0.113.1").unwrap_err().contains("64 clients"));
        held.pop();
        assert!(take("203.0.113.1").is_ok());
        drop(held);
        assert!(scrapers.0.borrow().is_empty());
    }
}
