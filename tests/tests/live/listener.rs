//! Owners of listeners: who is named before a process accepts, and what takes a name away.

#![expect(unsafe_code, reason = "users and descriptors of other processes have no safe form")]

use super::mptcp::mptcp;
use super::owner::{event, watch};
use conn_common::listener::PER_USER;
use conn_tests::{
    harness::{Outcome, Skip},
    host::Host,
    needs_tracing, needs_whole_machine,
    netns::NetNs,
    port::Port,
    tracer::{Setup, Tracer},
    traffic::{
        Server,
        crew::{CallReport, Owner, Worker, process_name},
        process::Process,
        socket::{connect, set_option, tcp, tuple_of},
    },
};
use macro_rules_attribute::apply;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use std::{
    io::Read as _,
    mem,
    net::SocketAddr,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    slice,
};

/// The owner in the NEW of the server's end of a connection that is made now.
fn new_in(tracer: &Tracer, address: SocketAddr) -> Value {
    let client = tuple_of(&connect(address)).client.port();
    let mut new = event(tracer, "new", "in", client);
    ["owner", "pid", "comm", "holders"].into_iter().map(|name| new[name].take()).collect()
}

fn named(pid: u32, comm: &str) -> Value {
    json!(["listener", pid, comm, null])
}

/// The same, of a listener that is older than the tracer.
fn found(pid: u32, comm: &str) -> Value {
    json!(["listener", pid, comm, 1])
}

/// A process that listens, and accepts nothing.
fn listening(name: &str, listen: impl FnOnce() -> Server) -> Worker {
    let worker = Worker::start(name, &[], |line| {
        let _server = listen();
        line.ready();
        line.wait();
    });
    worker.await_ready();
    worker
}

/// `list` of this port, as JSON.
fn list(port: &Port, more: &[&str]) -> Vec<Value> {
    let port = port.to_string();
    let ended = Setup::new(["list", "-o", "json", "--dport", &port]).arguments(more).run();
    ended.expect_code(0);
    ended.stdout.iter().map(|line| serde_json::from_str(line).expect("an object")).collect()
}

/// As nginx and others begin: the process that listened forks and ends. A stranger may get its number.
#[apply(needs_tracing)]
fn the_name_ends_with_its_process(_: &Host) -> Outcome {
    let port = Port::claim();
    let address = port.v4();
    let tracer = watch(&port);
    // The heir lives as long as this end.
    let (_life, heirs) = UnixStream::pair().expect("a socket pair");
    let parent = Worker::start("conn-parent", &[heirs.as_raw_fd()], |line| {
        let server = Server::listen(address);
        let kept = [server.socket.as_raw_fd(), heirs.as_raw_fd()];
        mem::forget(Process::run("conn-heir", &kept, || {
            let _ = (&heirs).read(&mut [0]);
        }));
        line.ready();
        line.wait();
    });
    drop(heirs);
    parent.await_ready();
    let pid = parent.pid();
    assert_eq!(new_in(&tracer, address), named(pid, "conn-parent"));
    parent.resume();
    parent.join();
    assert_eq!(new_in(&tracer, address), json!(["-", null, null, null]), "{pid}");
    // A tracer that starts now finds the process that holds it.
    let after = new_in(&watch(&port), address);
    assert_eq!(
        (&after[0], &after[2], &after[3]),
        (&"listener".into(), &"conn-heir".into(), &1.into()),
        "{after}"
    );
    Ok(())
}

/// Another process listens at the same port of another address, and ends.
#[apply(needs_tracing)]
fn another_address_does_not_take_the_name(_: &Host) -> Outcome {
    let port = Port::claim();
    let [first, second] = [1, 2].map(|last| port.at([127, 0, 0, last]));
    let before = watch(&port);
    let server = listening("conn-first", || Server::listen(first));
    let after = watch(&port);
    let check = || {
        assert_eq!(new_in(&before, first), named(server.pid(), "conn-first"));
        assert_eq!(new_in(&after, first), found(server.pid(), "conn-first"));
    };
    check();
    let other = listening("conn-other", || Server::listen(second));
    check();
    for tracer in [&before, &after] {
        assert_eq!(new_in(tracer, second), named(other.pid(), "conn-other"));
    }
    drop(other);
    check();
    drop(server);
    Ok(())
}

