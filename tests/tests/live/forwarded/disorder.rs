//! Owners where messages come in disorder, and where sockets are missed: unknown, and never wrong.

use super::{await_event, flush, run, tracked, watch};
use conn_tests::{
    harness::Outcome,
    host::Host,
    line::{Kind, Line},
    needs_whole_machine,
    routed::Routed,
    traffic::{LIMIT, crew::Worker},
};
use macro_rules_attribute::apply;
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::signal::Signal,
    unistd::Pid,
};
use std::{
    cell::Cell,
    net::{IpAddr, SocketAddr, UdpSocket},
    ops::Range,
    process, thread,
    time::{Duration, Instant},
};

/// The name of processes that send.
const NAME: &str = "conn-inner";

/// A process in the client's namespace that waits, sends a packet from each of these ports, and ends.
fn sender(routed: &Routed, ports: impl Iterator<Item = u16> + Send, to: SocketAddr) -> Worker {
    let ip = routed.client_end().v4;
    let worker = routed.client.run(|| {
        Worker::start(NAME, &[], |line| {
            line.ready();
            line.wait();
            send(ip.into(), ports, to);
        })
    });
    worker.await_ready();
    worker
}

/// Sends a packet from each of these ports, each by a socket of its own. Some hundreds are open at the same time.
fn send(ip: IpAddr, ports: impl Iterator<Item = u16>, to: SocketAddr) {
    let mut open = Vec::new();
    for port in ports {
        let socket = UdpSocket::bind((ip, port)).unwrap();
        socket.send_to(b"x", to).unwrap();
        open.push(socket);
        if open.len() == 300 {
            open.clear();
        }
    }
}

/// The thread, and what it starts, run on one CPU until this is dropped.
struct OneCpu(CpuSet);

impl OneCpu {
    fn new() -> Self {
        let own = Pid::from_raw(0);
        let before = sched_getaffinity(own).unwrap();
        let first = (0..CpuSet::count()).find(|&cpu| before.is_set(cpu).unwrap()).unwrap();
        let mut one = CpuSet::new();
        one.set(first).unwrap();
        sched_setaffinity(own, &one).unwrap();
        Self(before)
    }
}

impl Drop for OneCpu {
    fn drop(&mut self) {
        let _ = sched_setaffinity(Pid::from_raw(0), &self.0);
    }
}

/// The ports of flows whose ends are read before the one that counts: more than conntrace reads at a time.
const CROWD: Range<u16> = 20_000..22_000;

#[apply(needs_whole_machine)]
fn an_end_names_the_process_of_its_own_flow(_: &Host) -> Outcome {
    let routed = tracked()?;
    let sinks = [(); 2].map(|()| routed.server_socket(routed.server_end().v4.into()).unwrap());
    let [to, other] = sinks.each_ref().map(|sink| sink.local_addr().unwrap());
    let ip = routed.client_end().v4;
    let from = SocketAddr::from((ip, 5_555));
    let tracer = watch(&routed, &["-p", "udp", "-e", "NEW,DESTROY", "-o", "id"]);
    // The kernel gives the memory of an entry to the next one on the same CPU, and so its id.
    let alone = OneCpu::new();
    let [first, second] = [(); 2].map(|()| sender(&routed, [from.port()].into_iter(), to));
    let pids = [first.pid(), second.pid()].map(|pid| pid.to_string());
    routed.client.run(|| send(ip.into(), CROWD, other));
    first.resume();
    first.join();
    await_event(&tracer, Kind::New, from);
    // Until the socket of the first process is forgotten, which two reads keep.
    for port in CROWD.end..CROWD.end + 3 {
        routed.client.run(|| send(ip.into(), [port].into_iter(), other));
        await_event(&tracer, Kind::New, (ip, port).into());
    }
    // The end of the first flow is read last, after the beginning of the second one, which is in another socket.
    tracer.signal(Signal::SIGSTOP);
    for port in [other.port(), to.port()] {
        routed.router.run(|| run("conntrack", &["-D", "-p", "udp", "--dport", &port.to_string()]))?;
    }
    second.resume();
    second.join();
    drop(alone);
    tracer.signal(Signal::SIGCONT);
    flush(&routed)?;
    let ends = Cell::new(0);
    tracer.await_event("both ends", |line| {
        ends.set(ends.get() + usize::from(line.kind == Kind::Destroy && line.original.source == from));
        ends.get() == 2
    });
    let lines: Vec<Line> = tracer.events().into_iter().filter(|line| line.original.source == from).collect();
    for kind in [Kind::New, Kind::Destroy] {
        let of_kind = lines.iter().filter(|line| line.kind == kind);
        let found: Vec<_> = of_kind.map(|line| line.key("pid").unwrap()).collect();
        assert_eq!(found, pids, "{kind:?}: {lines:#?}");
    }
    tracer.stop().expect_balance();
    Ok(())
}

/// The ports of a burst: half of them of this process, and half of another one.
const BURST: Range<u16> = 10_000..35_000;

#[apply(needs_whole_machine)]
fn a_missed_socket_leaves_its_flow_without_an_owner(_: &Host) -> Outcome {
    // The stopped run reads no record of the sockets, of which the ring holds fewer. The other has no room for their flows.
    for (options, stops, burst) in
        [(&[][..], true, BURST), (&["--max-flows", "64"][..], false, BURST.start..BURST.start + 500)]
    {
        let routed = tracked()?;
        let sink = routed.server_socket(routed.server_end().v4.into()).unwrap();
        let to = sink.local_addr().unwrap();
        let ip = IpAddr::V4(routed.client_end().v4);
        let tracer = watch(&routed, &[&["-p", "udp", "-e", "NEW"][..], options].concat());
        let other = sender(&routed, burst.clone().skip(1).step_by(2), to);
        let pids = [process::id(), other.pid()].map(|pid| pid.to_string());
        if stops {
            tracer.signal(Signal::SIGSTOP);
        }
        other.resume();
        routed.client.run(|| send(ip, burst.clone().step_by(2), to));
        other.join();
        if stops {
            tracer.signal(Signal::SIGCONT);
        }
        let (shown, unnamed) = (Cell::new(0), Cell::new(0));
        tracer.await_event("every flow", |line| {
            let port = line.original.source.port();
            let pid = line.key("pid").unwrap();
            assert!(pid == "-" || pid == pids[usize::from(port - burst.start) % 2], "{line:?}");
            shown.set(shown.get() + 1);
            unnamed.set(unnamed.get() + u64::from(pid == "-"));
            shown.get() == burst.len()
        });
        assert!(unnamed.get() > 0, "no socket was missed");
        // A walk finds the sockets again. A table that is too small stays so.
        let begin = Instant::now();
        for port in (40_000_u16..).take_while(|_| stops) {
            routed.client.run(|| send(ip, [port].into_iter(), to));
            let line = await_event(&tracer, Kind::New, (ip, port).into());
            match line.key("pid") {
                Some("-") => unnamed.set(unnamed.get() + 1),
                pid => {
                    assert_eq!(pid, Some(pids[0].as_str()), "{line:?}");
                    break;
                }
            }
            assert!(begin.elapsed() < *LIMIT, "no owner any more: {line:?}");
            thread::sleep(Duration::from_millis(100));
        }
        let stderr = tracer.stop().expect_balance();
        let said = format!("conntrace: {} flows began without an owner", unnamed.get());
        assert!(stderr.contains(&said), "{} flows: {stderr}", unnamed.get());
    }
    Ok(())
}
