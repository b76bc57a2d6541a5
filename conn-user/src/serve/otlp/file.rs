//! The tables `[otlp]` and `[otlp.events]` of the configuration file.

use std::collections::BTreeMap;
use std::time::Duration;

use form_urlencoded::Serializer;
use serde::Deserialize;
use toml::Spanned;

use crate::filter::value::duration;
use crate::host::lookup::Lookup;
use crate::serve::alarm::file::placed;
use crate::serve::endpoint::Endpoint;
use crate::serve::peer::Rights;
use crate::serve::query::{FILTER, Query};
use crate::settings::otlp::{self, Chosen, ChosenEvents, ChosenTarget};

/// Parameters of `/v1/events` that choose how a stream is written, or when it ends. The export chooses these.
const REFUSED: [&str; 11] = [
    "count",
    "timeout",
    "strict",
    "summary",
    "output",
    "columns",
    "no-header",
    "color",
    "utc",
    "resolve",
    "numeric",
];

/// The table, as written. docs/otlp.md documents each key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OtlpTable {
    endpoint: Option<Spanned<String>>,
    interval: Option<Spanned<String>>,
    timeout: Option<Spanned<String>>,
    headers: Option<Spanned<BTreeMap<String, String>>>,
    events: Option<Spanned<EventsTable>>,
}

/// The table of events: keys of its own, and parameters of `/v1/events`.
type EventsTable = BTreeMap<Spanned<String>, Spanned<Value>>;

/// The value of a key.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "write text in quotes, a number, true, false, or a list")]
enum Value {
    Flag(bool),
    Number(i64),
    Text(String),
    List(Vec<Word>),
    Table(BTreeMap<String, String>),
}

/// A value in a list.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Word {
    Number(i64),
    Text(String),
}

impl OtlpTable {
    /// What the table says. `text` is the file.
    ///
    /// # Errors
    /// The first mistake, with its line and column.
    pub(crate) fn chosen(self, text: &str, names: &dyn Lookup) -> Result<Chosen, String> {
        let events = self.events.map(|table| events(table, text, names)).transpose()?;
        let target = ChosenTarget {
            endpoint: self.endpoint.map(|written| endpoint(text, written)).transpose()?,
            timeout: self.timeout.map(|written| time(text, &written)).transpose()?,
            headers: self.headers.map(|written| headers(text, written)).transpose()?,
        };
        let interval = self.interval.map(|written| time(text, &written)).transpose()?;
        Ok(Chosen { target, interval, events })
    }
}

/// What the table of events says.
fn events(table: Spanned<EventsTable>, text: &str, names: &dyn Lookup) -> Result<ChosenEvents, String> {
    let (mut chosen, mut query) = (ChosenEvents::default(), Serializer::new(String::new()));
    let (span, mut places) = (table.span(), BTreeMap::new());
    for (key, value) in table.into_inner() {
        let at = value.span();
        let wrong = |why: &str| placed(text, at.clone(), why);
        let string = |value: Spanned<Value>| match value.into_inner() {
            Value::Text(string) => Ok(Spanned::new(at.clone(), string)),
            _ => Err(wrong("write text in quotes")),
        };
        match key.get_ref().as_str() {
            "endpoint" => chosen.target.endpoint = Some(endpoint(text, string(value)?)?),
            "timeout" => chosen.target.timeout = Some(time(text, &string(value)?)?),
            "delay" => chosen.delay = Some(time(text, &string(value)?)?),
            "headers" => {
                let Value::Table(all) = value.into_inner() else {
                    return Err(placed_alone(text, at.start, "write { name = \"value\" }"));
                };
                chosen.target.headers = Some(headers(text, Spanned::new(at, all))?);
            }
            "batch" => {
                let Value::Number(number) = value.into_inner() else {
                    return Err(wrong("write a number of events"));
                };
                chosen.batch = Some(otlp::batch(number).map_err(|why| wrong(&why))?);
            }
            name if REFUSED.contains(&name) => {
                return Err(placed(text, key.span(), &format!("{name} is not for an export: leave it out")));
            }
            name => {
                let is_known = name == FILTER || Endpoint::Events.parameters().contains(&name);
                if !is_known {
                    let why = format!(
                        "unknown key: keys are endpoint, timeout, headers, delay, batch, {FILTER}, event-mask, and the \
                         filters of conntrace help events, such as dport"
                    );
                    return Err(placed(text, key.span(), &why));
                }
                query.append_pair(name, &value.get_ref().parameter().map_err(wrong)?);
                places.insert(name.to_owned(), at);
            }
        }
    }
    chosen.query = query.finish();
    let read = Query::read(Endpoint::Events, &chosen.query);
    read.and_then(|query| query.settings(names, Rights::All)).map_err(|problem| {
        let at = problem.parameter.as_ref().and_then(|name| places.get(name)).cloned().unwrap_or(span);
        placed(text, at, &problem.message)
    })?;
    Ok(chosen)
}

impl Value {
    /// The value of a parameter.
    fn parameter(&self) -> Result<String, &'static str> {
        match self {
            Self::Flag(flag) => Ok(flag.to_string()),
            Self::Number(number) => Ok(number.to_string()),
            Self::Text(text) => Ok(text.clone()),
            Self::List(words) => {
                let words = words.iter().map(|word| match word {
                    Word::Number(number) => number.to_string(),
                    Word::Text(text) => text.clone(),
                });
                Ok(words.collect::<Vec<_>>().join(","))
            }
            Self::Table(_) => Err("write text in quotes, a number, true, false, or a list"),
        }
    }
}

fn endpoint(text: &str, written: Spanned<String>) -> Result<String, String> {
    otlp::url(written.get_ref()).map_err(|why| placed(text, written.span(), &why))?;
    Ok(written.into_inner())
}

fn time(text: &str, written: &Spanned<String>) -> Result<Duration, String> {
    let read = duration::parse(written.get_ref()).map_err(|why| why.to_string());
    read.and_then(otlp::limited).map_err(|why| placed(text, written.span(), &why))
}

fn headers(
    text: &str,
    written: Spanned<BTreeMap<String, String>>,
) -> Result<BTreeMap<String, String>, String> {
    let mut all = written.get_ref().iter();
    all.try_for_each(|(name, value)| otlp::header(name, value))
        .map_err(|why| placed_alone(text, written.span().start, &why))?;
    Ok(written.into_inner())
}

/// The mistake with line and column, without the line itself: it may have a secret.
fn placed_alone(text: &str, at: usize, mistake: &str) -> String {
    let whole = placed(text, at..at, mistake);
    whole.lines().next().unwrap_or_default().to_owned()
}
