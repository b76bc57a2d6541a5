//! Workloads of owners: cgroups as container runtimes make them, and names from the files of these runtimes.

use super::owner::{check_call, event, watch};
use conn_tests::{
    harness::{Outcome, Skip},
    host::Host,
    line::Kind,
    needs_tracing,
    port::Port,
    tracer::{Setup, Tracer},
    traffic::{
        LIMIT, Server,
        crew::{Call, Worker, call},
    },
};
use macro_rules_attribute::apply;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use serde_json::Value;
use std::{
    env, fs, io,
    net::SocketAddr,
    os::unix::fs::{MetadataExt as _, chown},
    panic,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Instant,
};

/// Where the cgroup v2 hierarchy is mounted.
pub(crate) fn cgroup_root() -> Result<PathBuf, Skip> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let root = mounts.lines().find_map(|line| match *line.split(' ').collect::<Vec<_>>() {
        [_, root, "cgroup2", ..] => Some(PathBuf::from(root)),
        _ => None,
    });
    root.ok_or_else(|| Skip("no cgroup v2 hierarchy is mounted".into()))
}

/// A cgroup of the test, which goes with it.
pub(crate) struct Cgroup {
    pub path: PathBuf,
    /// The id of the container, which its name may contain.
    pub id: String,
}

/// A number that no other cgroup of a test has, with 64 hexadecimal digits.
fn unique_id() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{:056x}{:08x}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Cgroup {
    /// Called as systemd calls that of a container of docker.
    pub(crate) fn new() -> Result<Self, Skip> {
        let id = unique_id();
        Self::made(cgroup_root()?.join(format!("docker-{id}.scope")), id)
    }

    /// Below another one.
    fn below(&self, name: &str) -> Result<Self, Skip> {
        Self::made(self.path.join(name), self.id.clone())
    }

    fn made(path: PathBuf, id: String) -> Result<Self, Skip> {
        match fs::create_dir(&path) {
            Ok(()) => Ok(Self { path, id }),
            Err(error) => Err(Skip(format!("cannot make {}: {error}", path.display()))),
        }
    }

    /// A server in it, and a client elsewhere.
    fn serve(&self, address: SocketAddr) -> (Worker, Call) {
        let server = Worker::server("conn-contained", || {
            self.enter();
            Server::listen(address)
        });
        (server, call(address))
    }

    /// Moves the calling process into it.
    pub(crate) fn enter(&self) {
        fs::write(self.path.join("cgroup.procs"), "0").expect("enter the cgroup");
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let deadline = Instant::now() + *LIMIT;
        // A process that was killed stays in it until it has gone altogether.
        while fs::remove_dir(&self.path).is_err() && self.path.exists() && Instant::now() < deadline {
            thread::yield_now();
        }
    }
}

/// As a container's processes are: those of the two ends are in cgroups of their own.
#[apply(needs_tracing)]
fn a_cgroup_is_named_by_its_inode(_: &Host) -> Outcome {
    let cgroup = Cgroup::new()?;
    let inode = fs::metadata(&cgroup.path).unwrap().ino();
    let port = Port::claim();
    let tracer = watch(&port);
    let address = port.v4();
    let (server, call) = cgroup.serve(address);
    let client = call.tuple.client.port();
    let new = event(&tracer, "new", "in", client);
    assert_eq!(new["cgroup"], inode);
    assert_eq!(
        (&new["container"], &new["unit"]),
        (&cgroup.id.as_str().into(), &format!("docker-{}.scope", cgroup.id).into())
    );
    // No runtime knows of it.
    assert_eq!(new["container_name"], Value::Null);
    check_call(&tracer, call, "conn-contained");
    assert_eq!(event(&tracer, "destroy", "in", client)["cgroup"], inode);
    // This process is somewhere else.
    let other = event(&tracer, "destroy", "out", client);
    assert_ne!(other["cgroup"], inode);
    assert_ne!(other["container"], cgroup.id);
    let listed = |option: &str, value: &str| {
        let listed = Setup::new(["list", "--listening", "--netns", ".", "-o", "json", option, value]).run();
        listed.expect_code(0);
        listed.stdout.iter().filter(|line| line.contains(&format!("\"dport\":{}", port.number()))).count()
    };
    assert_eq!((listed("--container", &cgroup.id), listed("--container", "0123456789ab")), (1, 0));
    assert_eq!(listed("--unit", &format!("docker-{}.scope", cgroup.id)), 1);
    // The words of an expression select the same.
    let dport = port.to_string();
    let counted = |filter: String| {
        let ended =
            Setup::new(["count", "--state", "listening", "--netns", ".", "--dport", &dport, &filter]).run();
        ended.expect_code(0);
        ended.stdout.concat()
    };
    let id = &cgroup.id;
    assert_eq!(
        [
            format!("container {id}"),
            format!("unit = docker-{id}.scope"),
            format!("not ( container = {id} or unit = nginx )"),
        ]
        .map(counted),
        ["1", "1", "0"]
    );
    let by_word = Tracer::start(["-e", "NEW", "--dport", &dport, &format!("container = {id}")]);
    let both = Tracer::start(["-e", "NEW", "--dport", &dport]);
    let again = self::call(address).tuple;
    both.await_flow(Kind::New, "in", again);
    both.await_flow(Kind::New, "out", again);
    let shown = by_word.stop();
    let directions: Vec<_> = shown.events().iter().map(|line| line.key("dir").map(str::to_owned)).collect();
    assert_eq!(directions, [Some("in".into())], "{shown:#?}");
    drop(server);
    Ok(())
}

