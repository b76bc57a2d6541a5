//! The JSON schema of events and the documentation of columns, from the list of columns.

use std::fmt::Write as _;

use conn_common::quic;
use serde_json::{Map, Value, json};

use crate::column::{ANY, ATTEMPT, Column, END, END_AND_NOW, Kinds, NOW, STREAM, Type, Unit};
use crate::event::kind::Kind;
use crate::render::json::SCHEMA;

/// Every kind, with its bit.
const KINDS: [Kind; 7] =
    [Kind::New, Kind::Update, Kind::Destroy, Kind::Attempt, Kind::Listen, Kind::Closed, Kind::Open];

mod tracked;

/// The schema of a line of `-o json`.
pub fn json() -> Value {
    let mut shapes: Vec<Value> = KINDS.iter().map(|&kind| event(kind)).collect();
    shapes.push(lost());
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A line of conntrace's JSON: an event, an open connection, or a loss",
        "description": "Fields may be added; none changes its meaning. null: not known.",
        "oneOf": shapes,
    })
}

/// The schema as a file.
pub fn text() -> String {
    format!("{:#}\n", json())
}

/// The field with the version of the line.
fn version() -> Value {
    json!({ "const": SCHEMA, "description": "version of the line; another one has fields with other meanings" })
}

fn event(kind: Kind) -> Value {
    let columns: Vec<&Column> = Column::native().filter(|column| column.is_in(kind)).collect();
    let mut properties: Map<String, Value> =
        columns.iter().map(|column| (column.id.to_owned(), property(column))).collect();
    properties.insert("event".into(), json!({ "const": kind.name() }));
    properties.insert(
        "process_start_ns".into(),
        json!({
            "type": ["integer", "null"],
            "minimum": 0,
            "description": "when the process began (ns since 1970); null: owner unknown",
        }),
    );
    properties.insert("schema".into(), version());
    if tracked::KINDS.contains(&kind) {
        properties.extend(tracked::properties());
    }
    for key in ["comm_hex", "thread_hex"] {
        let description = "bytes of the name in hexadecimal digits, only there if it is not UTF-8";
        properties.insert(key.into(), json!({ "type": "string", "description": description }));
    }
    if (STREAM | NOW) & kind.bit() != 0 {
        let description = "idle time after which the flow ends (seconds), only there for a flow of UDP that is alive, and for \
                           what connection tracking shows it of";
        properties.insert(
            "timeout_s".into(),
            json!({ "type": "integer", "minimum": 0, "description": description }),
        );
    }
    if STREAM & kind.bit() != 0 {
        let description = "protocol that the first packet of a flow of UDP begins, only there if it is known";
        properties.insert(
            "app".into(),
            json!({ "type": "string", "enum": [quic::NAME], "description": description }),
        );
    }
    if kind == Kind::Open {
        let description = "which end is this host's, only there if `direction` is null";
        let property = json!({ "type": "string", "enum": ["src", "dst"], "description": description });
        properties.insert("local_end".into(), property);
    }
    let required = columns.iter().map(|column| column.id).chain(["process_start_ns", "schema"]);
    json!({
        "title": kind.name(),
        "type": "object",
        "properties": properties,
        "required": required.collect::<Vec<_>>(),
    })
}

fn property(column: &Column) -> Value {
    let (kind, format, words): (&str, Option<&str>, Option<&[&str]>) = match column.kind {
        Type::Boolean => ("boolean", None, None),
        Type::Integer => ("integer", None, None),
        Type::Word(words) => ("string", None, Some(words)),
        Type::Time => ("string", Some("date-time"), None),
        Type::Text | Type::Processes | Type::Address | Type::Endpoint | Type::Duration => {
            ("string", None, None)
        }
    };
    let unknown = !column.unknown.is_empty();
    let mut property = Map::new();
    property.insert("type".into(), if unknown { json!([kind, "null"]) } else { json!(kind) });
    if let Some(format) = format {
        property.insert("format".into(), json!(format));
    }
    if let Some(words) = words {
        let mut words: Vec<Value> = words.iter().map(|&word| json!(word)).collect();
        words.extend(unknown.then_some(Value::Null));
        property.insert("enum".into(), json!(words));
    }
    if kind == "integer" {
        property.insert("minimum".into(), json!(0));
    }
    let mut description = column.help.to_owned();
    if column.unit != Unit::None {
        // Writing into a string does not fail.
        _ = write!(description, " ({})", column.unit.name());
    }
    if unknown {
        _ = write!(description, "; null: {}", column.unknown);
    }
    property.insert("description".into(), json!(description));
    Value::Object(property)
}

fn lost() -> Value {
    let number = |help: &str| json!({ "type": "integer", "minimum": 0, "description": help });
    json!({
        "title": "lost",
        "type": "object",
        "properties": {
            "event": { "const": "lost" },
            "time": { "type": "string", "format": "date-time", "description": "when the loss was found" },
            "time_ns": number("the same (ns since 1970)"),
            "lost": number("how many events found no room here"),
            "since_ns": number("none of them before (ns since 1970)"),
            "until_ns": number("none of them after (ns since 1970)"),
            "lost_event": { "type": "string", "enum": ["new", "update", "destroy"], "description": tracked::LOST },
            "netns": number(tracked::LOST_NETNS),
            "schema": version(),
        },
        "required": ["event", "time", "time_ns", "lost", "since_ns", "until_ns", "schema"],
    })
}

