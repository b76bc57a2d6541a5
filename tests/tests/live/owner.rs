//! Owners of connections, against processes that announce themselves as acceptors.

use conn_common::name;
use conn_tests::{
    harness::{Outcome, Skip},
    host::Host,
    needs_tracing,
    port::Port,
    tracer::{Setup, Tracer},
    traffic::{
        Server,
        crew::{Call, CallReport, Owner, Worker, call, called, process_name, serve, set_long_timeout},
        process::{self, Process},
        ring,
        socket::{await_end, set_option, tcp},
    },
};
use macro_rules_attribute::apply;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    os::fd::AsRawFd as _,
    thread,
};

/// A tracer of the ends and beginnings on this port.
pub(crate) fn watch(port: &Port) -> Tracer {
    Tracer::start(["-v", "-o", "json", "--dport", &port.to_string()])
}

/// The hook for accepts, if there is one. The tracer runs with `-v`.
pub(crate) fn hook_for_accepts(tracer: &Tracer) -> Option<String> {
    let seen_by = "who accepts a connection is seen by: ";
    let line = tracer.await_stderr("the hook for accepts", |line| {
        line.contains(seen_by) || line.contains("lets no program see")
    });
    Some(line.split_once(seen_by)?.1.to_owned())
}

/// Whether accepts by any way are seen, or only those by system calls.
fn sees_every_accept(tracer: &Tracer) -> bool {
    hook_for_accepts(tracer).is_some_and(|hook| hook != "syscalls")
}

/// The event of this kind of one end of a connection.
pub(crate) fn event(tracer: &Tracer, kind: &str, direction: &str, client: u16) -> Value {
    tracer.await_json(&format!("{kind} {direction} {client}"), |event| {
        event["event"] == kind && event["direction"] == direction && event["sport"] == client
    })
}

/// The owner in an event.
#[track_caller]
pub(crate) fn check(event: &Value, source: &str, owner: Owner, process: &str) {
    let fields = |event: &Value| ["owner", "pid", "tid", "comm", "thread"].map(|name| event[name].clone());
    let expected: [Value; 5] =
        [source.into(), owner.pid.into(), owner.tid.into(), process.into(), owner.thread().as_str().into()];
    assert_eq!(fields(event), expected, "{event}");
}

/// Both ends of a call from this process, after it is over.
#[track_caller]
pub(crate) fn check_call(tracer: &Tracer, call: Call, acceptor: &str) {
    let Call { socket, tuple, caller, acceptor: who } = call;
    drop(socket);
    check(&event(tracer, "destroy", "out", tuple.client.port()), "connect", caller, &process_name());
    check(&event(tracer, "destroy", "in", tuple.client.port()), "accept", who, acceptor);
}

/// The parent accepts, and a child for each connection serves it.
#[apply(needs_tracing)]
fn a_fork_server_is_the_acceptor(_: &Host) -> Outcome {
    let port = Port::claim();
    let tracer = watch(&port);
    let address = port.v4();
    let parent = Worker::start("conn-parent", &[], |line| {
        let server = Server::listen(address);
        set_long_timeout(&server.socket);
        line.ready();
        loop {
            let accepted = server.accept();
            let parent = Owner::current();
            let child = Process::run("conn-child", &[accepted.as_raw_fd()], || {
                parent.announce(&accepted).expect("the client waits");
                await_end(&accepted);
            });
            drop(accepted);
            child.join();
        }
    });
    parent.await_ready();
    for _ in 0..3 {
        let call = call(address);
        assert_eq!(call.acceptor.pid, parent.pid());
        let client = call.tuple.client.port();
        // No process has accepted it yet, but the listener is known.
        check(&event(&tracer, "new", "in", client), "listener", call.acceptor, "conn-parent");
        check_call(&tracer, call, "conn-parent");
    }
    Ok(())
}

