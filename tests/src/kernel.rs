//! The TCP sockets of a network namespace by the kernel's own tables, and their destruction.

use crate::{
    traffic::LIMIT,
    truth::{Direction, Key},
};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};
use std::{
    collections::BTreeMap,
    fs, io,
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd as _,
    thread,
    time::Instant,
};

/// States in which a socket is a connection, by the kernel's numbers, with the names that conntrace gives
/// their columns. `TIME_WAIT` is none: no socket is in it.
const OPEN: [(u8, &str); 8] = [
    (1, "established"),
    (2, "syn_sent"),
    (3, "syn_recv"),
    (4, "fin_wait1"),
    (5, "fin_wait2"),
    (8, "close_wait"),
    (9, "last_ack"),
    (11, "closing"),
];
/// `SYN_RECV`, which `/proc/net/tcp` shows for a request that has no socket yet as well, then without inode.
const SYN_RECV: u8 = 3;
/// The timer field of `/proc/net/tcp` for a mini-socket: `TIME_WAIT`, and `FIN_WAIT2` of an orphan.
const REMAINS: &str = "03";

/// Open connections by direction, service port and state.
pub type SocketTally = BTreeMap<(Key, &'static str), u64>;

/// Counts the open connections of these service ports in the namespace of the calling thread.
///
/// A socket whose local port is a service port counts as accepted, so clients need other ports.
pub fn tally_sockets(ports: &[u16]) -> SocketTally {
    let mut tally = SocketTally::new();
    for file in ["tcp", "tcp6"] {
        let text = fs::read_to_string(format!("/proc/thread-self/net/{file}")).expect("the socket table");
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let (local, remote) = (port(fields[1]), port(fields[2]));
            let number = u8::from_str_radix(fields[3], 16).expect("a state");
            let timer = fields[5].split(':').next().expect("a timer");
            let is_none = timer == REMAINS || (number == SYN_RECV && fields[9] == "0");
            let Some(&(_, state)) = OPEN.iter().find(|(open, _)| *open == number && !is_none) else {
                continue;
            };
            let key = if ports.contains(&local) {
                Key { direction: Direction::In, port: local }
            } else if ports.contains(&remote) {
                Key { direction: Direction::Out, port: remote }
            } else {
                continue;
            };
            *tally.entry((key, state)).or_default() += 1;
        }
    }
    tally
}

/// The tally of ports without traffic, after every socket has left its passing states.
///
/// # Panics
/// A socket stays in a passing state for too long.
pub fn settled(ports: &[u16]) -> SocketTally {
    let deadline = Instant::now() + *LIMIT;
    loop {
        let tally = tally_sockets(ports);
        let passing = ["syn_recv", "fin_wait1", "last_ack", "closing"];
        if !tally.keys().any(|(_, state)| passing.contains(state)) {
            return tally;
        }
        assert!(Instant::now() < deadline, "still on its way: {tally:?}");
        thread::yield_now();
    }
}

/// The port of `0100007F:1F90`.
fn port(field: &str) -> u16 {
    let digits = field.rsplit(':').next().expect("a port");
    u16::from_str_radix(digits, 16).expect("a port in hexadecimal")
}

/// Kills the socket with these addresses in the namespace of the calling thread, as `ss -K` does; of a
/// listener, `remote` is all zeros.
///
/// # Errors
/// `EOPNOTSUPP` from a kernel without `CONFIG_INET_DIAG_DESTROY`.
pub fn destroy(local: SocketAddr, remote: SocketAddr) -> io::Result<()> {
    const SOCK_DESTROY: u16 = 21;
    const NLM_F_REQUEST_ACK: u16 = 0x1 | 0x4;
    const ANY_STATE: u32 = u32::MAX;
    const ANY_COOKIE: [u8; 8] = [0xff; 8];

    let family = if local.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 } as u8;
    // struct nlmsghdr, then struct inet_diag_req_v2.
    let mut request = vec![0; 4];
    request.extend(SOCK_DESTROY.to_ne_bytes());
    request.extend(NLM_F_REQUEST_ACK.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([family, libc::IPPROTO_TCP as u8, 0, 0]);
    request.extend(ANY_STATE.to_ne_bytes());
    request.extend(local.port().to_be_bytes());
    request.extend(remote.port().to_be_bytes());
    for ip in [local.ip(), remote.ip()] {
        let mut bytes = match ip {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        bytes.resize(16, 0);
        request.extend(bytes);
    }
    // Any interface.
    request.extend([0; 4]);
    request.extend(ANY_COOKIE);
    let len = request.len() as u32;
    request[..4].copy_from_slice(&len.to_ne_bytes());

    let diag =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)?;
    bind(diag.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    send(diag.as_raw_fd(), &request, MsgFlags::empty())?;
    let mut answer = [0_u8; 4096];
    let len = recv(diag.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    // nlmsghdr, then the negated errno, 0 for success.
    let code = answer[..len].get(16..20).ok_or(io::ErrorKind::UnexpectedEof)?;
    match i32::from_ne_bytes([code[0], code[1], code[2], code[3]]) {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(-code)),
    }
}
