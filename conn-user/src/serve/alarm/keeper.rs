//! The back's half of the alarms: starts the process that watches the rules, and keeps its state.

use std::convert::Infallible;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::libc;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::serve::alarm::watch::{Orders, State};
use crate::serve::child::SELF;
use crate::settings::rule::Rule;

/// The file with the state, below the directory of the daemon.
const FILE: &str = "alarms.json";
/// The largest state, in bytes.
const MAX_STATE: u64 = 16 << 20;
/// How long the back waits before it starts the process again; twice as long after each failure.
const RESTART: Duration = Duration::from_millis(200);
/// The longest such wait. A process that ran for so long begins with the shortest.
const MAX_RESTART: Duration = Duration::from_secs(30);

/// What the process needs.
#[derive(Clone, Debug)]
pub(crate) struct Keeper {
    /// The socket of the daemon.
    pub(crate) socket: PathBuf,
    /// The program that takes mail.
    pub(crate) sendmail: PathBuf,
    /// The directory for the state.
    pub(crate) directory: PathBuf,
    /// The user of the process.
    pub(crate) user: u32,
    /// The group that may ask the daemon.
    pub(crate) group: Option<u32>,
    /// How often `-v` was given.
    pub(crate) verbose: u8,
}

impl Keeper {
    /// Watches the rules for ever, and follows their changes.
    pub(crate) async fn run(&self, mut rules: watch::Receiver<Vec<Rule>>) -> Infallible {
        let mut pause = RESTART;
        loop {
            let now = rules.borrow_and_update().clone();
            if now.is_empty() {
                if rules.changed().await.is_err() {
                    return std::future::pending().await;
                }
                continue;
            }
            let Some(group) = self.group else {
                log::warn!("no rule is watched: the group that may ask the daemon is missing");
                if rules.changed().await.is_err() {
                    return std::future::pending().await;
                }
                continue;
            };
            let begun = Instant::now();
            tokio::select! {
                ended = self.watch(now, group) => {
                    let why = ended.map_or_else(|error| error.to_string(), |()| "it closed its output".into());
                    log::warn!(
                        "the watch over the rules has ended ({why}), and is started again"
                    );
                    pause = if begun.elapsed() > MAX_RESTART { RESTART } else { (pause * 2).min(MAX_RESTART) };
                    sleep(pause).await;
                }
                // Dropping the process ends it.
                Ok(()) = rules.changed() => pause = RESTART,
            }
        }
    }

    /// Runs the process until it ends, and keeps each state that it writes.
    async fn watch(&self, rules: Vec<Rule>, group: u32) -> io::Result<()> {
        let state = self.read();
        let mut child = self.start(group)?;
        let orders = Orders { rules, socket: self.socket.clone(), sendmail: self.sendmail.clone(), state };
        let mut line = serde_json::to_vec(&orders)?;
        line.push(b'\n');
        // The end of its standard input stays open: the process reads one line.
        let mut stdin = child.stdin.take();
        if let Some(stdin) = &mut stdin {
            stdin.write_all(&line).await?;
        }
        let Some(stdout) = child.stdout.take() else { return Err(io::Error::other("no pipe")) };
        let mut stdout = BufReader::new(stdout);
        let mut is_kept = true;
        loop {
            line.clear();
            let mut limited = tokio::io::AsyncReadExt::take(&mut stdout, MAX_STATE);
            if limited.read_until(b'\n', &mut line).await? == 0 {
                return Err(io::Error::other(child.wait().await?.to_string()));
            }
            if !line.ends_with(b"\n") || serde_json::from_slice::<State>(&line).is_err() {
                return Err(io::Error::other("it wrote no state"));
            }
            match (self.write(&line), is_kept) {
                (Err(error), true) => {
                    is_kept = false;
                    log::warn!(
                        "keeping the state of the rules in {} failed: {error}. A restart may repeat alarms",
                        self.directory.display()
                    );
                }
                (Ok(()), false) => is_kept = true,
                _ => {}
            }
        }
    }

    fn start(&self, group: u32) -> io::Result<Child> {
        let mut command = Command::new(SELF);
        command.arg0("conntrace").arg("watch-rules").env_clear();
        command.args([format!("--user={}", self.user), format!("--group={group}")]);
        command.args(std::iter::repeat_n("-v", usize::from(self.verbose)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
        command.spawn()
    }

    /// The state of the last run. A file that is none is named, and not used.
    fn read(&self) -> State {
        let path = self.directory.join(FILE);
        match read(&path) {
            Ok(state) => state,
            Err(error) if error.kind() == io::ErrorKind::NotFound => State::default(),
            Err(error) => {
                log::warn!("{} is not used ({error}): alarms may be repeated", path.display());
                State::default()
            }
        }
    }

    /// Replaces the state as a whole.
    fn write(&self, state: &[u8]) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        let path = self.directory.join(FILE);
        let new = path.with_extension("new");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let mut file = options.open(&new)?;
        file.write_all(state)?;
        file.sync_data()?;
        fs::rename(&new, &path)
    }
}

/// Reads a state that only root could write.
fn read(path: &Path) -> io::Result<State> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    let found = file.metadata()?;
    let own = nix::unistd::geteuid().as_raw();
    if !found.is_file() || found.uid() != own || found.mode() & 0o022 != 0 {
        return Err(io::Error::other(
            "it is not a file that only its owner, the user of the daemon, may write",
        ));
    }
    let mut text = String::new();
    file.take(MAX_STATE).read_to_string(&mut text)?;
    serde_json::from_str(&text).map_err(io::Error::other)
}
