use conn_common::connection::OUT;
use conn_common::row::SocketRow;
use conn_common::state::ESTABLISHED;

use super::*;
use crate::event::enriched::Enriched;
use crate::event::lost::Lost;
use crate::event::sort_key::LifeKey;
use crate::event::tests::{bytes, closed, established, failed, new_in_v6, new_out, record};
use crate::filter::expression;
use crate::host::lookup::fixed::FixedLookup;
use crate::host::services::Services;
use crate::output::stdout::memory::Memory;
use crate::render::Renderer;
use crate::render::style::{Color, ConntrackFields, Format, Style, Terminal, View};
use crate::stream::source::{Recorded, RecordedSource};
use crate::stream::text::Text;
use crate::stream::top_n::TopN;

const CLOCK: WallClock = WallClock::with_offset(1_767_323_045_000_000_000);
const RATE: TickRate = TickRate::of_tick(4_000_000);
const PLAIN: ConntrackFields =
    ConntrackFields { timestamp: false, extended: false, id: false, ktimestamp: false };

fn text(format: Format, memory: &Memory) -> Text<Memory> {
    let style = Style {
        format,
        columns: None,
        header: true,
        color: Color::Never,
        utc: true,
        resolve: false,
        services: Services::default(),
    };
    Text::new(Renderer::new(&style, View::Events, Terminal::NONE), memory.clone())
}

fn recorded(event: &Enriched) -> Recorded {
    Recorded::Record(bytes(&record(event)))
}

fn filter(text: &str) -> Filter {
    Filter::new(Some(expression::parse(text, &FixedLookup::default()).unwrap()))
}

/// Runs recorded items to their end.
fn run(mut pipeline: Pipeline, items: Vec<Recorded>, consumer: &mut dyn Consumer) -> EventAccounting {
    let mut source = RecordedSource::new(items, 2);
    while pipeline.run(&mut source, consumer).unwrap() != Batch::End {
        consumer.flush().unwrap();
    }
    pipeline.finish(consumer);
    consumer.flush().unwrap();
    pipeline.accounting
}

fn pipeline(filter: &Filter) -> Pipeline {
    Pipeline::new(filter).timed(CLOCK, RATE, 11_000_000_000)
}

#[test]
fn recorded_bytes_become_lines_with_losses_in_their_places() {
    let lost = Lost { count: 7, since_ns: 1_000_000_000, until_ns: 1_000_001_000, of: None };
    let items = vec![
        recorded(&new_out()),
        recorded(&new_in_v6()),
        Recorded::Lost(lost),
        Recorded::Record(vec![1, 2, 3]),
        recorded(&established()),
        recorded(&closed()),
    ];
    let memory = Memory::new();
    let mut consumer = text(Format::Conntrack(PLAIN), &memory);
    // The kernel cannot decide this `or`, so the rest is decided here.
    let accounting =
        run(pipeline(&filter("family inet and dport = 443 or src 10.0.0.0/8")), items, &mut consumer);
    insta::assert_snapshot!(memory.text(), @"
        [NEW] tcp      6 SYN_SENT src=192.0.2.7 dst=198.51.100.9 sport=43210 dport=443 [UNREPLIED] src=198.51.100.9 dst=192.0.2.7 sport=443 dport=43210 dir=out pid=1234 comm=curl owner=connect
       [LOST] 7 since=1767323046.000000 until=1767323046.000001
     [UPDATE] tcp      6 ESTABLISHED src=192.0.2.7 dst=198.51.100.9 sport=43210 dport=443 src=198.51.100.9 dst=192.0.2.7 sport=443 dport=43210 [ASSURED] dir=out pid=1234 comm=curl owner=connect
    [DESTROY] tcp      6 CLOSE src=192.0.2.7 dst=198.51.100.9 sport=43210 dport=443 src=198.51.100.9 dst=192.0.2.7 sport=443 dport=43210 [ASSURED] dir=out pid=1234 comm=curl owner=connect lifetime=61.000000042 reason=closed_by_us
    ");
    let expected = EventAccounting { shown: 3, filtered: 1, undecoded: 1, ..EventAccounting::default() };
    assert_eq!(accounting, expected);
}

#[test]
fn a_complete_pipeline_counts_the_rest_as_unread() {
    let items = vec![recorded(&new_out()), recorded(&established()), recorded(&closed())];
    let memory = Memory::new();
    let mut consumer = text(Format::Conntrack(PLAIN), &memory);
    let accounting = run(pipeline(&Filter::all()).limited(Some(2)), items, &mut consumer);
    assert_eq!((accounting.shown, accounting.unread), (2, 1));
    assert_eq!(memory.text().lines().count(), 2);
}

#[test]
fn events_without_room_are_counted_and_marked() {
    let memory = Memory { capacity: 1, ..Memory::new() };
    let mut consumer = text(Format::Conntrack(PLAIN), &memory);
    let mut stages = pipeline(&Filter::all());
    let give = |stages: &mut Pipeline, consumer: &mut Text<Memory>, event: &Enriched| {
        let mut source = RecordedSource::new(vec![recorded(event)], 1);
        stages.run(&mut source, consumer).unwrap();
        consumer.flush().unwrap();
    };
    for event in [new_out(), established(), closed()] {
        give(&mut stages, &mut consumer, &event);
    }
    assert_eq!((stages.accounting.shown, stages.accounting.unwritten), (1, 2));
    // The reader reads again.
    memory.text.lock().unwrap().clear();
    give(&mut stages, &mut consumer, &failed(111, 9));
    let text = memory.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "   [LOST] 2 since=1767323046.001500 until=1767323107.000000");
    assert!(lines[1].starts_with("[DESTROY]"), "{text}");
    assert_eq!((stages.accounting.shown, stages.accounting.unwritten), (2, 2));
}

