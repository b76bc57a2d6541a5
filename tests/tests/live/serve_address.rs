//! Metrics on addresses: what is answered there, and what its clients can take from others.

use conn_tests::{
    daemon::{self, Daemon},
    harness::Outcome,
    host::Host,
    needs_tracing,
    port::Port,
    timeout,
    tracer::Setup,
    traffic::close::{self, First},
    usage,
};
use macro_rules_attribute::apply;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    env, fs,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

/// A configuration file, which is removed with this value.
struct Config(PathBuf);

impl Config {
    fn new(text: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("conn-address-{}-{}.toml", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = env::temp_dir().join(name);
        fs::write(&path, text).unwrap();
        Self(path)
    }

    /// A daemon with this configuration that pins nothing.
    fn daemon(&self) -> Daemon {
        Daemon::with(&["--transient", "--config", self.0.to_str().unwrap()])
    }
}

impl Drop for Config {
    fn drop(&mut self) {
        _ = fs::remove_file(&self.0);
    }
}

/// Sends bytes, and reads until the daemon closes.
fn send(address: SocketAddr, bytes: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(timeout::seconds(40)))?;
    stream.write_all(bytes.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// A request as a whole.
fn request(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\n{headers}\r\n")
}

fn get(address: SocketAddr, path: &str) -> String {
    send(address, &request(path, "")).unwrap()
}

#[apply(needs_tracing)]
fn an_address_has_metrics_and_nothing_else(_: &Host) -> Outcome {
    let (port, service) = (Port::claim(), Port::claim());
    let (v4, v6) = (port.v4(), SocketAddr::from((Ipv6Addr::LOCALHOST, port.number())));
    let config = Config::new(&format!("listen = [\"{v4}\", \"{v6}\"]\nports = [{service}]\n"));
    let daemon = config.daemon();
    assert!(!daemon.tracer().has_stderr(|line| line.contains("anyone who reaches")));
    close::orderly(service.v4(), 5, First::Client);
    for address in [v4, v6] {
        let text = get(address, "/metrics");
        assert!(text.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{text}");
        for direction in ["in", "out"] {
            let sample = format!(
                "\nconntrace_tcp_connections_opened_total{{direction=\"{direction}\",port=\"{service}\"}} 5\n"
            );
            assert!(text.contains(&sample), "{sample} is not in {text}");
        }
        let open = send(address, &request("/metrics", "accept: application/openmetrics-text\r\n")).unwrap();
        let kind = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n";
        assert!(open.contains(kind) && open.ends_with("\n# EOF\n"), "{open}");
        assert!(get(address, "/v1/health").starts_with("HTTP/1.1 200 "));
    }
    // All that names processes, addresses or anything else is on the Unix socket alone.
    for path in
        ["/v1/count", "/v1/stats", "/v1/list", "/v1/events", "/v1/lifetimes", "/", "/metrics/", "/debug"]
    {
        let text = get(v4, path);
        assert!(
            text.starts_with("HTTP/1.1 404 ") && text.contains("paths are /v1/health, /metrics;"),
            "{text}"
        );
    }
    assert!(get(v4, "/metrics?name=x").starts_with("HTTP/1.1 400 "));
    let posted = send(v4, "POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").unwrap();
    assert!(posted.starts_with("HTTP/1.1 405 "), "{posted}");
    // A second request of a connection is not answered.
    let both = send(v4, &request("/v1/health", "").repeat(2)).unwrap();
    assert_eq!(both.matches("HTTP/1.1 200 ").count(), 1, "{both}");
    // The next front gets the addresses, too. Clients wait in the queues of the kernel meanwhile.
    kill(Pid::from_raw(daemon.front().cast_signed()), Signal::SIGKILL).unwrap();
    daemon.tracer().await_stderr("the restart", |line| line.contains("is started again"));
    for address in [v4, v6] {
        assert!(get(address, "/metrics").starts_with("HTTP/1.1 200 "));
    }
    let on_socket = daemon.get("/metrics");
    assert_eq!(on_socket.status, 200, "{on_socket:?}");
    assert!(on_socket.body.contains(&format!("\nconntrace_tcp_accept_queue_limit{{port=\"{port}\"}} ")));
    Ok(())
}

#[apply(needs_tracing)]
fn clients_of_an_address_take_no_place_of_others(_: &Host) -> Outcome {
    let port = Port::claim();
    // Clients come from many addresses of this host.
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port.number()));
    // One place is for the test.
    let config = Config::new(&format!("listen = \"{any}\"\nclients = 1\n"));
    let daemon = config.daemon();
    daemon.tracer().await_stderr("the warning", |line| line.contains("anyone who reaches"));
    let front = daemon.front();
    let to = |last: u8| SocketAddr::from((Ipv4Addr::new(127, 0, 1, last), port.number()));
    get(to(1), "/v1/health");
    let before = (usage::open_files(front), usage::memory(front));
    // The ninth client at an address is told so, unless the others were silent for too long already.
    let begun = Instant::now();
    let mut held: Vec<TcpStream> = loop {
        let eight = (0..8).map(|_| from(0, to(1))).collect();
        let mut ninth = from(0, to(1));
        ninth.set_read_timeout(Some(timeout::seconds(40))).unwrap();
        let mut text = String::new();
        ninth.read_to_string(&mut text).unwrap();
        if text.starts_with("HTTP/1.1 503 Service Unavailable\r\n") {
            assert!(text.contains("the address has 8 clients"), "{text}");
            break eight;
        }
        assert!(text.is_empty() && begun.elapsed() < timeout::seconds(60), "{text}");
    };
    // Silent clients, halves of requests, and clients that ask and read nothing.
    for client in 1..20 {
        for nth in 0..8 {
            let mut stream = from(client, to(1));
            match nth % 3 {
                0 => {}
                1 => _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nho"),
                _ => _ = stream.write_all(request("/metrics", "").as_bytes()),
            }
            held.push(stream);
        }
    }
    let during = (usage::open_files(front), usage::memory(front));
    // The Unix socket answers meanwhile, although it has one place.
    for _ in 0..3 {
        assert_eq!(daemon.get("/metrics").status, 200);
    }
    // Descriptors are those of clients, of one answer under way, and of the Unix client.
    assert!(during.0 <= before.0 + 64 + 8, "{before:?} {during:?}");
    assert!(during.1 <= before.1 + (16 << 20), "{before:?} {during:?}");
    // The silent ones go in time, and others are answered.
    let answered = loop {
        match send(to(1), &request("/metrics", "")) {
            Ok(text) if text.starts_with("HTTP/1.1 200 ") => break begun.elapsed(),
            _ => assert!(begun.elapsed() < timeout::seconds(60), "no place becomes free"),
        }
        thread::sleep(Duration::from_millis(50));
    };
    println!(
        "address: {} clients held, a place after {answered:?}, {before:?} before, {during:?} during",
        held.len()
    );
    drop(held);
    // A head that is too long is refused.
    let long = format!("x-pad: {}\r\n", "x".repeat(9 << 10));
    let text = send(to(1), &request("/metrics", &long)).unwrap_or_default();
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 431 "), "{text}");
    Ok(())
}

/// A connection from an address of this host of its own.
fn from(client: u8, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 2, client), 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}

