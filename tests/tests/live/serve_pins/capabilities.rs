//! The daemon with exactly the capabilities of the `DaemonSet`.

use conn_tests::{
    flood::{Ending, Flood},
    harness::{Outcome, Skip},
    host::Host,
    needs_tracing,
    netns::NetNs,
    pins::{Pins, TAKEN_OVER, kill},
    port::Port,
    tracer::{Setup, binary},
};
use macro_rules_attribute::apply;
use std::{fs, net::TcpListener, path::Path};

const SETPRIV: &str = "/usr/bin/setpriv";
const DAEMON_SET: &str = include_str!("../../../../packaging/container/daemonset.yaml");

/// The capabilities that the `DaemonSet` adds, as setpriv(1) names them.
fn added() -> Vec<String> {
    let list = DAEMON_SET.lines().find_map(|line| line.trim().strip_prefix("add: [")).expect("capabilities");
    let names = list.trim_end_matches(']').split(", ");
    names.map(|name| name.trim_matches('"').to_lowercase()).collect()
}

/// A daemon as root in a container: these capabilities, and no new privileges.
fn contained(pins: &Pins) -> Setup {
    let bounding = added().iter().fold("-all".to_owned(), |set, name| set + ",+" + name);
    let socket = pins.point().with_file_name("socket");
    Setup::new(["--no-new-privs", "--inh-caps=-all"]).program(SETPRIV).arguments([
        format!("--bounding-set={bounding}"),
        "--".into(),
        binary().display().to_string(),
        "-v".into(),
        "serve".into(),
        "--group=65534".into(),
        format!("--socket={}", socket.display()),
        format!("--bpffs={}", pins.point().display()),
    ])
}

#[apply(needs_tracing)]
fn those_of_the_daemon_set_suffice(_: &Host) -> Outcome {
    if !Path::new(SETPRIV).exists() {
        return Err(Skip(format!("there is no {SETPRIV}")));
    }
    let pins = Pins::new();
    let (ns, port, owned) = (NetNs::new().unwrap(), Port::claim(), Port::claim());
    // Sockets that exist before the start are in another network namespace, which the daemon has to enter.
    let before = ns.run(|| TcpListener::bind(owned.v4()).unwrap());
    let daemon = contained(&pins).start();
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim();
    assert_eq!(
        u64::from_str_radix(effective, 16).unwrap().count_ones() as usize,
        added().len(),
        "{effective}: {:?}",
        added()
    );
    let truth = ns.run(|| Flood::new(port.number(), 200, Ending::Mixed).run());
    pins.await_equal(&truth);
    // The owner of a socket of another user, and a walk of another namespace.
    let listed = pins.get(&format!("/v1/list?listening&dport={owned}"));
    assert!(listed.contains(&format!("\"pid\":{}", std::process::id())), "{listed}");
    kill(daemon);
    let daemon = contained(&pins).start();
    daemon.await_stderr(TAKEN_OVER, |line| line.contains(TAKEN_OVER));
    pins.await_equal(&truth);
    daemon.stop().expect_code(0);
    drop((before, ns));
    Ok(())
}
