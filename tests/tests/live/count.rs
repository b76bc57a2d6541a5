//! `conntrace count`: the number of open connections, as the kernel's own tables have it.

use conn_tests::{
    harness::{Outcome, tool},
    host::Host,
    kernel::{SocketTally, settled},
    needs_tracing,
    netns::{NetNs, Resident},
    port::Port,
    tracer::{Setup, binary},
    traffic::{
        Server,
        process::Process,
        socket::{Pair, await_end, begin_connect, bind, connect, tcp},
    },
    truth::Direction,
};
use macro_rules_attribute::apply;
use serde_json::Value;
use socket2::Socket;
use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr},
    os::{fd::AsRawFd as _, unix::net::UnixStream},
    thread,
};

/// What `conntrace count` prints, line by line.
fn count(args: &[&str]) -> Vec<String> {
    let ended = Setup::new([&["count"], args].concat()).run();
    assert_eq!(ended.expect_code(0), "");
    ended.stdout
}

/// The bare number.
fn number(args: &[&str]) -> u64 {
    let lines = count(args);
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines[0].parse().unwrap_or_else(|_| panic!("not a number: {lines:?}"))
}

/// A table in JSON, as numbers by what they are grouped by.
fn table(by: &[&str], args: &[&str]) -> BTreeMap<Vec<String>, u64> {
    let lines = count(&[&["-o", "json", "--by", &by.join(",")], args].concat());
    let rows: Vec<Value> = serde_json::from_str(&lines.concat()).unwrap();
    let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    rows.iter()
        .map(|row| (by.iter().map(|by| word(&row[by])).collect(), row["open"].as_u64().unwrap()))
        .collect()
}

/// Connections in a namespace: of its two ports the second hears nothing.
struct Held {
    ns: NetNs,
    ports: Vec<Port>,
    pairs: Vec<Pair>,
    _rest: (Server, Server, Vec<Socket>, Resident),
}

impl Held {
    /// 4 established on both sides, 2 closed by the client, 1 closed by the server, 1 that no process has
    /// accepted, 3 that are not answered.
    fn new(address: impl Fn(&Port) -> SocketAddr) -> Self {
        let (ns, ports) = (NetNs::new().unwrap(), Port::block(2));
        let [here, deaf] = [address(&ports[0]), address(&ports[1])];
        // Those that are not answered must not give up as long as a slow machine counts them.
        ns.sysctl("net.ipv4.tcp_syn_retries", "20").unwrap();
        let (pairs, rest) = ns.run(|| {
            let listener = Server::listen(here);
            let pairs: Vec<Pair> = (0..7).map(|_| listener.pair()).collect();
            for pair in &pairs[..2] {
                pair.client.shutdown(Shutdown::Write).unwrap();
                await_end(&pair.server);
            }
            pairs[2].server.shutdown(Shutdown::Write).unwrap();
            await_end(&pairs[2].client);
            let mut others = vec![connect(here)];
            let silent = Server::deaf(deaf);
            for _ in 0..3 {
                let calling = tcp(deaf);
                begin_connect(&calling, deaf);
                others.push(calling);
            }
            (pairs, (listener, silent, others))
        });
        let rest = (rest.0, rest.1, rest.2, ns.settle());
        Self { ns, ports, pairs, _rest: rest }
    }

    fn numbers(&self) -> Vec<u16> {
        self.ports.iter().map(Port::number).collect()
    }

    /// What the kernel has, and it is what was made.
    fn tally_sockets(&self) -> SocketTally {
        let tally = self.ns.run(|| settled(&self.numbers()));
        assert_eq!(tally.values().sum::<u64>(), 19, "{tally:?}");
        tally
    }

    /// Both ports, as an option.
    fn filter(&self) -> String {
        let ports: Vec<String> = self.numbers().iter().map(u16::to_string).collect();
        format!("--dport={}", ports.join(","))
    }
}

fn sum(tally: &SocketTally, accept: impl Fn(Direction, u16, &str) -> bool) -> u64 {
    tally.iter().filter(|((key, state), _)| accept(key.direction, key.port, state)).map(|(_, n)| n).sum()
}

fn name(direction: Direction) -> &'static str {
    match direction {
        Direction::In => "in",
        Direction::Out => "out",
    }
}

#[apply(needs_tracing)]
fn equals_the_kernel_in_every_state(_: &Host) -> Outcome {
    for held in [Held::new(Port::v4), Held::new(Port::v6)] {
        let tally = held.tally_sockets();
        let states: BTreeMap<&str, u64> = ["established", "close_wait", "fin_wait2", "syn_sent"]
            .into_iter()
            .map(|state| (state, sum(&tally, |_, _, s| s == state)))
            .collect();
        assert_eq!(states.values().copied().collect::<Vec<_>>(), [3, 10, 3, 3], "{states:?}");
        let found = table(&["state"], &[&held.filter()]);
        let expected = states.iter().map(|(state, &open)| (vec![(*state).to_owned()], open)).collect();
        assert_eq!(found, expected);
        assert_eq!(number(&[&held.filter()]), 19);
    }
    Ok(())
}

