//! Fast open that waits for its first write (`TCP_FASTOPEN_CONNECT`): the SYN leaves long after `connect()`.

use super::owner::event;
use conn_tests::{
    harness::{Outcome, Skip},
    host::Host,
    needs_tracing,
    netns::NetNs,
    port::Port,
    tracer::{Setup, Tracer},
    traffic::{
        Server,
        handshake::allow_fast_open,
        socket::{set_option, tcp, tuple_of},
    },
};
use macro_rules_attribute::apply;
use serde_json::Value;
use std::{io::Write as _, os::fd::AsRawFd as _, thread, time::Duration};

/// How long the write is put off. The handshake takes less, whatever else the machine does.
const WAIT: Duration = Duration::from_secs(2);

#[apply(needs_tracing)]
fn the_handshake_begins_at_the_syn(_: &Host) -> Outcome {
    let (ns, port) = (NetNs::new().unwrap(), Port::claim());
    allow_fast_open(&ns).map_err(|error| Skip(format!("no fast open: {error}")))?;
    let tracer = Tracer::start(["-v", "-o", "json", "--dport", &port.to_string()]);
    let without_sock_ops = tracer.has_stderr(|line| line.contains("sock_ops: false"));
    ns.run(|| {
        let address = port.v4();
        let server = Server::listen_with(address, 16, |socket| {
            set_option(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_FASTOPEN, 16);
        });
        let client = tcp(address);
        set_option(client.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, 1);
        client.connect(&address.into()).unwrap();
        let listed = Setup::new(["list", "-o", "json", "--dport", &port.to_string()]).run();
        let rows: Vec<Value> = listed.stdout.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let [row] = &rows[..] else { panic!("{rows:?}") };
        assert_eq!((&row["state"], &row["send_queue"]), (&"syn_sent".into(), &0.into()), "{row}");
        thread::sleep(WAIT);
        (&client).write_all(b"late").unwrap();
        let tuple = tuple_of(&client);
        drop((server.accept(), client));
        let end = event(&tracer, "destroy", "out", tuple.client.port());
        let limit = WAIT.as_nanos() as u64;
        for name in ["handshake_ns", "lifetime_ns"] {
            let ns = end[name].as_u64().unwrap();
            // Without socket operations, no hook sees the SYN.
            assert!(without_sock_ops || ns < limit, "{name}: {end}");
        }
    });
    Ok(())
}
