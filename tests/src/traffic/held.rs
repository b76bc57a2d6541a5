//! Connections that stay in a state: held there by ends that hear nothing.

use super::socket::{
    Pair, Server, await_end, begin_connect, connect, hear_again, hear_nothing, state_of, tcp,
};
use socket2::Socket;
use std::{
    net::{Shutdown, SocketAddr},
    thread,
    time::Instant,
};

// TCP states, include/net/tcp_states.h.
const FIN_WAIT1: u8 = 4;
const FIN_WAIT2: u8 = 5;
const CLOSE_WAIT: u8 = 8;
const LAST_ACK: u8 = 9;
const CLOSING: u8 = 11;

/// Connections in every state that there is, and their listeners. They stay until this is dropped, or for the
/// minute in which the kernel keeps a closed connection.
#[derive(Debug)]
pub struct Held {
    sockets: Vec<Socket>,
    listener: Server,
    deaf: Server,
}

impl Held {
    /// Makes them; half of the attempts go to a listener at `deaf` that does not hear them.
    pub fn new(server: SocketAddr, deaf: SocketAddr) -> Self {
        let mut held =
            Self { sockets: Vec::new(), listener: Server::listen(server), deaf: Server::deaf(deaf) };
        held.opening();
        held.closing();
        held.closed();
        // Established, and not accepted.
        held.sockets.push(connect(server));
        held
    }

    fn opening(&mut self) {
        let unheard = tcp(self.deaf.address);
        begin_connect(&unheard, self.deaf.address);
        // Its SYN is heard, the answer is not: SYN_SENT here, a request there.
        let half = tcp(self.listener.address);
        hear_nothing(&half);
        begin_connect(&half, self.listener.address);
        self.sockets.extend([unheard, half]);
    }

    fn closing(&mut self) {
        self.hold(self.listener.pair());

        let first = self.listener.pair();
        hear_nothing(&first.server);
        close(&first.client, FIN_WAIT1);
        self.hold(first);

        self.hold(self.half_closed());

        let last = self.half_closed();
        hear_nothing(&last.client);
        close(&last.server, LAST_ACK);
        self.hold(last);

        let both = self.listener.pair();
        hear_nothing(&both.client);
        hear_nothing(&both.server);
        close(&both.client, FIN_WAIT1);
        close(&both.server, FIN_WAIT1);
        // The server repeats its FIN.
        hear_again(&both.client);
        await_state(&both.client, CLOSING);
        self.hold(both);
    }

    fn closed(&mut self) {
        // TIME_WAIT
        let pair = self.listener.pair();
        drop(pair.client);
        await_end(&pair.server);
        drop(pair.server);
        // The mini-socket of a closed socket stands in FIN_WAIT2.
        let orphan = self.half_closed();
        drop(orphan.client);
        self.sockets.push(orphan.server);
    }

    /// `FIN_WAIT2` and `CLOSE_WAIT`.
    fn half_closed(&self) -> Pair {
        let pair = self.listener.pair();
        pair.client.shutdown(Shutdown::Write).unwrap();
        await_state(&pair.server, CLOSE_WAIT);
        await_state(&pair.client, FIN_WAIT2);
        pair
    }

    fn hold(&mut self, pair: Pair) {
        self.sockets.extend([pair.client, pair.server]);
    }
}

fn close(socket: &Socket, state: u8) {
    socket.shutdown(Shutdown::Write).unwrap();
    await_state(socket, state);
}

fn await_state(socket: &Socket, state: u8) {
    let deadline = Instant::now() + *super::LIMIT;
    while state_of(socket) != state {
        assert!(Instant::now() < deadline, "in state {}, not in {state}", state_of(socket));
        thread::yield_now();
    }
}
