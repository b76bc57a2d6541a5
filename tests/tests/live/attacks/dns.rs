//! Names of addresses, which their owners choose.

use super::super::dns::{Files, SERVICE};
use conn_tests::{
    dns::{NameServer, Zone},
    harness::Outcome,
    host::Host,
    needs_tracing,
    netns::NetNs,
    tracer::Setup,
    traffic::{Server, socket::tuple_of},
};
use macro_rules_attribute::apply;
use std::net::SocketAddr;

/// Names that look like addresses, or like a host that is another.
const NAMES: [&[&[u8]]; 6] = [
    &[b"192", b"0", b"2", b"01"],
    &[b"192", b"0", b"2", b"1:443"],
    &[b"[2001:db8::1]"],
    &[b"3232235777"],
    &[b"-"],
    &[b"localhost"],
];

/// The owner of an address chooses its name, and lets the name lead back to the address.
#[apply(needs_tracing)]
fn names_from_dns_are_no_addresses(_: &Host) -> Outcome {
    let (files, ns) = (Files::new()?, NetNs::new().unwrap());
    let pair = ns.run(|| Server::listen(SocketAddr::from(SERVICE)).pair());
    let netns = ns.inum().to_string();
    let mut shown = Vec::new();
    for name in NAMES {
        let _server = ns.run(|| NameServer::start(Zone::named(name).at(SERVICE.0)));
        let arguments = ["list", "-o", "table", "--resolve", "--netns", &netns];
        let ended = ns.run(|| files.conntrace(&arguments).map(Setup::run))?;
        ended.expect_code(0);
        let server = format!("{}:{}", tuple_of(&pair.client).server.ip(), SERVICE.1);
        let name = name.iter().map(|label| String::from_utf8_lossy(label)).collect::<Vec<_>>().join(".");
        if !ended.stdout.iter().any(|line| line.contains(&server)) {
            shown.push(format!("{name}: {}", ended.stdout.join(" | ")));
        }
    }
    println!("names: {} of {} shown in place of the address", shown.len(), NAMES.len());
    assert_eq!(shown, [""; 0]);
    Ok(())
}