/// A new process takes over a port with `SO_REUSEPORT`: while both listen, either may accept.
#[apply(needs_tracing)]
fn the_last_listener_of_a_shared_port_is_named(_: &Host) -> Outcome {
    let port = Port::claim();
    let address = port.v4();
    let shared = move || {
        let socket = tcp(address);
        set_option(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, 1);
        Server::listen_on(socket, address, 16, |_| {})
    };
    let before = watch(&port);
    let old = listening("conn-old", shared);
    assert_eq!(new_in(&before, address), named(old.pid(), "conn-old"));
    let new = listening("conn-new", shared);
    let after = watch(&port);
    for tracer in [&before, &after] {
        assert_eq!(new_in(tracer, address), json!(["listener", null, null, null]));
    }
    drop(old);
    assert_eq!(new_in(&before, address), named(new.pid(), "conn-new"));
    assert_eq!(new_in(&after, address), found(new.pid(), "conn-new"));
    Ok(())
}

/// Three processes share one listener. A worker is the first, because each process that another test forks has the
/// sockets of this one for a moment.
#[apply(needs_tracing)]
fn a_shared_listener_has_all_its_holders(_: &Host) -> Outcome {
    let port = Port::claim();
    let address = port.v4();
    // The children live as long as this end.
    let (_life, children) = UnixStream::pair().expect("a socket pair");
    let parent = Worker::start("conn-shares", &[children.as_raw_fd()], |line| {
        let server = Server::listen(address);
        let kept = [server.socket.as_raw_fd(), children.as_raw_fd()];
        let started = [0, 1].map(|_| {
            Process::run("conn-shares", &kept, || {
                let _ = (&children).read(&mut [0]);
            })
        });
        line.report(&started.each_ref().map(|child| of_process(child.pid())));
        line.wait();
    });
    drop(children);
    let mut pids = [parent.pid(), parent.next_report().caller.pid, parent.next_report().caller.pid];
    pids.sort_unstable();
    assert_eq!(new_in(&watch(&port), address), json!(["listener", null, null, 3]));
    let rows = list(&port, &["--listening", "--columns", "pid,owner,holders,processes"]);
    let [row] = &rows[..] else { panic!("{rows:?}") };
    let listed: Vec<&Value> =
        row["processes"].as_array().expect("an array").iter().map(|one| &one["pid"]).collect();
    assert_eq!(
        (&row["holders"], &row["owner"], json!(listed)),
        (&3.into(), &"files".into(), json!(pids)),
        "{row}"
    );
    Ok(())
}

/// A report of a process.
fn of_process(pid: u32) -> CallReport {
    CallReport { caller: Owner { pid, ..Owner::current() }, ..CallReport::NONE }
}

/// A process of root, with a lower id, gets the socket of a user.
#[apply(needs_tracing)]
fn a_holder_with_the_user_of_the_socket_is_named(_: &Host) -> Outcome {
    let port = Port::claim();
    let server = Server::listen(port.v4());
    let holder = Worker::start("conn-holder", &[], |line| {
        let user = Worker::start("conn-user", &[], |line| {
            become_nobody();
            let socket = connect(server.address);
            line.report(&[CallReport { client: tuple_of(&socket).client.port(), ..CallReport::NONE }]);
            line.wait();
        });
        let client = user.next_report().client;
        let copies = all_descriptors_of(user.pid());
        line.report(&[CallReport { client, ..of_process(user.pid()) }]);
        line.wait();
        drop(copies);
        user.resume();
        user.join();
        line.wait();
    });
    let CallReport { client, caller: user, .. } = holder.next_report();
    let _accepted = server.accept();
    let tracer = watch(&port);
    let rows = list(&port, &["--direction", "out", "--columns", "pid,comm,owner,holders"]);
    assert_eq!(rows, [json!({"pid": user.pid, "comm": "conn-user", "owner": "files", "holders": 2})]);
    holder.resume();
    let end = event(&tracer, "destroy", "out", client);
    let fields = ["pid", "comm", "owner", "holders"].map(|name| &end[name]);
    assert_eq!(fields, [&rows[0]["pid"], &"conn-user".into(), &"files".into(), &2.into()], "{end}");
    Ok(())
}