/// The page about columns.
pub fn markdown() -> String {
    let mut out = "# Columns\n\nGenerated by `cargo xtask docs` from the one list of columns, \
                   `conn-user/src/column`.\n\nThe name is the key in JSON and logfmt, the header in CSV, and \
                   what `--columns` takes. \"in\" names the events\nthat have the column. The last two are its \
                   names in `-o json-otel` (attributes; ours begin with `conntrace.`) and in\n`-o json-ecs`. \
                   Other fields of these two formats are made of several columns; see [json.md](json.md).\n\n"
        .to_owned();
    out.push_str("| name | type | in | meaning | not known | OpenTelemetry | ECS |\n");
    out.push_str("| --- | --- | --- | --- | --- | --- | --- |\n");
    for column in Column::native() {
        row(column, &mut out);
    }
    out.push_str(
        "\nFor people, in tables and on demand by name; not a part of `all`:\n\n\
         | name | type | in | meaning | not known | OpenTelemetry | ECS |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for column in Column::all().filter(|column| !column.native) {
        row(column, &mut out);
    }
    out
}

fn row(column: &Column, out: &mut String) {
    let kind = match column.kind {
        Type::Boolean => "boolean".to_owned(),
        Type::Integer if column.unit == Unit::None => "integer".to_owned(),
        Type::Integer => format!("integer, {}", column.unit.name()),
        Type::Word(words) => {
            let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
            words.join(", ")
        }
        Type::Text => "text".to_owned(),
        Type::Processes => "processes: text, or an array in JSON".to_owned(),
        Type::Address => "address".to_owned(),
        Type::Endpoint => "address and port".to_owned(),
        Type::Time => "time, RFC 3339".to_owned(),
        Type::Duration => "length of time".to_owned(),
    };
    let quoted = |name: &str| if name.is_empty() { String::new() } else { format!("`{name}`") };
    // Writing into a string does not fail.
    _ = writeln!(
        out,
        "| `{}` | {kind} | {} | {} | {} | {} | {} |",
        column.id,
        kinds(column.kinds),
        column.help,
        if column.unknown.is_empty() { "never" } else { column.unknown },
        quoted(column.names.otel),
        quoted(column.names.ecs),
    );
}

fn kinds(kinds: Kinds) -> &'static str {
    match kinds {
        ANY => "all",
        STREAM => "new, update, destroy",
        END => "destroy",
        ATTEMPT => "attempt",
        NOW => "open",
        END_AND_NOW => "destroy, open",
        _ => "some",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::enriched::Enriched;
    use crate::event::entry::tests::any_entry_event;
    use crate::event::tests::any_event;
    use crate::host::clock::WallClock;
    use crate::render::Renderer;
    use crate::render::style::{Format, Terminal, View};
    use crate::render::tests::style;

    /// Fields that are not in every line of their kinds.
    const OPTIONAL: [(&str, Kinds); 5] = [
        ("comm_hex", ANY),
        ("thread_hex", ANY),
        ("local_end", NOW),
        ("timeout_s", STREAM | NOW),
        ("app", STREAM),
    ];

    #[test]
    fn every_column_names_its_kinds() {
        assert!(Column::all().all(|column| kinds(column.kinds) != "some"));
        for kind in KINDS {
            let event = event(kind);
            let of_flows = if tracked::KINDS.contains(&kind) { tracked::properties().count() } else { 0 };
            assert_eq!(
                event["properties"].as_object().unwrap().len(),
                event["required"].as_array().unwrap().len() + optional(kind).count() + of_flows
            );
        }
    }

    /// The optional fields of a kind.
    fn optional(kind: Kind) -> impl Iterator<Item = &'static str> {
        OPTIONAL.into_iter().filter(move |(_, kinds)| kinds & kind.bit() != 0).map(|(key, _)| key)
    }

    /// A validator for the subset of JSON schema that [`property`] writes.
    fn fits(value: &Value, property: &Value) -> bool {
        if let Some(constant) = property.get("const") {
            return value == constant;
        }
        let is = |kind: &Value| match kind.as_str().unwrap() {
            "boolean" => value.is_boolean(),
            "integer" => value.is_u64(),
            "string" => value.is_string(),
            "null" => value.is_null(),
            other => panic!("{other}"),
        };
        let kind = &property["type"];
        let typed = kind.as_array().map_or_else(|| is(kind), |kinds| kinds.iter().any(is));
        typed && property.get("enum").is_none_or(|words| words.as_array().unwrap().contains(value))
    }

    proptest! {
        #[test]
        fn any_event_fits_the_schema(event in prop_oneof![any_event(), any_entry_event().prop_map(Enriched::from)]) {
            let mut out = Vec::new();
            let mut renderer = Renderer::new(&style(Format::Json, None), View::Events, Terminal::NONE);
            renderer.event(&event, &WallClock::with_offset(0), &mut out);
            let object: Map<String, Value> = serde_json::from_slice(&out).unwrap();
            let shape = super::event(event.kind);
            let required = shape["required"].as_array().unwrap();
            let has = |key: &&Value| object.contains_key(key.as_str().unwrap());
            prop_assert_eq!(required.iter().filter(has).count(), required.len());
            for (key, value) in &object {
                prop_assert!(shape["properties"].get(key).is_some(), "{}", key);
                prop_assert!(fits(value, &shape["properties"][key]), "{}: {}", key, value);
            }
        }
    }
}