/// Four processes accept from one listener that they inherited from their parent.
#[apply(needs_tracing)]
fn each_worker_owns_what_it_accepts(_: &Host) -> Outcome {
    let port = Port::claim();
    let tracer = watch(&port);
    let server = Server::listen(port.v4());
    let workers: Vec<Worker> = (0..4)
        .map(|number| {
            Worker::start(&format!("conn-pre-{number}"), &[server.socket.as_raw_fd()], |_| serve(&server))
        })
        .collect();
    let names: BTreeMap<u32, String> = workers
        .iter()
        .zip(0..)
        .map(|(worker, number)| (worker.pid(), format!("conn-pre-{number}")))
        .collect();
    for _ in 0..3 {
        // A worker serves one at a time, so four at a time are one for each.
        let calls: Vec<Call> = (0..4).map(|_| call(server.address)).collect();
        let acceptors: BTreeSet<u32> = calls.iter().map(|call| call.acceptor.pid).collect();
        assert_eq!(acceptors, names.keys().copied().collect());
        for call in calls {
            let name = &names[&call.acceptor.pid];
            let new = event(&tracer, "new", "in", call.tuple.client.port());
            assert_eq!(
                (&new["owner"], &new["pid"]),
                (&"listener".into(), &std::process::id().into()),
                "{new}"
            );
            check_call(&tracer, call, name);
        }
    }
    Ok(())
}

/// Threads of one process accept, threads of another connect.
#[apply(needs_tracing)]
fn owners_carry_thread_names(_: &Host) -> Outcome {
    const THREADS: usize = 3;
    let port = Port::claim();
    let tracer = watch(&port);
    let address = port.v4();
    let named = |name: String, job: Box<dyn FnOnce() + Send>| {
        thread::Builder::new().name(name).spawn(job).expect("a thread")
    };
    let acceptors = Worker::start("conn-threads", &[], |line| {
        let server: &'static Server = Box::leak(Box::new(Server::listen(address)));
        for number in 0..THREADS {
            named(format!("acc-{number}"), Box::new(|| serve(server)));
        }
        line.ready();
        line.wait();
    });
    acceptors.await_ready();
    let callers = Worker::start("conn-dial", &[], |line| {
        // All at once, so that each acceptor gets one.
        let calls: Vec<_> = (0..THREADS)
            .map(|number| {
                let name = format!("dial-{number}");
                thread::Builder::new().name(name).spawn(move || call(address)).expect("a thread")
            })
            .collect();
        let calls: Vec<Call> = calls.into_iter().map(|call| call.join().expect("a call")).collect();
        line.report(&calls.iter().map(CallReport::new).collect::<Vec<_>>());
    });
    let pids = (callers.pid(), acceptors.pid());
    let calls = callers.join();
    assert_eq!(calls.len(), THREADS);
    let tids: BTreeSet<u32> = calls.iter().map(|call| call.acceptor.tid).collect();
    assert_eq!(tids.len(), THREADS, "each thread one");
    for CallReport { client, caller, acceptor, .. } in calls {
        assert_eq!((caller.pid, acceptor.pid), pids);
        assert!(caller.tid != caller.pid && acceptor.tid != acceptor.pid);
        assert!(caller.thread().starts_with("dial-") && acceptor.thread().starts_with("acc-"));
        check(&event(&tracer, "destroy", "out", client), "connect", caller, "conn-dial");
        check(&event(&tracer, "destroy", "in", client), "accept", acceptor, "conn-threads");
    }
    Ok(())
}

/// Two processes with a listener each on the same port: until one has accepted, the owner is unknown.
#[apply(needs_tracing)]
fn a_shared_port_has_no_owner_before_accept(_: &Host) -> Outcome {
    let port = Port::claim();
    let before = watch(&port);
    let address = port.v4();
    let shared = move || {
        let socket = tcp(address);
        set_option(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, 1);
        Server::listen_on(socket, address, 16, |_| {})
    };
    let workers = ["conn-share-0", "conn-share-1"].map(|name| (Worker::server(name, shared), name));
    let names: BTreeMap<u32, &str> = workers.iter().map(|(worker, name)| (worker.pid(), *name)).collect();
    let after = watch(&port);
    let mut acceptors = BTreeSet::new();
    for _ in 0..100 {
        let call = call(address);
        acceptors.insert(call.acceptor.pid);
        let (who, client) = (call.acceptor, call.tuple.client.port());
        drop(call);
        for tracer in [&before, &after] {
            let new = event(tracer, "new", "in", client);
            assert_eq!((&new["owner"], &new["pid"]), (&"listener".into(), &Value::Null), "{new}");
            check(&event(tracer, "destroy", "in", client), "accept", who, names[&who.pid]);
        }
        if acceptors.len() == 2 {
            return Ok(());
        }
    }
    panic!("the kernel gave all connections to one listener")
}

