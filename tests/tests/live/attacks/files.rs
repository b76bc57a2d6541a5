//! Files in a user's home that name the user's containers: links, pipes, devices, long names. The tests share the cgroups of
//! the user's slice, so each runs alone.

use super::super::workload::{cgroup_root, with_bound};
use super::descriptors::has_reader;
use conn_tests::{
    attack::{Attacker, USER, sockets},
    harness::{Outcome, Skip},
    host::Host,
    needs_whole_machine,
    netns::NetNs,
    port::Port,
    tracer::{Ended, Setup},
    traffic::LIMIT,
};
use macro_rules_attribute::apply;
use nix::{
    sys::stat::Mode,
    unistd::{chown, mkfifo},
};
use serde_json::Value;
use std::{
    env, fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Instant,
};

/// Bytes of a long name.
const LONG: usize = 15 << 20;
/// Containers with it.
const LONG_NAMES: usize = 12;
/// The most memory of the process beside them, bytes.
const MOST_MEMORY: u64 = 80 << 20;
/// What only root may read.
const SECRET: &str = "conn-secret";

/// The user's home, with the file of users that names it, and cgroups below the user's service manager.
pub(crate) struct User {
    directory: PathBuf,
    /// Directories that go with the user.
    pub(crate) cgroups: Vec<PathBuf>,
}

impl User {
    pub(crate) fn new() -> Result<Self, Skip> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !Path::new("/etc/passwd").exists() {
            return Err(Skip("there is no /etc/passwd here to put another in its place".into()));
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = env::temp_dir().join(format!("conn-tests-user-{}-{number}", process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(directory.join("home")).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o711)).unwrap();
        let home = directory.join("home");
        let users =
            format!("root:x:0:0:root:/root:/bin/sh\nnobody:x:{USER}:{USER}::{}:/bin/sh\n", home.display());
        fs::write(directory.join("passwd"), users).unwrap();
        let user = Self { directory, cgroups: Vec::new() };
        Self::own(&home);
        Ok(user)
    }

    fn own(path: &Path) {
        chown(path, Some(USER.into()), Some(USER.into())).unwrap();
    }

    /// The file of docker's about a container, whose directories are the user's. `None` stands for root's docker.
    fn docker_file(&self, id: &str) -> PathBuf {
        let mut path = self.directory.join("home");
        for part in [".local", "share", "docker", "containers", id] {
            path.push(part);
            let _ = fs::create_dir(&path);
            Self::own(&path);
        }
        path.join("config.v2.json")
    }

