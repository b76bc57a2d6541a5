//! The process that watches rules. It is a client of the daemon, and has no privilege.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::error::Error;
use crate::event::sort_key::SourceGroup;
use crate::host::clock;
use crate::output::stdout;
use crate::serve::alarm::delivery::{Actions, Done, Message, state};
use crate::serve::alarm::judge::{Edge, Judge, Memory};
use crate::serve::alarm::reading::{self, Line, Stats};
use crate::serve::helper;
use crate::settings::rule::{Action, Condition, Rule, Way};

/// How often counts are read.
const EVERY: Duration = Duration::from_secs(1);
/// The longest time between two looks at the ages of connections.
const MAX_AGE_STEP: Duration = Duration::from_secs(60);
/// The rest after a reading of all remote addresses, in multiples of the time that it took.
const REST: u32 = 19;
/// The longest wait before a stream is opened again.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// How many begins and ends of alarms a message has.
const MAX_EDGES: usize = 100;

/// What the back gives to the process: a line of JSON on its standard input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Orders {
    /// The rules.
    pub(crate) rules: Vec<Rule>,
    /// The socket of the daemon.
    pub(crate) socket: PathBuf,
    /// The program that takes mail.
    pub(crate) sendmail: PathBuf,
    /// What the last process remembered.
    pub(crate) state: State,
}

/// What outlives a process, by rule. Each change is a line of JSON on standard output.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// By the name of the rule.
    pub(crate) rules: BTreeMap<String, RuleState>,
}

/// What outlives a process, of one rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RuleState {
    /// What the rule watches. The memory of another condition means nothing.
    watches: Option<Condition>,
    /// What it has seen.
    memory: Memory,
    /// When the last message was made, nanoseconds of Unix time.
    sent_unix_ns: Option<u64>,
    /// Begins and ends that wait for the pause to end.
    held: VecDeque<Edge>,
    /// How many more there were.
    more: u64,
    /// Messages that an action has not ended with.
    pending: Vec<(Action, Message)>,
}

/// Runs the process, with its orders on standard input, until the back ends.
///
/// # Errors
/// It cannot become another user, or the orders are none.
pub(crate) fn run(user: Option<u32>, group: Option<u32>) -> Result<(), Error> {
    let error = |source| Error::Io { context: "starting the watch over the rules".into(), source };
    let orders: Orders = helper::orders(user, group).map_err(error)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(error)?;
    runtime.block_on(Watch::new(orders).run())
}

struct Watch {
    socket: PathBuf,
    judges: Vec<Judge>,
    states: Vec<RuleState>,
    actions: Actions,
    done: mpsc::UnboundedReceiver<Done>,
    host: String,
    /// The last complaint about the daemon, which is printed once.
    complaint: Option<String>,
    /// The state as it was written last.
    written: String,
    /// A rule wants to know these counts of remote addresses.
    wanted_remotes: Option<SourceGroup>,
    /// They are not read before.
    remotes_from: Instant,
}

impl Watch {
    fn new(orders: Orders) -> Self {
        let Orders { rules, socket, sendmail, state: mut before } = orders;
        let (sender, done) = mpsc::unbounded_channel();
        let (mut judges, mut states) = (Vec::new(), Vec::new());
        for rule in rules {
            let mut state = before.rules.remove(&rule.name).unwrap_or_default();
            if state.watches.as_ref() != Some(&rule.condition) {
                state = RuleState { watches: Some(rule.condition.clone()), ..RuleState::default() };
            }
            judges.push(Judge::new(rule, std::mem::take(&mut state.memory)));
            states.push(state);
        }
        let host = nix::unistd::gethostname()
            .map_or_else(|_| "-".into(), |name| name.to_string_lossy().into_owned());
        let actions = Actions::new(sendmail, sender);
        Self {
            socket,
            judges,
            states,
            actions,
            done,
            host,
            complaint: None,
            written: String::new(),
            wanted_remotes: None,
            remotes_from: Instant::now(),
        }
    }