/// What `list --listening` shows of a port, as JSON, and what it says on standard error.
fn listener(port: &Port, options: &[&str]) -> (Option<Value>, String) {
    let dport = port.to_string();
    let args = [&["list", "--listening", "--netns", ".", "-o", "json", "--dport", &dport], options].concat();
    let ended = Setup::new(args).run();
    ended.expect_code(0);
    assert!(ended.stdout.len() <= 1, "{ended:#?}");
    (ended.stdout.first().map(|line| serde_json::from_str(line).unwrap()), ended.stderr)
}

#[apply(needs_tracing)]
fn units_have_the_names_of_systemd(_: &Host) -> Outcome {
    let id = unique_id();
    let group = format!("conntests{}", &id[50..]);
    let slice = Cgroup::made(cgroup_root()?.join(format!("{group}.slice")), id)?;
    let inner = slice.below(&format!("{group}-a.slice"))?;
    let name = format!(r"{group}@site\x2da.service");
    let unit = inner.below(&name)?;
    let port = Port::claim();
    let server = Worker::server("conn-unit", || {
        unit.enter();
        Server::listen(port.v4())
    });
    let (found, _) = listener(&port, &["--columns", "unit,user_unit,slice,container"]);
    let expected = serde_json::json!({ "unit": name, "user_unit": null, "slice": format!("{group}-a.slice"), "container": null });
    assert_eq!(found, Some(expected));
    // A line has the same name, so that it can be pasted into journalctl.
    let dport = port.to_string();
    for format in ["table", "csv"] {
        let args = [
            "list",
            "-l",
            "--netns",
            ".",
            "--no-header",
            "--columns",
            "unit",
            "--dport",
            &dport,
            "-o",
            format,
        ];
        let ended = Setup::new(args).run();
        ended.expect_code(0);
        assert_eq!(ended.stdout, std::slice::from_ref(&name), "{format}");
    }
    let whole = [name.as_str(), name.strip_suffix(".service").unwrap()];
    let patterns = [format!("{group}@*"), format!(r"{group}@*\x2d?.service"), "[b-d]*-a.slice".into()];
    let slices = [format!("{group}.slice"), format!("{group}-a.slice"), "-.slice".into()];
    for pattern in whole.into_iter().chain(patterns.iter().chain(&slices).map(String::as_str)) {
        let (found, stderr) = listener(&port, &["--unit", pattern]);
        assert!(found.is_some() && !stderr.contains("--unit"), "{pattern}: {stderr}");
    }
    for pattern in [format!("{group}@site-a"), format!("{group}@"), group.clone()] {
        let (found, stderr) = listener(&port, &["--unit", &pattern]);
        assert!(found.is_none(), "{pattern}");
        assert!(stderr.contains(&format!("--unit {pattern}: no such unit or slice runs now")), "{stderr}");
    }
    drop(server);
    Ok(())
}

