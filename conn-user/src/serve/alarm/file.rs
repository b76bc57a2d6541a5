//! Rules as the configuration file has them, `[[rule]]`.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use crate::complaint::as_typed;
use crate::event::sort_key::SourceGroup;
use crate::filter::value::ranges::Ranges;
use crate::filter::value::{duration, list, port};
use crate::host::services::Services;
use crate::settings::rule::{Action, Change, Condition, Limits, Rule, Way};

/// How long a condition of failures looks back.
const OVER: Duration = Duration::from_secs(60);
/// How many attempts a share of failures needs.
const LEAST: u64 = 10;
/// How long a rule of new processes learns.
const LEARN: Duration = Duration::from_secs(3600);
/// The shortest time between two deliveries.
const PAUSE: Duration = Duration::from_secs(60);
/// The most rules of a file.
const MAX_RULES: usize = 256;
/// The longest name of a rule, in bytes.
const MAX_NAME: usize = 64;

/// A table `[[rule]]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RuleTable {
    name: Spanned<String>,
    listening: Option<Spanned<Change>>,
    open_above: Option<Spanned<Number>>,
    new_above: Option<Spanned<Number>>,
    by: Option<Spanned<By>>,
    failed_above: Option<Spanned<Number>>,
    older_than: Option<Spanned<String>>,
    new_process: Option<Spanned<bool>>,
    loss: Option<Spanned<bool>>,
    clear_below: Option<Spanned<Number>>,
    over: Option<Spanned<String>>,
    at_least: Option<Spanned<u64>>,
    learn: Option<Spanned<String>>,
    dport: Option<Spanned<Ports>>,
    direction: Option<Spanned<Way>>,
    #[serde(rename = "for")]
    hold: Option<Spanned<String>>,
    pause: Option<Spanned<String>>,
    recovery: Option<bool>,
    command: Option<Spanned<Vec<String>>>,
    webhook: Option<Spanned<String>>,
    mail: Option<Spanned<String>>,
}

/// A number that is not negative, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "f64")]
struct Number(u64);

impl TryFrom<f64> for Number {
    type Error = String;

    fn try_from(value: f64) -> Result<Self, String> {
        if (0.0..=1e12).contains(&value) {
            #[expect(clippy::cast_sign_loss, reason = "the range has no negative number")]
            return Ok(Self((value * 1000.0).round() as u64));
        }
        Err(format!("{value} is not between 0 and 1000000000000"))
    }
}

/// Of what connections are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum By {
    /// Service ports.
    Port,
    /// Remote addresses.
    Remote,
}

/// Service ports: a number, or a list as `--dport` takes it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "write a port, or a list of ports in quotes")]
pub(crate) enum Ports {
    /// One port.
    Number(u16),
    /// As `--dport` takes it.
    List(String),
}

/// A mistake in a table, and its place in the file.
#[derive(Debug)]
struct Mistake {
    at: Range<usize>,
    text: String,
}

impl Mistake {
    fn new<T>(at: &Spanned<T>, text: impl Into<String>) -> Self {
        Self { at: at.span(), text: text.into() }
    }
}

/// The rules of a file. `text` is the file. `sources`: what the daemon counts of remote addresses.
///
/// # Errors
/// The first mistake, with its line and column.
pub(crate) fn rules(
    text: &str,
    tables: &[RuleTable],
    services: &Services,
    sources: Option<SourceGroup>,
) -> Result<Vec<Rule>, String> {
    if tables.len() > MAX_RULES {
        return Err(format!("the file has {} rules, and {MAX_RULES} are the most", tables.len()));
    }
    let (mut rules, mut names) = (Vec::new(), BTreeSet::new());
    for table in tables {
        let rule = if names.insert(table.name.get_ref()) {
            rule(table, services, sources)
        } else {
            Err(Mistake::new(&table.name, "another rule has this name: choose another one"))
        };
        rules.push(rule.map_err(|mistake| placed(text, mistake.at, &mistake.text))?);
    }
    Ok(rules)
}

/// The mistake with line and column, and the line itself.
pub(crate) fn placed(text: &str, at: Range<usize>, mistake: &str) -> String {
    let before = text.get(..at.start).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let begin = before.rfind('\n').map_or(0, |at| at + 1);
    let column = before[begin..].chars().count() + 1;
    let shown = text[begin..].lines().next().unwrap_or_default();
    format!("line {line}, column {column}: {mistake}\n  {shown}")
}

