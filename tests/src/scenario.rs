//! Everything that can happen to a TCP connection, one kind at a time, each in namespaces of its own and
//! with its truth: what the ledger must equal to the unit.

use crate::{
    flood::{Ending, Flood},
    harness::Skip,
    netns::NetNs,
    traffic::{
        Server,
        close::{self, First},
        fail, handshake, kill, listen, process, ring,
        socket::connect,
    },
    truth::Truth,
};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// One kind of traffic.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// What happens.
    pub name: &'static str,
    /// Makes it happen, on this service port and (where two are needed) the next one.
    pub run: fn(u16) -> Result<Truth, Skip>,
}

/// Names a scenario after the function that makes it.
macro_rules! scenarios {
    ($($name:ident),+ $(,)?) => { &[$(Scenario { name: stringify!($name), run: $name }),+] };
}

/// All of them.
pub const ALL: &[Scenario] = scenarios!(
    client_first,
    server_first,
    ipv6,
    mapped,
    refused,
    refused_then_connected,
    timed_out,
    unreachable,
    no_route,
    no_source_port,
    abandoned,
    unread_data,
    linger0,
    half_close,
    half_close_orphan,
    simultaneous_close,
    simultaneous_open,
    self_connect,
    disconnected_and_reused,
    failed_listen,
    listeners,
    unaccepted,
    accept_queue_overflow,
    syncookies,
    deferred_accept,
    fast_open,
    fast_open_abandoned,
    mptcp,
    keepalive_timeout,
    user_timeout,
    killed,
    killed_while_connecting,
    listener_killed,
    namespace_dropped,
    kill_9,
    kill_9_with_linger0,
    forked,
    passed,
    by_io_uring,
    many,
);

type Made = Result<Truth, Skip>;

fn v4(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn v6(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv6Addr::LOCALHOST, port))
}

fn fresh() -> Result<NetNs, Skip> {
    NetNs::new().map_err(|error| Skip(format!("cannot make a network namespace: {error}")))
}

fn ready(prepared: io::Result<()>) -> Result<(), Skip> {
    prepared.map_err(|error| Skip(format!("cannot prepare the namespace: {error}")))
}

/// Several pieces of traffic in one new namespace.
fn alone<const N: usize>(traffic: impl FnOnce() -> [Truth; N] + Send) -> Made {
    let mut truth = Truth::default();
    for part in fresh()?.run(traffic) {
        truth += part;
    }
    Ok(truth)
}

fn client_first(port: u16) -> Made {
    alone(|| [close::orderly(v4(port), 10, First::Client)])
}

fn server_first(port: u16) -> Made {
    alone(|| [close::orderly(v4(port), 10, First::Server)])
}

fn ipv6(port: u16) -> Made {
    alone(|| [close::orderly(v6(port), 5, First::Client), close::orderly(v6(port), 5, First::Server)])
}

fn mapped(port: u16) -> Made {
    let dressed = SocketAddr::from((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), port));
    alone(|| [close::dual_stack(port, dressed), close::dual_stack(port, v4(port))])
}

fn refused(port: u16) -> Made {
    alone(|| [fail::refused(v4(port), 3), fail::refused(v6(port), 2), fail::refused_bound(v4(port))])
}

fn refused_then_connected(port: u16) -> Made {
    alone(|| [fail::refused_then_connected(v4(port)), fail::refused_then_connected(v6(port))])
}

fn timed_out(port: u16) -> Made {
    alone(|| [fail::timed_out(v4(port)), fail::timed_out(v6(port))])
}

fn unreachable(port: u16) -> Made {
    let (here, there) = (fresh()?, fresh()?);
    let veth = here.join(&there).map_err(|error| Skip(format!("cannot make a veth pair: {error}")))?;
    let mut truth = Truth::default();
    for ip in [IpAddr::from(veth.unused.v4), IpAddr::from(veth.unused.v6)] {
        truth += here.run(|| fail::unreachable(SocketAddr::new(ip, port)));
    }
    Ok(truth)
}

fn no_route(port: u16) -> Made {
    alone(|| [fail::no_route(SocketAddr::from((Ipv4Addr::new(10, 1, 1, 1), port)))])
}

fn no_source_port(port: u16) -> Made {
    let ns = fresh()?;
    ready(ns.sysctl("net.ipv4.ip_local_port_range", "40000 40000"))?;
    Ok(ns.run(|| fail::no_source_port(v4(port))))
}

fn abandoned(port: u16) -> Made {
    alone(|| [fail::abandoned(v4(port)), fail::abandoned(v6(port)), fail::abandoned_by_shutdown(v4(port))])
}

