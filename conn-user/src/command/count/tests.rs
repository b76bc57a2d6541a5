use std::sync::Arc;

use super::*;
use crate::event::tests::{new_out, open, without_owner};
use crate::event::workload::{Container, Workload};
use crate::filter::Filter;
use crate::filter::protocols::Protocols;
use crate::filter::workload::WorkloadFilter;
use crate::host::services::Services;

fn settings(by: &[Group], format: TableFormat) -> CountSettings {
    CountSettings {
        forwarded: None,
        protocols: Protocols::TCP,
        filter: Filter::all(),
        workload: WorkloadFilter::default(),
        by: by.to_vec(),
        top: None,
        exit_code: false,
        format,
        services: Services::parse("ssh 22/tcp"),
    }
}

fn counted(by: &[Group], events: impl IntoIterator<Item = Enriched>) -> Counts<'_> {
    let mut counts = Counts::new(by);
    for event in events {
        counts.event(&event, &WallClock::with_offset(0));
    }
    counts
}

#[test]
fn without_groups_it_is_one_number() {
    let counts = counted(&[], [new_out(), new_out()]);
    assert_eq!(text(&settings(&[], TableFormat::Table), &counts, Terminal::NONE), ("2\n".into(), None));
    let none = Counts::new(&[]);
    assert_eq!(text(&settings(&[], TableFormat::Json), &none, Terminal::NONE).0, "{\"open\":0}\n");
}

#[test]
fn groups_are_sorted_by_size() {
    let by = [Group::Port, Group::Direction, Group::Comm];
    let events = [22, 443, 443].map(|port| {
        let mut event = if port == 22 { new_out() } else { without_owner(new_out()) };
        event.connection.dport = port;
        event.connection.owner.comm[..5].copy_from_slice(b"a\tb c");
        event
    });
    let counts = counted(&by, events);
    let settings = settings(&by, TableFormat::Table);
    insta::assert_snapshot!(text(&settings, &counts, Terminal::NONE).0, @r"
    PORT  DIR  COMM         OPEN
    443   out  -               2
    ssh   out  a\x09b\x20c     1
    ");
    let top = CountSettings { top: Some(1), ..settings };
    let (text, rest) = text(&top, &counts, Terminal::NONE);
    assert_eq!(text.lines().count(), 2, "{text}");
    insta::assert_snapshot!(rest.unwrap(), @"conntrace: not shown: 1 connections in 1 smaller groups");
}

#[test]
fn every_key_has_a_value() {
    let (mut server, mut listener) = (open(), open());
    server.connection.direction = conn_common::connection::IN;
    listener.connection.set(conn_common::connection::LISTENER);
    listener.connection.state = conn_common::state::LISTEN;
    let by = [Group::Src, Group::Dst, Group::Peer, Group::Pid, Group::Uid, Group::Unit, Group::Netns];
    let counts = counted(&by, [open(), server, listener, without_owner(new_out())]);
    insta::assert_snapshot!(text(&settings(&by, TableFormat::Table), &counts, Terminal::NONE).0, @"
    SRC        DST           PEER           PID   UID  UNIT                                                                                NETNS  OPEN
    192.0.2.7  198.51.100.9  192.0.2.7     1234  1000  docker-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.scope  4026531840     1
    192.0.2.7  198.51.100.9  198.51.100.9  1234  1000  docker-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.scope  4026531840     1
    192.0.2.7  198.51.100.9  198.51.100.9     -     -  -                                                                              4026531840     1
    -          198.51.100.9  -             1234  1000  docker-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.scope  4026531840     1
    ");
}

#[test]
fn containers_have_names_for_people_and_ids_for_programs() {
    let by = [Group::Container];
    let contained = |id: &str, user: Option<u32>, cgroup: u64| {
        let container = Some(Container::new(id.into(), user));
        let workload = Workload { container, ..Workload::default() };
        let mut event = Enriched { workload: Some(Arc::new(workload)), ..new_out() };
        event.connection.owner.cgroup = cgroup;
        event
    };
    let id = "0123456789abcdef".repeat(4);
    let other = "fedcba9876543210".repeat(4);
    let events = [
        contained(&id, None, 7),
        contained(&id, None, 8),
        contained(&id, Some(1_000), 9),
        contained(&other, Some(1_000), 10),
        contained("db", None, 11),
        new_out(),
    ];
    let mut counts = counted(&by, events);
    let key = |id: &str, user| Key::Container { id: id.into(), user };
    assert_eq!(counts.cgroups.get(&key(&id, None)), Some(&7));
    counts.names.insert(key(&id, None), "web".into());
    counts.names.insert(key(&id, Some(1_000)), "web b\u{1b}".into());
    insta::assert_snapshot!(text(&settings(&by, TableFormat::Table), &counts, Terminal::NONE).0, @r"
    CONTAINER          OPEN
    web                   2
    web\x20b\x1b@1000     1
    db                    1
    fedcba987654@1000     1
    -                     1
    ");
    insta::assert_snapshot!(text(&settings(&by, TableFormat::Csv), &counts, Terminal::NONE).0, @r"
    container,container_name,container_user,open
    0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef,web,,2
    0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef,web\x20b\x1b,1000,1
    db,,,1
    fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210,,1000,1
    ,,,1
    ");
    let json = text(&settings(&by, TableFormat::Json), &counts, Terminal::NONE).0;
    assert!(
        json.contains(&format!(
            r#"{{"container":"{id}","container_name":"web","container_user":null,"open":2}}"#
        )),
        "{json}"
    );
}