#[apply(needs_tracing)]
fn filters_reduce_the_count(_: &Host) -> Outcome {
    let (four, six) = (Held::new(Port::v4), Held::new(Port::v6));
    for (held, family, other) in [(&four, "ipv4", "ipv6"), (&six, "ipv6", "ipv4")] {
        let tally = held.tally_sockets();
        for port in held.numbers() {
            let text = port.to_string();
            assert_eq!(number(&["--dport", &text]), sum(&tally, |_, p, _| p == port));
            for direction in [Direction::In, Direction::Out] {
                let expected = sum(&tally, |d, p, _| (d, p) == (direction, port));
                assert_eq!(number(&["--dport", &text, "--direction", name(direction)]), expected);
            }
            assert_eq!(number(&["--dport", &text, "-f", family]), sum(&tally, |_, p, _| p == port));
            assert_eq!(number(&["--dport", &text, "-f", other]), 0);
        }
        let pair = &held.pairs[4];
        let sport = pair.tuple.client.port().to_string();
        assert_eq!(number(&[&held.filter(), "--sport", &sport]), 2);
        assert_eq!(count(&[&held.filter(), "-o", "json"]).concat(), "{\"open\":19}");
    }
    let both = [four.numbers(), six.numbers()].concat();
    let both: Vec<String> = both.iter().map(u16::to_string).collect();
    assert_eq!(number(&["--dport", &both.join(",")]), 38);
    Ok(())
}

#[apply(needs_tracing)]
fn groups_add_up_to_the_count(_: &Host) -> Outcome {
    let held = Held::new(Port::v4);
    let expected = held
        .tally_sockets()
        .into_iter()
        .map(|((key, state), open)| {
            let words = [key.port.to_string(), (*state).to_owned(), name(key.direction).to_owned()];
            (words.to_vec(), open)
        })
        .collect();
    assert_eq!(table(&["port", "state", "direction"], &[&held.filter()]), expected);
    let namespaces = table(&["netns"], &[&held.filter()]);
    assert_eq!(namespaces, BTreeMap::from([(vec![held.ns.inum().to_string()], 19)]));
    let text = count(&["--by", "netns", &held.filter()]);
    assert_eq!(text.len(), 2, "{text:?}");
    assert_eq!(text[0].split_whitespace().collect::<Vec<_>>(), ["NETNS", "OPEN"]);
    Ok(())
}

#[apply(needs_tracing)]
fn groups_name_the_holder(_: &Host) -> Outcome {
    let (ns, port) = (NetNs::new().unwrap(), Port::claim());
    let _resident = ns.settle();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let (process, children) = ns.run(|| {
        let listener = Server::listen(port.v4());
        let process = Process::run("conn-holder", &[theirs.as_raw_fd()], || {
            let _sockets: Vec<Socket> = (0..5).map(|_| connect(port.v4())).collect();
            (&theirs).write_all(b"!").unwrap();
            // Until it is killed, however long a busy host counts.
            loop {
                thread::park();
            }
        });
        let children: Vec<Socket> = (0..5).map(|_| listener.accept()).collect();
        (process, children)
    });
    ours.read_exact(&mut [0]).unwrap();
    let filter = format!("--dport={port}");
    let found = table(&["comm", "direction"], &[&filter]);
    assert_eq!(found.get(&vec!["conn-holder".to_owned(), "out".to_owned()]), Some(&5), "{found:?}");
    assert_eq!(found.values().sum::<u64>(), 10);
    process.kill();
    children.iter().for_each(await_end);
    Ok(())
}

