//! A collector of OTLP that decodes with the official package, and a configuration that sends to it.

use conn_tests::{daemon::Daemon, port::Port, timeout};
use serde_json::Value;
use std::{
    env,
    ffi::OsString,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{self, Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Instant,
};

/// The end that decodes.
const SINK: &str = include_str!("sink.py");

/// A program that is killed with this value.
pub(super) struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server that prints the requests that it decodes.
pub(super) struct Sink {
    program: Program,
    lines: mpsc::Receiver<Value>,
}

impl Sink {
    pub(super) fn start(python: &OsString, port: &Port) -> Self {
        let mut command = Command::new(python);
        command.args(["-c", SINK, &port.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(serde_json::from_str(&line).unwrap()).is_err() {
                    return;
                }
            }
        });
        let sink = Self { program: Program(child), lines };
        assert_eq!(sink.next(), "ready");
        sink
    }

    pub(super) fn next(&self) -> Value {
        self.lines.recv_timeout(timeout::seconds(60)).expect("a request")
    }

    /// Answers like this from now on.
    pub(super) fn answer(&mut self, words: &str) {
        writeln!(self.program.0.stdin.as_mut().unwrap(), "{words}").unwrap();
        while self.next() != "set" {}
    }

    /// Waits for a request that is accepted.
    pub(super) fn await_one(&self, what: &str, accept: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let request = self.next();
            if accept(&request) {
                return request;
            }
            assert!(begun.elapsed() < timeout::seconds(60), "{what}: {request}");
        }
    }
}

/// The value of an attribute, in words.
pub(super) fn attribute(of: &Value, key: &str) -> Option<String> {
    let found = of["attributes"].as_array()?.iter().find(|attribute| attribute["key"] == key)?;
    let value = &found["value"];
    Some(value["string_value"].as_str().or(value["int_value"].as_str())?.to_owned())
}

/// A number, which may be in words.
pub(super) fn number(value: &Value) -> i64 {
    value.as_str().map_or_else(|| value.as_i64().unwrap_or(0), |text| text.parse().unwrap())
}

/// A configuration with an export, in a directory of its own.
pub(super) struct Place(pub(super) PathBuf);

impl Place {
    pub(super) fn new(name: &str, collector: &Port, more: &str) -> Self {
        let directory = env::temp_dir().join(format!("conn-otlp-{name}-{}", process::id()));
        fs::create_dir(&directory).unwrap();
        let place = Self(directory);
        let text = format!(
            "{more}\n[otlp]\nendpoint = \"http://127.0.0.1:{collector}\"\ninterval = \"200ms\"\n\
             headers = {{ authorization = \"Bearer x\" }}\n"
        );
        fs::write(place.config(), text).unwrap();
        place
    }

    /// Puts keys and tables in front of the table of the export.
    pub(super) fn prepend(&self, more: &str) {
        let text = fs::read_to_string(self.config()).unwrap();
        fs::write(self.config(), format!("{more}{text}")).unwrap();
    }

    pub(super) fn config(&self) -> String {
        self.0.join("c.toml").to_str().unwrap().to_owned()
    }

    /// A collector in Rust, which passes on what it gets.
    pub(super) fn rotel(&self, python: &OsString, port: &Port, grpc: &Port, behind: &Port) -> Program {
        let directory = Command::new(python).args(["-c", "import rotel; print(rotel.__path__[0])"]).output();
        let directory = String::from_utf8(directory.unwrap().stdout).unwrap();
        let mut command = Command::new(format!("{}/rotel-agent", directory.trim()));
        command.args([
            "start",
            "--exporter",
            "otlp",
            "--otlp-exporter-protocol",
            "http",
            "--disable-batching",
        ]);
        command.arg(format!("--otlp-http-endpoint=127.0.0.1:{port}"));
        command.arg(format!("--otlp-grpc-endpoint=127.0.0.1:{grpc}"));
        command.arg(format!("--otlp-exporter-endpoint=http://127.0.0.1:{behind}"));
        command.arg(format!("--pid-file={}", self.0.join("rotel.pid").display()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Program(command.spawn().unwrap())
    }

    pub(super) fn daemon(&self) -> Daemon {
        Daemon::with(&["--transient", "-v", "--config", &self.config()])
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
