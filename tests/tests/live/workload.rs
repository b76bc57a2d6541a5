//! Workloads of owners: cgroups as container runtimes make them, and names from the files of these runtimes.

use super::owner::{check_call, event, watch};
use conn_tests::{
    harness::{Outcome, Skip},
    host::Host,
    needs_tracing,
    port::Port,
    tracer::Setup,
    traffic::{
        LIMIT, Server,
        crew::{Worker, call},
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
    os::unix::fs::MetadataExt as _,
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
struct Cgroup {
    path: PathBuf,
    /// The id of the container, which its name contains.
    id: String,
}

impl Cgroup {
    /// Called as systemd calls that of a container of docker.
    fn new() -> Result<Self, Skip> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!("{:056x}{:08x}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = cgroup_root()?.join(format!("docker-{id}.scope"));
        match fs::create_dir(&path) {
            Ok(()) => Ok(Self { path, id }),
            Err(error) => Err(Skip(format!("cannot make {}: {error}", path.display()))),
        }
    }

    /// Moves the calling process into it.
    fn enter(&self) {
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
    let server = Worker::server("conn-contained", || {
        cgroup.enter();
        Server::listen(address)
    });
    let call = call(address);
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
        let listed = Setup::new(["list", "--listening", "-o", "json", option, value]).run();
        listed.expect_code(0);
        listed.stdout.iter().filter(|line| line.contains(&format!("\"dport\":{}", port.number()))).count()
    };
    assert_eq!((listed("--container", &cgroup.id), listed("--container", "0123456789ab")), (1, 0));
    assert_eq!(listed("--unit", &format!("docker-{}.scope", cgroup.id)), 1);
    drop(server);
    Ok(())
}

/// A directory of the test, which goes with it.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs `job` on a thread that sees `directory` in the place of `/var/lib`, as do processes started there.
fn with_var_lib<T: Send>(directory: &Path, job: impl FnOnce() -> T + Send) -> Result<T, Skip> {
    let enter = || {
        fs::create_dir_all("/var/lib")?;
        unshare(CloneFlags::CLONE_NEWNS)?;
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        mount(Some(directory), "/var/lib", none, MsFlags::MS_BIND, none)?;
        Ok(())
    };
    let inside = || {
        let entered: io::Result<()> = enter();
        entered.map_err(|error| Skip(format!("no mount namespace with another /var/lib: {error}")))?;
        Ok(job())
    };
    thread::scope(|scope| scope.spawn(inside).join().unwrap_or_else(|panic| panic::resume_unwind(panic)))
}

/// Tracers that see a file of docker's about the container, and one whose container has another name.
#[apply(needs_tracing)]
fn a_container_is_named_by_its_runtime(_: &Host) -> Outcome {
    let cgroup = Cgroup::new()?;
    let lib = Directory(env::temp_dir().join(format!("conn-tests-lib-{}", cgroup.id)));
    let container = lib.0.join("docker/containers").join(&cgroup.id);
    fs::create_dir_all(&container).unwrap();
    let metadata = format!(r#"{{"ID":"{}","Name":"/conn-web","Config":{{"Labels":{{}}}}}}"#, cgroup.id);
    fs::write(container.join("config.v2.json"), metadata).unwrap();
    let port = Port::claim();
    let start = |name: &str| {
        Setup::new(["-o", "json", "--dport", &port.to_string(), "--direction", "in", "--container", name])
            .start()
    };
    let [tracer, other] = with_var_lib(&lib.0, || [start("conn-web"), start("conn-we")])?;
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
