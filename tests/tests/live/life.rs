//! `conntrace life`: a line for each connection, at its end.

use conn_tests::{
    harness::Outcome,
    host::Host,
    needs_tracing,
    port::Port,
    tracer::{Setup, Tracer},
    traffic::{
        Server,
        close::{self, First},
        fail, listen,
        socket::{await_end, transfer},
    },
    truth::Tuple,
};
use macro_rules_attribute::apply;
use serde_json::Value;
use std::{
    cell::Cell,
    thread,
    time::{Duration, Instant},
};

/// Of the ends that opened, with further options.
fn watch(port: &Port, more: &[&str]) -> Tracer {
    let port = port.to_string();
    let args = ["life", "-o", "json", "--direction", "out", "--dport", &port];
    Setup::new(args.iter().chain(more)).start()
}

/// The clients' ports, and what else is asked for, in the order of the lines.
fn shown(tracer: Tracer, name: &str) -> Vec<(u64, Value)> {
    let ended = tracer.stop();
    ended.expect_code(0);
    let line = |line: &String| -> (u64, Value) {
        let life: Value = serde_json::from_str(line).expect("an object");
        assert_eq!(life["event"], "destroy", "{line}");
        (life["sport"].as_u64().expect("a port"), life[name].clone())
    };
    ended.stdout.iter().map(line).collect()
}

fn port_of(tuple: Tuple) -> u64 {
    tuple.client.port().into()
}

#[apply(needs_tracing)]
fn each_connection_has_one_line(_: &Host) -> Outcome {
    let ports = Port::block(3);
    let list = ports.iter().map(Port::to_string).collect::<Vec<_>>().join(",");
    let tracer = Tracer::start(["life", "--utc", "--dport", &list]);
    close::orderly(ports[0].v4(), 2, First::Client);
    fail::refused(ports[1].v4(), 1);
    listen::unaccepted(ports[2].v4(), 1);
    let count = Cell::new(0);
    tracer.await_stdout("a header and seven lives", |_| count.replace(count.get() + 1) == 7);
    let text = tracer.stop().stdout;
    let words: Vec<Vec<&str>> = text.iter().map(|line| line.split_whitespace().collect()).collect();
    let (header, lives) = words.split_first().expect("a header");
    let of =
        |name: &str| header.iter().position(|title| *title == name).unwrap_or_else(|| panic!("{header:?}"));
    let places = ["DIR", "OWNER", "HANDSHAKE", "OLD_STATE", "REASON"].map(of);
    let mut rows: Vec<[&str; 5]> = lives.iter().map(|life| places.map(|place| life[place])).collect();
    for life in &mut rows {
        if life[2] != "-" {
            life[2] = "known";
        }
    }
    rows.sort_unstable();
    assert_eq!(
        rows,
        [
            ["in", "accept", "known", "last_ack", "closed_by_peer"],
            ["in", "accept", "known", "last_ack", "closed_by_peer"],
            ["in", "listener", "known", "established", "not_accepted"],
            ["out", "connect", "-", "syn_sent", "refused"],
            ["out", "connect", "known", "established", "reset_by_peer"],
            ["out", "connect", "known", "fin_wait2", "closed_by_us"],
            ["out", "connect", "known", "fin_wait2", "closed_by_us"],
        ],
        "{text:#?}"
    );
    Ok(())
}

#[apply(needs_tracing)]
fn duration_filter_selects_lives(_: &Host) -> Outcome {
    const SPAN: Duration = Duration::from_millis(20);
    let port = Port::claim();
    let [long, short, longest] = [["--min", "20ms"], ["--max", "20ms"], ["--min", "1h"]];
    let [long, short, longest] = [long, short, longest].map(|option| watch(&port, &option));
    let server = Server::listen(port.v4());
    let pair = server.pair();
    let client = port_of(pair.tuple);
    let begun = Instant::now();
    // Awaited by the clock: a life of at least so long.
    while begun.elapsed() < SPAN {
        thread::yield_now();
    }
    drop(pair.client);
    await_end(&pair.server);
    drop(pair.server);
    long.await_json("the life", |life| life["sport"] == client);
    let shown = [long, short, longest].map(|tracer| shown(tracer, "reason"));
    assert_eq!(shown, [vec![(client, "closed_by_us".into())], vec![], vec![]]);
    Ok(())
}

#[apply(needs_tracing)]
fn top_lists_the_largest_last(_: &Host) -> Outcome {
    let port = Port::claim();
    let tracer = watch(&port, &["--top", "2", "--sort", "bytes"]);
    let server = Server::listen(port.v4());
    let lives = [100, 7, 5_000, 50].map(|bytes| {
        let pair = server.pair();
        transfer(&pair.client, &pair.server, bytes);
        drop(pair.client);
        await_end(&pair.server);
        port_of(pair.tuple)
    });
    assert_eq!(shown(tracer, "bytes_sent"), [(lives[2], 5_000.into()), (lives[0], 100.into())]);
    Ok(())
}