/// The worker that gets the descriptor and closes it did not accept it.
#[apply(needs_tracing)]
fn a_passed_socket_stays_with_its_acceptor(_: &Host) -> Outcome {
    let port = Port::claim();
    let tracer = watch(&port);
    let client = process::passed(port.v4()).tuple().client.port();
    let end = event(&tracer, "destroy", "in", client);
    assert_eq!((&end["owner"], &end["pid"]), (&"accept".into(), &std::process::id().into()), "{end}");
    assert_eq!(end["comm"], process_name(), "{end}");
    Ok(())
}

/// The tracer stands still until all of them are gone and reaped.
#[apply(needs_tracing)]
fn owners_outlive_their_processes(_: &Host) -> Outcome {
    let port = Port::claim();
    let tracer = watch(&port);
    tracer.signal(Signal::SIGSTOP);
    let address = port.v4();
    let server = Worker::server("conn-gone", || Server::listen(address));
    let clients: Vec<(String, CallReport)> = (0..20)
        .map(|number| {
            let name = format!("conn-brief-{number}");
            let worker = Worker::start(&name, &[], |line| line.report(&[CallReport::new(&call(address))]));
            (name, worker.join()[0])
        })
        .collect();
    drop(server);
    tracer.signal(Signal::SIGCONT);
    for (name, call) in clients {
        check(&event(&tracer, "new", "out", call.client), "connect", call.caller, &name);
        check(&event(&tracer, "destroy", "out", call.client), "connect", call.caller, &name);
        check(&event(&tracer, "destroy", "in", call.client), "accept", call.acceptor, "conn-gone");
    }
    Ok(())
}

/// One process listens, another accepts by `io_uring`, a third connects by it.
#[apply(needs_tracing)]
fn io_uring_connects_and_accepts_have_owners(_: &Host) -> Outcome {
    let port = Port::claim();
    let tracer = watch(&port);
    ring::is_allowed().map_err(|error| Skip(format!("this machine does not allow io_uring: {error}")))?;
    let server = Server::listen(port.v4());
    let address = server.address;
    let acceptor = Worker::start("conn-ring-in", &[server.socket.as_raw_fd()], |_| {
        loop {
            let accepted = ring::accept(&server);
            Owner::current().announce(&accepted).expect("the client waits");
            await_end(&accepted);
        }
    });
    let caller = Worker::start("conn-ring-out", &[], |line| {
        for _ in 0..3 {
            line.report(&[CallReport::new(&called(ring::connect(address)))]);
        }
    });
    let pids = (caller.pid(), acceptor.pid());
    for call in caller.join() {
        assert_eq!((call.caller.pid, call.acceptor.pid), pids);
        let out = event(&tracer, "destroy", "out", call.client);
        assert_eq!((&out["owner"], &out["pid"]), (&"connect".into(), &call.caller.pid.into()), "{out}");
        assert_eq!(out["comm"], "conn-ring-out", "{out}");
        let inn = event(&tracer, "destroy", "in", call.client);
        let found = (inn["owner"].as_str().unwrap_or("null"), inn["pid"].as_u64());
        let expected = if sees_every_accept(&tracer) {
            ("accept", Some(call.acceptor.pid))
        } else {
            // No hook sees this accept. The owner is the listener's, and marked as such.
            ("listener", Some(std::process::id()))
        };
        assert_eq!(found, (expected.0, expected.1.map(u64::from)), "{inn}");
    }
    Ok(())
}

