//! Two hosts that talk to each other, and what the test knows of each connection between them.

use conn_tests::{
    netns::NetNs,
    port::Port,
    traffic::{
        LIMIT, Pair, Server, crew,
        fail::refused,
        process::Process,
        socket::{await_end, begin_connect, connect, hear_again, hear_nothing, tcp, tcp_info, transfer},
    },
};
use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Shutdown, SocketAddr},
    thread,
    time::{Duration, Instant},
};

/// How many connections the processes `shop` and `cron` open to the same port.
pub(super) const SHOP: u64 = 12;
pub(super) const CRON: u64 = 5;
/// How many connections to the failing port fail, before as many more succeed.
pub(super) const REFUSED: u64 = 4;
pub(super) const THEN: u64 = 12;
/// How many are given up because the port hears nothing.
pub(super) const ABANDONED: u64 = 2;
/// How many ports are tried that nothing listens at.
pub(super) const SCANNED: u16 = 12;
/// How many connections have payload, and how much: to the server and back.
pub(super) const CALLS: u64 = 3;
pub(super) const UP: u64 = 10_000;
pub(super) const DOWN: u64 = 50_000;

/// Two hosts, the first of which connects to the second.
pub(super) struct Scene {
    pub(super) web: NetNs,
    pub(super) db: NetNs,
    pub(super) web_ip: IpAddr,
    pub(super) db_ip: IpAddr,
}

/// What the traffic was.
pub(super) struct Known {
    /// The name of this process.
    pub(super) own: String,
    pub(super) busy: u16,
    pub(super) calls: u16,
    pub(super) failing: u16,
    pub(super) deaf: u16,
    pub(super) open: u16,
    pub(super) lossy: u16,
    pub(super) scanned: Vec<u16>,
    /// When the connection that stays open was opened, at the earliest and at the latest.
    pub(super) opened: [Instant; 2],
    /// Of each call: when it began, and how long it lived at least.
    pub(super) lived: Vec<(Instant, Duration)>,
    /// The least number of segments that were sent again on the lossy connection.
    pub(super) again: u64,
    /// The ends that stay open, and the ports.
    _held: (Pair, Vec<Port>),
}

impl Scene {
    pub(super) fn new() -> Self {
        let [web, db] = [(), ()].map(|()| NetNs::new().unwrap());
        let link = web.join(&db).unwrap();
        Self { web_ip: link.here.v4.into(), db_ip: link.there.v4.into(), web, db }
    }

    fn listen(&self, port: &Port) -> Server {
        let address = port.at(self.db_ip);
        self.db.run(|| Server::listen(address))
    }

    fn pair(&self, server: &Server) -> Pair {
        server.pair_from(self.web.run(|| connect(server.address)))
    }

    /// A connection with payload, which `during` is a part of.
    fn call(&self, server: &Server, during: impl FnOnce()) -> (Instant, Duration) {
        let begun = Instant::now();
        let pair = self.pair(server);
        let established = Instant::now();
        transfer(&pair.client, &pair.server, UP);
        transfer(&pair.server, &pair.client, DOWN);
        during();
        let lived = established.elapsed();
        end(&pair);
        (begun, lived)
    }

    /// A process of this name opens connections, which the server closes.
    fn opened_by(&self, name: &str, server: &Server, count: u64) {
        let address = server.address;
        let process = self
            .web
            .run(|| Process::run(name, &[], || (0..count).for_each(|_| await_end(&connect(address)))));
        (0..count).for_each(|_| drop(server.accept()));
        process.join();
    }

    /// Makes the connections. All but one have ended when this returns.
    pub(super) fn traffic(&self) -> Known {
        let ports = Port::block(6 + SCANNED);
        let [busy, calls, failing, deaf, open, lossy] = [0, 1, 2, 3, 4, 5].map(|at| &ports[at]);
        let before = Instant::now();
        let held = self.pair(&self.listen(open));
        let opened = [before, Instant::now()];
        let server = self.listen(calls);
        let mut again = 0;
        let mut lived = vec![self.call(&server, || {
            again = self.short(busy, failing, deaf, lossy, &ports[6..]);
        })];
        lived.extend((1..CALLS).map(|_| self.call(&server, || ())));

        let number = Port::number;
        Known {
            own: crew::process_name(),
            busy: number(busy),
            calls: number(calls),
            failing: number(failing),
            deaf: number(deaf),
            open: number(open),
            lossy: number(lossy),
            scanned: ports[6..].iter().map(number).collect(),
            opened,
            lived,
            again,
            _held: (held, ports),
        }
    }

    /// All connections that live for a moment. How many segments were sent again.
    fn short(&self, busy: &Port, failing: &Port, deaf: &Port, lossy: &Port, scanned: &[Port]) -> u64 {
        let server = self.listen(busy);
        // Two processes of one name.
        self.opened_by("shop", &server, 5);
        self.opened_by("shop", &server, SHOP - 5);
        self.opened_by("cron", &server, CRON);
        let refuse = |port: &Port, count: u64| {
            let server = port.at(self.db_ip);
            self.web.run(|| refused(server, count as usize));
        };
        refuse(failing, REFUSED);
        let server = self.listen(failing);
        (0..THEN).for_each(|_| end(&self.pair(&server)));
        self.give_up(deaf.at(self.db_ip));
        for port in scanned {
            refuse(port, 1);
        }
        self.lose(&self.listen(lossy))
    }

    /// Begins connections to a port that hears nothing, and closes them.
    fn give_up(&self, server: SocketAddr) {
        let deaf = self.db.run(|| Server::deaf(server));
        self.web.run(|| (0..ABANDONED).for_each(|_| begin_connect(&tcp(server), server)));
        drop(deaf);
    }

    /// A connection whose server does not hear for a while. How many segments were sent again.
    fn lose(&self, server: &Server) -> u64 {
        let pair = self.pair(server);
        hear_nothing(&pair.server);
        let retransmits = || u64::from(tcp_info(&pair.client).tcpi_total_retrans);
        self.web.run(|| (&pair.client).write_all(&[1]).unwrap());
        let deadline = Instant::now() + *LIMIT;
        while retransmits() < 2 {
            assert!(Instant::now() < deadline, "no segment is sent again");
            thread::yield_now();
        }
        hear_again(&pair.server);
        (&pair.server).read_exact(&mut [0]).unwrap();
        transfer(&pair.server, &pair.client, 1);
        let again = retransmits();
        end(&pair);
        again
    }
}

/// The server closes, then the client.
fn end(pair: &Pair) {
    pair.server.shutdown(Shutdown::Write).unwrap();
    await_end(&pair.client);
    pair.client.shutdown(Shutdown::Write).unwrap();
    await_end(&pair.server);
}
