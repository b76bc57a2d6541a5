//! `conntrace count`: how many connections are open now. The kernel's tables of sockets give the answer, so it needs
//! no history and no hook.

mod key;

use std::cmp::Reverse;
use std::collections::BTreeMap;

use conn_common::name::LIST_INODES;

use self::key::Key;
use crate::cli::Group;
use crate::command::hint;
use crate::enrich::existing::Search;
use crate::enrich::{Enricher, Wanted};
use crate::error::Error;
use crate::event::enriched::Enriched;
use crate::event::kind::Kind;
use crate::event::lost::Lost;
use crate::filter::expression::Field;
use crate::host::clock::WallClock;
use crate::host::facts::Host;
use crate::host::plan::plan;
use crate::kernel::load_options::Options;
use crate::kernel::probe::Probe;
use crate::kernel::sockets;
use crate::kernel::sockets::Holders;
use crate::output::stdout::{self, Written};
use crate::output::{stderr, terminal};
use crate::render::number_table::{NumberColumn, NumberTable, NumberValue, TableFormat};
use crate::render::style::{Color, Terminal};
use crate::settings::CountSettings;
use crate::settings::forwarded::ForwardedSettings;
use crate::stream::consumer::{Consumer, Finished, Taken};
use crate::stream::flow_walk::FlowWalk;
use crate::stream::notice::Notice;
use crate::stream::pipeline::Pipeline;
use crate::stream::walk::SocketWalk;

/// Runs the command.
///
/// # Errors
/// See [`Error`].
pub fn run(settings: &CountSettings, host: &Host) -> Result<(), Error> {
    if let Some(flows) = &settings.forwarded {
        return count_flows(settings, flows, host);
    }
    settings.filter.log(&[Kind::Open], settings.protocols);
    let plan = plan(host, None)?;
    let search = Search::start(host.cgroup_root.as_deref(), &settings.filter, &settings.workload);
    let by_filters = Wanted::by_filters(&settings.filter, &settings.workload);
    let needs_holders = settings.by.iter().any(|group| group.is_owners())
        || by_filters.workloads
        || settings.filter.asks_for(Field::is_owners);
    let listening = settings.filter.is_of_listeners(settings.protocols);
    let mut options = Options::for_sockets(&settings.filter, settings.protocols, listening);
    if needs_holders {
        options.listed |= LIST_INODES;
    }
    let probe = Probe::load(&plan, &options)?;
    probe.load_programs(&sockets::listing_programs(settings.protocols, needs_holders))?;
    let (found, holders) = if needs_holders {
        sockets::namespaces_and_holders(&probe)?
    } else {
        (sockets::all_namespaces(&probe)?, Holders::default())
    };
    // A part of the number would look like the number.
    if found.denied && !host.may_look_everywhere() {
        return Err(Error::Hidden { what: "the network namespace of some process".into() });
    }
    let groups_by_workload = settings.by.iter().any(|group| group.is_workloads());
    let wanted = Wanted { workloads: by_filters.workloads || groups_by_workload, ..by_filters };
    let mut pipeline = Pipeline::new(&settings.filter)
        .enriched(Enricher::new(wanted, host.cgroup_root.as_deref()), &settings.workload);
    let mut counts = Counts::new(&settings.by);
    let mut walk = SocketWalk::new(&probe, &found, &holders);
    pipeline.run(&mut walk, &mut counts)?;
    if let Some(missed) = walk.missed() {
        return Err(Error::Hidden { what: format!("network namespace {missed}") });
    }
    pipeline.finish(&mut counts);
    print(settings, &mut counts)?;
    search.absent().into_iter().for_each(|absent| counts.notice(&Notice::Absent(absent)));
    hint::print(&settings.filter, &mut counts);
    hint::print_without_listeners(&settings.filter, settings.protocols, &mut counts);
    if settings.exit_code && counts.groups.is_empty() {
        return Err(Error::NothingFound);
    }
    Ok(())
}

/// `conntrace count --forwarded`: how many flows pass through now.
fn count_flows(settings: &CountSettings, flows: &ForwardedSettings, host: &Host) -> Result<(), Error> {
    let mut walk = FlowWalk::new(flows.scope, settings.filter.bound(Field::Netns))?;
    // A part of the number would look like the number.
    if walk.is_denied() && !host.may_look_everywhere() {
        return Err(Error::Hidden { what: "the network namespace of some process".into() });
    }
    let mut pipeline = Pipeline::new(&settings.filter).of_flows(&flows.filter);
    let mut counts = Counts::new(&settings.by);
    pipeline.run(&mut walk, &mut counts)?;
    if let Some(missed) = walk.missed() {
        return Err(Error::Hidden { what: format!("network namespace {missed}") });
    }
    if walk.is_partial {
        log::warn!("a table changed its size while it was read: flows may be missing");
    }
    pipeline.finish(&mut counts);
    print(settings, &mut counts)?;
    hint::print(&settings.filter, &mut counts);
    if settings.exit_code && counts.groups.is_empty() {
        return Err(Error::NothingFound);
    }
    Ok(())
}

