//! A name server of the test's own, with one name for every address and one address for every name, or without a word.

use crate::traffic::LIMIT;
use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::mpsc::{Receiver, Sender, channel},
    thread::{self, JoinHandle},
    time::Instant,
};

/// Where resolvers look for it.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// The header of a message: id, flags, and how many of what follow.
const HEADER: usize = 12;
/// The type of a record that names an address, and of one with the address of a name.
const PTR: u8 = 12;
const A: u8 = 1;

/// What a name server knows.
#[derive(Debug, Clone, Default)]
pub struct Zone {
    /// The name of every address, by its labels; `None` for a server that hears questions and never answers.
    pub name: Option<Vec<Vec<u8>>>,
    /// The address of every name.
    pub address: Option<Ipv4Addr>,
}

impl Zone {
    /// A zone in which every address has this name. The name has no address.
    pub fn named(labels: &[&[u8]]) -> Self {
        Self { name: Some(labels.iter().map(|label| label.to_vec()).collect()), address: None }
    }

    /// The same zone, in which every name has this address.
    #[must_use]
    pub fn at(self, address: impl Into<Ipv4Addr>) -> Self {
        Self { address: Some(address.into()), ..self }
    }
}

/// A name server, until it is dropped.
#[derive(Debug)]
pub struct NameServer {
    socket: UdpSocket,
    asked: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl NameServer {
    /// Serves in the network namespace of the calling thread.
    pub fn start(zone: Zone) -> Self {
        let socket = bind();
        let own = socket.try_clone().expect("a copy of the socket");
        let (question, asked) = channel();
        let thread = thread::spawn(move || serve(&own, &zone, &question));
        Self { socket, asked, thread: Some(thread) }
    }

    /// Waits for a question.
    pub fn await_question(&self) {
        self.asked.recv_timeout(*LIMIT).expect("a question in time");
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        let own: Option<SocketAddr> = self.socket.local_addr().ok();
        // Nothing is no question.
        if own.is_some_and(|own| self.socket.send_to(&[], own).is_ok())
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

fn serve(socket: &UdpSocket, zone: &Zone, question: &Sender<()>) {
    let mut room = [0; 512];
    while let Ok((len, client)) = socket.recv_from(&mut room) {
        if len == 0 {
            return;
        }
        let _ = question.send(());
        if zone.name.is_some() {
            socket.send_to(&answer(&room[..len], zone), client).expect("an answer on its way");
        }
    }
}

/// Binds the port of DNS. A process that another test has just forked keeps the socket of an earlier server for a moment.
fn bind() -> UdpSocket {
    let deadline = Instant::now() + *LIMIT;
    loop {
        match UdpSocket::bind((ADDRESS, 53)) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => {
                thread::yield_now();
            }
            bound => return bound.expect("the port of DNS"),
        }
    }
}

/// The answer to a question: that, and what the zone has.
pub fn answer(question: &[u8], zone: &Zone) -> Vec<u8> {
    // Labels up to the empty one, then type and class.
    let mut end = HEADER;
    while question[end] != 0 {
        end += usize::from(question[end]) + 1;
    }
    let kind = question[end + 2];
    let data: Option<Vec<u8>> = match kind {
        PTR => zone.name.as_ref().map(|name| {
            let labels = name.iter().flat_map(|label| [&[label.len() as u8], label.as_slice()].concat());
            labels.chain([0]).collect()
        }),
        A => zone.address.map(|address| address.octets().to_vec()),
        _ => None,
    };
    let mut message = question[..end + 5].to_vec();
    // A response without an error, recursion available; one question, at most one answer, nothing else.
    message[2..HEADER].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(data.is_some()), 0, 0, 0, 0]);
    if let Some(data) = data {
        // The name in the question, this kind of the Internet, valid for a minute.
        message.extend([0xc0, HEADER as u8, 0, kind, 0, 1, 0, 0, 0, 60, 0, data.len() as u8]);
        message.extend(data);
    }
    message
}
