//! `conntrace list`: the sockets that are there now, in all network namespaces, with who has them.

use std::cmp::Reverse;
use std::time::Duration;

use conn_common::name::{self, LIST_TRAFFIC};
use conn_common::owner::Owner;
use conn_common::row::SocketRow;

use crate::enrich::cgroup::{self, Places};
use crate::enrich::command_line::{self, CommandLines};
use crate::enrich::dns::Resolver;
use crate::error::Error;
use crate::event::Event;
use crate::event::decode::idle_ns;
use crate::event::kind::Kind;
use crate::event::sort_key::SocketKey;
use crate::filter::Filter;
use crate::filter::sockets as socket_filter;
use crate::host::clock;
use crate::host::clock::WallClock;
use crate::host::facts::Host;
use crate::host::plan::plan;
use crate::host::ticks::TickRate;
use crate::kernel::load_options::Options;
use crate::kernel::probe::Probe;
use crate::kernel::sockets;
use crate::output::stdout;
use crate::output::stdout::Written;
use crate::output::terminal;
use crate::render::Renderer;
use crate::render::style::View;
use crate::settings::ListSettings;

/// Runs the command.
///
/// # Errors
/// See [`Error`].
pub fn run(settings: &ListSettings, host: &Host) -> Result<(), Error> {
    let plan = plan(host, None)?;
    settings.filter.log();
    let options = Options::for_sockets(&settings.filter, settings.listening);
    let mut probe = Probe::load(&plan, &Options { listed: options.listed | LIST_TRAFFIC, ..options })?;
    probe.load_programs(&[name::FILE_LIST, name::NAMESPACE_LIST, name::TCP_LIST])?;
    // Before the rows come.
    probe.forget_types();
    let (found, holders) = sockets::namespaces_and_holders(&mut probe)?;
    if found.denied && !host.may_look_everywhere() {
        log::warn!(
            "some processes hide their network namespaces from us: what is open there is missing here"
        );
    }
    let time_ns = clock::boot_now_ns();
    let mut renderer = renderer(settings);
    let asks_for_places = !settings.workload.is_empty() || renderer.shows(&cgroup::COLUMNS);
    let mut places = asks_for_places.then(|| Places::new(host.cgroup_root.as_deref()));
    let mut events = Vec::new();
    // What cannot be entered is told by the walk.
    sockets::list(&mut probe, &found.namespaces, |row| {
        let at_least = Some(row.at_least_jiffies).filter(|&jiffies| jiffies > 0);
        let at_least_ns = at_least.and_then(|jiffies| TickRate::probe()?.at_least_ns(jiffies));
        let event = event(&row, &settings.filter, holders.get(&row.cookie));
        events.extend(event.and_then(|event| {
            let places = places.as_mut();
            let place = places.and_then(|places| places.get(event.connection.owner.cgroup));
            settings.workload.matches(place.as_deref()).then_some(Event {
                time_ns,
                at_least_ns,
                place,
                ..event
            })
        }));
    })?;
    drop(holders);
    let undecided = settings.min_age.map_or(0, |least| keep_old(&mut events, least));
    sort(&mut events, settings.order);
    if renderer.shows(&command_line::COLUMNS) {
        let mut command_lines = CommandLines::of_host();
        for event in &mut events {
            event.process = command_lines.get(&event.connection.owner);
        }
    }
    if settings.style.resolve {
        Resolver::start().name_all(&mut events);
    }
    print(&mut renderer, &events)?;
    if undecided > 0 {
        eprintln!(
            "conntrace: {undecided} more may be that old: the kernel keeps no birthday of connections, and they \
             have been busy since"
        );
    }
    let what = if settings.listening { "listeners" } else { "flow entries" };
    eprintln!("conntrace v{}: {} {what} have been shown.", env!("CARGO_PKG_VERSION"), events.len());
    Ok(())
}

/// A row as something to show, if the filter lets it through.
fn event(row: &SocketRow, filter: &Filter, holders: Option<&Vec<Owner>>) -> Option<Event> {
    let connection = socket_filter::wanted(filter, socket_filter::connection(row), holders)?;
    Some(Event {
        time_ns: 0,
        kind: Kind::Open,
        old_state: connection.state,
        error: 0,
        end: None,
        reset: None,
        idle_ns: idle_ns(&connection, &row.traffic),
        at_least_ns: None,
        place: None,
        process: None,
        src_name: None,
        dst_name: None,
        traffic: row.traffic,
        connection,
    })
}

/// Keeps what is certainly that old, and tells how many others may be.
fn keep_old(events: &mut Vec<Event>, least: Duration) -> usize {
    let before = events.len();
    events.retain(|event| event.at_least_ns.is_some_and(|ns| u128::from(ns) >= least.as_nanos()));
    before - events.len()
}

fn sort(events: &mut [Event], order: Option<SocketKey>) {
    let tuple = |event: &Event| {
        let connection = &event.connection;
        (connection.dport, connection.dst, connection.src, connection.sport, connection.direction)
    };
    events.sort_by_cached_key(|event| {
        let value = order.map_or(0, |key| key.of(event));
        (Reverse(value), tuple(event))
    });
}

fn renderer(settings: &ListSettings) -> Renderer {
    let terminal = terminal::probe(settings.style.color);
    let subject = if settings.listening { View::Listeners } else { View::Open };
    Renderer::new(&settings.style, subject, terminal)
}

/// Bytes of lines that are written at once: the text of very many connections never is in memory as a whole.
const PART: usize = 1 << 16;

fn print(renderer: &mut Renderer, events: &[Event]) -> Result<(), Error> {
    let clock = WallClock::probe();
    for event in events {
        renderer.measure(event, &clock);
    }
    let mut out = Vec::new();
    renderer.begin(&mut out);
    for event in events {
        renderer.event(event, &clock, &mut out);
        if out.len() >= PART {
            if stdout::print_part(&out)? == Written::Closed {
                return Ok(());
            }
            out.clear();
        }
    }
    renderer.end(&mut out);
    stdout::print(out)
}
