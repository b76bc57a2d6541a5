//! The formats of whole event streams, on real events.

use conn_tests::{
    harness::Outcome,
    host::Host,
    line::Kind,
    needs_tracing,
    port::Port,
    tracer::Tracer,
    traffic::{
        close::{self, First},
        process,
    },
};
use macro_rules_attribute::apply;
use serde_json::Value;
use std::{
    cell::Cell,
    time::{SystemTime, UNIX_EPOCH},
};

const NAMES: [&str; 26] = [
    "event",
    "time",
    "time_ns",
    "id",
    "direction",
    "family",
    "protocol",
    "state",
    "old_state",
    "src",
    "sport",
    "dst",
    "dport",
    "pid",
    "tid",
    "uid",
    "comm",
    "thread",
    "netns",
    "failed",
    "error",
    "attempt_ns",
    "established_ns",
    "handshake_ns",
    "lifetime_ns",
    "preexisting",
];

fn now_ns() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

/// Names that only the end of a connection has.
fn only_at_the_end(name: &str) -> bool {
    ["failed", "error", "lifetime_ns"].contains(&name)
}

#[apply(needs_tracing)]
fn json_has_its_documented_names(_: &Host) -> Outcome {
    let port = Port::claim();
    let tracer = Tracer::start(["-o", "json", "--dport", &port.to_string()]);
    let before = now_ns();
    let (truth, pid) = process::client(port.v6(), 1, "conn-json");
    let tuple = truth.tuple();
    let of = |event: &str, direction: &str| {
        tracer.await_json(event, |object| object["event"] == event && object["direction"] == direction)
    };
    for direction in ["out", "in"] {
        for event in ["new", "update", "destroy"] {
            let object = of(event, direction);
            let after = now_ns();
            for name in NAMES {
                let wanted = event == "destroy" || !only_at_the_end(name);
                assert!(!wanted || object.get(name).is_some(), "no {name}: {object}");
            }
            assert_eq!(object["src"], "::1");
            assert_eq!(object["sport"], tuple.client.port());
            assert_eq!(object["dport"], port.number());
            assert_eq!((&object["family"], &object["protocol"]), (&"ipv6".into(), &"tcp".into()));
            assert_eq!(object["preexisting"], false);
            let time = object["time_ns"].as_u64().expect("time_ns");
            assert!((before..=after).contains(&time), "{before} {object} {after}");
            assert!(object["time"].as_str().is_some_and(|time| time.contains('T')), "{object}");
        }
    }
    let new = of("new", "out");
    assert_eq!((&new["pid"], &new["comm"]), (&pid.into(), &"conn-json".into()), "{new}");
    assert_eq!((&new["tid"], &new["uid"]), (&pid.into(), &0.into()), "{new}");
    assert_eq!((&new["old_state"], &new["state"]), (&Value::Null, &"syn_sent".into()), "{new}");
    assert!(new["established_ns"].is_null(), "{new}");
    let end = of("destroy", "out");
    assert_eq!(
        (&end["failed"], &end["error"], &end["state"]),
        (&false.into(), &Value::Null, &"close".into())
    );
    Ok(())
}

#[apply(needs_tracing)]
fn json_events_of_one_connection_share_an_id(_: &Host) -> Outcome {
    let port = Port::claim();
    let tracer = Tracer::start(["-o", "json", "--dport", &port.to_string(), "--direction", "out"]);
    close::orderly(port.v4(), 1, First::Client);
    let end = tracer.await_json("the end", |object| object["event"] == "destroy");
    let mut previous = Value::Null;
    let mut time = 0;
    let ended = tracer.stop();
    for line in &ended.stdout {
        let object: Value = serde_json::from_str(line).unwrap();
        assert_eq!(object["id"], end["id"], "{ended:#?}");
        assert_eq!(object["old_state"], previous, "{ended:#?}");
        previous = object["state"].clone();
        let at = object["time_ns"].as_u64().unwrap();
        assert!(at >= time, "{ended:#?}");
        time = at;
    }
    let ns = |name: &str| end[name].as_u64().unwrap_or_else(|| panic!("{name}: {end}"));
    assert!(0 < ns("handshake_ns") && ns("handshake_ns") < ns("lifetime_ns"), "{end}");
    Ok(())
}

