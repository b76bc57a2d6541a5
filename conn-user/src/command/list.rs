//! `conntrace list`: the sockets that exist now, in all network namespaces, with the processes that have them.

use std::cmp::Reverse;
use std::time::Duration;

use conn_common::name::{LIST_INODES, LIST_TRAFFIC};

use crate::command::{flow_list, hint, unix_list};
use crate::enrich::cgroup;
use crate::enrich::command_line;
use crate::enrich::existing::Search;
use crate::enrich::{Enricher, LookUp, Wanted};
use crate::error::Error;
use crate::event::Event;
use crate::event::enriched::Enriched;
use crate::event::kind::Kind;
use crate::event::lost::Lost;
use crate::event::sort_key::SocketKey;
use crate::filter::protocols::Protocols;
use crate::host::clock::WallClock;
use crate::host::facts::Host;
use crate::host::plan::plan;
use crate::kernel::load_options::Options;
use crate::kernel::probe::Probe;
use crate::kernel::sockets;
use crate::output::stdout::{self, Answer, Sink, Written};
use crate::output::terminal;
use crate::render::Renderer;
use crate::render::style::{Format, View};
use crate::settings::ListSettings;
use crate::stream::consumer::{Consumer, Finished, Taken};
use crate::stream::notice::Notice;
use crate::stream::pipeline::Pipeline;
use crate::stream::text::Text;
use crate::stream::walk::SocketWalk;

/// Runs the command.
///
/// # Errors
/// See [`Error`].
pub fn run(settings: &ListSettings, host: &Host) -> Result<(), Error> {
    stdout::check_open()?;
    if let Some(flows) = &settings.forwarded {
        return flow_list::run(settings, flows, host);
    }
    if settings.protocols == Protocols::UNIX {
        return unix_list::run(settings, host);
    }
    let plan = plan(host, None)?;
    settings.filter.log(&[Kind::Open], settings.protocols);
    let search = Search::start(host.cgroup_root.as_deref(), &settings.filter, &settings.workload);
    let options = Options::for_sockets(&settings.filter, settings.protocols, settings.listening);
    let probe =
        Probe::load(&plan, &Options { listed: options.listed | LIST_TRAFFIC | LIST_INODES, ..options })?;
    probe.load_programs(&sockets::listing_programs(settings.protocols, true))?;
    // Before the rows come.
    probe.release_btf();
    let (found, holders) = sockets::namespaces_and_holders(&probe)?;
    if found.denied && !host.may_look_everywhere() {
        log::warn!(
            "conntrace may not read the network namespaces of some processes: connections there are missing"
        );
    }
    let (mut pipeline, mut list) = stages(settings, host, Answer);
    // A namespace that cannot be entered is logged by the walk.
    pipeline.run(&mut SocketWalk::new(&probe, &found, &holders), &mut list)?;
    drop(holders);
    pipeline.finish(&mut list);
    // A reader that left has seen what it wanted.
    list.flush()?;
    if list.undecided > 0 {
        list.notice(&Notice::UndecidedAge(list.undecided));
    }
    search.absent().into_iter().for_each(|absent| list.notice(&Notice::Absent(absent)));
    let noun = match settings.listening {
        _ if settings.protocols != Protocols::TCP => "sockets",
        true => "listeners",
        false => "flow entries",
    };
    hint::print(&settings.filter, &mut list);
    hint::print_without_listeners(&settings.filter, settings.protocols, &mut list);
    list.notice(&Notice::Shown { count: pipeline.accounting.shown, noun });
    if settings.exit_code && pipeline.accounting.shown == 0 {
        return Err(Error::NothingFound);
    }
    Ok(())
}

/// The renderer of a list.
pub(super) fn renderer(settings: &ListSettings) -> Renderer {
    let terminal = terminal::probe(settings.style.color);
    let subject = match settings.forwarded {
        Some(_) => View::Events,
        None => View::of_sockets(settings.protocols, settings.listening),
    };
    let mut style = settings.style.clone();
    if settings.is_table_on_terminal && terminal.is_terminal {
        style.format = Format::Table;
    }
    Renderer::new(&style, subject, terminal)
}

/// The pipeline, and the list at its end.
fn stages<S: Sink>(settings: &ListSettings, host: &Host, sink: S) -> (Pipeline, SortedList<S>) {
    let renderer = renderer(settings);
    let at_end = |wanted| if wanted { LookUp::AtEnd } else { LookUp::Never };
    let by_filters = Wanted::by_filters(&settings.filter, &settings.workload);
    let wanted = Wanted {
        workloads: by_filters.workloads || renderer.shows(&cgroup::COLUMNS),
        command_lines: at_end(renderer.shows(&command_line::COLUMNS)),
        names: at_end(settings.style.resolve),
        ..by_filters
    };
    let pipeline = Pipeline::new(&settings.filter)
        .enriched(Enricher::new(wanted, host.cgroup_root.as_deref()), &settings.workload);
    let list = SortedList {
        text: Text::new(renderer, sink),
        min_age: settings.min_age,
        order: settings.order,
        sockets: Vec::new(),
        undecided: 0,
    };
    (pipeline, list)
}

/// Keeps all sockets, and prints them in order at the end.
struct SortedList<S> {
    text: Text<S>,
    min_age: Option<Duration>,
    order: Option<SocketKey>,
    sockets: Vec<Enriched>,
    /// How many sockets may be as old as `min_age`, and are not certain to be.
    undecided: usize,
}

impl<S: Sink> Consumer for SortedList<S> {
    fn event(&mut self, event: &Enriched, _: &WallClock) -> Taken {
        let is_old = |least: Duration| event.at_least_ns.is_some_and(|ns| u128::from(ns) >= least.as_nanos());
        if self.min_age.is_none_or(is_old) {
            self.sockets.push(event.clone());
        } else {
            self.undecided += 1;
        }
        Taken::Shown
    }

    fn lost(&mut self, lost: &Lost, clock: &WallClock) {
        self.text.lost(lost, clock);
    }

    fn notice(&mut self, notice: &Notice) {
        self.text.notice(notice);
    }

    fn flush(&mut self) -> Result<Written, Error> {
        self.text.flush()
    }

    fn finish(&mut self, enricher: &mut Enricher, clock: &WallClock) -> Finished {
        sort(&mut self.sockets, self.order);
        enricher.complete(&mut self.sockets);
        let unwritten = self.text.print_all(&self.sockets, clock);
        self.text.finish(enricher, clock);
        Finished { filtered: self.undecided as u64, unwritten }
    }
}

fn sort(sockets: &mut [Enriched], order: Option<SocketKey>) {
    let tuple = |event: &Event| {
        let connection = &event.connection;
        (connection.dport, connection.dst, connection.src, connection.sport, connection.direction)
    };
    sockets.sort_by_cached_key(|socket| (Reverse(order.map_or(0, |order| order.of(socket))), tuple(socket)));
}