#[apply(needs_tracing)]
fn groups_answer_for_addresses_and_owners(_: &Host) -> Outcome {
    let (ns, port) = (NetNs::new().unwrap(), Port::claim());
    let _resident = ns.settle();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let from = |host: u8| SocketAddr::from(([127, 0, 0, host], 0));
    let (process, children) = ns.run(|| {
        let listener = Server::listen(port.v4());
        let process = Process::run("conn-peers", &[theirs.as_raw_fd()], || {
            let call = |host: u8| {
                let socket = tcp(port.v4());
                bind(&socket, from(host));
                socket.connect(&port.v4().into()).unwrap();
                socket
            };
            let _sockets: Vec<Socket> = [2, 2, 2, 3, 3, 4].map(call).into_iter().collect();
            (&theirs).write_all(b"!").unwrap();
            // Until it is killed, however long a busy host counts.
            loop {
                thread::park();
            }
        });
        let children: Vec<Socket> = (0..6).map(|_| listener.accept()).collect();
        (process, children)
    });
    ours.read_exact(&mut [0]).unwrap();
    let filter = format!("--dport={port}");
    let groups = |by: &str, more: &[&str]| table(&[by], &[&[filter.as_str()], more].concat());
    let of = |pairs: &[(&str, u64)]| pairs.iter().map(|&(key, open)| (vec![key.to_owned()], open)).collect();
    let sources: BTreeMap<Vec<String>, u64> = of(&[("127.0.0.2", 3), ("127.0.0.3", 2), ("127.0.0.4", 1)]);
    assert_eq!(groups("src", &["--direction", "in"]), sources);
    assert_eq!(groups("peer", &["--direction", "in"]), sources);
    assert_eq!(groups("peer", &["--direction", "out"]), of(&[("127.0.0.1", 6)]));
    assert_eq!(groups("dst", &["--direction", "out"]), of(&[("127.0.0.1", 6)]));
    let pid = process.pid().to_string();
    assert_eq!(groups("pid", &["--pid", &pid]), of(&[(&pid, 6)]));
    assert_eq!(groups("uid", &["--pid", &pid]), of(&[("0", 6)]));
    // The largest groups, and how much is left out.
    let top = Setup::new(["count", "--by", "src", "--top", "1", "--direction", "in", &filter]).run();
    assert_eq!(top.expect_code(0), "conntrace: not shown: 3 connections in 2 smaller groups\n");
    assert_eq!(top.stdout.len(), 2, "{top:#?}");
    assert_eq!(top.stdout[1].split_whitespace().collect::<Vec<_>>(), ["127.0.0.2", "3"]);
    process.kill();
    children.iter().for_each(await_end);
    Ok(())
}

#[apply(needs_tracing)]
fn one_namespace_is_counted(_: &Host) -> Outcome {
    let (here, elsewhere, port) = (NetNs::new().unwrap(), NetNs::new().unwrap(), Port::claim());
    let _residents = [here.settle(), elsewhere.settle()];
    let listeners = [&here, &elsewhere].map(|ns| ns.run(|| Server::listen(port.v4())));
    let pairs: Vec<Pair> =
        [&here, &elsewhere].iter().zip(&listeners).map(|(ns, listener)| ns.run(|| listener.pair())).collect();
    let filter = format!("--dport={port}");
    assert_eq!(here.run(|| number(&[&filter])), 4);
    assert_eq!(here.run(|| number(&[&filter, "--netns", "."])), 2);
    assert_eq!(here.run(|| number(&[&filter, "netns", "=", "."])), 2);
    // Hints go to a terminal only.
    tool("/bin/sh")?;
    let shows = |args: &str, hint: &str| {
        let command = format!("exec {} count {filter} {args} 2>&1", binary().display());
        let ended = Setup::new(["-c", &command]).program("/bin/sh").on_terminal(120).run();
        ended.expect_code(0);
        ended.stdout.iter().any(|text| text.contains(hint))
    };
    let hinted = |args: &str| shows(args, "shows all network namespaces; --netns . shows only");
    assert!(here.run(|| hinted("")) && !here.run(|| hinted("--netns .")) && !hinted(""));
    let connections_only = |args: &str| shows(args, "connections only; --state listening alone selects");
    assert_eq!(["state big", "state listening", ""].map(connections_only), [true, false, false]);
    drop(pairs);
    Ok(())
}

#[apply(needs_tracing)]
fn the_status_says_whether_something_listens(_: &Host) -> Outcome {
    let (ns, port) = (NetNs::new().unwrap(), Port::claim());
    let _resident = ns.settle();
    let filter = format!("--dport={port}");
    let questions: [&[&str]; 3] = [
        &["list", "--listening"],
        &["count", "--state", "listening"],
        &["count", "--state", "listening", "--by", "comm"],
    ];
    let status = |question: &[&str]| {
        let ended = Setup::new([question, &[&filter, "--exit-code"]].concat()).run();
        assert!(!ended.stderr.contains("nothing was found"), "{ended:#?}");
        ended.code
    };
    assert_eq!(questions.map(status), [Some(1); 3]);
    let _server = ns.run(|| Server::listen(port.v4()));
    assert_eq!(questions.map(status), [Some(0); 3]);
    // An error is no answer.
    for question in questions {
        let question = [question, &[&filter, "--exit-code"]].concat();
        let broken = Setup::new(question).unprivileged().run();
        broken.expect_code(2);
    }
    Ok(())
}

#[apply(needs_tracing)]
fn closed_connections_are_not_counted(_: &Host) -> Outcome {
    let (ns, port) = (NetNs::new().unwrap(), Port::claim());
    let _resident = ns.settle();
    ns.run(|| {
        let listener = Server::listen(port.v4());
        // These leave a TIME_WAIT on one side.
        for client_first in [true, false] {
            let Pair { client, server, .. } = listener.pair();
            let (first, second) = if client_first { (client, server) } else { (server, client) };
            drop(first);
            await_end(&second);
        }
    });
    assert!(ns.run(|| settled(&[port.number()])).is_empty());
    assert_eq!(number(&["--dport", &port.to_string()]), 0);
    Ok(())
}
