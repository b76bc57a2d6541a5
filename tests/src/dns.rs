//! A name server of the test's own, with one name for every address, or without a word.

use crate::traffic::LIMIT;
use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::mpsc::{Receiver, Sender, channel},
    thread::{self, JoinHandle},
};

/// Where resolvers look for it.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// The header of a message: id, flags, and how many of what follow.
const HEADER: usize = 12;
/// The type of a record that names an address.
const PTR: u8 = 12;

/// A name server, until it is dropped.
#[derive(Debug)]
pub struct NameServer {
    socket: UdpSocket,
    asked: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl NameServer {
    /// Serves in the network namespace of the calling thread. The name is given by its labels; without one,
    /// questions are heard and never answered.
    pub fn start(name: Option<&'static [&'static [u8]]>) -> Self {
        let socket = UdpSocket::bind((ADDRESS, 53)).expect("the port of DNS");
        let own = socket.try_clone().expect("a copy of the socket");
        let (question, asked) = channel();
        let thread = thread::spawn(move || serve(&own, name, &question));
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

fn serve(socket: &UdpSocket, name: Option<&[&[u8]]>, question: &Sender<()>) {
    let mut room = [0; 512];
    while let Ok((len, client)) = socket.recv_from(&mut room) {
        if len == 0 {
            return;
        }
        let _ = question.send(());
        if let Some(name) = name {
            socket.send_to(&answer(&room[..len], name), client).expect("an answer on its way");
        }
    }
}

/// The answer to a question: that, and the name.
fn answer(question: &[u8], name: &[&[u8]]) -> Vec<u8> {
    // Labels up to the empty one, then type and class.
    let mut end = HEADER;
    while question[end] != 0 {
        end += usize::from(question[end]) + 1;
    }
    let mut message = question[..end + 5].to_vec();
    // A response without an error, recursion available; one question, one answer, nothing else.
    message[2..HEADER].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
    let mut data: Vec<u8> = name.iter().flat_map(|label| [&[label.len() as u8], *label].concat()).collect();
    data.push(0);
    // The name in the question, a PTR of the Internet, valid for a minute.
    message.extend([0xc0, HEADER as u8, 0, PTR, 0, 1, 0, 0, 0, 60, 0, data.len() as u8]);
    message.extend(data);
    message
}
