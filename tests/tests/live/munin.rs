//! The plugin of munin, as munin's own runner starts it: as a user without privileges.

use conn_tests::{
    daemon::{Daemon, NOBODY},
    harness::{Outcome, Skip},
    host::Host,
    needs_tracing,
    port::Port,
    tracer::binary,
    traffic::{
        close::{self, First},
        socket::{Server, connect},
    },
};
use macro_rules_attribute::apply;
use std::{
    env, fs,
    net::TcpStream,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{self, Command, Output},
};

/// The variable with the directory of Debian's programs, see `cargo xtask test`.
const PROGRAMS: &str = "CONNTRACE_TEST_PROGRAMS";

/// A directory with plugins, their configuration, and a copy of the program that any user may run.
struct Place {
    directory: PathBuf,
    /// Where munin's packages are unpacked.
    root: PathBuf,
}

impl Place {
    fn new(daemon: &Daemon) -> Result<Self, Skip> {
        let root = env::var_os(PROGRAMS).map(|programs| Path::new(&programs).join("../.."));
        let root = root.filter(|root| root.join("usr/sbin/munin-run").exists());
        let missing =
            || Skip(format!("{PROGRAMS} names no directory beside munin-run; cargo xtask test makes one"));
        let root = root.ok_or_else(missing)?;
        let directory = env::temp_dir().join(format!("conn-tests-munin-{}", process::id()));
        for part in ["bin", "plugins", "library", "conf.d"] {
            fs::create_dir_all(directory.join(part)).unwrap();
        }
        let place = Self { directory, root };
        let plugin = place.directory.join("library/conntrace_");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/munin/conntrace_");
        for (from, to) in [(source, &plugin), (binary(), &place.directory.join("bin/conntrace"))] {
            fs::copy(from, to).unwrap();
            fs::set_permissions(to, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let settings = format!(
            "[conntrace_*]\nuser nobody\ngroup {NOBODY}\nenv.socket {}\nenv.PATH {}:/usr/bin:/bin\n",
            daemon.socket().display(),
            place.directory.join("bin").display(),
        );
        fs::write(place.directory.join("conf.d/conntrace"), settings).unwrap();
        Ok(place)
    }

    /// Links the plugin under the name of a graph, and runs it as munin-node does.
    fn run(&self, graph: &str, task: &[&str]) -> Output {
        let name = format!("conntrace_{graph}");
        // The link of an earlier call stays.
        _ = symlink(self.directory.join("library/conntrace_"), self.directory.join("plugins").join(&name));
        let mut command = Command::new("perl");
        command
            .arg("-T")
            .arg("-I")
            .arg(self.root.join("usr/share/perl5"))
            .arg(self.root.join("usr/sbin/munin-run"))
            .arg("--config")
            .arg(self.root.join("etc/munin/munin-node.conf"))
            .arg("--servicedir")
            .arg(self.directory.join("plugins"))
            .arg("--sconfdir")
            .arg(self.directory.join("conf.d"))
            .arg(name)
            .args(task);
        command.output().unwrap()
    }

    /// The lines of a run that succeeds.
    fn lines(&self, graph: &str, task: &[&str]) -> Vec<String> {
        let output = self.run(graph, task);
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.directory).unwrap();
    }
}

#[apply(needs_tracing)]
fn munin_run_gets_exact_counts_as_nobody(_: &Host) -> Outcome {
    let daemon = Daemon::start();
    let place = Place::new(&daemon)?;
    let (port, closed) = (Port::claim(), Port::claim());
    close::orderly(port.v4(), 5, First::Client);
    let server = Server::listen(port.v4());
    let held: Vec<_> = (0..3).map(|_| (connect(server.address), server.accept())).collect();
    assert!(TcpStream::connect(closed.v4()).is_err());

    assert_eq!(place.lines(&format!("port_{port}"), &[]), ["in.value 3", "out.value 3"]);
    assert_eq!(
        place.lines(&format!("new_{port}"), &[]),
        ["opened_in.value 8", "opened_out.value 8", "failed_in.value 0", "failed_out.value 0"]
    );
    let refused = place.lines(&format!("new_{closed}"), &[]);
    assert_eq!(refused[1..], ["opened_out.value 1", "failed_in.value 0", "failed_out.value 1"]);
    // Other tests of the host have connections, too.
    for graph in ["states", "new"] {
        let values = place.lines(graph, &[]);
        let config = place.lines(graph, &["config"]);
        for value in &values {
            let (name, number) = value.split_once(".value ").unwrap();
            assert!(number.parse::<u64>().is_ok(), "{value}");
            assert!(
                config.iter().any(|line| line.starts_with(&format!("{name}.label "))),
                "{name}: {config:?}"
            );
        }
    }
    let established = place.lines("states", &[]).iter().find_map(|line| {
        line.strip_prefix("established.value ").map(|number| number.parse::<u64>().unwrap())
    });
    assert!(established.unwrap() >= 6, "{established:?}");
    drop(held);

    // As munin-node-configure asks: under the name of the wildcard.
    let suggested = place.lines("", &["suggest"]);
    for graph in ["states", "new", &format!("port_{port}")] {
        assert!(suggested.iter().any(|line| line == graph), "{graph}: {suggested:?}");
    }
    assert_eq!(place.lines("", &["autoconf"]), ["yes"]);

    daemon.end(nix::sys::signal::Signal::SIGTERM).expect_code(0);
    let output = place.run("states", &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    assert!(said.contains("asking the daemon at"), "{said}");
    let why = place.lines("states", &["autoconf"]).remove(0);
    assert!(why.starts_with("no (asking the daemon at"), "{why}");
    Ok(())
}