/// MPTCP, as in each server written in Go since 1.24: its sockets are no sockets of TCP. Alone, since a process that another
/// test forks has the sockets of this one, too, for a moment.
#[apply(needs_whole_machine)]
fn mptcp_sockets_have_owners(_: &Host) -> Outcome {
    let port = Port::claim();
    let address = port.v4();
    mptcp(address).map_err(|error| Skip(format!("no MPTCP: {error}")))?;
    let (pid, comm) = (std::process::id(), process_name());
    let server = Server::listen_on(mptcp(address).unwrap(), address, 16, |_| {});
    let client = mptcp(address).unwrap();
    client.connect(&address.into()).unwrap();
    let accepted = server.accept();
    let columns = ["--columns", "pid,comm,owner,holders"];
    let row = json!({"pid": pid, "comm": comm, "owner": "files", "holders": 1});
    assert_eq!(list(&port, &[&["--listening"], &columns[..]].concat()), slice::from_ref(&row));
    assert_eq!(list(&port, &columns), [row.clone(), row.clone()]);
    assert_eq!(list(&port, &[&["--pid", &pid.to_string()], &columns[..]].concat()), [row.clone(), row]);
    let counted = Setup::new(["count", "--by", "comm", "--dport", &port.to_string(), "-o", "json"]).run();
    assert_eq!(counted.stdout, [json!([{"comm": comm, "open": 2}]).to_string()]);
    let tracer = watch(&port);
    assert_eq!(new_in(&tracer, address), found(pid, &comm));
    let older = tuple_of(&client).client.port();
    drop((client, accepted));
    for direction in ["in", "out"] {
        let end = event(&tracer, "destroy", direction, older);
        assert_eq!((&end["owner"], &end["pid"]), (&"files".into(), &pid.into()), "{end}");
    }
    Ok(())
}

/// A user listens at so many ports that all notes of one user are taken.
#[apply(needs_tracing)]
fn no_user_takes_the_room_of_others(_: &Host) -> Outcome {
    let (ns, port, field) = (NetNs::new().unwrap(), Port::claim(), Port::field(2_048));
    let ports: Vec<u16> = field.numbers().collect();
    // A tracer that watches some ports notes no other listener.
    let tracer = Tracer::start(["-o", "json", "--netns", &ns.inum().to_string()]);
    let hoarder = ns.run(|| {
        Worker::start("conn-hoarder", &[], |line| {
            set_limit(PER_USER + 100);
            become_nobody();
            let listen = |number: u64| {
                let (address, port) = (number as usize / ports.len(), number as usize % ports.len());
                let address = SocketAddr::from(([127, 0, 1, address as u8], ports[port]));
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
                socket.bind(&address.into()).expect("bind");
                socket.listen(1).expect("listen");
                socket
            };
            let _many: Vec<Socket> = (0..PER_USER).map(listen).collect();
            let beyond = Server::listen(port.at([127, 0, 0, 2]));
            line.ready();
            line.wait();
            drop(beyond);
        })
    });
    hoarder.await_ready();
    let of_hoarder = port.at([127, 0, 0, 2]);
    assert_eq!(ns.run(|| new_in(&tracer, of_hoarder)), json!(["-", null, null, null]));
    // At the same port of the namespace: the listener without a note does not get the name of the other one.
    let address = port.v4();
    let server = ns.run(|| Server::listen(address));
    assert_eq!(ns.run(|| new_in(&tracer, address)), named(std::process::id(), &process_name()));
    assert_eq!(ns.run(|| new_in(&tracer, of_hoarder)), json!(["-", null, null, null]));
    drop(server);
    Ok(())
}

/// For this process.
fn set_limit(files: u64) {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, files, hard.max(files)).expect("more files");
}

/// Gives up root's user id, for this process.
fn become_nobody() {
    const NOBODY: u32 = 65_534;
    // SAFETY: the process has one thread.
    assert_eq!(unsafe { libc::setresuid(NOBODY, NOBODY, NOBODY) }, 0, "setresuid");
}

/// Copies of the descriptors of a process beyond stdio.
fn all_descriptors_of(pid: u32) -> Vec<OwnedFd> {
    // SAFETY: system calls that return descriptors for us alone.
    let process = unsafe { OwnedFd::from_raw_fd(libc::syscall(libc::SYS_pidfd_open, pid, 0) as i32) };
    // SAFETY: as above.
    let copy = |fd: i32| unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), fd, 0) };
    // SAFETY: as above.
    (3..20).map(copy).filter(|&fd| fd >= 0).map(|fd| unsafe { OwnedFd::from_raw_fd(fd as i32) }).collect()
}