/// Every command that knows units says that a pattern matches nothing, and goes on.
#[apply(needs_tracing)]
fn patterns_without_a_match_are_reported(_: &Host) -> Outcome {
    let cgroup = Cgroup::new()?;
    let [unit, container] = ["unit", "container"].map(|kind| format!("no-{kind}-{}", &cgroup.id[50..]));
    for command in ["list", "count", "events --timeout 100ms", "life --timeout 100ms"] {
        let words = command.split(' ').chain(["--unit", &unit, "--container", &container]);
        let ended = Setup::new(words).run();
        for report in [
            format!("conntrace: --unit {unit}: no such unit or slice runs now\n"),
            format!("conntrace: --container {container}: no such container runs now\n"),
        ] {
            assert_eq!(ended.expect_code(0).matches(&report).count(), 1, "{command}: {ended:#?}");
        }
    }
    let quiet = Setup::new(["count", "--container", &cgroup.id[..20], "--unit", "*.scope"]).run();
    assert_eq!((quiet.expect_code(0), quiet.stdout[0].as_str()), ("", "0"));
    Ok(())
}

/// A user who makes a cgroup with the name of a container of the host, and with the name of a unit.
#[apply(needs_tracing)]
fn a_user_is_not_shown_as_a_container_of_the_host(_: &Host) -> Outcome {
    const USER: u32 = 54_321;
    let id = unique_id();
    let group = format!("conntests{}", &id[50..]);
    let slice = Cgroup::made(cgroup_root()?.join(format!("{group}.slice")), id.clone())?;
    // systemd gives the cgroup of a user's service manager to the user.
    let manager = slice.below(&format!("user@{USER}.service"))?;
    chown(&manager.path, Some(USER), None).unwrap();
    let unit = manager.below(&format!("docker-{id}.scope"))?;
    chown(&unit.path, Some(USER), None).unwrap();
    let lib = Directory::with_container(&id, "conn-web");
    let port = Port::claim();
    let (server, call) = unit.serve(port.v4());
    let found = with_bound(&[(&lib.0, "/var/lib")], || listener(&port, &[]))?.0.unwrap();
    let shown =
        ["container", "container_name", "container_user", "unit", "user_unit"].map(|name| &found[name]);
    let expected: [&Value; 5] = [
        &id.as_str().into(),
        // The host's docker knows the id, and the container is not the host's.
        &Value::Null,
        &USER.into(),
        &format!("user@{USER}.service").into(),
        &format!("docker-{id}.scope").into(),
    ];
    assert_eq!(shown, expected, "{found}");
    let table = Setup::new([
        "list",
        "-l",
        "--netns",
        ".",
        "-o",
        "table",
        "--columns",
        "container",
        "--dport",
        &port.to_string(),
    ])
    .run();
    assert_eq!(table.stdout.get(1), Some(&format!("{id}@{USER}")), "{table:#?}");
    let name = format!("docker-{id}.scope");
    let [any, own, other] = ["*", &USER.to_string(), "1"].map(|user| format!("{id}@{user}"));
    let is_shown = |options: &[&str]| with_bound(&[(&lib.0, "/var/lib")], || listener(&port, options));
    for options in [["--container", &any], ["--container", &own], ["--user-unit", &name]] {
        assert!(is_shown(&options)?.0.is_some(), "{options:?}");
    }
    for (options, near) in [
        (["--container", &id], format!("; user {USER} has one: --container {id}@{USER}")),
        (["--unit", &name], format!("; a user's service manager has one: --user-unit {name}")),
        (["--container", "conn-web"], String::new()),
        (["--container", &other], format!("; user {USER} has one: --container {id}@{USER}")),
    ] {
        let (found, stderr) = is_shown(&options)?;
        assert!(found.is_none(), "{options:?}");
        assert!(stderr.contains(&format!("runs now{near}\n")), "{options:?}: {stderr}");
    }
    drop((call, server));
    Ok(())
}

