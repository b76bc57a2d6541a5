//! What the configuration makes the daemon count: it goes on over a restart, and another choice begins an epoch.

use super::anew;
use conn_tests::{
    harness::Outcome,
    host::Host,
    needs_tracing,
    pins::{Pins, TAKEN_OVER, kill},
    port::Port,
    tracer::{Setup, Tracer},
    traffic::close::{self, First},
};
use macro_rules_attribute::apply;
use serde_json::Value;
use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr},
    process,
};

/// An address that no other test connects to.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 99, 7, 3);

/// How many connections to the port have a lifetime, and how many to the address have been opened.
fn counted(pins: &Pins, port: &Port) -> [u64; 2] {
    let get = |query: &str| serde_json::from_str::<Value>(&pins.get(&format!("/v1/stats?{query}"))).unwrap();
    let report = get(&format!("dport={port}&direction=out&lifetimes"));
    let lifetimes = report["lifetimes"].as_array().unwrap().iter().find(|part| part["span"] == "lifetime");
    let report = get("sources=60000");
    let is_ours = |row: &&Value| row["address"] == ADDRESS.to_string() && row["direction"] == "out";
    let source = report["sources"]["rows"].as_array().unwrap().iter().find(is_ours);
    [lifetimes.unwrap()["count"].as_u64().unwrap(), source.unwrap()["opened"].as_u64().unwrap()]
}

#[apply(needs_tracing)]
fn lifetimes_and_sources_survive_and_other_choices_begin_anew(_: &Host) -> Outcome {
    let pins = Pins::new();
    let file = env::temp_dir().join(format!("conn-choices-{}.toml", process::id()));
    let start = |text: &str| -> Tracer {
        fs::write(&file, text).unwrap();
        let setup: Setup = pins.serve();
        setup.arguments(["--config", file.to_str().unwrap()]).start()
    };
    let port = Port::claim();
    let server = SocketAddr::from((ADDRESS, port.number()));
    let chosen = "lifetimes = true\nsources = \"address\"\n";
    let daemon = start(chosen);
    close::orderly(server, 3, First::Client);
    kill(daemon);
    // The programs count while no daemon is there.
    close::orderly(server, 4, First::Client);
    let daemon = start(chosen);
    daemon.await_stderr("the same programs", |line| line.contains(TAKEN_OVER));
    close::orderly(server, 2, First::Client);
    assert_eq!(counted(&pins, &port), [9, 9]);
    drop(daemon);

    let daemon = start("sources = \"address\"\n");
    let why = anew(&daemon);
    assert!(why.contains("the option lifetimes was 1 and is 0"), "{why}");
    drop(daemon);
    let daemon = start("sources = \"prefix\"\n");
    let why = anew(&daemon);
    assert!(why.contains("the option sources was 1 and is 2"), "{why}");
    drop(daemon);
    fs::remove_file(&file).unwrap();
    Ok(())
}
