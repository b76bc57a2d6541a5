//! A client, a router and a server, each in a network namespace of its own.

use crate::netns::{End, NetNs, Resident, Veth};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread::{self, JoinHandle},
};

/// The three namespaces. Packets between client and server pass through the router.
#[derive(Debug)]
pub struct Routed {
    /// Where flows begin.
    pub client: NetNs,
    /// In the middle.
    pub router: NetNs,
    /// Where flows go.
    pub server: NetNs,
    inside: Veth,
    outside: Veth,
    /// conntrace finds namespaces by their threads.
    _residents: [Resident; 3],
}

impl Routed {
    /// Makes the namespaces, their links and their routes.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn new() -> io::Result<Self> {
        let (client, router, server) = (NetNs::new()?, NetNs::new()?, NetNs::new()?);
        let inside = router.join(&client)?;
        let outside = router.join(&server)?;
        for (netns, to, by) in [(&client, outside.there, inside.here), (&server, inside.there, outside.here)]
        {
            netns.route(to.v4.into(), 32, by.v4.into())?;
            netns.route(to.v6.into(), 128, by.v6.into())?;
        }
        router.sysctl("net.ipv4.ip_forward", "1")?;
        router.sysctl("net.ipv6.conf.all.forwarding", "1")?;
        client.sysctl("net.ipv4.ping_group_range", "0 0")?;
        let residents = [client.settle(), router.settle(), server.settle()];
        Ok(Self { client, router, server, inside, outside, _residents: residents })
    }

    /// The names of the router's links: to the client, and to the server.
    pub fn links(&self) -> [&str; 2] {
        [&self.inside.name, &self.outside.name]
    }

    /// The addresses of the client.
    pub fn client_end(&self) -> End {
        self.inside.there
    }

    /// The router's addresses on the side of the client.
    pub fn inner_end(&self) -> End {
        self.inside.here
    }

    /// The router's addresses on the side of the server.
    pub fn outer_end(&self) -> End {
        self.outside.here
    }

    /// The addresses of the server.
    pub fn server_end(&self) -> End {
        self.outside.there
    }

    /// A TCP server that answers each connection with what it gets, until it is dropped.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn serve(&self, ip: IpAddr) -> io::Result<Server> {
        let listener = self.server.run(|| TcpListener::bind((ip, 0)))?;
        let address = listener.local_addr()?;
        let handle = listener.try_clone()?;
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { break };
                let mut byte = [0; 1];
                // A client that sends nothing ends the server, or its own connection only.
                if matches!(stream.read(&mut byte), Ok(1)) && byte == *b"!" {
                    break;
                }
                let _ = stream.write_all(&byte);
            }
        });
        Ok(Server { address, _listener: handle, thread: Some(thread), netns: self.server.clone_handle()? })
    }

    /// Connects from the client, sends a byte, and closes when the answer came. Returns the client's address.
    ///
    /// # Errors
    /// No connection comes about.
    pub fn exchange(&self, to: SocketAddr) -> io::Result<SocketAddr> {
        self.client.run(|| {
            let mut stream = TcpStream::connect(to)?;
            let own = stream.local_addr()?;
            stream.write_all(b"x")?;
            let mut byte = [0; 1];
            stream.read_exact(&mut byte)?;
            Ok(own)
        })
    }

    /// A UDP socket of the client.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn client_socket(&self, ip: IpAddr) -> io::Result<UdpSocket> {
        self.client.run(|| UdpSocket::bind((ip, 0)))
    }

    /// A UDP socket of the server.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn server_socket(&self, ip: IpAddr) -> io::Result<UdpSocket> {
        self.server.run(|| UdpSocket::bind((ip, 0)))
    }

    /// Sends an echo request from the client to this address of the server, and waits for the reply.
    ///
    /// # Errors
    /// No reply comes.
    pub fn ping(&self, to: IpAddr) -> io::Result<()> {
        let (domain, protocol, any, echo) = match to {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, IpAddr::from(Ipv4Addr::UNSPECIFIED), 8),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, Ipv6Addr::UNSPECIFIED.into(), 128),
        };
        self.client.run(|| {
            let mut socket = Socket::new(domain, Type::DGRAM, Some(protocol))?;
            socket.bind(&SocketAddr::from((any, 0)).into())?;
            socket.set_read_timeout(Some(*crate::traffic::LIMIT))?;
            // The kernel writes id and checksum.
            socket.send_to(&[echo, 0, 0, 0, 0, 0, 0, 1], &SocketAddr::from((to, 0)).into())?;
            socket.read_exact(&mut [0; 8])
        })
    }
}

/// A server in the namespace of the server.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    _listener: TcpListener,
    thread: Option<JoinHandle<()>>,
    netns: NetNs,
}

impl Drop for Server {
    fn drop(&mut self) {
        let address = self.address;
        let _ = self.netns.run(|| TcpStream::connect(address).and_then(|mut stream| stream.write_all(b"!")));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
