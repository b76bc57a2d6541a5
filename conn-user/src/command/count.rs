//! `conntrace count`: how many connections are open now. The kernel's tables of sockets give the answer, so it needs
//! no history and no hook.

use std::collections::BTreeMap;

use conn_common::name;

use crate::cli::Group;
use crate::enrich::{Enricher, Wanted};
use crate::error::Error;
use crate::event::Event;
use crate::event::enriched::Enriched;
use crate::event::lost::Lost;
use crate::event::state_name;
use crate::filter::expression::Field;
use crate::host::clock::WallClock;
use crate::host::facts::Host;
use crate::host::plan::plan;
use crate::host::services::Services;
use crate::kernel::load_options::Options;
use crate::kernel::probe::Probe;
use crate::kernel::sockets;
use crate::kernel::sockets::Holders;
use crate::output::stderr;
use crate::output::stdout::{self, Written};
use crate::render::number_table::{NumberColumn, NumberTable, NumberValue, TableFormat};
use crate::render::sanitize;
use crate::settings::CountSettings;
use crate::stream::consumer::{Consumer, Finished, Taken};
use crate::stream::notice::Notice;
use crate::stream::pipeline::Pipeline;
use crate::stream::walk::SocketWalk;

/// Runs the command.
///
/// # Errors
/// See [`Error`].
pub fn run(settings: &CountSettings, host: &Host) -> Result<(), Error> {
    settings.filter.log();
    let plan = plan(host, None)?;
    let probe =
        Probe::load(&plan, &Options::for_sockets(&settings.filter, settings.filter.is_of_listeners()))?;
    let needs_holders = settings.by.contains(&Group::Comm)
        || !settings.workload.is_empty()
        || settings.filter.asks_for(Field::is_owners);
    let files = needs_holders.then_some(name::FILE_LIST);
    let programs = [name::NAMESPACE_LIST, name::TCP_LIST].into_iter().chain(files);
    probe.load_programs(&programs.collect::<Vec<_>>())?;
    let (found, holders) = if needs_holders {
        sockets::namespaces_and_holders(&probe)?
    } else {
        (sockets::all_namespaces(&probe)?, Holders::new())
    };
    // A part of the number would look like the number.
    if found.denied && !host.may_look_everywhere() {
        return Err(Error::Hidden { what: "the network namespace of some process".into() });
    }
    let wanted = Wanted { workloads: !settings.workload.is_empty(), ..Wanted::default() };
    let mut pipeline = Pipeline::new(&settings.filter)
        .enriched(Enricher::new(wanted, host.cgroup_root.as_deref()), &settings.workload);
    let mut counts = Counts { by: &settings.by, groups: BTreeMap::new() };
    let mut walk = SocketWalk::new(&probe, &found.namespaces, &holders);
    pipeline.run(&mut walk, &mut counts)?;
    if let Some(missed) = walk.missed() {
        return Err(Error::Hidden { what: format!("network namespace {missed}") });
    }
    stdout::print(text(settings, &counts.groups).as_bytes())
}

/// Counts connections by groups.
struct Counts<'a> {
    by: &'a [Group],
    groups: BTreeMap<Vec<Key>, u64>,
}

impl Consumer for Counts<'_> {
    fn event(&mut self, event: &Enriched, _: &WallClock) -> Taken {
        let key = self.by.iter().map(|group| key(*group, event)).collect();
        *self.groups.entry(key).or_default() += 1;
        Taken::Shown
    }

    fn lost(&mut self, _: &Lost, _: &WallClock) {}

    fn notice(&mut self, notice: &Notice) {
        stderr::print(notice);
    }

    fn flush(&mut self) -> Result<Written, Error> {
        Ok(Written::All)
    }

    fn finish(&mut self, _: &mut Enricher, _: &WallClock) -> Finished {
        Finished::default()
    }
}

/// What a connection is grouped by, in an order that is good to read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Port(u16),
    Number(u32),
    Word(&'static str),
    Name(String),
    Unknown,
}

impl Key {
    fn value(&self, format: TableFormat, services: &Services) -> NumberValue {
        match self {
            Self::Port(port) => NumberValue::port(*port, services, format),
            Self::Number(number) => (*number).into(),
            Self::Word(word) => NumberValue::Text((*word).into()),
            Self::Name(name) => NumberValue::Text(name.clone()),
            Self::Unknown => NumberValue::Unknown,
        }
    }
}

fn key(group: Group, event: &Event) -> Key {
    let connection = &event.connection;
    match group {
        Group::Port => Key::Port(connection.dport),
        Group::State => state_name::name(connection.state).map_or(Key::Unknown, Key::Word),
        Group::Direction => event.direction().map_or(Key::Unknown, Key::Word),
        Group::Netns => Key::Number(connection.netns),
        // No process holds a connection that is not accepted yet, or whose process has closed it.
        Group::Comm => event.owner().map_or(Key::Unknown, |owner| Key::Name(sanitize::comm(owner.comm))),
    }
}

fn text(settings: &CountSettings, groups: &BTreeMap<Vec<Key>, u64>) -> String {
    if settings.by.is_empty() {
        let count = groups.values().sum::<u64>();
        return match settings.format {
            TableFormat::Json => format!("{{\"open\":{count}}}\n"),
            TableFormat::Csv => format!("open\n{count}\n"),
            TableFormat::Table => format!("{count}\n"),
        };
    }
    let mut columns: Vec<NumberColumn> =
        settings.by.iter().map(|group| NumberColumn { name: group.name(), in_text: true }).collect();
    columns.push(NumberColumn { name: "open", in_text: true });
    let mut table = NumberTable::new(&columns);
    let mut groups: Vec<_> = groups.iter().collect();
    groups.sort_by_key(|&(_, &count)| std::cmp::Reverse(count));
    for (keys, &count) in groups {
        let mut row: Vec<NumberValue> =
            keys.iter().map(|key| key.value(settings.format, &settings.services)).collect();
        row.push(count.into());
        table.rows.push(row);
    }
    table.write(settings.format)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::tests::{new_out, without_owner};
    use crate::filter::Filter;
    use crate::filter::workload::WorkloadFilter;

    fn settings(by: &[Group], format: TableFormat) -> CountSettings {
        CountSettings {
            filter: Filter::all(),
            workload: WorkloadFilter::default(),
            by: by.to_vec(),
            format,
            services: Services::parse("ssh 22/tcp"),
        }
    }

    #[test]
    fn without_groups_it_is_one_number() {
        let groups = BTreeMap::from([(vec![], 7)]);
        assert_eq!(text(&settings(&[], TableFormat::Table), &groups), "7\n");
        assert_eq!(text(&settings(&[], TableFormat::Json), &BTreeMap::new()), "{\"open\":0}\n");
    }

    #[test]
    fn groups_are_sorted_by_size() {
        let by = [Group::Port, Group::Direction, Group::Comm];
        let mut counts = Counts { by: &by, groups: BTreeMap::new() };
        for port in [22, 443, 443] {
            let mut event = if port == 22 { new_out() } else { without_owner(new_out()) };
            event.connection.dport = port;
            event.connection.owner.comm[..5].copy_from_slice(b"a\tb c");
            counts.event(&event, &WallClock::with_offset(0));
        }
        let groups = counts.groups;
        insta::assert_snapshot!(text(&settings(&by, TableFormat::Table), &groups), @r"
        PORT  DIR  COMM         OPEN
        443   out  -               2
        ssh   out  a\x09b\x20c     1
        ");
    }
}
