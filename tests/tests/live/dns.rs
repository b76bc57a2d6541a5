//! Names of addresses, with a name server of the test's own. Names appear once resolved, and no line waits for one.

use conn_tests::{
    dns::{ADDRESS, NameServer, Zone},
    harness::{Outcome, Skip, tool},
    host::Host,
    needs_tracing,
    netns::NetNs,
    timeout,
    tracer::{Setup, binary},
    traffic::{
        LIMIT, Server,
        close::{self, First},
    },
};
use macro_rules_attribute::apply;
use serde_json::Value;
use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Instant,
};

/// Clients come from 127.0.0.1, which the hosts file has; this one only DNS knows.
pub(crate) const SERVICE: ([u8; 4], u16) = ([127, 0, 0, 9], 7_001);
const NAME: &[&[u8]] = &[b"web", b"example"];
const WRITTEN: &str = "web.example";

/// A zone whose name leads back to the address of the service.
fn confirmed() -> Zone {
    Zone::named(NAME).at(SERVICE.0)
}

/// The files that configure the resolver.
pub(crate) struct Files(PathBuf);

impl Files {
    pub(crate) fn new() -> Result<Self, Skip> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if let Some(missing) =
            ["/etc/resolv.conf", "/etc/hosts"].iter().find(|path| !Path::new(path).exists())
        {
            return Err(Skip(format!("there is no {missing} here to put another in its place")));
        }
        let name =
            format!("conn-tests-names-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = env::temp_dir().join(name);
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("resolv.conf"), format!("nameserver {ADDRESS}\n")).unwrap();
        fs::write(directory.join("hosts"), "127.0.0.1 client.example client\n").unwrap();
        Ok(Self(directory))
    }

    /// conntrace, which sees these files in place of the host's.
    pub(crate) fn conntrace(&self, args: &[&str]) -> Result<Setup, Skip> {
        self.program(&binary().display().to_string(), args)
    }

    /// The same with another program.
    pub(crate) fn program(&self, program: &str, args: &[&str]) -> Result<Setup, Skip> {
        let script = "mount --bind \"$0/resolv.conf\" /etc/resolv.conf && mount --bind \"$0/hosts\" /etc/hosts && exec \"$@\"";
        let files = self.0.display().to_string();
        let shell = ["--mount", "sh", "-c", script, &files, program];
        Ok(Setup::new(shell.iter().chain(args)).program(tool("/usr/bin/unshare")?))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[apply(needs_tracing)]
fn names_appear_once_resolved(_: &Host) -> Outcome {
    let (files, ns) = (Files::new()?, NetNs::new().unwrap());
    let _server = ns.run(|| NameServer::start(confirmed()));
    let setup = files.conntrace(&["-o", "json", "--resolve", "--netns", &ns.inum().to_string()])?;
    let tracer = ns.run(|| setup.start());
    // One connection at a time, so that the ring never overflows.
    let deadline = Instant::now() + *LIMIT;
    let named = loop {
        let client =
            ns.run(|| close::orderly(SocketAddr::from(SERVICE), 1, First::Client)).tuple().client.port();
        let end = tracer.await_json("the end of a connection", |event| {
            event["event"] == "destroy" && event["sport"] == client
        });
        if !end["dst_name"].is_null() {
            break end;
        }
        assert!(Instant::now() < deadline, "no name: {end}");
    };
    assert_eq!((&named["dst"], &named["dst_name"]), (&"127.0.0.9".into(), &WRITTEN.into()));
    let ended = tracer.stop();
    ended.expect_code(0);
    for line in &ended.stdout {
        let event: Value = serde_json::from_str(line).unwrap();
        assert!(event["src"] == "127.0.0.1" && event["src_name"] == "client.example", "{line}");
        assert!(event["dst_name"].is_null() || event["dst_name"] == WRITTEN, "{line}");
        assert!(!line.contains(char::is_control), "{line:?}");
    }
    Ok(())
}

#[apply(needs_tracing)]
fn no_line_waits_for_a_name(_: &Host) -> Outcome {
    let (files, ns) = (Files::new()?, NetNs::new().unwrap());
    let server = ns.run(|| NameServer::start(Zone::default()));
    let netns = ns.inum().to_string();
    let tracer =
        ns.run(|| files.conntrace(&["-o", "json", "--resolve", "--netns", &netns]).map(Setup::start))?;
    let ends = |count: usize| {
        let truth = ns.run(|| close::orderly(SocketAddr::from(SERVICE), count, First::Client));
        for tuple in truth.tuples {
            let event = tracer.await_json("the end of a connection", |event| {
                event["event"] == "destroy" && event["sport"] == tuple.client.port()
            });
            assert!(event["dst_name"].is_null(), "{event}");
        }
    };
    ends(1);
    server.await_question();
    // The question waits for an answer that never comes. A look-up ends after 30 s, lines come long before.
    let asked = Instant::now();
    ends(20);
    assert!(asked.elapsed() < timeout::seconds(10), "lines waited {:?}", asked.elapsed());
    let ended = tracer.stop();
    assert!(ended.expect_balance().contains(": holds"), "{ended:#?}");

    // A list waits for a while, and then does without.
    let _pair = ns.run(|| Server::listen(SocketAddr::from(SERVICE)).pair());
    let ended =
        ns.run(|| files.conntrace(&["list", "-o", "table", "--resolve", "--netns", &netns]).map(Setup::run))?;
    ended.expect_code(0);
    assert!(ended.stdout.iter().any(|line| line.contains("127.0.0.9:")), "{ended:#?}");
    assert!(ended.stdout.iter().any(|line| line.contains("client.example:")), "{ended:#?}");
    Ok(())
}

#[apply(needs_tracing)]
fn a_list_shows_names(_: &Host) -> Outcome {
    let (files, ns) = (Files::new()?, NetNs::new().unwrap());
    let _server = ns.run(|| NameServer::start(confirmed()));
    let _pair = ns.run(|| Server::listen(SocketAddr::from(SERVICE)).pair());
    let netns = ns.inum().to_string();
    let list = |more: &[&str]| -> Result<String, Skip> {
        let args = [&["list", "--netns", &netns], more].concat();
        let ended = ns.run(|| files.conntrace(&args).map(Setup::run))?;
        ended.expect_code(0);
        assert!(ended.stdout.len() >= 2, "{ended:#?}");
        Ok(ended.stdout.join("\n"))
    };
    let table = list(&["-o", "table", "--resolve"])?;
    assert!(table.contains("web.example:") && table.contains("client.example:"), "{table}");
    assert!(!table.contains("127.0.0"), "{table}");
    // The last of the two counts.
    let table = list(&["-o", "table", "--resolve", "-n"])?;
    assert!(table.contains("127.0.0.9:7001") && !table.contains("example"), "{table}");
    let lines = list(&["--resolve"])?;
    assert!(lines.contains("dst=127.0.0.9 ") && lines.contains(" dst_name=web.example"), "{lines}");
    Ok(())
}

/// The name of the service's address in a list.
fn listed_name(files: &Files, ns: &NetNs, zone: Zone) -> Result<Value, Skip> {
    let _server = ns.run(|| NameServer::start(zone));
    let args = ["list", "-l", "-o", "json", "--resolve", "--netns", ".", "--dport", "7001"];
    let ended = ns.run(|| files.conntrace(&args).map(Setup::run))?;
    ended.expect_code(0);
    assert_eq!(ended.stdout.len(), 1, "{ended:#?}");
    let listener: Value = serde_json::from_str(&ended.stdout[0]).unwrap();
    Ok(listener["dst_name"].clone())
}

/// The owner of an address chooses its name.
#[apply(needs_tracing)]
fn names_that_look_like_addresses_are_not_shown(_: &Host) -> Outcome {
    let (files, ns) = (Files::new()?, NetNs::new().unwrap());
    let _listener = ns.run(|| Server::listen(SocketAddr::from(SERVICE)));
    let hostile: [&[&[u8]]; 8] = [
        &[b"192", b"0", b"2", b"01"],
        &[b"192.0.2.1:443"],
        &[b"[2001:db8::1]"],
        &[b"3232235777"],
        &[b"-"],
        &[b"localhost"],
        &[b"web\x1b[2J", b"example"],
        &[b"192.0.2.1", b"example"],
    ];
    for labels in hostile {
        let name = listed_name(&files, &ns, Zone::named(labels).at(SERVICE.0))?;
        assert_eq!(name, Value::Null, "{labels:?}");
    }
    Ok(())
}

#[apply(needs_tracing)]
fn names_that_do_not_lead_back_are_marked(_: &Host) -> Outcome {
    let (files, ns) = (Files::new()?, NetNs::new().unwrap());
    let _listener = ns.run(|| Server::listen(SocketAddr::from(SERVICE)));
    assert_eq!(listed_name(&files, &ns, confirmed())?, WRITTEN);
    for zone in [Zone::named(NAME), Zone::named(NAME).at([192, 0, 2, 9])] {
        assert_eq!(listed_name(&files, &ns, zone)?, format!("{WRITTEN}?"));
    }
    Ok(())
}
