//! Real network namespaces that live exactly as long as the test that made them.

#![expect(unsafe_code, reason = "fsopen, fsconfig and fsmount are raw system calls")]

use crate::{link::Links, traffic::LIMIT};
use nix::{
    fcntl::{OFlag, openat},
    sched::{CloneFlags, setns, unshare},
    sys::stat::Mode,
};
use std::{
    fs::{self, File},
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::{
        fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    panic, process, ptr,
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc::{Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Sets the loopback link up in the namespace of the calling thread: a freshly booted kernel has it down.
///
/// # Errors
/// The kernel refuses.
pub fn loopback_up() -> io::Result<()> {
    Links::here()?.up("lo")
}

/// A network namespace with its loopback up.
///
/// It has no name in the file system: a file descriptor keeps it alive, so nothing is left behind even
/// when the test is killed. As for every namespace, sockets that outlive this value keep it alive too.
#[derive(Debug)]
pub struct NetNs {
    file: File,
    inum: u64,
}

impl NetNs {
    /// Makes a namespace.
    pub fn new() -> io::Result<Self> {
        // Only the thread that unshares changes its namespace, so a thread is spent on it.
        let maker = thread::spawn(|| -> io::Result<Self> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            loopback_up()?;
            let file = File::open("/proc/thread-self/ns/net")?;
            let inum = file.metadata()?.ino();
            Ok(Self { file, inum })
        });
        maker.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
    }

    /// Another handle on the same namespace.
    ///
    /// # Errors
    /// There are no more descriptors.
    pub fn clone_handle(&self) -> io::Result<Self> {
        Ok(Self { file: self.file.try_clone()?, inum: self.inum })
    }

    /// The namespace's inode number, as conntrace prints it.
    pub fn inum(&self) -> u64 {
        self.inum
    }

    /// Runs `job` on a new thread inside the namespace and waits for it. Sockets made there, and threads
    /// and processes started there, belong to the namespace.
    ///
    /// # Panics
    /// When `job` does, with its panic.
    pub fn run<T: Send>(&self, job: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let worker = thread::Builder::new()
                .name(thread::current().name().unwrap_or("netns").to_owned())
                .spawn_scoped(scope, || {
                    setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET).expect("enter the namespace");
                    job()
                })
                .expect("start a thread");
            worker.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
        })
    }

    /// Keeps a thread in the namespace, so that the namespace is found by its processes.
    ///
    /// # Panics
    /// When the thread cannot enter.
    pub fn settle(&self) -> Resident {
        let file = self.file.try_clone().expect("another handle");
        let (leave, left) = channel::<()>();
        let (signal, entered) = channel();
        let thread = thread::spawn(move || {
            setns(file.as_fd(), CloneFlags::CLONE_NEWNET).expect("enter the namespace");
            signal.send(()).expect("the caller waits");
            // Until the other end is dropped.
            let _ = left.recv();
        });
        entered.recv().expect("a thread in the namespace");
        Resident { leave: Some(leave), thread: Some(thread) }
    }

    /// Lets packets of the loopback link be handled on any CPU, whichever they were sent from (RPS): there
    /// they interrupt what is running.
    ///
    /// # Errors
    /// The kernel has no RPS, or no such mounts.
    pub fn spread(&self) -> io::Result<()> {
        const FSCONFIG_CMD_CREATE: libc::c_long = 6;
        let made = |fd: libc::c_long| match i32::try_from(fd) {
            // SAFETY: the kernel has just made this descriptor for us alone.
            Ok(fd @ 0..) => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
            _ => Err(io::Error::last_os_error()),
        };
        self.run(|| {
            // /sys shows the links of the namespace that it was mounted in: mount one, nowhere.
            // SAFETY: a C string and plain numbers.
            let context = made(unsafe { libc::syscall(libc::SYS_fsopen, c"sysfs".as_ptr(), 0) })?;
            let none = ptr::null::<libc::c_char>();
            let number = context.as_raw_fd();
            // SAFETY: the command takes neither key nor value.
            if unsafe { libc::syscall(libc::SYS_fsconfig, number, FSCONFIG_CMD_CREATE, none, none, 0) } != 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: plain numbers.
            let sysfs = made(unsafe { libc::syscall(libc::SYS_fsmount, number, 0, 0) })?;
            let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
            let file = openat(&sysfs, "class/net/lo/queues/rx-0/rps_cpus", flags, Mode::empty())?;
            let cpus = thread::available_parallelism()?.get().min(32);
            let mask = u32::MAX >> (32 - cpus as u32);
            File::from(file).write_all(format!("{mask:x}").as_bytes())
        })
    }

    /// Sets a sysctl of the namespace, e.g. `net.ipv4.tcp_syncookies`.
    pub fn sysctl(&self, name: &str, value: &str) -> io::Result<()> {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        self.run(|| fs::write(path, value))
    }

    /// Gives a link of the namespace one more address.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn address(&self, link: &str, address: IpAddr, prefix: u8) -> io::Result<()> {
        self.run(|| Links::here()?.address(link, address, prefix))
    }

    /// Routes addresses by a neighbour.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn route(&self, to: IpAddr, prefix: u8, by: IpAddr) -> io::Result<()> {
        self.run(|| Links::here()?.route(to, prefix, by))
    }

    /// Connects two namespaces by a veth pair and waits until packets pass.
    pub fn join(&self, other: &Self) -> io::Result<Veth> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let (high, low) = ((number >> 5) as u8, ((number & 0x1f) << 3) as u8);
        let host = process::id() as u8;
        let name = format!("veth{number}");
        let v4 = |last: u8| Ipv4Addr::new(10, host, high, low + last);
        let v6 = |last: u16| {
            Ipv6Addr::new(0xfd00, u16::from(host), u16::from(high), u16::from(low), 0, 0, 0, last)
        };
        let ends = [1, 2, 3].map(|last| End { v4: v4(last), v6: v6(u16::from(last)) });

        self.run(|| Links::here()?.veth(&name, &name, other.file.as_fd()))?;
        for (ns, end) in [self, other].into_iter().zip(&ends[..2]) {
            ns.run(|| -> io::Result<()> {
                let links = Links::here()?;
                links.address(&name, IpAddr::V4(end.v4), 29)?;
                links.address(&name, IpAddr::V6(end.v6), 64)?;
                // A neighbour that was asked too early is asked again soon instead of after a second.
                for family in ["ipv4", "ipv6"] {
                    fs::write(format!("/proc/sys/net/{family}/neigh/{name}/retrans_time_ms"), "20")?;
                }
                links.up(&name)
            })?;
        }
        self.await_path(other, ends[0].v4.into(), ends[1].v4.into())?;
        self.await_path(other, ends[0].v6.into(), ends[1].v6.into())?;
        let [here, there, unused] = ends;
        Ok(Veth { name, here, there, unused })
    }

    /// Bridges the links to two namespaces here, and gives the other ends two addresses of one network. Returns when
    /// packets pass.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn bridge(&self, one: (&Self, &Veth), other: (&Self, &Veth)) -> io::Result<[Ipv4Addr; 2]> {
        let ends = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
        self.run(|| -> io::Result<()> {
            let links = Links::here()?;
            links.bridge("bridge")?;
            for (_, veth) in [one, other] {
                links.enslave(&veth.name, "bridge")?;
            }
            links.up("bridge")
        })?;
        for ((netns, veth), end) in [one, other].into_iter().zip(ends) {
            netns.address(&veth.name, end.into(), 24)?;
        }
        one.0.await_path(other.0, ends[0].into(), ends[1].into())?;
        Ok(ends)
    }

    /// The carrier and the neighbours come up by themselves, a little later: send until something arrives,
    /// in both directions, so that the first SYN of a test is not the one that is lost.
    fn await_path(&self, other: &Self, here: IpAddr, there: IpAddr) -> io::Result<()> {
        let bind = |ip| -> io::Result<UdpSocket> {
            let socket = UdpSocket::bind(SocketAddr::new(ip, 0))?;
            socket.set_read_timeout(Some(Duration::from_millis(10)))?;
            Ok(socket)
        };
        let (near, far) = (self.run(|| bind(here))?, other.run(|| bind(there))?);
        let deadline = Instant::now() + *LIMIT;
        for (from, to) in [(&near, &far), (&far, &near)] {
            loop {
                // An unreachable neighbour is reported here too, and is only not there yet.
                let _ = from.send_to(b"?", to.local_addr()?);
                match to.recv(&mut [0; 8]) {
                    Ok(_) => break,
                    Err(error) if Instant::now() > deadline => return Err(error),
                    Err(_) => {}
                }
            }
        }
        Ok(())
    }
}

/// A thread that lives in a namespace for as long as this value does.
#[derive(Debug)]
pub struct Resident {
    leave: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Resident {
    fn drop(&mut self) {
        self.leave = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The addresses of one end of a veth pair.
#[derive(Debug, Clone, Copy)]
pub struct End {
    /// In 10.0.0.0/8.
    pub v4: Ipv4Addr,
    /// In `fd00::/16`.
    pub v6: Ipv6Addr,
}

/// A veth pair between two namespaces; it goes with the first of them.
#[derive(Debug)]
pub struct Veth {
    /// Name of the link, the same in both.
    pub name: String,
    /// The end in the namespace that [`NetNs::join`] was called on.
    pub here: End,
    /// The other end.
    pub there: End,
    /// Unused addresses of the same network.
    pub unused: End,
}
