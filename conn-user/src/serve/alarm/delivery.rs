//! What an alarm does: one message, and the actions of its rule, each in a task of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::serve::alarm::judge::Edge;
use crate::settings::rule::Action;

/// How long a program may run, and a webhook or a mailer may take.
const LIMIT: Duration = Duration::from_secs(30);
/// How long an action waits before it tries again; twice as long after each failure.
const PAUSE: Duration = Duration::from_secs(1);
/// How often a webhook or a mailer is tried.
const TRIES: u32 = 6;
/// How many messages may wait for an action.
const MAX_WAITING: usize = 64;
/// How many bytes of the messages of a program are shown.
const MAX_SHOWN: u64 = 512;
/// What an action gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Message {
    /// Names this message, and no other one.
    pub(crate) id: String,
    /// The rule.
    pub(crate) rule: String,
    /// The name of the host.
    pub(crate) host: String,
    /// Wall-clock time (RFC 3339).
    pub(crate) time: String,
    /// What began and ended.
    pub(crate) alarms: Vec<Edge>,
    /// How many more there were than this message has room for.
    pub(crate) more: u64,
}

impl Message {
    /// The facts in words, a line each.
    pub(crate) fn text(&self) -> String {
        let mut lines: Vec<_> = self.alarms.iter().map(line).collect();
        if self.more > 0 {
            lines.push(format!("and {} more", self.more));
        }
        lines.join("\n")
    }

    /// One line for a subject.
    fn summary(&self) -> String {
        let others = self.alarms.len() as u64 + self.more - 1;
        let first = self.alarms.first().map(line).unwrap_or_default();
        if others == 0 { first } else { format!("{first} (and {others} more)") }
    }

    /// The environment of a program.
    pub(crate) fn environment(&self) -> BTreeMap<&'static str, String> {
        let first = self.alarms.first();
        let of = |text: Option<String>| text.unwrap_or_default();
        let subject = first.map(|edge| &edge.subject);
        BTreeMap::from([
            ("CONNTRACE_ID", self.id.clone()),
            ("CONNTRACE_RULE", self.rule.clone()),
            ("CONNTRACE_HOST", self.host.clone()),
            ("CONNTRACE_TIME", self.time.clone()),
            ("CONNTRACE_TEXT", self.text()),
            ("CONNTRACE_COUNT", (self.alarms.len() as u64 + self.more).to_string()),
            ("CONNTRACE_STATE", of(first.map(|edge| state(edge).to_owned()))),
            ("CONNTRACE_VALUE", of(first.and_then(|edge| edge.value.clone()))),
            ("CONNTRACE_PORT", of(subject.and_then(|it| it.port).map(|port| port.to_string()))),
            ("CONNTRACE_DIRECTION", of(subject.and_then(|it| it.way).map(|way| way.name().to_owned()))),
            ("CONNTRACE_CONNECTION", of(subject.and_then(|it| it.connection.clone()))),
            ("CONNTRACE_PROCESS", of(subject.and_then(|it| it.process.clone()))),
            ("CONNTRACE_REMOTE", of(subject.and_then(|it| it.remote.clone()))),
            ("CONNTRACE_JSON", serde_json::to_string(self).unwrap_or_default()),
        ])
    }
}

/// The word for the state of an alarm.
pub(crate) fn state(edge: &Edge) -> &'static str {
    if edge.fires { "firing" } else { "resolved" }
}

fn line(edge: &Edge) -> String {
    if edge.fires { edge.text.clone() } else { format!("ended: {}", edge.text) }
}

/// The end of a message's way through an action.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Done {
    /// The message.
    pub(crate) id: String,
    /// The action.
    pub(crate) action: Action,
}

/// The actions of all rules.
#[derive(Debug)]
pub(crate) struct Actions {
    /// By rule: a slow action of one rule delays no other rule, and no other action.
    workers: BTreeMap<(String, Action), mpsc::Sender<Message>>,
    /// The program that takes mail.
    sendmail: PathBuf,
    done: mpsc::UnboundedSender<Done>,
}

impl Actions {
    /// `sendmail` takes mail, and `done` gets the end of each message.
    pub(crate) fn new(sendmail: PathBuf, done: mpsc::UnboundedSender<Done>) -> Self {
        Self { workers: BTreeMap::new(), sendmail, done }
    }

    /// Gives a message to an action. False if too many wait for it: the message is dropped, and that is printed.
    pub(crate) fn give(&mut self, action: &Action, message: Message) -> bool {
        let key = (message.rule.clone(), action.clone());
        let worker = self.workers.entry(key).or_insert_with(|| {
            let (sender, messages) = mpsc::channel(MAX_WAITING);
            tokio::spawn(work(action.clone(), self.sendmail.clone(), messages, self.done.clone()));
            sender
        });
        let rule = message.rule.clone();
        let is_taken = worker.try_send(message).is_ok();
        if !is_taken {
            let what = name(action);
            log::warn!("alarm {rule}: {MAX_WAITING} messages wait for {what}, so one is dropped");
        }
        is_taken
    }
}