#[apply(needs_tracing)]
fn accept_queues_are_those_of_the_kernel(_: &Host) -> Outcome {
    let port = Port::claim();
    let daemon = Daemon::start();
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener.bind(&port.v4().into()).unwrap();
    listener.listen(4).unwrap();
    let await_queue = |length: usize| {
        let wanted = ["", "_limit"].map(|name| {
            let value = if name.is_empty() { length } else { 4 };
            format!("\nconntrace_tcp_accept_queue{name}{{port=\"{port}\"}} {value}\n")
        });
        let limit = Instant::now() + timeout::seconds(60);
        loop {
            let text = daemon.get("/metrics").body;
            if wanted.iter().all(|sample| text.contains(sample)) {
                return;
            }
            assert!(Instant::now() < limit, "{wanted:?} are not in {text}");
            thread::sleep(Duration::from_millis(100));
        }
    };
    let clients: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(port.v4()).unwrap()).collect();
    await_queue(3);
    let accepted: Vec<_> = (0..3).map(|_| listener.accept().unwrap()).collect();
    await_queue(0);
    drop((clients, accepted));
    Ok(())
}

#[apply(needs_tracing)]
fn an_address_that_cannot_be_has_a_remedy(_: &Host) -> Outcome {
    let port = Port::claim();
    let _other = TcpListener::bind(port.v4()).unwrap();
    for (listen, at, said) in [
        (port.v4().to_string(), "start", "listening on 127.0.0.1:"),
        ("192.0.2.1:9436".into(), "check", "this host has no such address"),
        ("192.0.2.1:9436".into(), "start", "this host has no such address"),
        ("localhost:9436".into(), "check", "line 1, column 10"),
        ("[::1]".into(), "start", "line 1, column 10"),
    ] {
        let config = Config::new(&format!("listen = \"{listen}\"\n"));
        let socket = env::temp_dir().join(format!("conn-address-{}-{at}", process::id()));
        let mut setup = Setup::new(["serve", "--transient", "--config", config.0.to_str().unwrap()])
            .arguments(["--socket", socket.to_str().unwrap()]);
        if at == "check" {
            setup = setup.arguments(["--check"]);
        }
        let ended = setup.run();
        assert!(ended.expect_code(1).contains(said), "{listen} at {at}: {ended:?}");
        assert!(daemon::get(&socket, "/v1/health").is_err());
    }
    // A check does not mind the daemon that runs there.
    let config = Config::new(&format!("listen = \"0.0.0.0:{port}\"\n"));
    let checked = Setup::new(["serve", "--check", "--config", config.0.to_str().unwrap()]).run();
    checked.expect_code(0);
    assert!(checked.stdout.iter().any(|line| line.starts_with("warning: anyone who reaches")), "{checked:?}");
    Ok(())
}
