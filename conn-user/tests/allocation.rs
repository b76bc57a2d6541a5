//! Writing a line allocates nothing, once the buffer is large enough.

#![expect(unsafe_code, reason = "a global allocator is unsafe by its nature")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use conn_common::cause::Cause;
use conn_common::connection::{Connection, OUT, WAS_ESTABLISHED};
use conn_common::owner::{CONNECT, Owner};
use conn_common::state::{CLOSE, FIN_WAIT2};
use conn_common::traffic::Traffic;
use conntrace::event::Event;
use conntrace::event::enriched::Enriched;
use conntrace::event::kind::Kind;
use conntrace::host::clock::WallClock;
use conntrace::host::services::Services;
use conntrace::render::Renderer;
use conntrace::render::style::{Color, ConntrackFields, Format, Style, Terminal, View};

/// Counts what a thread allocates.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is the system allocator's; the count is a thread's own and needs no allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps to the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A connection over IPv6 that failed or was closed.
fn end(family: u8, old_state: u8) -> Enriched {
    let owner =
        Owner { pid: 7, tid: 8, uid: 9, source: CONNECT, comm: *b"web\x1b \"content\0\0\0", ..Owner::NONE };
    let connection = Connection {
        id: 41,
        attempt_ns: 1,
        established_ns: 2,
        netns: 3,
        sport: 43_210,
        dport: 443,
        src: [0xfd; 16],
        dst: [0x20; 16],
        family,
        direction: OUT,
        state: CLOSE,
        flags: WAS_ESTABLISHED,
        owner,
        ..Connection::UNSEEN
    };
    let traffic = Traffic { bytes_sent: 517, srtt_us: 3, ..Traffic::NONE };
    let end = Some(Cause::ClosedByUs);
    let event = Event {
        time_ns: 61_000_000_042,
        kind: Kind::Destroy,
        protocol: conn_common::protocol::TCP,
        old_state,
        traffic,
        error: 104,
        end,
        reset: None,
        attempt: None,
        idle_ns: Some(7),
        at_least_ns: None,
        half_open: None,
        dropped: None,
        tracked: conntrace::event::tracked::Tracked::NONE,
        connection,
    };
    Enriched { src_name: Some("laptop.example".into()), ..Enriched::from(event) }
}

fn lines(renderer: &mut Renderer, events: &[Enriched], out: &mut Vec<u8>) {
    for event in events {
        renderer.event(event, &WallClock::with_offset(1_767_323_045_000_000_000), out);
    }
}

#[test]
fn lines_allocate_nothing() {
    let events = [end(4, FIN_WAIT2), end(6, FIN_WAIT2)];
    let stamped = ConntrackFields { timestamp: true, extended: true, id: true, ktimestamp: false };
    for format in [
        Format::Conntrack(ConntrackFields::default()),
        Format::Conntrack(stamped),
        Format::Json,
        Format::Csv,
        Format::Logfmt,
        Format::Save,
        Format::Xml(ConntrackFields::default()),
        Format::Otel,
        Format::Ecs,
        Format::Table,
    ] {
        let services = Services::parse("https 443/tcp");
        let style = Style {
            format,
            columns: None,
            header: true,
            color: Color::Never,
            utc: true,
            resolve: true,
            services,
        };
        let mut renderer = Renderer::new(&style, View::Events, Terminal::NONE);
        let mut out = Vec::with_capacity(1 << 16);
        // The first line of a table finds out how wide its cells are.
        lines(&mut renderer, &events, &mut out);
        let before = ALLOCATIONS.get();
        lines(&mut renderer, &events, &mut out);
        assert_eq!(ALLOCATIONS.get() - before, 0, "{format:?}");
    }
}
