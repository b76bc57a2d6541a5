//! How fast user space is, on one core: bytes into events, events into lines, filters, and a reading of the
//! ledger. `cargo xtask bench` runs it and sums it up.

#![expect(unsafe_code, reason = "records are read as bytes")]
#![expect(clippy::disallowed_macros, reason = "a bench reports what it skips")]
#![expect(clippy::expect_used, reason = "a measurement that cannot go on says so by panicking")]

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use conn_common::cause::Cause;
use conn_common::connection::{Connection, IN, OUT, WAS_ESTABLISHED};
use conn_common::event::{DESTROY, EventRecord, NEW, NO_CAUSE, UPDATE};
use conn_common::owner::{ACCEPT, CONNECT, Owner};
use conn_common::row::SocketRow;
use conn_common::state::{CLOSE, ESTABLISHED, LAST_ACK, SYN_RECV, SYN_SENT, UNSEEN};
use conn_common::traffic::Traffic;
use conntrace::cli::args;
use conntrace::event::enriched::Enriched;
use conntrace::event::{Event, decode};
use conntrace::filter::Filter;
use conntrace::host::clock::WallClock;
use conntrace::host::facts::Host;
use conntrace::host::lookup::HostLookup;
use conntrace::host::services::Services;
use conntrace::host::ticks::TickRate;
use conntrace::kernel::load_options::Options;
use conntrace::kernel::session::Session;
use conntrace::ledger::reader::LedgerReader;
use conntrace::render::Renderer;
use conntrace::render::style::{Color, ConntrackFields, Format, Style, Terminal, View};
use conntrace::settings::Settings;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Lines are thrown away when the buffer holds this much, as after a write.
const FULL: usize = 900_000;

const FORMATS: [(&str, Format); 9] = [
    (
        "conntrack",
        Format::Conntrack(ConntrackFields {
            timestamp: false,
            extended: false,
            id: false,
            ktimestamp: false,
        }),
    ),
    ("json", Format::Json),
    ("csv", Format::Csv),
    ("logfmt", Format::Logfmt),
    ("table", Format::Table),
    ("save", Format::Save),
    ("xml", Format::Xml(ConntrackFields { timestamp: false, extended: false, id: false, ktimestamp: false })),
    ("json-otel", Format::Otel),
    ("json-ecs", Format::Ecs),
];

/// Filters as they are typed, from the simplest to one that user space must decide.
const FILTERS: [(&str, &[&str]); 7] = [
    ("--dport 443", &["--dport", "443"]),
    ("--dport, 8 ranges", &["--dport", "1-9,20-29,40-49,60-69,80-89,443,8000-8099,9000-9999"]),
    ("--src 10.0.0.0/8", &["--src", "10.0.0.0/8"]),
    ("--comm web", &["--comm", "web"]),
    ("--pid 7", &["--pid", "7"]),
    ("--state established", &["--state", "established"]),
    ("service or client", &["( service = :443 or client = 10.0.0.0/8 ) and not server 192.168.0.0/16"]),
];

/// Service ports in the ledger that is read.
const PORTS: u16 = 1_000;

/// One life of either side: a beginning, a handshake, an end.
fn records() -> [EventRecord; 6] {
    let owner = |source| Owner {
        pid: 4_711,
        tid: 4_712,
        uid: 1_000,
        source,
        comm: *b"web-server\0\0\0\0\0\0",
        ..Owner::NONE
    };
    let v4 = |bytes: [u8; 4]| {
        let mut address = [0; 16];
        address[..4].copy_from_slice(&bytes);
        address
    };
    let out = Connection {
        id: 6_679_984_470_114_305,
        attempt_ns: 61_000_000_042,
        netns: 4_026_531_833,
        sport: 43_210,
        dport: 443,
        src: v4([10, 1, 2, 3]),
        dst: v4([93, 184, 216, 34]),
        family: 4,
        direction: OUT,
        state: SYN_SENT,
        owner: owner(CONNECT),
        ..Connection::UNSEEN
    };
    let back = Connection {
        src: [0xfd; 16],
        dst: [0x20; 16],
        family: 6,
        direction: IN,
        state: SYN_RECV,
        owner: owner(ACCEPT),
        ..out
    };
    let traffic = Traffic { bytes_sent: 517, bytes_received: 48_113, srtt_us: 3_000, ..Traffic::NONE };
    [(out, SYN_SENT), (back, SYN_RECV)]
        .into_iter()
        .flat_map(|(begun, opening)| {
            let record = |kind, old_state, cause, traffic, connection| EventRecord {
                time_ns: 61_250_000_042,
                error: 0,
                kind,
                old_state,
                cause,
                reset: 0,
                version: conn_common::event::VERSION,
                protocol: conn_common::protocol::TCP,
                traffic,
                connection,
            };
            let open = Connection {
                state: ESTABLISHED,
                established_ns: 61_000_300_042,
                flags: begun.flags | WAS_ESTABLISHED,
                ..begun
            };
            let closed = Connection { state: CLOSE, ..open };
            [
                record(NEW, UNSEEN, NO_CAUSE, Traffic::NONE, begun),
                record(UPDATE, opening, NO_CAUSE, Traffic::NONE, open),
                record(DESTROY, LAST_ACK, Cause::ClosedByPeer as u8, traffic, closed),
            ]
        })
        .collect::<Vec<_>>()
        .try_into()
        .expect("three events of either side")
}

