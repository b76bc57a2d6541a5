//! `conntrace count`: how many connections are open now. Asked of the sockets themselves, so it needs
//! no history and nothing to be attached.

use std::collections::BTreeMap;

use conn_common::connection::Connection;
use conn_common::name;
use conn_common::owner::Owner;
use conn_common::state;

use crate::cli::Group;
use crate::enrich::cgroup::Places;
use crate::error::Error;
use crate::event::direction;
use crate::filter::expression::Field;
use crate::filter::sockets as socket_filter;
use crate::host::facts::Host;
use crate::host::plan::plan;
use crate::host::services::Services;
use crate::kernel::load_options::Options;
use crate::kernel::probe::Probe;
use crate::kernel::sockets;
use crate::kernel::sockets::Holders;
use crate::output::stdout;
use crate::render::number_table::{NumberColumn, NumberTable, NumberValue, TableFormat};
use crate::render::sanitize;
use crate::settings::CountSettings;

/// Runs the command.
///
/// # Errors
/// See [`Error`].
pub fn run(settings: &CountSettings, host: &Host) -> Result<(), Error> {
    settings.filter.log();
    let plan = plan(host, None)?;
    let mut probe =
        Probe::load(&plan, &Options::for_sockets(&settings.filter, settings.filter.is_of_listeners()))?;
    let asks_who = settings.by.contains(&Group::Comm)
        || !settings.workload.is_empty()
        || settings.filter.asks_for(Field::is_owners);
    let who = asks_who.then_some(name::FILE_LIST);
    let programs = [name::NAMESPACE_LIST, name::TCP_LIST].into_iter().chain(who);
    probe.load_programs(&programs.collect::<Vec<_>>())?;
    let mut groups: BTreeMap<Vec<Key>, u64> = BTreeMap::new();
    let mut places = (!settings.workload.is_empty()).then(|| Places::new(host.cgroup_root.as_deref()));
    let (found, holders) = if asks_who {
        sockets::namespaces_and_holders(&mut probe)?
    } else {
        (sockets::all_namespaces(&mut probe)?, Holders::new())
    };
    // A part of the number would look like the number.
    if found.denied && !host.may_look_everywhere() {
        return Err(Error::Hidden { what: "the network namespace of some process".into() });
    }
    let walked = sockets::list(&mut probe, &found.namespaces, |row| {
        let found = socket_filter::wanted(
            &settings.filter,
            socket_filter::connection(&row),
            holders.get(&row.cookie),
        );
        let found = found.filter(|found| {
            let place = places.as_mut().and_then(|places| places.get(found.owner.cgroup));
            settings.workload.matches(place.as_deref())
        });
        if let Some(found) = found {
            let key = settings.by.iter().map(|group| key(*group, &found, holders.get(&row.cookie))).collect();
            *groups.entry(key).or_default() += 1;
        }
    })?;
    if let Some(missed) = found.namespaces.iter().find(|namespace| !walked.contains(&namespace.inode)) {
        return Err(Error::Hidden { what: format!("network namespace {}", missed.inode) });
    }
    stdout::print(text(settings, &groups).as_bytes())
}

/// What a connection is grouped by, in an order that is good to read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Port(u16),
    Number(u32),
    Word(&'static str),
    State(&'static str),
    Name(String),
    Unknown,
}

impl Key {
    fn value(&self, format: TableFormat, services: &Services) -> NumberValue {
        match self {
            Self::Port(port) => NumberValue::port(*port, services, format),
            // As in events: the kernel's names for people, lower case for programs.
            Self::State(name) if format != TableFormat::Table => NumberValue::Text(name.to_lowercase()),
            Self::State(name) => NumberValue::Text((*name).into()),
            Self::Number(number) => (*number).into(),
            Self::Word(word) => NumberValue::Text((*word).into()),
            Self::Name(name) => NumberValue::Text(name.clone()),
            Self::Unknown => NumberValue::Unknown,
        }
    }
}

fn key(group: Group, connection: &Connection, holders: Option<&Vec<Owner>>) -> Key {
    match group {
        Group::Port => Key::Port(connection.dport),
        Group::State => state::name(connection.state).map_or(Key::Unknown, Key::State),
        Group::Direction => direction::name(connection.direction).map_or(Key::Unknown, Key::Word),
        Group::Netns => Key::Number(connection.netns),
        // Nobody holds a connection that is not accepted yet, or whose process has closed it.
        Group::Comm => {
            let holder = holders.and_then(|owners| owners.first());
            holder.map_or(Key::Unknown, |holder| Key::Name(sanitize::comm(&holder.comm)))
        }
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
    use conn_common::connection::OUT;
    use conn_common::state::ESTABLISHED;

    use super::*;
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
        let of = |port| Connection { dport: port, direction: OUT, state: ESTABLISHED, ..Connection::UNSEEN };
        let mut comm = [0; 16];
        comm[..5].copy_from_slice(b"a\tb c");
        let holders = vec![Owner { pid: 1, comm, ..Owner::NONE }];
        let by = [Group::Port, Group::Direction, Group::Comm];
        let mut groups = BTreeMap::new();
        for port in [22, 443, 443] {
            let key: Vec<Key> = by
                .iter()
                .map(|&group| key(group, &of(port), Some(&holders).filter(|_| port == 22)))
                .collect();
            *groups.entry(key).or_default() += 1;
        }
        insta::assert_snapshot!(text(&settings(&by, TableFormat::Table), &groups), @r"
        PORT  DIRECTION  COMM         OPEN
        443   out        -               2
        ssh   out        a\x09b\x20c     1
        ");
    }
}
