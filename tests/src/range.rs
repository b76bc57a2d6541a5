//! A victim and an attacker in namespaces of their own: floods, scans and full queues.

use crate::{
    ledger::{Attempts, Ledger, Report},
    netns::{End, NetNs},
    port::Port,
    snmp::Snmp,
    traffic::{LIMIT, Server, syn::SynSender},
};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    thread,
    time::Instant,
};

/// SYNs that may be under way. Above `net.core.netdev_max_backlog` (1,000), a slow CPU drops packets between two namespaces.
const UNDER_WAY: usize = 500;

/// A victim and an attacker. No host receives the answers of the victim.
#[derive(Debug)]
pub struct Range {
    /// The namespace of the listeners.
    pub victim: NetNs,
    /// The namespace that sends.
    pub attacker: NetNs,
    /// The victim's end.
    pub end: End,
    /// The port of its listeners.
    pub port: Port,
}

impl Range {
    /// `cookies`: see `net.ipv4.tcp_syncookies`.
    ///
    /// # Panics
    /// The kernel refuses namespaces, routes or settings.
    pub fn new(cookies: &str) -> Self {
        let (victim, attacker) = (NetNs::new().unwrap(), NetNs::new().unwrap());
        let veth = victim.join(&attacker).unwrap();
        victim.sysctl("net.ipv4.tcp_syncookies", cookies).unwrap();
        for rp_filter in ["all", "default", &veth.name] {
            victim.sysctl(&format!("net.ipv4.conf.{rp_filter}.rp_filter"), "0").unwrap();
        }
        victim.route(Ipv4Addr::new(10, 128, 0, 0).into(), 9, veth.there.v4.into()).unwrap();
        victim.route(Ipv6Addr::new(0xfdff, 0, 0, 0, 0, 0, 0, 0).into(), 16, veth.there.v6.into()).unwrap();
        Self { victim, attacker, end: veth.here, port: Port::claim() }
    }

    /// The IPv4 address and port of the listeners.
    pub fn v4(&self) -> SocketAddr {
        SocketAddr::new(self.end.v4.into(), self.port.number())
    }

    /// A listener of the victim with room for `backlog` connections.
    pub fn listen(&self, ip: impl Into<IpAddr>, backlog: i32) -> Server {
        let address = SocketAddr::new(ip.into(), self.port.number());
        self.victim.run(|| Server::listen_with(address, backlog, |_| {}))
    }

    /// Sends a SYN from each source, and waits until TCP of the victim has them.
    ///
    /// # Panics
    /// The kernel takes no packets, or loses some on the way.
    pub fn send(&self, sources: impl Iterator<Item = SocketAddr> + Send, to: SocketAddr) -> u64 {
        let mut sources = sources.peekable();
        let sender = self.attacker.run(|| SynSender::new().unwrap());
        let mut sent = 0;
        while sources.peek().is_some() {
            let before = self.received();
            let packets =
                self.attacker.run(|| sender.send(sources.by_ref().take(UNDER_WAY).map(|from| (from, to))));
            let deadline = Instant::now() + *LIMIT;
            while self.received() < before + packets {
                assert!(
                    Instant::now() < deadline,
                    "the victim received less than the {packets} SYNs that were sent"
                );
                thread::yield_now();
            }
            sent += packets;
        }
        sent
    }

    /// Packets that TCP of the victim received.
    fn received(&self) -> u64 {
        Snmp::of(&self.victim).get("Tcp.InSegs")
    }

    /// `conntrace stats` of the port.
    pub fn stats(&self) -> Ledger {
        Ledger::start(&[self.port.number()], "100ms")
    }

    /// Waits until these are the attempts on the port.
    pub fn await_attempts(&self, ledger: &Ledger, what: &str, accept: impl Fn(Attempts) -> bool) -> Report {
        ledger.await_report(what, |report| accept(report.attempts(self.port.number())))
    }

    /// Waits for an audit that finds these attempts, half-open or abandoned requests, and drops.
    pub fn await_settled(&self, ledger: &Ledger, expected: (u64, u64, u64)) -> Report {
        self.await_attempts(ledger, "all attempts", |found| settled(found) == Some(expected))
    }
}

/// The attempts, those that are half-open or were, and the drops. On a busy machine, a request may have timed out.
fn settled(found: Attempts) -> Option<(u64, u64, u64)> {
    Some((found.attempts?, found.half_open? + found.abandoned?, found.dropped?))
}
