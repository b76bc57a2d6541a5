//! The panels of a dashboard with the answers to their queries.

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::prometheus::{Prometheus, Series};
use super::words;

/// Seconds between two points of a panel.
pub(super) const POINT: u64 = 600;
/// What Grafana puts for its variable at a scrape each five minutes.
const RATE_INTERVAL: &str = "20m";

/// A panel, in the units of the dashboard's grid.
#[derive(Debug)]
pub(super) struct Panel {
    pub(super) title: String,
    pub(super) x: u32,
    pub(super) y: u32,
    pub(super) w: u32,
    pub(super) h: u32,
    pub(super) shown: Shown,
}

/// What is in a panel.
#[derive(Debug)]
pub(super) enum Shown {
    /// A heading over panels.
    Row,
    /// A word, and its colour.
    Word(String, String),
    /// Rows of words, the heading first.
    Table(Vec<Vec<String>>),
    /// Lines over the day by their names.
    Lines { unit: String, is_stacked: bool, lines: Vec<(String, Vec<(u64, f64)>)> },
}

/// The panels, as they answer for an instance.
pub(super) fn panels(text: &str, instance: &str, server: &Prometheus) -> Result<Vec<Panel>> {
    let dashboard: Value = serde_json::from_str(text)?;
    let panels = dashboard["panels"].as_array().context("no panels")?;
    panels.iter().map(|panel| filled(panel, instance, server)).collect()
}

fn filled(panel: &Value, instance: &str, server: &Prometheus) -> Result<Panel> {
    let title = panel["title"].as_str().unwrap_or_default().to_owned();
    let place = |key: &str| panel["gridPos"][key].as_u64().unwrap_or_default() as u32;
    let shown = match panel["type"].as_str().unwrap_or_default() {
        "row" => Shown::Row,
        "stat" => stat(panel, instance, server)?,
        "table" => table(panel, instance, server)?,
        _ => lines(panel, instance, server)?,
    };
    Ok(Panel { title, x: place("x"), y: place("y"), w: place("w"), h: place("h"), shown })
}

/// Queries of a panel with the pattern of their names.
fn targets<'a>(panel: &'a Value, instance: &'a str) -> impl Iterator<Item = (String, &'a str)> {
    panel["targets"].as_array().into_iter().flatten().filter_map(move |target| {
        let query = target["expr"].as_str()?;
        let query = query.replace("$instance", instance).replace("$__rate_interval", RATE_INTERVAL);
        Some((query, target["legendFormat"].as_str().unwrap_or_default()))
    })
}

fn unit(panel: &Value) -> &str {
    panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap_or("short")
}

/// A pattern such as `{{direction}} {{port}}` with the labels of a series.
fn named(pattern: &str, series: &Series) -> String {
    let mut name = pattern.to_owned();
    for (label, value) in &series.labels {
        name = name.replace(&format!("{{{{{label}}}}}"), value);
    }
    name
}

fn stat(panel: &Value, instance: &str, server: &Prometheus) -> Result<Shown> {
    let (query, pattern) = targets(panel, instance).next().context("no query")?;
    let series = server.at_the_end(&query)?;
    let Some((one, &(_, value))) = series.first().and_then(|one| Some((one, one.points.last()?))) else {
        return Ok(Shown::Word("No data".into(), "gray".into()));
    };
    if !pattern.is_empty() {
        return Ok(Shown::Word(named(pattern, one), String::new()));
    }
    let defaults = &panel["fieldConfig"]["defaults"];
    let mapped = &defaults["mappings"][0]["options"][value.to_string()];
    if let (Some(text), Some(color)) = (mapped["text"].as_str(), mapped["color"].as_str()) {
        return Ok(Shown::Word(text.into(), color.into()));
    }
    let steps = defaults["thresholds"]["steps"].as_array();
    let reached =
        steps.into_iter().flatten().rfind(|step| step["value"].as_f64().is_none_or(|least| value >= least));
    let color = reached.and_then(|step| step["color"].as_str()).filter(|&color| color != "text");
    Ok(Shown::Word(words::amount(value, unit(panel)), color.unwrap_or_default().into()))
}

fn table(panel: &Value, instance: &str, server: &Prometheus) -> Result<Shown> {
    let renamed = panel["transformations"].as_array().into_iter().flatten();
    let renamed = renamed.map(|one| &one["options"]["renameByName"]).find(|names| names.is_object());
    let heading = |reference: &str| {
        let name = renamed.and_then(|names| names[format!("Value #{reference}")].as_str());
        name.unwrap_or(reference).to_owned()
    };
    let overrides = &panel["fieldConfig"]["overrides"];
    let unit_of = |column: &str| {
        let of = |one: &&Value| one["matcher"]["options"] == *column;
        let properties = overrides.as_array().into_iter().flatten().find(of);
        let properties = properties.and_then(|one| one["properties"].as_array()).into_iter().flatten();
        let found = properties.clone().find(|one| one["id"] == "unit").and_then(|one| one["value"].as_str());
        found.unwrap_or("short").to_owned()
    };
    let mut rows = vec![vec!["instance".to_owned()]];
    let references = panel["targets"].as_array().into_iter().flatten();
    let references = references.map(|target| target["refId"].as_str().unwrap_or_default());
    for ((query, _), reference) in targets(panel, instance).zip(references) {
        let column = heading(reference);
        let unit = unit_of(&column);
        rows[0].push(column);
        for series in server.at_the_end(&query)? {
            let instance = series.labels.get("instance").cloned().unwrap_or_default();
            let at = rows.iter().position(|row| row[0] == instance).unwrap_or_else(|| {
                rows.push(vec![instance]);
                rows.len() - 1
            });
            let value = series.points.last().map_or(f64::NAN, |&(_, value)| value);
            rows[at].push(words::amount(value, &unit));
        }
    }
    Ok(Shown::Table(rows))
}

fn lines(panel: &Value, instance: &str, server: &Prometheus) -> Result<Shown> {
    let defaults = &panel["fieldConfig"]["defaults"];
    let mut lines = Vec::new();
    for (query, pattern) in targets(panel, instance) {
        for series in server.over_the_day(&query, POINT)? {
            lines.push((named(pattern, &series), series.points));
        }
    }
    let most = |points: &[(u64, f64)]| points.iter().map(|&(_, value)| value).fold(0.0, f64::max);
    // Lines that stay at 0 hide behind the axis.
    if lines.iter().any(|(_, points)| most(points) > 0.0) {
        lines.retain(|(_, points)| most(points) > 0.0);
    }
    lines.sort_by(|(one, some), (other, others)| {
        most(others).total_cmp(&most(some)).then_with(|| one.cmp(other))
    });
    let is_stacked = defaults["custom"]["stacking"]["mode"] == "normal";
    Ok(Shown::Lines { unit: unit(panel).to_owned(), is_stacked, lines })
}