#[apply(needs_tracing)]
fn timestamps_precede_the_event(_: &Host) -> Outcome {
    let port = Port::claim();
    let tracer = Tracer::start(["-o", "timestamp", "--dport", &port.to_string()]);
    let before = now_ns() / 1_000;
    let tuple = close::orderly(port.v4(), 1, First::Client).tuple();
    tracer.await_flow(Kind::Destroy, "out", tuple);
    tracer.await_flow(Kind::Destroy, "in", tuple);
    let after = now_ns() / 1_000;
    for line in tracer.events() {
        let stamp = line.stamp.expect("a timestamp");
        let micros = stamp.seconds * 1_000_000 + u64::from(stamp.micros);
        assert!((before..=after).contains(&micros), "{before} {line:?} {after}");
    }
    Ok(())
}

#[apply(needs_tracing)]
fn default_lines_are_those_of_conntrack(_: &Host) -> Outcome {
    let port = Port::claim();
    let named = Tracer::start(["-o", "conntrack", "--dport", &port.to_string(), "--direction", "out"]);
    let default = Tracer::start(["--dport", &port.to_string(), "--direction", "out"]);
    let tuple = close::orderly(port.v4(), 1, First::Client).tuple();
    for tracer in [&named, &default] {
        tracer.await_flow(Kind::Destroy, "out", tuple);
    }
    // Two tracers measure two lifetimes; all else is the same text.
    let text = |tracer: Tracer| -> Vec<String> {
        let lines = tracer.stop().stdout;
        lines.iter().map(|line| line.split(" lifetime=").next().unwrap().to_owned()).collect()
    };
    assert_eq!(text(named), text(default));
    Ok(())
}

#[apply(needs_tracing)]
fn columns_are_the_same_in_every_format(_: &Host) -> Outcome {
    const COLUMNS: &str = "event,direction,state,src,sport,dst,dport,pid,comm";
    let port = Port::claim();
    let option = port.to_string();
    let [json, csv, logfmt, table] = ["json", "csv", "logfmt", "table"].map(|format| {
        Tracer::start([
            "-o",
            format,
            "--columns",
            COLUMNS,
            "--no-header",
            "--direction",
            "out",
            "--dport",
            &option,
        ])
    });
    close::orderly(port.v4(), 2, First::Client);
    let ends = |tracer: Tracer| {
        let ended = Cell::new(0);
        tracer.await_stdout("both ends", |line| {
            ended.set(ended.get() + usize::from(line.contains("destroy")));
            ended.get() == 2
        });
        tracer.stop().stdout
    };
    let [json, csv, logfmt, table] = [json, csv, logfmt, table].map(ends);
    let ids: Vec<&str> = COLUMNS.split(',').collect();
    let expected: Vec<String> = json
        .iter()
        .map(|line| {
            let object: Value = serde_json::from_str(line).unwrap();
            let cell =
                |id: &&str| object[*id].as_str().map_or_else(|| object[*id].to_string(), str::to_owned);
            ids.iter().map(cell).collect::<Vec<_>>().join(" ")
        })
        .collect();
    let words = |line: &String| line.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(csv.iter().map(|line| line.replace(',', " ")).collect::<Vec<_>>(), expected);
    assert_eq!(table.iter().map(words).collect::<Vec<_>>(), expected);
    let values = |line: &String| {
        let pairs = line.split(' ').zip(&ids).map(|(word, id)| word.strip_prefix(id)?.strip_prefix('='));
        pairs.collect::<Option<Vec<_>>>().expect("key=value").join(" ")
    };
    assert_eq!(logfmt.iter().map(values).collect::<Vec<_>>(), expected);
    Ok(())
}