fn unread_data(port: u16) -> Made {
    alone(|| [close::unread(v4(port)), close::unread(v6(port))])
}

fn linger0(port: u16) -> Made {
    alone(|| [close::linger0(v4(port), First::Client), close::linger0(v4(port), First::Server)])
}

fn half_close(port: u16) -> Made {
    alone(|| [close::half_close(v4(port))])
}

fn half_close_orphan(port: u16) -> Made {
    alone(|| [close::half_close_orphan(v4(port))])
}

fn simultaneous_close(port: u16) -> Made {
    alone(|| [close::simultaneous(v4(port))])
}

fn simultaneous_open(port: u16) -> Made {
    alone(|| [handshake::simultaneous_open(v4(port), v4(port + 1))])
}

fn self_connect(port: u16) -> Made {
    alone(|| [handshake::self_connect(v4(port)), handshake::self_connect(v6(port))])
}

fn disconnected_and_reused(port: u16) -> Made {
    alone(|| [close::reuse(v4(port))])
}

fn failed_listen(port: u16) -> Made {
    alone(|| [listen::in_use(v4(port))])
}

fn listeners(port: u16) -> Made {
    alone(|| [listen::listeners(v4(port), 3), listen::listeners(v6(port), 2)])
}

fn unaccepted(port: u16) -> Made {
    alone(|| [listen::unaccepted(v4(port), 5)])
}

fn accept_queue_overflow(port: u16) -> Made {
    alone(|| [listen::overflow(v4(port), 2, 5)])
}

fn syncookies(port: u16) -> Made {
    let ns = fresh()?;
    ready(handshake::force_cookies(&ns))?;
    Ok(ns.run(|| close::orderly(v4(port), 5, First::Client)))
}

fn deferred_accept(port: u16) -> Made {
    alone(|| [listen::deferred(v4(port))])
}

fn fast_open(port: u16) -> Made {
    let ns = fresh()?;
    ready(handshake::allow_fast_open(&ns))?;
    Ok(ns.run(|| handshake::fast_open(v4(port))))
}

fn fast_open_abandoned(port: u16) -> Made {
    let ns = fresh()?;
    ready(handshake::allow_fast_open(&ns))?;
    Ok(ns.run(|| fail::fast_open_abandoned(v4(port))))
}

fn mptcp(port: u16) -> Made {
    fresh()?.run(|| handshake::mptcp(v4(port))).ok_or_else(|| Skip("this kernel has no MPTCP".into()))
}

fn keepalive_timeout(port: u16) -> Made {
    alone(|| [close::keepalive(v4(port))])
}

fn user_timeout(port: u16) -> Made {
    alone(|| [close::user_timeout(v4(port))])
}

fn able<T>(killed: io::Result<T>) -> Result<T, Skip> {
    killed.map_err(|error| Skip(format!("this kernel cannot kill sockets: {error}")))
}

fn killed(port: u16) -> Made {
    fresh()?.run(|| {
        let mut truth = able(kill::connected(v4(port)))?;
        truth += able(kill::connected(v6(port)))?;
        Ok(truth)
    })
}

fn killed_while_connecting(port: u16) -> Made {
    able(fresh()?.run(|| kill::connecting(v4(port))))
}

fn listener_killed(port: u16) -> Made {
    able(fresh()?.run(|| kill::listening(v4(port), 3)))
}

/// The last handle of the namespace goes while sockets live in it; they end as if nothing had happened.
fn namespace_dropped(port: u16) -> Made {
    let ns = fresh()?;
    let mut truth = Truth::default();
    let (listener, pair) = ns.run(|| {
        let listener = Server::listen(v4(port));
        let pair = listener.pair_from(connect(v4(port)));
        (listener, pair)
    });
    drop(ns);
    truth.listened(port);
    pair.exchange(&mut truth, 2, 3);
    truth.whole(pair.tuple);
    drop(listener);
    drop(pair.client);
    drop(pair.server);
    Ok(truth)
}

fn kill_9(port: u16) -> Made {
    alone(|| [process::killed(v4(port))])
}

fn kill_9_with_linger0(port: u16) -> Made {
    alone(|| [process::killed_by_reset(v4(port))])
}

fn forked(port: u16) -> Made {
    alone(|| [process::forked(v4(port))])
}

fn passed(port: u16) -> Made {
    alone(|| [process::passed(v4(port))])
}

fn by_io_uring(port: u16) -> Made {
    let made = fresh()?.run(|| ring::orderly(v4(port), 5));
    made.map_err(|error| Skip(format!("cannot use io_uring: {error}")))
}

fn many(port: u16) -> Made {
    alone(|| [Flood { open: 20, ..Flood::new(port, 2_000, Ending::Mixed) }.run()])
}