/// What the kernel would write.
fn bytes<T>(value: &T) -> Vec<u8> {
    // SAFETY: records are `repr(C)` of integers, without padding, and live until this returns.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast::<u8>(), size_of::<T>()) }.to_vec()
}

fn events() -> Vec<Enriched> {
    let rate = TickRate::probe();
    records().iter().map(|record| decode::decode(&bytes(record), rate).expect("an event").into()).collect()
}

fn renderer(format: Format) -> Renderer {
    let services = Services::parse("https 443/tcp");
    let style = Style {
        format,
        columns: None,
        header: true,
        color: Color::Never,
        utc: true,
        resolve: false,
        services,
    };
    Renderer::new(&style, View::Events, Terminal::NONE)
}

const CLOCK: WallClock = WallClock::with_offset(1_767_323_045_000_000_000);

fn decoding(criterion: &mut Criterion) {
    let rate = TickRate::probe();
    let records = records().map(|record| bytes(&record));
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Elements(records.len() as u64));
    // As a whole, or the compiler removes unused fields.
    group.bench_function("events", |bencher| {
        bencher.iter(|| {
            for record in &records {
                _ = black_box(decode::decode(black_box(record), rate));
            }
        });
    });
    for (name, format) in &FORMATS[..2] {
        group.bench_function(format!("events into {name}"), |bencher| {
            let mut renderer = renderer(*format);
            let mut out = Vec::with_capacity(2 * FULL);
            bencher.iter(|| {
                for record in &records {
                    let event = decode::decode(black_box(record), rate).expect("an event");
                    renderer.event(&event.into(), &CLOCK, &mut out);
                }
                if out.len() > FULL {
                    out.clear();
                }
            });
        });
    }
    let rows = events().into_iter().map(|event| {
        let Event { connection, traffic, .. } = event.event;
        bytes(&SocketRow { cookie: 1, traffic, at_least_jiffies: 3, connection, ..SocketRow::EMPTY })
    });
    let rows: Vec<_> = rows.collect();
    group.bench_function("rows of sockets", |bencher| {
        bencher.iter(|| rows.iter().for_each(|row| _ = black_box(decode::socket_row(black_box(row)))));
    });
    group.finish();
}

fn formatting(criterion: &mut Criterion) {
    let events = events();
    let mut group = criterion.benchmark_group("format");
    group.throughput(Throughput::Elements(events.len() as u64));
    for (name, format) in FORMATS {
        group.bench_function(name, |bencher| {
            let mut renderer = renderer(format);
            let mut out = Vec::with_capacity(2 * FULL);
            bencher.iter(|| {
                for event in &events {
                    renderer.event(black_box(event), &CLOCK, &mut out);
                }
                if out.len() > FULL {
                    out.clear();
                }
            });
        });
    }
    group.finish();
}

/// The filter that these words make.
fn filter(words: &[&str]) -> Filter {
    let args = ["conntrace", "events"].iter().chain(words).map(Into::into).collect();
    let (cli, _) = args::read(args, None).expect("a command line");
    match Settings::from_cli(&cli, &HostLookup::new(&Host::probe())).expect("settings") {
        Settings::Events(settings) => settings.filter,
        other => panic!("not events: {other:?}"),
    }
}

/// The whole filter in user space. Most of it is decided in the kernel when conntrace runs.
fn filtering(criterion: &mut Criterion) {
    let events = events();
    let mut group = criterion.benchmark_group("filter");
    group.throughput(Throughput::Elements(events.len() as u64));
    for (name, words) in FILTERS {
        let filter = filter(words);
        group.bench_function(name, |bencher| {
            bencher
                .iter(|| events.iter().filter(|event| filter.matches(black_box(&event.connection))).count());
        });
    }
    group.finish();
}

/// The kernel's own map, with a slot for each of many ports.
fn reading(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ledger");
    group.throughput(Throughput::Elements(PORTS.into()));
    let session = match Session::start(&Host::probe(), &Options::counting()) {
        Ok(session) => session,
        Err(error) => return eprintln!("ledger: skipped: {error}"),
    };
    let ledger = LedgerReader::new(&session.probe).expect("the maps of the ledger");
    for port in 0..PORTS {
        // An attempt is enough; no answer is needed.
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1 + port));
        drop(TcpStream::connect(address));
    }
    let read = || ledger.read().expect("a reading");
    assert!(read().ports.len() >= PORTS.into(), "{} ports in the ledger", read().ports.len());
    group.bench_function("a reading of 1000 ports", |bencher| bencher.iter(read));
    group.finish();
}

criterion_group!(speed, decoding, formatting, filtering, reading);
criterion_main!(speed);