    async fn run(mut self) -> Result<(), Error> {
        for at in 0..self.states.len() {
            for (action, message) in self.states[at].pending.clone() {
                self.actions.give(&action, message);
            }
        }
        let (lines, mut opened) = mpsc::channel(1024);
        let rules =
            || self.judges.iter().filter(|judge| matches!(judge.rule.condition, Condition::Process { .. }));
        if rules().next().is_some() {
            // The ports of all such rules; none for all ports, if a rule has none.
            let dport: Option<Vec<_>> = rules().map(|judge| judge.rule.dport()).collect();
            tokio::spawn(follow(self.socket.clone(), dport.map(|lists| lists.join(",")), lines));
        }
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut aged: BTreeMap<usize, Instant> = BTreeMap::new();
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    self.look_at_counts().await;
                    self.look_at_remotes().await;
                    self.look_at_ages(&mut aged).await;
                    self.send_held();
                    self.save()?;
                }
                Some(line) = opened.recv() => self.look_at_process(&line),
                Some(done) = self.done.recv() => {
                    for state in &mut self.states {
                        state.pending.retain(|(action, message)| message.id != done.id || *action != done.action);
                    }
                    self.save()?;
                }
            }
        }
    }

    async fn look_at_counts(&mut self) {
        let of_counts =
            |judge: &Judge| !matches!(judge.rule.condition, Condition::Age(_) | Condition::Process { .. });
        if !self.judges.iter().any(of_counts) {
            return;
        }
        match reading::stats(&self.socket).await {
            Ok(stats) => {
                self.complaint = None;
                self.look(&stats);
            }
            Err(error) => self.complain(&error),
        }
    }

    fn look(&mut self, stats: &Stats) {
        let now_ns = clock::boot_now_ns();
        for at in 0..self.judges.len() {
            let judge = &mut self.judges[at];
            if judge.wants_remotes(stats, now_ns)
                && let Condition::Remote { by, .. } = judge.rule.condition
            {
                self.wanted_remotes = Some(by);
            }
            let edges = judge.look(stats, now_ns);
            self.hold(at, edges);
        }
    }

    /// Reads the addresses for the rules that want them, at a twentieth of the time at most.
    async fn look_at_remotes(&mut self) {
        let began = Instant::now();
        let Some(group) = self.wanted_remotes.take().filter(|_| began >= self.remotes_from) else { return };
        match reading::remotes(&self.socket, group).await {
            Ok(rows) => {
                let now_ns = clock::boot_now_ns();
                for at in 0..self.judges.len() {
                    let Condition::Remote { limits, .. } = self.judges[at].rule.condition else { continue };
                    let edges = self.judges[at].look_at_remotes(limits, &rows, now_ns);
                    self.hold(at, edges);
                }
            }
            Err(error) => self.complain(&error),
        }
        self.remotes_from = Instant::now() + began.elapsed() * REST;
    }

    async fn look_at_ages(&mut self, aged: &mut BTreeMap<usize, Instant>) {
        for at in 0..self.judges.len() {
            let Condition::Age(age) = self.judges[at].rule.condition else { continue };
            let step = (age / 10).clamp(EVERY, MAX_AGE_STEP);
            if aged.get(&at).is_some_and(|then| then.elapsed() < step) {
                continue;
            }
            aged.insert(at, Instant::now());
            match reading::older(&self.socket, &self.judges[at].rule, age).await {
                Ok(lines) => {
                    let edges = self.judges[at].look_at_old(age, &lines, clock::boot_now_ns());
                    self.hold(at, edges);
                }
                Err(error) => self.complain(&error),
            }
        }
    }

    fn look_at_process(&mut self, line: &Line) {
        let unix_ns = unix_ns();
        for at in 0..self.judges.len() {
            let Condition::Process { learn } = self.judges[at].rule.condition else { continue };
            if line.dport.is_some_and(|port| self.judges[at].rule.covers(Way::Out, port)) {
                let edge = self.judges[at].look_at_process(line, learn, unix_ns);
                self.hold(at, edge.into_iter().collect());
            }
        }
    }

    /// Prints why the daemon cannot be asked, once.
    fn complain(&mut self, error: &io::Error) {
        let why = error.to_string();
        if self.complaint.as_ref() != Some(&why) {
            log::warn!("the rules cannot be watched: {why}");
            self.complaint = Some(why);
        }
    }

    fn hold(&mut self, at: usize, edges: Vec<Edge>) {
        let state = &mut self.states[at];
        for edge in edges {
            if state.held.len() < MAX_EDGES { state.held.push_back(edge) } else { state.more += 1 }
        }
    }

    /// Makes messages of what began and ended, if the pauses of the rules allow it.
    fn send_held(&mut self) {
        let now = unix_ns();
        for (judge, state) in self.judges.iter().zip(&mut self.states) {
            let pause = u64::try_from(judge.rule.pause.as_nanos()).unwrap_or(u64::MAX);
            // A clock that was set back ends a pause.
            let is_paused = state.sent_unix_ns.is_some_and(|then| then <= now && now - then < pause);
            if state.held.is_empty() || is_paused {
                continue;
            }
            let held: Vec<_> = std::mem::take(&mut state.held).into();
            let more = std::mem::take(&mut state.more);
            log_edges(&judge.rule.name, &held, more);
            let is_sent = |edge: &Edge| edge.fires || judge.rule.recovery;
            let alarms: Vec<_> = held.into_iter().filter(is_sent).collect();
            if alarms.is_empty() {
                continue;
            }
            state.sent_unix_ns = Some(now);
            let mut time = Vec::new();
            clock::rfc3339(i64::try_from(now).unwrap_or(i64::MAX), &mut time);
            let message = Message {
                id: format!("{}-{now}", judge.rule.name),
                rule: judge.rule.name.clone(),
                host: self.host.clone(),
                time: String::from_utf8_lossy(&time).into_owned(),
                alarms,
                more,
            };
            for action in &judge.rule.actions {
                if self.actions.give(action, message.clone()) {
                    state.pending.push((action.clone(), message.clone()));
                }
            }
        }
    }

    /// Writes the state, if it has changed. A message is written before its action can end.
    fn save(&mut self) -> Result<(), Error> {
        let of = |(judge, state): (&Judge, &RuleState)| {
            (judge.rule.name.clone(), RuleState { memory: judge.memory.clone(), ..state.clone() })
        };
        let state = State { rules: self.judges.iter().zip(&self.states).map(of).collect() };
        let mut line = serde_json::to_string(&state).map_err(|error| Error::Internal(error.to_string()))?;
        line.push('\n');
        if line != self.written {
            stdout::print_part(line.as_bytes())?;
            self.written = line;
        }
        Ok(())
    }
}