/// Prints the answer.
fn print(settings: &CountSettings, counts: &mut Counts<'_>) -> Result<(), Error> {
    let (text, rest) = text(settings, counts, terminal::probe(Color::Never));
    stdout::print(text.as_bytes())?;
    if let Some(rest) = rest {
        counts.notice(&rest);
    }
    Ok(())
}

/// Counts connections by groups.
struct Counts<'a> {
    by: &'a [Group],
    groups: BTreeMap<Vec<Key>, u64>,
    /// A cgroup of each container. The name of the container is looked up by it.
    cgroups: BTreeMap<Key, u64>,
    /// The names of containers, at the end.
    names: BTreeMap<Key, String>,
}

impl<'a> Counts<'a> {
    const fn new(by: &'a [Group]) -> Self {
        Self { by, groups: BTreeMap::new(), cgroups: BTreeMap::new(), names: BTreeMap::new() }
    }
}

impl Consumer for Counts<'_> {
    fn event(&mut self, event: &Enriched, _: &WallClock) -> Taken {
        let keys: Vec<Key> = self.by.iter().map(|group| key::key(*group, event)).collect();
        for key in keys.iter().filter(|key| matches!(key, Key::Container { .. })) {
            self.cgroups.entry(key.clone()).or_insert(event.connection.owner.cgroup);
        }
        *self.groups.entry(keys).or_default() += 1;
        Taken::Shown
    }

    fn lost(&mut self, _: &Lost, _: &WallClock) {}

    fn notice(&mut self, notice: &Notice) {
        stderr::print(notice);
    }

    fn flush(&mut self) -> Result<Written, Error> {
        Ok(Written::All)
    }

    fn finish(&mut self, enricher: &mut Enricher, _: &WallClock) -> Finished {
        for (key, &cgroup) in &self.cgroups {
            let workload = enricher.workload_of(cgroup);
            let container = workload.as_ref().and_then(|workload| workload.container.as_ref());
            if let Some(name) = container.and_then(|container| container.names.name.clone()) {
                self.names.insert(key.clone(), name);
            }
        }
        Finished::default()
    }
}

/// Columns whose values are cut where the terminal is too narrow.
const NAMES: [&str; 5] = ["comm", "container", "container_name", "unit", "user_unit"];

/// The answer, and what it leaves out.
fn text(settings: &CountSettings, counts: &Counts<'_>, terminal: Terminal) -> (String, Option<Notice>) {
    if settings.by.is_empty() {
        let count = counts.groups.values().sum::<u64>();
        let text = match settings.format {
            TableFormat::Json => format!("{{\"open\":{count}}}\n"),
            TableFormat::Csv => format!("open\n{count}\n"),
            TableFormat::Table => format!("{count}\n"),
        };
        return (text, None);
    }
    let mut columns: Vec<NumberColumn> = settings.by.iter().flat_map(|group| key::columns(*group)).collect();
    columns.push(NumberColumn { name: "open", in_text: true });
    let mut table = NumberTable::new(&columns);
    let mut groups: Vec<_> = counts.groups.iter().collect();
    groups.sort_by_key(|&(_, &count)| Reverse(count));
    let rest = groups.split_off(settings.top.unwrap_or(groups.len()).min(groups.len()));
    for (keys, &count) in groups {
        let cells = settings.by.iter().zip(keys).flat_map(|(group, key)| {
            let name = counts.names.get(key).map(String::as_str);
            key.values(*group, name, settings.format, &settings.services)
        });
        let mut row: Vec<NumberValue> = cells.collect();
        row.push(count.into());
        table.rows.push(row);
    }
    let left_out = rest.iter().map(|&(_, &count)| count).sum();
    let rest = (!rest.is_empty()).then_some(Notice::SmallerGroups { groups: rest.len(), open: left_out });
    if settings.format == TableFormat::Table {
        table = table.cut(&NAMES, terminal.width, terminal.ellipsis());
    }
    (table.write(settings.format), rest)
}

#[cfg(test)]
mod tests;