    /// Root's file that no user may read.
    pub(crate) fn of_root(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// A scope below the user's service manager, as a user makes it who has it delegated.
    pub(crate) fn scope(&mut self, id: &str) -> Result<PathBuf, Skip> {
        let mut path = cgroup_root()?;
        let user = [
            "user.slice".to_owned(),
            format!("user-{USER}.slice"),
            format!("user@{USER}.service"),
            format!("docker-{id}.scope"),
        ];
        for part in user {
            path.push(part);
            match fs::create_dir(&path) {
                Ok(()) => self.cgroups.push(path.clone()),
                Err(_) if path.exists() => {}
                Err(error) => return Err(Skip(format!("cannot make {}: {error}", path.display()))),
            }
            // systemd delegates the directory of a user's service manager. What is below was made by the user.
            if path.components().any(|part| part.as_os_str().as_encoded_bytes().starts_with(b"user@")) {
                Self::own(&path);
            }
        }
        Ok(path)
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let deadline = Instant::now() + *LIMIT;
        for path in self.cgroups.iter().rev() {
            // A process that was killed stays in it until it has gone altogether.
            while fs::remove_dir(path).is_err() && path.exists() && Instant::now() < deadline {
                thread::yield_now();
            }
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

pub(crate) fn id(number: usize) -> String {
    format!("{:056x}{number:08x}", process::id())
}

pub(crate) fn metadata(id: &str, name: &str) -> String {
    format!(r#"{{"ID":"{id}","Name":"/{name}","Config":{{"Labels":{{}}}}}}"#)
}

/// Connects once in each of the cgroups, in turn, on this port, and gives the ends that a tracer shows.
pub(crate) fn trace(
    user: &User,
    scopes: &[PathBuf],
    lib: Option<&Path>,
) -> Result<(Vec<Value>, Ended), Skip> {
    let port = Port::claim();
    let passwd = user.directory.join("passwd");
    let mut bound = vec![(passwd.as_path(), "/etc/passwd")];
    bound.extend(lib.map(|lib| (lib, "/var/lib")));
    let arguments = ["-e", "DESTROY", "-o", "json", "--direction", "out", "--dport", &port.to_string()];
    let tracer = with_bound(&bound, || Setup::new(arguments).start())?;
    let ns = NetNs::new().unwrap();
    let mut ends = Vec::new();
    let number = port.number();
    for scope in scopes {
        let attacker = ns.run(|| {
            Attacker::start_here("conn-contained", |line| {
                line.wait();
                sockets::connect_and_reset(1, number);
                line.ready();
            })
        });
        fs::write(scope.join("cgroup.procs"), attacker.pid().to_string()).expect("enter the cgroup");
        attacker.resume();
        attacker.await_ready();
        let pid = attacker.pid();
        ends.push(tracer.await_json("the end of a connection", |event| event["pid"] == pid));
        attacker.join();
    }
    Ok((ends, tracer.stop()))
}

/// The files of the first containers lead elsewhere. The last one is an honest container of the user's, whose name comes
/// once the others were looked up.
#[apply(needs_whole_machine)]
fn links_and_pipes_in_a_home_lead_nowhere(_: &Host) -> Outcome {
    let mut user = User::new()?;
    let (secret, pipe) = (user.of_root("secret"), user.of_root("pipe"));
    fs::write(&secret, metadata(&id(0), SECRET)).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    mkfifo(&pipe, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    symlink(&secret, user.docker_file(&id(0))).unwrap();
    symlink(&pipe, user.docker_file(&id(1))).unwrap();
    let own_pipe = user.docker_file(&id(2));
    mkfifo(&own_pipe, Mode::S_IRWXU).unwrap();
    User::own(&own_pipe);
    symlink("/dev/ptmx", user.docker_file(&id(3))).unwrap();
    // A link of a directory, into a directory of root's.
    let elsewhere = user.of_root("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("config.v2.json"), metadata(&id(4), SECRET)).unwrap();
    let directory = user.docker_file(&id(4)).parent().unwrap().to_owned();
    fs::remove_dir(&directory).unwrap();
    symlink(&elsewhere, &directory).unwrap();
    // A file of root's in the user's directory, as a hard link makes one.
    fs::hard_link(&secret, user.docker_file(&id(5))).unwrap();
    let honest = user.docker_file(&id(6));
    fs::write(&honest, metadata(&id(6), "conn-honest")).unwrap();
    User::own(&honest);
    // Three times: on a slow machine, the first look at a file takes longer than an event waits.
    let numbers = (0..7).chain([6, 6]);
    let scopes = numbers.map(|number| user.scope(&id(number))).collect::<Result<Vec<_>, _>>()?;
    let (ends, ended) = trace(&user, &scopes, None)?;
    let text = ended.stdout.join("\n");
    let opened = [&pipe, &own_pipe].map(|pipe| has_reader(pipe));
    let honest = &ends.last().expect("an end")["container_name"];
    println!("home: secret shown: {}, pipes opened: {opened:?}, honest {honest}", text.contains(SECRET));
    assert!(!text.contains(SECRET), "{text}");
    assert_eq!(opened, [false; 2]);
    assert!(ends[..6].iter().all(|end| end["container_name"].is_null()), "{ends:?}");
    assert_eq!(honest, "conn-honest");
    ended.expect_code(0);
    Ok(())
}

#[apply(needs_whole_machine)]
fn long_names_in_a_home_take_no_memory(_: &Host) -> Outcome {
    let mut user = User::new()?;
    let long = user.directory.join("long");
    fs::write(&long, metadata(&id(0), &"x".repeat(LONG))).unwrap();
    User::own(&long);
    let mut scopes = Vec::new();
    for number in 0..LONG_NAMES {
        fs::hard_link(&long, user.docker_file(&id(number))).unwrap();
        scopes.push(user.scope(&id(number))?);
    }
    let (ends, ended) = trace(&user, &scopes, None)?;
    let bytes: usize = ended.stdout.iter().map(String::len).sum();
    println!("long names: {} MB of memory, {bytes} bytes shown", ended.usage.peak_bytes >> 20);
    assert!(ends.iter().all(|end| end["container_name"].is_null()), "{ended:?}");
    assert!(ended.usage.peak_bytes < MOST_MEMORY, "{} bytes", ended.usage.peak_bytes);
    assert!(ended.expect_code(0).contains("lost 0: holds"), "{}", ended.stderr);
    Ok(())
}