fn rule(table: &RuleTable, services: &Services, sources: Option<SourceGroup>) -> Result<Rule, Mistake> {
    let name = checked_name(&table.name)?;
    let ports = table.dport.as_ref().map(|ports| ranges(ports, services)).transpose()?.unwrap_or_default();
    let condition = condition(table, sources)?;
    fits(table, &condition)?;
    let span = |key: &Option<Spanned<String>>, usual| key.as_ref().map_or(Ok(usual), time);
    Ok(Rule {
        name,
        ports,
        direction: table.direction.as_ref().map(|way| *way.get_ref()),
        hold: span(&table.hold, Duration::ZERO)?,
        pause: span(&table.pause, PAUSE)?,
        recovery: table.recovery.unwrap_or_default(),
        actions: actions(table)?,
        condition,
    })
}

fn checked_name(name: &Spanned<String>) -> Result<String, Mistake> {
    let text = name.get_ref();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if text.is_empty() || text.len() > MAX_NAME || !text.chars().all(is_plain) {
        let why = format!("a name has 1 to {MAX_NAME} letters, digits, -, _ and .");
        return Err(Mistake::new(name, why));
    }
    Ok(text.clone())
}

fn time(text: &Spanned<String>) -> Result<Duration, Mistake> {
    duration::parse(text.get_ref()).map_err(|why| Mistake::new(text, why.to_string()))
}

fn ranges(ports: &Spanned<Ports>, services: &Services) -> Result<Vec<(u16, u16)>, Mistake> {
    ranges_of(ports.get_ref(), services).map_err(|why| Mistake::new(ports, why))
}

/// The ranges of a list outside of rules.
///
/// # Errors
/// The first item that is wrong, or more ports than `most`.
pub(crate) fn ports(listed: &[Ports], most: usize, services: &Services) -> Result<Vec<(u16, u16)>, String> {
    let mut all = Vec::new();
    for ports in listed {
        all.extend(ranges_of(ports, services)?);
    }
    let count: usize = all.iter().map(|&(low, high)| usize::from(high - low) + 1).sum();
    if count > most {
        return Err(format!("{count} ports, and {most} are the most"));
    }
    Ok(all)
}

fn ranges_of(ports: &Ports, services: &Services) -> Result<Vec<(u16, u16)>, String> {
    let text = match ports {
        Ports::Number(port) => return Ok(vec![(*port, *port)]),
        Ports::List(text) => text,
    };
    let how = "write 22, ssh, 8000-8099 or a list of them";
    let range = |item: &str| {
        port::range(item, services).map(|range| (u128::from(*range.start()), u128::from(*range.end())))
    };
    let list = list::parse(text, "a port", how, range).map_err(|error| error.complaint.to_string())?;
    let all = Ranges::between(0, u16::MAX.into());
    let wanted = if list.wanted.is_empty() { all } else { Ranges::collect(list.wanted) };
    let set = wanted.without(&Ranges::collect(list.unwanted));
    if set.is_empty() {
        return Err(format!("{} selects no port", as_typed(text)));
    }
    // The numbers are ports.
    let number = |number| u16::try_from(number).unwrap_or(u16::MAX);
    Ok(set.as_slice().iter().map(|&(low, high)| (number(low), number(high))).collect())
}

/// The one condition of a rule.
fn condition(table: &RuleTable, sources: Option<SourceGroup>) -> Result<Condition, Mistake> {
    let limits = |above: u64| -> Result<Limits, Mistake> {
        let Some(clear) = &table.clear_below else { return Ok(Limits { above, clear: above }) };
        if clear.get_ref().0 > above {
            return Err(Mistake::new(clear, "an alarm ends below a number that is not above its limit"));
        }
        Ok(Limits { above, clear: clear.get_ref().0 })
    };
    let mut all: Vec<(Range<usize>, Condition)> = Vec::new();
    if let Some(change) = &table.listening {
        all.push((change.span(), Condition::Listening(*change.get_ref())));
    }
    if let Some(above) = &table.open_above {
        all.push((above.span(), Condition::Open(limits(above.get_ref().0)?)));
    }
    if let Some(above) = &table.new_above {
        let limits = limits(above.get_ref().0)?;
        let condition = match table.by.as_ref().filter(|by| *by.get_ref() == By::Remote) {
            None => Condition::New(limits),
            Some(by) => {
                let why = "the daemon counts no remote addresses: add sources = \"address\" above the rules";
                Condition::Remote { limits, by: sources.ok_or_else(|| Mistake::new(by, why))? }
            }
        };
        all.push((above.span(), condition));
    }
    if let Some(above) = &table.failed_above {
        if above.get_ref().0 >= 1000 {
            return Err(Mistake::new(above, "a share is below 1: write 0.2 for 20 %"));
        }
        let over = table.over.as_ref().map_or(Ok(OVER), time)?;
        let least = table.at_least.as_ref().map_or(LEAST, |least| *least.get_ref());
        all.push((above.span(), Condition::Failures { share: limits(above.get_ref().0)?, over, least }));
    }
    if let Some(age) = &table.older_than {
        all.push((age.span(), Condition::Age(time(age)?)));
    }
    if let Some(flag) = table.new_process.as_ref().filter(|flag| *flag.get_ref()) {
        let learn = table.learn.as_ref().map_or(Ok(LEARN), time)?;
        all.push((flag.span(), Condition::Process { learn }));
    }
    if let Some(flag) = table.loss.as_ref().filter(|flag| *flag.get_ref()) {
        all.push((flag.span(), Condition::Loss));
    }
    let mut all = all.into_iter();
    match (all.next(), all.next()) {
        (Some((_, condition)), None) => Ok(condition),
        (None, _) => Err(Mistake::new(
            &table.name,
            "the rule has no condition: add listening, open_above, new_above, failed_above, older_than, new_process or \
             loss",
        )),
        (Some(_), Some((at, _))) => {
            Err(Mistake { at, text: "a rule has one condition: make another rule of this one".into() })
        }
    }
}

