//! The members that only lines of flows have.

use serde_json::{Value, json};

use crate::event::kind::Kind;
use crate::event::tracked::{Nat, Offload, SctpState, TimeSource};

/// The kinds of events that connection tracking reports.
pub(super) const KINDS: [Kind; 4] = [Kind::New, Kind::Update, Kind::Destroy, Kind::Open];

/// The members of a loss that has an event.
pub(super) const LOST: &str = "kind of the lost events, only there with --forwarded";
pub(super) const LOST_NETNS: &str = "network namespace of the lost events, only there with --forwarded";

/// The numbers, each with its meaning.
const NUMBERS: [(&str, bool, &str); 13] = [
    ("protocol_number", false, "number of the layer-4 protocol"),
    ("reply_sport", false, "source port of replies"),
    ("reply_dport", false, "destination port of replies"),
    ("mark", true, "mark of the flow; null: the kernel does not show one"),
    ("zone", true, "zone of connection tracking; null: the default zone"),
    ("zone_orig", true, "zone of the original direction alone; null: none"),
    ("zone_reply", true, "zone of replies alone; null: none"),
    ("icmp_type", false, "type of ICMP, only there of a flow of ICMP"),
    ("icmp_code", false, "code of ICMP, likewise"),
    ("icmp_id", false, "id of the request, likewise"),
    ("reply_icmp_type", false, "type of replies, likewise"),
    ("reply_icmp_code", false, "code of replies, likewise"),
    ("reply_icmp_id", false, "id in replies, likewise"),
];

/// The members, only there of what connection tracking reports (`--forwarded`).
pub(super) fn properties() -> impl Iterator<Item = (String, Value)> {
    let numbers = NUMBERS.into_iter().map(|(key, nullable, help)| {
        let kind = if nullable { json!(["integer", "null"]) } else { json!("integer") };
        (key, json!({ "type": kind, "minimum": 0, "description": help }))
    });
    let address = |help: &str| json!({ "type": "string", "description": help });
    let truth = |help: &str| json!({ "type": "boolean", "description": help });
    let word = |names: &[&str], nullable: bool, help: &str| {
        let mut words: Vec<Value> = names.iter().map(|name| json!(name)).collect();
        words.extend(nullable.then_some(Value::Null));
        let kind = if nullable { json!(["string", "null"]) } else { json!("string") };
        json!({ "type": kind, "enum": words, "description": help })
    };
    let nat = [Nat::Source, Nat::Destination, Nat::Both].map(Nat::name);
    let sctp: Vec<_> = SctpState::all().map(SctpState::name).collect();
    let texts = [
        ("reply_src", address("source address of replies")),
        ("reply_dst", address("destination address of replies")),
        ("nat", word(&nat, true, "what address translation changes; null: nothing")),
        ("replied", truth("a reply was seen")),
        ("assured", truth("packets have gone both ways, so a full table keeps the entry")),
        (
            "offload",
            word(
                &Offload::ALL.map(Offload::name),
                true,
                "where packets pass beside connection tracking: a flowtable of the kernel or the network card; null: nowhere",
            ),
        ),
        ("sctp_state", word(&sctp, false, "state of SCTP, only there of a flow of SCTP")),
        (
            "time_source",
            word(
                &TimeSource::ALL.map(TimeSource::name),
                false,
                "where the times come from: the kernel stamped the entry, or conntrace read the message then",
            ),
        ),
    ];
    numbers.chain(texts).map(|(key, property)| (key.to_owned(), property))
}