/// Sockets that only a ring holds have the ring's process as their holder.
#[apply(needs_tracing)]
fn sockets_in_a_ring_have_holders(_: &Host) -> Outcome {
    let port = Port::claim();
    ring::is_allowed().map_err(|error| Skip(format!("this machine does not allow io_uring: {error}")))?;
    let worker = Worker::start("conn-ring-held", &[], |line| {
        let _ring = ring::with_sockets(port.v4());
        line.ready();
        line.wait();
    });
    worker.await_ready();
    if !ring::shows_sockets(worker.pid()) {
        return Err(Skip("this kernel shows no sockets of an io_uring".to_owned()));
    }
    let run = |arguments: &[&str]| {
        let filter = format!("service = :{}", port.number());
        let ended = Setup::new(arguments).arguments([filter]).run();
        ended.expect_code(0);
        ended.stdout
    };
    let owners = |arguments: &[&str]| {
        let owner = |line: &String| {
            let row: Value = serde_json::from_str(line).expect("an object");
            json!([row["pid"], row["comm"], row["owner"], row["holders"]])
        };
        run(&[&["list", "-o", "json"], arguments].concat()).iter().map(owner).collect::<Vec<_>>()
    };
    let pid = worker.pid().to_string();
    let expected = json!([worker.pid(), "conn-ring-held", "files", 1]);
    assert_eq!(owners(&[]), [expected.clone(), expected.clone()]);
    assert_eq!(owners(&["--listening"]), std::slice::from_ref(&expected));
    assert_eq!(owners(&["--pid", &pid]), [expected.clone(), expected.clone()]);
    assert_eq!(owners(&["--comm", "conn-ring-held", "--listening"]), [expected]);
    assert_eq!(owners(&["--pid", "1"]), Vec::<Value>::new());
    let counts = run(&["count", "--by", "comm", "-o", "csv"]);
    assert_eq!(counts, ["comm,open", "conn-ring-held,2"]);
    Ok(())
}

/// A listener, and both ends of connections, that were there before the tracer.
#[apply(needs_tracing)]
fn earlier_sockets_have_owners(_: &Host) -> Outcome {
    let port = Port::claim();
    let address: SocketAddr = port.v4();
    let server = Worker::server("conn-old-in", || Server::listen(address));
    let client = Worker::start("conn-old-out", &[], |line| {
        let old = call(address);
        line.report(&[CallReport::new(&old)]);
        line.wait();
        drop(old);
        line.report(&[CallReport::new(&call(address))]);
    });
    let old = client.next_report();
    let tracer = watch(&port);
    client.resume();
    let new = client.next_report();
    let pids = (client.pid(), server.pid());
    client.join();
    for (direction, pid, process) in [("out", pids.0, "conn-old-out"), ("in", pids.1, "conn-old-in")] {
        let end = event(&tracer, "destroy", direction, old.client);
        assert_eq!((&end["preexisting"], &end["owner"]), (&true.into(), &"files".into()), "{end}");
        assert_eq!((&end["pid"], &end["comm"]), (&pid.into(), &process.into()), "{end}");
    }
    check(&event(&tracer, "new", "in", new.client), "listener", new.acceptor, "conn-old-in");
    check(&event(&tracer, "destroy", "in", new.client), "accept", new.acceptor, "conn-old-in");
    check(&event(&tracer, "destroy", "out", new.client), "connect", new.caller, "conn-old-out");
    Ok(())
}

/// A task that waits in `accept()` since before the tracer, while another tracer comes and goes.
#[apply(needs_tracing)]
fn a_waiting_acceptor_is_the_owner(_: &Host) -> Outcome {
    let port = Port::claim();
    let address = port.v4();
    let server = Worker::server("conn-waiting", || Server::listen(address));
    let tracer = watch(&port);
    if hook_for_accepts(&tracer).as_deref() == Some("function") {
        return Err(Skip("this kernel has no hook that sees a waiting acceptor".into()));
    }
    watch(&port).stop();
    let call = call(address);
    assert_eq!(call.acceptor.pid, server.pid());
    check_call(&tracer, call, "conn-waiting");
    Ok(())
}

/// The table of pending owners is full.
#[apply(needs_tracing)]
fn acceptors_beyond_the_table_are_owners(_: &Host) -> Outcome {
    let port = Port::claim();
    let tracer = watch(&port);
    super::socket_state::table::<10>(&tracer, name::PENDING_OWNERS)?.fill();
    let address = port.v4();
    let server = Worker::server("conn-elsewhere", || Server::listen(address));
    for _ in 0..3 {
        let call = call(address);
        assert_eq!(call.acceptor.pid, server.pid());
        check_call(&tracer, call, "conn-elsewhere");
    }
    Ok(())
}