/// Refuses keys that mean nothing for the condition.
fn fits(table: &RuleTable, condition: &Condition) -> Result<(), Mistake> {
    let span = |key: &Option<Spanned<String>>| key.as_ref().map(Spanned::span);
    let is_share = matches!(condition, Condition::Failures { .. });
    let is_remote = matches!(condition, Condition::Remote { .. });
    let is_level = is_share || is_remote || matches!(condition, Condition::Open(_) | Condition::New(_));
    let is_new = is_remote || matches!(condition, Condition::New(_));
    let is_once = matches!(condition, Condition::Listening(_) | Condition::Process { .. } | Condition::Loss);
    let is_loss = matches!(condition, Condition::Loss);
    let outgoing = matches!(condition, Condition::Process { .. });
    let listening = matches!(condition, Condition::Listening(_));
    let direction = table.direction.as_ref();
    let wrong = [
        ("clear_below", !is_level, table.clear_below.as_ref().map(Spanned::span)),
        ("by", !is_new, table.by.as_ref().map(Spanned::span)),
        ("over", !is_share, span(&table.over)),
        ("at_least", !is_share, table.at_least.as_ref().map(Spanned::span)),
        ("learn", !outgoing, span(&table.learn)),
        ("for", is_once, span(&table.hold)),
        ("dport", is_loss || is_remote, table.dport.as_ref().map(Spanned::span)),
        ("direction", is_loss || outgoing || listening, direction.map(Spanned::span)),
    ];
    match wrong.into_iter().find_map(|(key, wrong, at)| at.filter(|_| wrong).map(|at| (key, at))) {
        Some((key, at)) => Err(Mistake { at, text: format!("{key} means nothing for this condition") }),
        None => Ok(()),
    }
}

fn actions(table: &RuleTable) -> Result<Vec<Action>, Mistake> {
    let mut actions = Vec::new();
    if let Some(command) = &table.command {
        let argv = command.get_ref();
        if !argv.first().is_some_and(|program| program.starts_with('/')) {
            return Err(Mistake::new(
                command,
                "the first word is the absolute path of a program: begin it with /",
            ));
        }
        if argv.iter().any(|word| word.contains('\0')) {
            return Err(Mistake::new(command, "a word has a NUL byte"));
        }
        actions.push(Action::Command(argv.clone()));
    }
    if let Some(webhook) = &table.webhook {
        let url = webhook.get_ref();
        let has_host = |rest: &str| !rest.is_empty() && !rest.starts_with('/');
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        let is_plain = url.bytes().all(|byte| byte.is_ascii_graphic());
        if !(rest.is_some_and(has_host) && is_plain) {
            return Err(Mistake::new(webhook, "a webhook begins with http:// or https:// and a host"));
        }
        actions.push(Action::Webhook(url.clone()));
    }
    if let Some(mail) = &table.mail {
        let address = mail.get_ref();
        let is_plain = address.bytes().all(|byte| byte.is_ascii_graphic() && !b",;<>()\"".contains(&byte));
        if address.is_empty() || address.starts_with('-') || !is_plain {
            return Err(Mistake::new(mail, "mail goes to one address: root, or alice@example.org"));
        }
        actions.push(Action::Mail(address.clone()));
    }
    Ok(actions)
}
