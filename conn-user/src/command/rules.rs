//! `conntrace rules`: explains the rules of alarms, and prints what one would do now.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::sleep;

use crate::cli::FrontArgs;
use crate::error::{Error, UsageError};
use crate::host::clock;
use crate::host::facts::Host;
use crate::host::lookup::HostLookup;
use crate::output::stdout;
use crate::serve;
use crate::serve::alarm::judge::{Judge, Measured, Memory};
use crate::serve::alarm::reading;
use crate::serve::alarm::watch;
use crate::settings::RulesSettings;
use crate::settings::rule::{Condition, Limits, Rule, Way, number, percent, span};

/// The time between the two readings of a rate.
const STEP: Duration = Duration::from_secs(1);

/// The most remote addresses that are printed.
const MOST_SHOWN: usize = 10;

/// Runs the command.
///
/// # Errors
/// See [`Error`].
pub fn run(settings: &RulesSettings, host: &Host) -> Result<(), Error> {
    let found = serve::configured(&settings.serve, &HostLookup::new(host))?;
    let file = found.config.display();
    let mut text = String::new();
    let Some(name) = &settings.test else {
        if found.rules.is_empty() {
            return stdout::print(format!("{file} has no [[rule]]\n"));
        }
        for rule in &found.rules {
            // Writing into a string does not fail.
            _ = writeln!(text, "{rule}");
        }
        return stdout::print(text);
    };
    let Some(rule) = found.rules.iter().find(|rule| rule.name == *name) else {
        let names: Vec<_> = found.rules.iter().map(|rule| &*rule.name).collect();
        let known =
            if names.is_empty() { "it has no rule".into() } else { format!("it has {}", names.join(", ")) };
        return Err(UsageError::value("RULE", name, format!("{file} has no rule {name}: {known}")).into());
    };
    let socket = settings.socket.as_ref().unwrap_or(&found.socket);
    let error = |source| Error::Io { context: format!("asking the daemon at {}", socket.display()), source };
    let done = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(error)?
        .block_on(test(rule, socket))
        .map_err(error)?;
    stdout::print(format!("{rule}\n{done}"))
}

/// What the rule would do now, a line each.
async fn test(rule: &Rule, socket: &std::path::Path) -> std::io::Result<String> {
    let mut judge = Judge::new(rule.clone(), Memory::default());
    let mut text = String::new();
    // Writing into a string does not fail.
    match &rule.condition {
        Condition::Open(limits) | Condition::New(limits) | Condition::Failures { share: limits, .. } => {
            if !matches!(rule.condition, Condition::Open(_)) {
                judge.measure(&reading::stats(socket).await?, clock::boot_now_ns());
                sleep(STEP).await;
            }
            let measured = judge.measure(&reading::stats(socket).await?, clock::boot_now_ns());
            if measured.is_empty() {
                text.push_str("no connection of such a port was counted yet\n");
            }
            for one in measured {
                _ = writeln!(text, "{}", judged(rule, *limits, &one));
            }
        }
        Condition::Remote { limits, by } => {
            judge.measure_remotes(&reading::remotes(socket, *by).await?, clock::boot_now_ns());
            sleep(STEP).await;
            let rows = reading::remotes(socket, *by).await?;
            let measured = judge.measure_remotes(&rows, clock::boot_now_ns());
            let mut measured = measured.unwrap_or_default();
            if measured.is_empty() {
                text.push_str("no remote address has new connections\n");
            }
            measured.sort_by_key(|one| std::cmp::Reverse(one.value));
            for one in measured.iter().take(MOST_SHOWN) {
                _ = writeln!(text, "{}", judged(rule, *limits, one));
            }
        }
        Condition::Listening(_) => {
            let stats = reading::stats(socket).await?;
            let ports = stats.listeners.iter().filter(|one| one.open > 0);
            let ports = ports.filter(|one| rule.covers(Way::In, one.port));
            let ports: Vec<_> = ports.map(|one| one.port.to_string()).collect();
            let list = if ports.is_empty() { "none".into() } else { ports.join(", ") };
            _ = writeln!(text, "ports of the rule that listen now: {list}");
        }
        Condition::Age(age) => {
            let lines = reading::older(socket, rule, *age).await?;
            let edges = judge.look_at_old(*age, &lines, clock::boot_now_ns());
            for edge in &edges {
                _ = writeln!(text, "alarm: {}", edge.text);
            }
            if edges.is_empty() {
                _ = writeln!(text, "no alarm: no connection of the rule is older than {}", span(*age));
            }
        }
        Condition::Process { learn } => {
            // A stream that begins shows that the daemon gives it.
            drop(reading::opened(socket, rule.dport().as_deref()).await?);
            _ = writeln!(
                text,
                "the daemon shows new connections; the rule learns for {}, then each new process is an alarm",
                span(*learn)
            );
        }
        Condition::Loss => {
            let missed = reading::stats(socket).await?.missed();
            _ = writeln!(text, "{missed} steps were missed since the epoch: one more is an alarm");
        }
    }
    Ok(text)
}

fn judged(rule: &Rule, limits: Limits, one: &Measured) -> String {
    let limit = match rule.condition {
        Condition::Failures { .. } => percent(limits.above),
        _ => number(limits.above),
    };
    match one.value {
        None => format!("not known yet: {}", one.text),
        Some(value) if value <= limits.above => format!("no alarm: {}, the limit is {limit}", one.text),
        Some(_) if rule.hold.is_zero() => format!("alarm: {}, the limit is {limit}", one.text),
        Some(_) => format!("alarm after {}: {}, the limit is {limit}", span(rule.hold), one.text),
    }
}

/// Runs the process of the daemon that watches the rules.
///
/// # Errors
/// See [`Error`].
pub fn watch(args: &FrontArgs) -> Result<(), Error> {
    watch::run(args.user, args.group)
}