/// Runs an action for one message after the other.
async fn work(
    action: Action,
    sendmail: PathBuf,
    mut messages: mpsc::Receiver<Message>,
    done: mpsc::UnboundedSender<Done>,
) {
    while let Some(message) = messages.recv().await {
        let tries = if matches!(action, Action::Command(_)) { 1 } else { TRIES };
        let mut pause = PAUSE;
        for one in 1..=tries {
            let Err(why) = carry_out(&action, &sendmail, &message).await else { break };
            let (rule, what) = (&message.rule, name(&action));
            let next = if one == tries { "the message is dropped" } else { "it is tried again" };
            log::warn!("alarm {rule}: {what} failed ({why}); {next}");
            if one < tries {
                sleep(pause).await;
                pause *= 2;
            }
        }
        // The receiver ends with the process.
        let _ = done.send(Done { id: message.id, action: action.clone() });
    }
}

fn name(action: &Action) -> String {
    match action {
        Action::Command(argv) => argv.first().cloned().unwrap_or_default(),
        // The rest of the address may be a secret.
        Action::Webhook(url) => url.split('/').take(3).collect::<Vec<_>>().join("/"),
        Action::Mail(address) => format!("mail to {address}"),
    }
}

async fn carry_out(action: &Action, sendmail: &Path, message: &Message) -> Result<(), String> {
    match action {
        Action::Command(argv) => {
            let Some((program, rest)) = argv.split_first() else { return Err("no program".into()) };
            let mut command = Command::new(program);
            command.args(rest).envs(message.environment());
            run(command, "").await
        }
        Action::Mail(address) => {
            if !sendmail.exists() {
                return Err(format!(
                    "there is no {}: install a mailer such as msmtp-mta",
                    sendmail.display()
                ));
            }
            let mut command = Command::new(sendmail);
            command.args(["-i", "--", address]);
            let mail = format!(
                "To: {address}\nSubject: conntrace: {}: {}\nAuto-Submitted: auto-generated\n\
                 Content-Type: text/plain; charset=utf-8\n\n{}\n\nrule {}\nhost {}\ntime {}\n",
                message.rule,
                message.summary(),
                message.text(),
                message.rule,
                message.host,
                message.time
            );
            run(command, &mail).await
        }
        Action::Webhook(url) => {
            let (url, message) = (url.clone(), message.clone());
            let posted = tokio::task::spawn_blocking(move || post(&url, &message));
            posted.await.map_err(|error| error.to_string())?
        }
    }
}

/// Runs a program in a process group of its own, and ends the group if it takes too long.
async fn run(mut command: Command, input: &str) -> Result<(), String> {
    command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.current_dir("/").process_group(0).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let group = child.id().and_then(|pid| i32::try_from(pid).ok()).map(nix::unistd::Pid::from_raw);
    let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
    let work = async {
        if let Some(mut stdin) = stdin {
            // A program that does not read its input has its reason.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        let mut said = Vec::new();
        if let Some(stderr) = stderr {
            let mut stderr = stderr.take(MAX_SHOWN);
            let _ = stderr.read_to_end(&mut said).await;
            // What a program says beyond that is read, so that it does not wait.
            let _ = tokio::io::copy(&mut stderr.into_inner(), &mut tokio::io::sink()).await;
        }
        let status = child.wait().await.map_err(|error| error.to_string())?;
        if status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&said);
        let first = said.lines().next().unwrap_or_default();
        Err(format!("{status}{}{}", if first.is_empty() { "" } else { ": " }, first.escape_debug()))
    };
    let ended = timeout(LIMIT, work).await;
    if let (Err(_), Some(group)) = (&ended, group) {
        // A group that has just ended is no matter.
        let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
    }
    ended.unwrap_or_else(|_| Err(format!("it took longer than {} s", LIMIT.as_secs())))
}

/// Posts a message, with the headers of `CloudEvents` 1.0 in binary mode.
fn post(url: &str, message: &Message) -> Result<(), String> {
    let config = ureq::Agent::config_builder().timeout_global(Some(LIMIT)).max_redirects(0).build();
    let agent = ureq::Agent::new_with_config(config);
    let event = message.alarms.first().map_or("firing", state);
    let response = agent
        .post(url)
        .header("content-type", "application/json")
        .header("user-agent", concat!("conntrace/", env!("CARGO_PKG_VERSION")))
        .header("ce-specversion", "1.0")
        .header("ce-id", &message.id)
        .header("ce-source", format!("/conntrace/{}", message.host))
        .header("ce-type", format!("conntrace.alarm.{event}"))
        .header("ce-subject", &message.rule)
        .header("ce-time", &message.time)
        .send(serde_json::to_vec(message).unwrap_or_default());
    match response {
        Ok(response) if response.status().is_redirection() => Err(format!("status {}", response.status())),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}