/// A user's service manager has units of its own, which only `--user-unit` selects.
#[apply(needs_tracing)]
fn units_of_users_are_selected(_: &Host) -> Outcome {
    let id = unique_id();
    let name = format!("conn-shell-{}.service", &id[50..]);
    let manager = Cgroup::made(cgroup_root()?.join(format!("user@{}.service", &id[57..])), id)?;
    let slice = manager.below("app.slice")?;
    let unit = slice.below(&name)?;
    let port = Port::claim();
    let dport = port.to_string();
    let (server, open) = unit.serve(port.v4());
    let (found, _) = listener(&port, &["--columns", "user_unit,user_slice"]);
    assert_eq!(found, Some(serde_json::json!({ "user_unit": name, "user_slice": "app.slice" })));
    let whole = name.strip_suffix(".service").unwrap();
    for pattern in [&name, whole, &format!("{}*", &whole[..14]), "app.slice"] {
        let (found, stderr) = listener(&port, &["--user-unit", pattern]);
        assert!(found.is_some() && !stderr.contains("--user-unit"), "{pattern}: {stderr}");
    }
    let counted = |words: &[&str]| {
        let ended = Setup::new(["count", "--netns", ".", "--dport", &dport]).arguments(words).run();
        ended.expect_code(0);
        ended.stdout.concat()
    };
    // Of the connection's two ends, one is of the unit.
    let with = |filter: &str| counted(&[&filter.replace("NAME", &name)]);
    assert_eq!(counted(&["--user-unit", &name]), "1");
    assert_eq!(["user-unit = NAME", "not user-unit = NAME", "unit = NAME"].map(with), ["1", "1", "0"]);
    let tracer = Tracer::start(["-e", "NEW", "--dport", &dport, "--user-unit", &name]);
    let both = Tracer::start(["-e", "NEW", "--dport", &dport]);
    // The server serves one client after the other.
    drop(open);
    let again = call(port.v4()).tuple;
    for direction in ["in", "out"] {
        both.await_flow(Kind::New, direction, again);
    }
    let shown = tracer.stop();
    let directions: Vec<_> = shown.events().iter().map(|line| line.key("dir").map(str::to_owned)).collect();
    assert_eq!(directions, [Some("in".into())], "{shown:#?}");
    drop(server);
    let (found, stderr) = listener(&port, &["--user-unit", "no-such-unit"]);
    assert!(found.is_none(), "{found:?}");
    assert!(stderr.contains("--user-unit no-such-unit: no such unit or slice"), "{stderr}");
    Ok(())
}

/// A directory of the test, which goes with it.
struct Directory(PathBuf);

impl Directory {
    /// The files of docker about a container, as they are in `/var/lib`.
    fn with_container(id: &str, name: &str) -> Self {
        let lib = Self(env::temp_dir().join(format!("conn-tests-lib-{id}")));
        let container = lib.0.join("docker/containers").join(id);
        fs::create_dir_all(&container).unwrap();
        let metadata = format!(r#"{{"ID":"{id}","Name":"/{name}","Config":{{"Labels":{{}}}}}}"#);
        fs::write(container.join("config.v2.json"), metadata).unwrap();
        lib
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs `job` on a thread that sees files and directories in the place of others, as do processes started there.
pub(crate) fn with_bound<T: Send>(
    bound: &[(&Path, &str)],
    job: impl FnOnce() -> T + Send,
) -> Result<T, Skip> {
    let enter = || {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        for (from, to) in bound {
            if from.is_dir() {
                fs::create_dir_all(to)?;
            }
            mount(Some(*from), *to, none, MsFlags::MS_BIND, none)?;
        }
        Ok(())
    };
    let inside = || {
        let entered: io::Result<()> = enter();
        entered.map_err(|error| Skip(format!("no mount namespace with other files: {error}")))?;
        Ok(job())
    };
    thread::scope(|scope| scope.spawn(inside).join().unwrap_or_else(|panic| panic::resume_unwind(panic)))
}

/// Tracers that see a file of docker's about the container, and one whose container has another name.
#[apply(needs_tracing)]
fn a_container_is_named_by_its_runtime(_: &Host) -> Outcome {
    let cgroup = Cgroup::new()?;
    let lib = Directory::with_container(&cgroup.id, "conn-web");
    let port = Port::claim();
    let start = |name: &str| {
        Setup::new(["-o", "json", "--dport", &port.to_string(), "--direction", "in", "--container", name])
            .start()
    };
    let [tracer, other] = with_bound(&[(&lib.0, "/var/lib")], || [start("conn-w[a-e]b*"), start("conn-we")])?;
    let address = port.v4();
    let server = Worker::server("conn-named", || {
        cgroup.enter();
        Server::listen(address)
    });
    let client = call(address).tuple.client.port();
    for kind in ["new", "destroy"] {
        let shown = event(&tracer, kind, "in", client);
        assert_eq!((&shown["container_name"], &shown["pod"]), (&"conn-web".into(), &Value::Null), "{shown}");
        assert_eq!(shown["container"], cgroup.id);
    }
    drop(server);
    let ended = other.stop();
    assert!(ended.stdout.is_empty(), "{ended:#?}");
    Ok(())
}