#[test]
fn all_consumers_print_the_same_bytes() {
    let ends = [closed(), failed(111, 5)];
    let items = || ends.iter().map(recorded).collect::<Vec<_>>();
    for format in [Format::Conntrack(PLAIN), Format::Json, Format::Csv, Format::Logfmt, Format::Ecs] {
        let (streamed, sorted) = (Memory::new(), Memory::new());
        let mut consumer = text(format, &streamed);
        consumer.begin();
        run(pipeline(&Filter::all()), items(), &mut consumer);
        let mut consumer = TopN::new(9, LifeKey::Lifetime, text(format, &sorted));
        let accounting = run(pipeline(&Filter::all()), items(), &mut consumer);
        assert_eq!(accounting.shown, 2);
        assert_eq!(sorted.text(), streamed.text());
    }
}

#[test]
fn the_largest_are_shown_and_the_others_are_filtered() {
    let memory = Memory::new();
    let mut consumer = TopN::new(1, LifeKey::Lifetime, text(Format::Json, &memory));
    let items = vec![recorded(&new_out()), recorded(&failed(111, 5)), recorded(&closed())];
    let accounting =
        run(pipeline(&Filter::all()).lasting(Some(LifetimeFilter::default())), items, &mut consumer);
    assert_eq!((accounting.shown, accounting.filtered), (1, 2));
    assert!(memory.text().contains("closed_by_us"), "{}", memory.text());
}

#[test]
fn sockets_of_a_walk_become_open_connections_with_the_holder_that_passes() {
    let mut connection = new_out().connection;
    let holder = connection.owner;
    connection.owner = Owner::NONE;
    (connection.state, connection.direction) = (ESTABLISHED, OUT);
    let row = SocketRow { cookie: 9, traffic: closed().traffic, connection, ..SocketRow::EMPTY };
    let other = Owner { pid: 1, ..holder };
    let items = vec![Recorded::Socket(Box::new(row), vec![other, holder])];
    let memory = Memory::new();
    let mut consumer = text(Format::Conntrack(PLAIN), &memory);
    let accounting = run(pipeline(&filter("pid = 1234")), items, &mut consumer);
    assert_eq!(accounting.shown, 1);
    insta::assert_snapshot!(memory.text(), @"tcp      6 ESTABLISHED src=192.0.2.7 dst=198.51.100.9 sport=43210 dport=443 src=198.51.100.9 dst=192.0.2.7 sport=443 dport=43210 [ASSURED] dir=out pid=1234 comm=curl owner=connect holders=2 age=10.000000000");
}