fn unix_ns() -> u64 {
    u64::try_from(clock::unix_now_ns()).unwrap_or(0)
}

/// Prints what began and ended, a line each, with its fields as logfmt.
fn log_edges(rule: &str, edges: &[Edge], more: u64) {
    for edge in edges {
        let subject = &edge.subject;
        let fields = [
            ("port", subject.port.map(|port| port.to_string())),
            ("direction", subject.way.map(|way| way.name().to_owned())),
            ("value", edge.value.as_ref().map(|value| value.replace(' ', ""))),
            ("connection", subject.connection.as_ref().map(|text| format!("{text:?}"))),
            ("process", subject.process.as_ref().map(|text| format!("{text:?}"))),
            ("remote", subject.remote.clone()),
        ];
        let known = fields.into_iter().filter_map(|(name, value)| Some(format!(" {name}={}", value?)));
        let (word, fields) = (state(edge), known.collect::<String>());
        log::warn!("alarm {rule}: {word}: {} (rule={rule} state={word}{fields})", edge.text);
    }
    if more > 0 {
        log::warn!("alarm {rule}: and {more} more");
    }
}

/// Sends the connections that this host opens, and opens the stream again when it ends.
async fn follow(socket: PathBuf, dport: Option<String>, lines: mpsc::Sender<Line>) {
    let mut pause = EVERY;
    loop {
        let why = match reading::opened(&socket, dport.as_deref()).await {
            Err(error) => error.to_string(),
            Ok(mut stream) => loop {
                match stream.next().await {
                    Ok(Some(line)) if line.event == "new" => {
                        pause = EVERY;
                        if lines.send(line).await.is_err() {
                            return;
                        }
                    }
                    Ok(Some(line)) if line.event == "lost" => {
                        let lost = line.lost.unwrap_or_default();
                        log::warn!("{lost} events were lost on their way to the rules of new processes");
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => break "the stream has ended".into(),
                    Err(error) => break error.to_string(),
                }
            },
        };
        log::warn!("rules of new processes do not see connections: {why}");
        sleep(pause).await;
        pause = (pause * 2).min(MAX_PAUSE);
    }
}
