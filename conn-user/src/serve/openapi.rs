//! The description of the interface in the language of `OpenAPI` 3.1, from the tables that the daemon itself uses.

use clap::{Arg, Command, CommandFactory as _};
use serde_json::{Map, Value, json};

use crate::cli::Cli;
use crate::serve::endpoint::Endpoint;
use crate::serve::media::{OLDER_METRICS, OPEN_METRICS, PROTOBUF_METRICS};
use crate::serve::query::{FILTER, FROM, STREAM, TERMINAL, TZ};

/// What most answers are.
const RECORDS: &str = "Records of conntrace -o json";

/// The document, as text.
pub fn text() -> String {
    let mut cli = Cli::command();
    cli.build();
    let paths: Map<String, Value> = Endpoint::ALL
        .into_iter()
        .map(|endpoint| (endpoint.path().to_owned(), path(endpoint, &cli)))
        .collect();
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "conntrace",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The read-only interface of conntrace serve, on a Unix socket",
        },
        "servers": [{ "url": "http://conntrace", "description": "/run/conntrace/conntrace.sock" }],
        "paths": paths,
        "components": { "schemas": { "Error": error() } },
    });
    // A value of JSON has text in any case.
    serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
}

fn path(endpoint: Endpoint, cli: &Command) -> Value {
    let command = endpoint.command().and_then(|name| cli.find_subcommand(name));
    let options = command.into_iter().flat_map(|command| {
        endpoint.parameters().into_iter().filter_map(|name| {
            command.get_arguments().find(|arg| arg.get_long() == Some(name) && !arg.is_hide_set())
        })
    });
    let mut parameters: Vec<Value> = options.map(parameter).collect();
    if command.is_some() {
        let of_streams = [
            (
                STREAM,
                "A name of 32 hexadecimal digits, chosen at random: the stream goes on after the daemon was away",
            ),
            (FROM, "How many lines the client has of that stream, to go on behind them"),
        ];
        let of_all = [
            (FILTER, "Filter expression in the language of ss: service = :443 and not src 10.0.0.0/8"),
            (TERMINAL, "The terminal of the client, for tables: WIDTH[,utf8][,color]"),
            (TZ, "The time zone of the client, for tables: Europe/Berlin"),
        ];
        for (name, description) in
            of_all.into_iter().chain(of_streams.into_iter().filter(|_| endpoint.is_stream()))
        {
            parameters.push(json!({
                "name": name, "in": "query", "description": description, "schema": { "type": "string" },
            }));
        }
    }
    let (description, types): (_, &[&str]) = match endpoint {
        Endpoint::List | Endpoint::Events | Endpoint::Lifetimes => (RECORDS, &["application/x-ndjson"]),
        Endpoint::Count | Endpoint::Stats => (RECORDS, &["application/json"]),
        Endpoint::Health => ("The state", &["application/json"]),
        Endpoint::Metrics => {
            ("The families of docs/metrics.md", &[OPEN_METRICS, OLDER_METRICS, PROTOBUF_METRICS])
        }
    };
    let content: Map<String, Value> = types.iter().map(|&of| (of.to_owned(), json!({}))).collect();
    let epoch = json!({ "description": "When counting began", "schema": { "type": "string" } });
    let refused = |description: &str| {
        let schema = json!({ "$ref": "#/components/schemas/Error" });
        json!({ "description": description, "content": { "application/json": { "schema": schema } } })
    };
    json!({
        "get": {
            "operationId": endpoint.path().rsplit('/').next(),
            "summary": endpoint.about(),
            "parameters": parameters,
            "responses": {
                "200": {
                    "description": description,
                    "headers": { "Conntrace-Epoch": epoch },
                    "content": content,
                },
                "400": refused("A parameter is wrong, or not for clients"),
                "403": refused("The user may not ask"),
                "500": refused("The daemon cannot answer"),
                "503": refused("Too many commands or clients"),
            },
        },
    })
}

/// An option as a parameter.
fn parameter(arg: &Arg) -> Value {
    let takes_value = arg.get_action().takes_values();
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let mut schema =
        Map::from_iter([("type".to_owned(), if takes_value { "string" } else { "boolean" }.into())]);
    let words: Vec<Value> = arg.get_possible_values().iter().map(|value| value.get_name().into()).collect();
    let is_list = arg.get_value_delimiter().is_some();
    if takes_value && !words.is_empty() && !is_list {
        schema.insert("enum".into(), words.into());
    }
    json!({ "name": arg.get_long(), "in": "query", "description": help, "schema": schema })
}

fn error() -> Value {
    let text = |description: &str| json!({ "type": ["string", "null"], "description": description });
    json!({
        "type": "object",
        "required": ["error"],
        "properties": { "error": {
            "type": "object",
            "required": ["parameter", "message", "remedy"],
            "properties": {
                "parameter": text("The parameter that is wrong, if one is"),
                "message": { "type": "string", "description": "The mistake" },
                "remedy": text("The remedy, if the message does not have it"),
            },
        } },
    })
}
