//! Metrics, as the programs of Prometheus read them.

use conn_tests::{
    harness::{Outcome, Skip},
    host::Host,
    needs_tracing,
    netns::NetNs,
    port::Port,
    timeout,
    tracer::Tracer,
    traffic::close::{self, First},
};
use macro_rules_attribute::apply;
use std::{
    env, fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Instant,
};

/// The variable with the directory of Debian's programs, see `cargo xtask test`.
const PROGRAMS: &str = "CONNTRACE_TEST_PROGRAMS";
/// Where the exporter listens, in a namespace of its own.
const EXPORTER: u16 = 9100;
const CONNECTIONS: usize = 50;

/// A program of a Debian package.
pub(super) fn program(name: &str) -> Result<PathBuf, Skip> {
    let path = env::var_os(PROGRAMS).map(|programs| Path::new(&programs).join(name));
    path.filter(|path| path.exists())
        .ok_or_else(|| Skip(format!("{PROGRAMS} names no directory with {name}; cargo xtask test makes one")))
}

/// A child that ends with the test.
pub(super) struct Ended(pub(super) Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `node_exporter`, which reads the files of a directory.
fn export(netns: &NetNs, exporter: &Path, directory: &Path) -> Ended {
    let mut command = Command::new(exporter);
    command
        .args(["--collector.disable-defaults", "--collector.textfile"])
        .arg(format!("--collector.textfile.directory={}", directory.display()))
        .arg(format!("--web.listen-address=127.0.0.1:{EXPORTER}"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = netns.run(|| command.spawn()).unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    let started = said.by_ref().map_while(Result::ok).any(|line| line.contains("Listening on"));
    assert!(started, "the exporter ended");
    // The exporter writes on.
    std::thread::spawn(move || said.for_each(drop));
    Ended(child)
}

/// The metrics of the exporter.
fn scrape(netns: &NetNs) -> String {
    netns.run(|| {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, EXPORTER)).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    })
}

#[apply(needs_tracing)]
fn node_exporter_and_promtool_read_the_textfile(_: &Host) -> Outcome {
    let (exporter, promtool) = (program("prometheus-node-exporter")?, program("promtool")?);
    let directory = env::temp_dir().join(format!("conn-tests-textfile-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let (file, port, netns) = (directory.join("conntrace.prom"), Port::claim(), NetNs::new().unwrap());
    let number = port.to_string();
    let path = file.to_str().unwrap();
    let metrics = ["-o", "prometheus", "--lifetimes", "--interval", "200ms", "--textfile", path];
    let tracer = Tracer::start([&["stats", "--dport", &number][..], &metrics].concat());
    close::orderly(port.v4(), CONNECTIONS, First::Client);

    let _exporter = export(&netns, &exporter, &directory);
    let labels = |direction: &str| format!("{{direction=\"{direction}\",port=\"{number}\"}} {CONNECTIONS}\n");
    let wanted: Vec<String> = ["in", "out"]
        .into_iter()
        .flat_map(|direction| {
            ["opened", "established"].map(|count| format!("conntrace_tcp_connections_{count}_total{}", labels(direction)))
        })
        .chain([
            format!(
                "conntrace_tcp_connections_ended_total{{direction=\"out\",port=\"{number}\",reason=\"closed_by_us\"}} {CONNECTIONS}\n"
            ),
            format!("conntrace_tcp_connection_duration_seconds_count{}", labels("out")),
            "node_textfile_scrape_error 0\n".into(),
        ])
        .collect();
    // The file changes at each interval, and the exporter reads it at each request.
    let limit = Instant::now() + timeout::seconds(60);
    let mut text = scrape(&netns);
    while !wanted.iter().all(|line| text.contains(line)) {
        assert!(Instant::now() < limit, "{wanted:#?} are not in {text}");
        text = scrape(&netns);
    }
    assert!(text.contains(&format!("node_textfile_mtime_seconds{{file=\"{path}\"}}")), "{text}");

    let ended = tracer.stop();
    ended.expect_code(0);
    assert_eq!(ended.stdout, Vec::<String>::new());
    let left: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["conntrace.prom"]);
    let mut check = Command::new(promtool);
    check.args(["check", "metrics"]).stdin(fs::File::open(&file).unwrap());
    let verdict = check.output().unwrap();
    assert!(verdict.status.success(), "{verdict:?} of {}", fs::read_to_string(&file).unwrap());
    fs::remove_dir_all(directory).unwrap();
    Ok(())
}

/// A file that cannot be written: the run goes on, and its end has the reason.
#[apply(needs_tracing)]
fn a_textfile_without_a_directory_is_an_error(_: &Host) -> Outcome {
    let path = "/nonexistent/conntrace.prom";
    let tracer = Tracer::start(["stats", "-o", "prometheus", "--interval", "100ms", "--textfile", path]);
    tracer.await_stderr("the first report", |line| line.contains("the next report tries again"));
    let ended = tracer.stop();
    ended.expect_code(1);
    let last = &ended.stderr;
    assert!(last.contains(&format!("writing {path} failed: No such file or directory")), "{last}");
    Ok(())
}
